"""A small real grid on the teacher's answers: gold, teacher and both, with and without soft labels, interrupted on the
way.
"""

from __future__ import annotations

import pytest
import torch
from rich.console import Console

from kdray.artifacts.curve import read_curve
from kdray.artifacts.parts import PREFIX, parts
from kdray.artifacts.rows import Rows, rows_files
from kdray.artifacts.scores import read_scores
from kdray.artifacts.soft_labels import HEAD
from kdray.models.load import load_folder
from kdray.plan import make_plan
from kdray.report.results import collect
from kdray.report.table import rows_of
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.tiny import write_grid, write_model

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]
MAX_NEW_TOKENS = 6  # of about that many, so that some answers end and some are cut


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The plan, the store and what the interrupted step did: parts before the interruption, parts made after it."""
    from kdray.cli.progress import Terminal
    from kdray.orchestration import pipeline as frame
    from kdray.run import resolve, run
    from kdray.stages import augment as stage
    from kdray.stages import soften as soften_stage

    here = tmp_path_factory.mktemp("augment")
    path = write_grid(
        here,
        teacher=f"{{model: 'file:{here}/teacher', tune: {{lr: 3.0e-3, batch: 4, steps: 80}}}}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0, 1], labels: [gold, teacher, both]}",
        augment=f"{{max_new_tokens: {MAX_NEW_TOKENS}, batch: 3}}",
        train="{epochs: 1}",
        score="{tasks: [heldout_loss]}",
    )
    write_model(here / "teacher", layers=3, seed=1, pad_vocabulary=0)  # a random one often says tokens that are padding
    grid = load_grid(path)
    store = Store(grid.runtime.store)
    outer = Outer(store.root)
    seen = {}
    pipeline, augment, soften = frame.run_pipeline, stage.augment, soften_stage.soften

    def interrupted(groups, *arguments):
        yield from pipeline(groups[:4], *arguments)
        raise KeyboardInterrupt

    def watched(groups, *arguments):
        seen["made"] = {int(item.key) for group in groups for item in group}
        return pipeline(groups, *arguments)

    def twice(steps, work):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frame, "run_pipeline", interrupted)
            with pytest.raises(KeyboardInterrupt):
                augment(steps, work)
            found = parts(store.folder(steps[0].key) / "attempt-001")
            seen["kept"] = set(found) - {0}
            found[0].write_bytes(b"damaged")
            patch.setattr(frame, "run_pipeline", watched)
            augment(steps, work)

    def ended(groups, *arguments):
        yield from pipeline(groups, *arguments)
        raise KeyboardInterrupt

    def files(folder, pattern):
        return {path.name: path.stat().st_ino for path in folder.glob(pattern)}

    def at_its_end(steps, work):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frame, "run_pipeline", ended)
            with pytest.raises(KeyboardInterrupt):
                soften(steps[:1], work)
        seen["labels"] = files(store.folder(steps[0].key) / "attempt-001", f"{PREFIX}*")
        soften(steps, work)
        seen["labels again"] = files(store.get(steps[0].key).path, f"{PREFIX}*")
        seen["head"] = files(store.get(steps[0].key).path, HEAD)

    with pytest.MonkeyPatch.context() as patch, Terminal(Console(quiet=True)) as progress:
        patch.setattr(stage, "augment", twice)
        patch.setattr(soften_stage, "soften", at_its_end)
        assert run(resolve(grid, outer), store, outer, progress, lambda: None) == {}
    return make_plan(grid, outer), store, seen


def data(ran):
    """The rows that points train on, by labels."""
    plan, store, _ = ran
    return {point.point.labels: Rows(store.get(point.train.inputs.data.key).path) for point in plan.points}


def test_training_rows_are_the_prompt_and_the_teachers_own_greedy_answer(ran):
    plan, store, _ = ran
    teacher, tokenizer = load_folder(store.get(plan.models["teacher"].key).path)
    gold, taught = data(ran)["gold"], data(ran)["teacher"]
    expected = []
    for row in gold.train.tolist():
        prompt = gold.input_ids(row)[: int(gold.prompt_lengths[row])]
        whole = teacher.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=MAX_NEW_TOKENS)[0].tolist()
        if text := tokenizer.decode(whole[len(prompt) :], skip_special_tokens=True).strip():
            expected.append((whole, len(prompt), text))
    made = [
        (taught.input_ids(row), int(taught.prompt_lengths[row]), taught.text(row, "response"))
        for row in taught.train.tolist()
    ]
    assert made == expected
    facts = store.get(next(step for step in plan.steps() if step.kind == "augment").key).facts
    assert facts["kept"] == len(made) > 20
    assert facts["read"] == len(gold.train) == facts["kept"] + facts["empty"]
    ended = sum(ids[-1] == tokenizer.eos_token_id for ids, _, _ in made)
    assert 0 < ended < len(made), "both kinds of answers are to be seen"
    assert facts["truncated"] == len(made) - ended
    assert len({tuple(ids[n:]) for ids, n, _ in made}) > 3, "the teacher says the same to all"


def test_heldout_rows_are_the_same_text_in_the_same_order_everywhere(ran):
    texts = [[rows.input_ids(row) for row in rows.heldout.tolist()] for rows in data(ran).values()]
    assert len(texts[0]) == 8
    assert texts[0] == texts[1] == texts[2]


def test_both_are_all_training_rows_of_either(ran):
    rows = data(ran)
    texts = {labels: [rows[labels].input_ids(row) for row in rows[labels].train.tolist()] for labels in rows}
    assert texts["both"] == texts["gold"] + texts["teacher"]


def test_the_artifact_holds_what_prepare_makes_and_nothing_else(ran):
    plan, store, _ = ran
    for step in plan.steps():
        assert step.state(store) == "done"
        assert store.verify(step.id) == []
        if step.kind in ("prepare", "augment"):
            assert sorted(store.get(step.key).path.iterdir()) == rows_files(store.get(step.key).path)
            assert [path.name for path in store.folder(step.key).glob("attempt-*")] == [store.get(step.key).path.name]


def test_finished_parts_outlive_an_interruption_and_damaged_ones_do_not(ran):
    seen = ran[2]
    assert len(seen["kept"]) >= 3
    assert not seen["made"] & seen["kept"]
    assert 0 in seen["made"]
    assert seen["made"] < set(range(11))  # 32 prompts in batches of 3


def test_soft_labels_that_outlive_an_interruption_get_their_head(ran):
    seen = ran[2]
    assert seen["labels again"] == seen["labels"] != {}
    assert len(seen["head"]) == 1


def test_points_train_on_their_own_text_and_its_soft_labels(ran):
    """The first step's cross-entropy is that of the untrained student on its own batch: none is another's."""
    plan, store, _ = ran
    curves = {}
    for point in plan.points:
        curves[point.point.labels, point.point.alpha] = read_curve(store.get(point.train.key))
    steps = {labels: round(len(rows.train) / 4) for labels, rows in data(ran).items()}
    for labels in ("gold", "teacher", "both"):
        hard, soft = curves[labels, 0.0], curves[labels, 1.0]
        assert len(hard) == len(soft) == steps[labels]
        assert hard[0]["ce"] == pytest.approx(soft[0]["ce"], rel=1e-6)
        assert "soft" not in hard[0]
        assert "heldout_kl" not in hard[-1]
        assert soft[-1]["heldout_kl"] > 0
    assert len({round(curves[labels, 0.0][0]["ce"], 4) for labels in steps}) == 3


def test_heldout_scores_agree_with_training_whatever_the_labels(ran):
    """Training measures the held-out rows with its own soft labels by number, `heldout_loss` with those of the gold
    rows.
    """
    plan, store, _ = ran
    for score in plan.scores:
        if score.task.name != "heldout_loss" or isinstance(score.subject, str):
            continue
        artifact = store.get(score.measure.key)
        scores = read_scores(artifact.path)
        train = next(point.train for point in plan.points if point.point == score.subject)
        last = read_curve(store.get(train.key))[-1]
        assert scores["ce"].value == pytest.approx(last["heldout_ce"], rel=1e-4)
        if score.subject.alpha > 0:
            assert scores["kl"].value == pytest.approx(last["heldout_kl"], rel=1e-3)


def test_the_report_has_a_row_for_each(ran):
    plan, store, _ = ran
    rows = rows_of(collect(plan, store))
    names = [
        "SFT",
        "KD 1",
        "SeqKD",
        "SeqKD + KD 1",
        "SFT + SeqKD",
        "SFT + SeqKD + KD 1",
        "untrained student",
        "teacher",
    ]
    assert [row.label for row in rows] == names
    assert all(row.runs == "1/1" and "-" not in row.cells.values() for row in rows[:6])
