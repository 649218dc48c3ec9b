"""Prices of whole grids: against sums by hand, and against a table that somebody else worked out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdray.cost.amounts import Amounts, amounts_of, asked_by
from kdray.cost.cards import CARDS, CORE, Card
from kdray.cost.estimate import Estimate
from kdray.cost.models import decoders_of
from kdray.cost.pricing import estimate
from kdray.cost.share import points_per_gpu
from kdray.cost.shown import Price, expected, lines, listed, priced, scoring_share, sharers
from kdray.cost.time import DISK
from kdray.plan import Plan, make_plan
from kdray.plan.inputs import RateInputs
from kdray.report.chosen import Choices
from kdray.spec.load import parse_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid
from tests.test_paper_grids import FAMILIES, fetch, grid_of

H100, CARD24 = CARDS["H100"], CARDS["RTX4090"]
ROWS = 11_317


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Estimate]:
    """The three families of the paper, with the models' real shapes in a hub cache."""
    folder, found = tmp_path_factory.mktemp("hub"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
        for name in FAMILIES:
            for role in ("student", "teacher"):
                fetch(folder / "hub", grid_of(name), role)
            outer, store = Outer(folder / "store"), Store(folder / "store")
            plan = make_plan(grid_of(name), outer)
            decoders, unknown = decoders_of(plan, store, outer)
            assert not unknown
            amounts = amounts_of(plan, store, ROWS)
            assert amounts
            found[name] = estimate(plan, store, decoders, amounts, H100)
    return found


# Worked out by a reader of the code, component by component, before there was a formula; GB of an H100.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what", "size"),
    [
        ("llama2_7b", "teach teacher", 73),
        ("llama2_7b", "train", 41),
        ("llama31_8b", "teach teacher", 42),
        ("llama31_8b", "train", 54),
        ("llama31_8b", "generate teacher", 54),
        ("llama31_8b", "generate student", 21),
        ("llama31_8b", "measure teacher", 50),
        ("qwen25_7b", "teach teacher", 21),
        ("qwen25_7b", "train", 52),
        ("qwen25_7b", "generate teacher", 77),
        ("qwen25_7b", "soften teacher", 75),
        ("qwen25_7b", "measure student", 18),
    ],
)
def test_memory_of_the_papers_grids(paper: dict[str, Estimate], name: str, what: str, size: float) -> None:
    assert paper[name].memory[what].total / 1e9 == pytest.approx(size, rel=0.18)


def test_disk_of_the_papers_grids(paper: dict[str, Estimate]) -> None:
    """Ninety exports of four bytes a weight; hidden states of 8,192 bfloat16 numbers a response token, and the head
    once.
    """
    disk, labels = paper["llama31_8b"].disk, paper["llama31_8b"].labels
    assert disk["checkpoints that are scored"] == pytest.approx(90 * 4 * 8.03e9, rel=1e-3)
    assert disk["to resume a point from"] == pytest.approx(2 * 12 * 8.03e9, rel=1e-3)
    assert labels["hidden"] == pytest.approx((ROWS + 1000) * 105 * 8192 * 2 + 2 * 128256 * 8192)
    assert disk["soft labels"] == labels["hidden"]
    assert labels["topk"] < labels["hidden"] < labels["logits"]


def test_operations_of_training_by_hand(paper: dict[str, Estimate]) -> None:
    """Three epochs of 180 tokens a row: checkpointing makes it four passes of 6.98e9 weights, and the head has three of
    105 tokens. Three times 1,000 held-out rows are read, in one pass.
    """
    trained = [step for step in paper["llama31_8b"].steps if step.kind == "train"]
    assert len(trained) == 30
    row = 4 * 2 * 180 * 6.98e9 + 3 * 2 * 105 * 0.5253e9
    look = 2 * 180 * 6.98e9 + 2 * 105 * 0.5253e9
    plain = min(step.operations for step in trained)
    assert plain == pytest.approx(3 * ROWS * row + 3 * 1000 * look, rel=0.01)
    teachers_head = 3 * (ROWS + 1000) * 2 * 105 * 128256 * 8192
    assert max(step.operations for step in trained) - plain == pytest.approx(teachers_head, rel=1e-6)


def test_on_policy_steps_sample_the_longest_response_token_by_token(tiny_grid: TinyGrid) -> None:
    changes = {"data.limit": 500, "axes.alpha": [1], "axes.lr": [1e-3], "soft_labels": {"form": "online"}}
    changes |= {"axes.labels": ["student"], "axes.on_policy": [0, 0.5, 1], "objective.sampling.max_new_tokens": 96}
    plan, store, outer = tiny(tiny_grid, changes)
    price = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(price, Price)
    never, half, always = price.own.points
    steps, batch, tokens = 4, 2, 75 + 96
    body = 2 * (4 * 64 + 3 * 128)
    sampled = batch * (tokens * 2 * body + tokens * 4 * 2 * 8 * tokens / 2 + 96 * 2 * 50 * 8)
    assert always.operations - never.operations == pytest.approx(steps * sampled)
    assert half.operations == pytest.approx((never.operations + always.operations) / 2)
    assert always.seconds - never.seconds == pytest.approx(steps * 96 * 2 * 0.85e-3, rel=0.01), "two layers a token"


ALIGNED = {
    "data.limit": 502,
    "axes.alpha": [0],
    "axes.lr": [1e-3],
    "axes.aligned": [False, True],
    "align": {"lr": 1e-5, "steps": 3, "batch": 4, "answers": 40, "max_new_tokens": 50, "candidates": 4},
}


def test_an_aligned_point_learns_two_responses_a_pair_to_a_prompt_with_marks(tiny_grid: TinyGrid) -> None:
    """75 tokens are three sentences, with 4 tokens of marks each, and 60 ask for citations; 50 tokens are two
    statements, with 20 tokens of tags each.
    """
    plan, store, outer = tiny(tiny_grid, ALIGNED)
    price = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(price, Price)
    assert price.own.left_out == []
    plain, aligned = price.own.points
    tokens, body, head = 75 + 12 + 60 + 50 + 40, 2 * (4 * 64 + 3 * 128), 50 * 8
    response = 2 * tokens * body + 2 * tokens * 4 * 8 * tokens / 2 + 2 * 90 * head
    assert aligned.operations == pytest.approx((3 * 3 * 4 * 2 + 4 * 2) * response), "four pairs of 40 are kept out"
    # Three passes a step over two layers, and one over the pairs that are kept out; what is written is nothing.
    assert aligned.seconds == pytest.approx((3 * 3 + 1) * 2 * H100.training_launch, rel=0.01)
    assert plain.mark != aligned.mark


def test_the_answers_that_an_aligned_point_learns_from_are_drawn_and_cited(tiny_grid: TinyGrid) -> None:
    """40 answers of 50 tokens in one batch, and for each of 80 statements a pass over the prompt, 32 tokens of five
    citations, and 11 readings for rewards in one pass.
    """
    found = []
    for answers in (40, 80):
        plan, store, outer = tiny(tiny_grid, ALIGNED | {"align.answers": answers, "score.batch": 40})
        price = priced(plan, store, outer, H100, 1, None, None)
        assert isinstance(price, Price)
        pairs = plan.points[-1].train.inputs.pairs
        assert pairs
        found.append(next(step for step in price.own.steps if step.mark == pairs.mark))
    passes = 50 + 80 * (1 + 32 + 1)
    assert found[0].seconds == pytest.approx(passes * 2 * H100.launch, rel=0.01)
    assert found[1].seconds == pytest.approx(2 * found[0].seconds, rel=1e-3)
    body, head, drawn = 2 * (4 * 64 + 3 * 128), 50 * 8, 5

    def forward(tokens: float, keys: float, predicted: float) -> float:
        return 2 * tokens * body + 2 * tokens * 4 * 8 * keys + 2 * predicted * head

    context, whole = 75 + 12 + 60 + 25, 75 + 25
    each = (
        forward(context, context / 2, 1) + forward(drawn * 32, 0, drawn * 32) + forward(11 * whole, whole / 2, 11 * 25)
    )
    assert found[0].operations == pytest.approx(40 * forward(75 + 50, 75 / 2, 50) + 80 * each)


def test_answers_that_are_cited_to_be_scored_cost_their_citations(tiny_grid: TinyGrid) -> None:
    def generated(decoding: list[str]) -> float:
        task = {"name": "xsum", "limit": 20, "max_words": 150, "max_new_tokens": 30}
        changes = {"data.limit": 500, "score.tasks": [task], "score.decoding": decoding, "score.metrics": ["citations"]}
        found = expected(*tiny(tiny_grid, changes | {"score.references": []}))
        assert found
        return sum(step.seconds for step in found.steps if step.kind == "generate")

    both, cited = generated(["greedy", "selfcite"]), generated(["selfcite"])
    # 20 answers of 1.2 statements, of 33 passes and the readings for rewards: 23 of 210 tokens, that is one more
    assert cited - (both - cited) == pytest.approx(24 * (1 + 32 + 1) * 2 * H100.launch * 8, rel=0.05), (
        "of 8 checkpoints"
    )


def test_wall_time_deals_answers_out_and_points_not() -> None:
    from kdray.cost.estimate import StepCost

    points = [StepCost("train", 4, 3600.0, 1.0)] * 3
    answers = [StepCost("generate", 1, 3600.0, 1.0)] * 3 + [StepCost("generate", 3, 7200.0, 1.0)]
    found = Estimate(H100, points + answers, {}, {}, {})
    assert found.gpu_hours == {"train": 12, "generate": 9}
    assert found.wall_hours(8) == pytest.approx(1.5 + 3 / 8 + 2 / 2)
    assert found.wall_hours(400) == pytest.approx(1 + 3 / 400 + 2 / 133)  # all points are the last ones
    assert found.wall_hours(3) == float("inf")


def test_scores_fill_the_gpus_that_points_leave_idle_but_for_those_of_the_last_points() -> None:
    from kdray.cost.estimate import StepCost

    points = [StepCost("train", 5, 3600.0, 1.0)] * 4  # on 8 GPUs one by one, three are idle meanwhile
    found = Estimate(H100, [*points, *[StepCost("measure", 1, 3600.0, 1.0)] * 8], {}, {}, {})
    assert found.scoring_share == pytest.approx(8 / 28)
    assert found.wall_hours(8) == pytest.approx(4 + 8 / 8 / 4)
    more = Estimate(H100, [*points, *[StepCost("measure", 1, 3600.0, 1.0)] * 32], {}, {}, {})
    assert more.wall_hours(8) == pytest.approx(4 + 1 + max(0, 3 - (4 - 20 / 8)))


SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": 50}
# Two layers of four matrices of 8 x 8 and three of 8 x 16; embeddings, and a head of its own.
WEIGHTS = 2 * (4 * 64 + 3 * 128) + 2 * 50 * 8
ADAPTERS = 2 * 3 * (4 * (8 + 8) + 3 * (8 + 16))  # of rank 3


def tiny(tiny_grid: TinyGrid, changes: dict[str, Any]) -> tuple[Plan, Store, Outer]:
    for role in ("student", "teacher"):
        path = tiny_grid.folder / role / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | SIZES))
    grid = parse_grid(tiny_grid.text(changes))
    store, outer = Store(tiny_grid.folder / "store"), Outer(tiny_grid.folder / "store")
    return make_plan(grid, outer), store, outer


def test_what_is_done_costs_nothing_and_what_was_counted_is_used(tiny_grid: TinyGrid) -> None:
    plan, store, outer = tiny(tiny_grid, {"data.limit": 500})
    before = priced(plan, store, outer, H100, 1, None, 2.0)
    assert isinstance(before, Price)
    assert not before.amounts.known
    prepare = plan.prepare
    assert prepare
    store.begin(prepare.key, prepare.payload or {}).seal(kept=100, train=80, tokens=5000, response_tokens=2000)
    point = plan.points[0].train
    store.begin(point.key, point.payload or {}).seal()
    after = priced(plan, store, outer, H100, 1, None, 2.0)
    assert isinstance(after, Price)
    assert after.amounts == Amounts(80, plan.grid.data.heldout, 30, 20, known=True)
    trained = [sum(step.kind == "train" for step in price.own.steps) for price in (before, after)]
    assert trained == [len(plan.points), len(plan.points) - 1]
    told = listed(after)
    assert told["usd"] == pytest.approx(2 * sum(told["gpu_hours"].values()))
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("export", "bytes_each"),
    [
        ({}, 4 * WEIGHTS),
        ({"dtype": "bfloat16"}, 2 * WEIGHTS),
        ({"adapters": True}, 4 * ADAPTERS),
        ({"adapters": True, "dtype": "bfloat16"}, 2 * ADAPTERS),
    ],
)
def test_disk_is_that_of_what_is_exported(tiny_grid: TinyGrid, export: dict[str, Any], bytes_each: int) -> None:
    changes = {"data.limit": 500, "train.method": "lora", "train.rank": 3, "train.export": export}
    plan, store, outer = tiny(tiny_grid, changes)
    price = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(price, Price)
    exports = len(plan.points) * 2
    assert price.own.disk["checkpoints that are scored"] == exports * bytes_each


def test_a_point_resumes_from_what_was_written_by_time_or_by_steps(tiny_grid: TinyGrid) -> None:
    found = []
    for every in ({}, {"runtime.checkpoint_every": 10}, {"runtime.checkpoint_every": 20}):
        plan, store, outer = tiny(tiny_grid, {"data.limit": 500, "runtime.checkpoint_minutes": 3} | every)
        price = priced(plan, store, outer, H100, 1, None, None)
        assert isinstance(price, Price)
        found.append(price.own.points[0].saved)
    assert found[0] == 180
    assert 0 < found[1] < found[2] < 180
    assert found[2] == pytest.approx(2 * found[1])


def test_an_arm_of_fewer_rows_costs_less_once_they_are_chosen(tiny_grid: TinyGrid) -> None:
    changes = {
        "data.limit": 500,
        "axes.rows": ["all", "balanced"],
        "data.curate": {"tail": 0.1},
        "train": {"epochs": 2, "keep": [1]},
    }
    plan, store, outer = tiny(tiny_grid, changes)
    choice = next(step for step in plan.steps() if step.kind == "curate")
    before = priced(plan, store, outer, H100, 1, None, None)
    store.begin(choice.key, choice.payload or {}).seal(kept=100)
    after = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(before, Price)
    assert isinstance(after, Price)
    rows = [[point.point.rows for point in plan.points].index(kind) for kind in ("all", "balanced")]
    first, then = ([price.own.points[i].operations for i in rows] for price in (before, after))
    assert first[0] == first[1] == then[0]
    looked = 2 * 2 * decoders_of(plan, store, outer)[0]["student"].forward(180, 90, 105)  # two rows, after each epoch
    assert then[1] - looked == pytest.approx(100 / before.amounts.train * (first[1] - looked))
    assert ["balanced rows" in [*lines(price)][-1] for price in (before, after)] == [True, False]


def test_processes_start_where_a_card_says_what_that_takes(tiny_grid: TinyGrid) -> None:
    """Each training has a worker, what controls it and Ray's own; all else an actor a core; a run what serves it."""
    plan, store, outer = tiny(tiny_grid, {"data.limit": 500})
    card = replace(H100, name=CORE, unit="core", start=7.0)
    price, free = (priced(plan, store, outer, each, 3, None, None) for each in (card, H100))
    assert isinstance(price, Price)
    assert isinstance(free, Price)
    teacher, points = 1, 4
    assert price.own.gpu_hours["start"] * 3600 == pytest.approx(7 * (3.8 * (teacher + points) + 3 + 16))
    assert price.own.wall_hours(3) > 7 * 38 / 3 / 3600
    assert "start" not in free.own.gpu_hours


@pytest.mark.parametrize(
    ("engine", "card", "waits"),
    [
        ("ddp", H100, False),  # a step takes longer here than a checkpoint
        ("fsdp", H100, False),
        ("deepspeed", H100, True),
        ("ddp", replace(H100, name=CORE, unit="core"), True),
    ],
)
def test_a_point_waits_for_a_checkpoint_that_is_not_written_beside_its_steps(
    tiny_grid: TinyGrid, engine: str, card: Card, waits: bool
) -> None:
    found = []
    for every in ({}, {"runtime.checkpoint_every": 1}):
        plan, store, outer = tiny(tiny_grid, {"data.limit": 500, "runtime.engine": engine} | every)
        price = priced(plan, store, outer, card, 1, None, None)
        assert isinstance(price, Price)
        found.append(price.own.points[0].seconds)
    assert (found[1] > found[0]) == waits
    assert found[1] >= found[0]


@pytest.mark.parametrize(
    ("engine", "card", "waited"),
    [("ddp", H100, 1), ("fsdp", H100, 1), ("deepspeed", H100, 3), ("ddp", replace(H100, name=CORE, unit="core"), 3)],
)
def test_a_point_waits_for_the_last_of_its_exports_alone_where_the_others_are_written_beside_its_steps(
    tiny_grid: TinyGrid, engine: str, card: Card, waited: int
) -> None:
    found, size = [], None
    for keep in ([3], [1, 2, 3]):
        changes = {"data.limit": 500, "runtime.engine": engine, "train.steps": 3, "train.keep": keep}
        plan, store, outer = tiny(tiny_grid, changes)
        price = priced(plan, store, outer, card, 1, None, None)
        assert isinstance(price, Price)
        found.append(price.own.points[0].seconds)
        size = price.own.disk["checkpoints that are scored"] / len(keep) / len(plan.points)
    assert size
    assert found[1] - found[0] == pytest.approx((waited - 1) * size / DISK)


@pytest.mark.parametrize(("changes", "gpus"), [({}, 4), ({"runtime.beside": 3}, 4), ({"runtime.workers": 8}, 8)])
def test_who_scores_while_points_train_is_told(tiny_grid: TinyGrid, changes: dict[str, Any], gpus: int) -> None:
    plan, store, outer = tiny(tiny_grid, {"data.limit": 500} | changes)
    price = priced(plan, store, outer, H100, gpus, None, None)
    assert isinstance(price, Price)
    share = scoring_share(expected(plan, store, outer))
    assert 0.01 < share == min(0.5, price.own.scoring_share)
    fit = 1 if "runtime.workers" in changes else gpus
    beside = changes.get("runtime.beside", 0 if fit == 1 else gpus - max(1, min(fit - 1, int(gpus * (1 - share)))))
    assert f"  while points train, {beside} of {gpus} GPUs answer and score (runtime.beside)" in list(lines(price))
    assert listed(price)["beside"] == beside


@pytest.mark.parametrize(
    ("wanted", "workers", "needed", "memory", "points", "gpus", "sharers"),
    [
        (6, 1, 70e9, 80e9, 1, 8, 6),  # as written
        ("auto", 1, 10e9, 80e9, 30, 1, 4),
        ("auto", 1, 10e9, 45e9, 30, 1, 3),  # 0.8 * 45 GB hold three of 11
        ("auto", 1, 70e9, 80e9, 30, 1, 1),
        ("auto", 1, 10e9, 80e9, 16, 8, 2),
        ("auto", 1, 10e9, 80e9, 8, 8, 1),  # all of them on two GPUs would leave six idle
        ("auto", 4, 10e9, 80e9, 30, 8, 1),
        ("auto", 1, None, 80e9, 30, 1, 1),
    ],
)
def test_points_share_a_gpu_where_they_fit_and_there_are_more_of_them(
    wanted: Any, workers: int, needed: float | None, memory: float, points: int, gpus: int, sharers: int
) -> None:
    assert points_per_gpu(wanted, workers, needed, memory, points, gpus) == sharers


def test_small_points_share_gpus_in_the_price_and_in_a_run(tiny_grid: TinyGrid) -> None:
    axes = {"data.limit": 500, "axes.lr": [i * 1e-5 for i in range(1, 31)]}
    runtime = tiny(tiny_grid, axes)[0].grid.runtime

    def of(changes: dict[str, Any], gpus: int = 1, memory: int | None = 80 << 30) -> Estimate:
        found = expected(*tiny(tiny_grid, axes | changes), gpus=gpus, memory=memory)
        assert found
        return found

    alone, shared = of({"runtime.points_per_gpu": 1}), of({})
    assert (alone.per_gpu, shared.per_gpu, of({}, memory=2_000_000_000).per_gpu) == (1, 4, 1)
    points = len(alone.points)
    assert of({}, gpus=points).per_gpu == 1
    assert of({}, gpus=points // 2).per_gpu == 2
    # Of a tiny model Python's time is all: four side by side take a quarter of it.
    assert shared.gpu_hours["train"] == pytest.approx(alone.gpu_hours["train"] / 4, rel=0.01)
    assert shared.wall_hours(1) < alone.wall_hours(1)
    assert shared.gpu_hours["measure"] == alone.gpu_hours["measure"]
    assert sharers(shared, runtime, 80 << 30) == 4
    assert sharers(shared, runtime, None) == sharers(None, runtime, 80 << 30) == 1
    six = runtime.model_copy(update={"points_per_gpu": 6})
    assert sharers(None, six, None) == 6
    assert of({"soft_labels": {"form": "online"}}).per_gpu == 1  # the teacher is there, too
    plan, store, outer = tiny(tiny_grid, axes)
    price = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(price, Price)
    assert "  4 points train on each GPU (runtime.points_per_gpu)" in list(lines(price))
    assert (listed(price)["points_per_gpu"], listed(price)["beside"]) == (4, 0)


def test_the_metric_that_asks_the_model_reads_a_prompt_once_a_sentence(
    tiny_grid: TinyGrid,
) -> None:
    task = {"name": "xsum", "limit": 20, "max_words": 150, "max_new_tokens": 30}
    changes = {"data.limit": 500, "score.tasks": [task], "score.references": ["student"]}

    def measured(more: dict[str, Any]) -> tuple[float, Estimate]:
        found = expected(*tiny(tiny_grid, changes | more))
        assert found
        steps = [step for step in found.steps if step.kind == "measure"]
        return sum(step.operations for step in steps) / max(len(steps), 1), found

    whole, found = measured({"score.metrics": ["selfcite"]})
    # 195 tokens are 7.8 sentences: 2 + 7.8 + 3 x 1.2 readings of 195 + 30 tokens (20 such articles took 243, 12.2 each)
    student = decoders_of(*tiny(tiny_grid, changes))[0]["student"]
    assert whole == pytest.approx(student.forward(20 * 13 * 225, 225 / 2, 20 * 13 * 30))
    fewer, _ = measured({"score.metrics": [{"name": "selfcite", "considered": 2}]})
    assert fewer == pytest.approx(whole * 8 / 13)
    assert found.left_out == []


def test_what_scoring_takes_of_a_gpu_is_known_where_all_tasks_are(tiny_grid: TinyGrid) -> None:
    found = expected(*tiny(tiny_grid, {"data.limit": 500}))
    assert found
    sizes = {what: needed.total for what, needed in found.memory.items()}
    largest = max(sizes[what] for what in sizes if what in ("generate student", "measure student"))
    assert found.scored_in["student"] == 2 * largest + 1e9
    assert replace(found, left_out=["the models of judge"]).scored_in == found.scored_in
    assert replace(found, left_out=["task own"]).scored_in == {}


def test_disk_is_one_checkpoint_a_point_where_the_others_are_dropped(tiny_grid: TinyGrid) -> None:
    changes = {"data.limit": 500, "train.keep": [1, 2], "runtime.drop_exports": "scored"}
    plan, store, outer = tiny(tiny_grid, changes)
    price = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(price, Price)
    assert price.own.disk["checkpoints that are scored"] == len(plan.points) * 4 * WEIGHTS
    assert price.own.disk["checkpoints of a point until they are scored"] == 2 * 4 * WEIGHTS


def test_one_checkpoint_of_each_point_is_scored_where_the_best_is_to_be_chosen(tiny_grid: TinyGrid) -> None:
    def operations(rule: str) -> float:
        changes = {"data.limit": 500, "score.checkpoints": rule}
        plan, store, outer = tiny(tiny_grid, changes | ({} if rule == "all" else {"report.checkpoint": rule}))
        price = priced(Choices(plan, store).narrowed(), store, outer, H100, 1, None, None)
        assert isinstance(price, Price)
        return sum(step.operations for step in price.own.steps if step.kind in ("generate", "measure"))

    assert operations("best_heldout") == operations("last")
    assert operations("last") < operations("best_answers") < operations("all")


def test_where_the_price_is_not_known_a_tenth_scores(tiny_grid: TinyGrid) -> None:
    assert expected(*tiny(tiny_grid, {})) is None
    assert scoring_share(None) == 0.1


def test_without_rows_or_a_configuration_it_says_what_is_not_known(tiny_grid: TinyGrid) -> None:
    plan, store, outer = tiny(tiny_grid, {})
    assert priced(plan, store, outer, H100, 1, None, None) == [
        "data: the number of rows, until they are prepared; say it by --rows"
    ]
    config = tiny_grid.folder / "student" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mixtral"}))
    unknown = priced(plan, store, outer, H100, 1, 100, None)
    assert unknown == ["student.model: no formula for the family mixtral"]  # no number is better than a wrong one


def test_what_does_not_fit_is_said_with_what_to_change(paper: dict[str, Estimate]) -> None:
    amounts = Amounts(1, 1, 75, 105, known=False)
    small = Estimate(CARD24, paper["qwen25_7b"].steps, paper["qwen25_7b"].memory, {}, {}, ["task lm_eval:x"])
    text = list(lines(Price({"RTX4090": small}, CARD24, 4, amounts, beside=0)))
    assert any(line.startswith("  train does not fit on RTX4090: more runtime.workers") for line in text)
    assert text[-1] == "not counted: task lm_eval:x"
    assert not any("USD" in line for line in text)


def test_choices_that_share_their_question_are_read_behind_it_once(tiny_grid: TinyGrid) -> None:
    """arc_easy: 32 tokens of a question with one of four choices of five; with two shots thrice as much question."""
    tasks = [{"name": "arc_easy", "limit": 10, "shots": shots} for shots in (0, 2)]
    for likelihood, shared in (("hflm", (0, 0)), ("shared_prefix", (27, 91))):
        for task, begins, tokens in zip(tasks, shared, (32, 96), strict=True):
            changes = {"data.limit": 500, "score.tasks": [task], "score.likelihood": likelihood}
            plan, store, outer = tiny(tiny_grid, changes | {"score.references": ["student"], "axes.alpha": [0]})
            [use] = plan.grid.score.tasks
            asked = asked_by(use, plan.grid, Amounts(50, 6, 10, 20, known=True))
            assert asked
            assert (asked.tokens, asked.shared) == (tokens, begins)
            price = priced(plan, store, outer, H100, 1, None, None)
            assert isinstance(price, Price)
            [work] = {step.operations for step in price.own.steps if step.kind == "measure"}
            student, each = decoders_of(plan, store, outer)[0]["student"], tokens - begins
            read = begins + 4 * each
            assert work == pytest.approx(student.forward(10 * read, read / 8, 10 * 4 * each))


def test_a_rate_reads_the_answers_and_what_its_lens_was_kept_out_of(tiny_grid: TinyGrid) -> None:
    own = {"task": {"name": "train_answers", "limit": 30, "max_new_tokens": 24}, "metric": "support_standin"}
    task = {"name": "xsum", "limit": 20, "max_words": 100, "max_new_tokens": 30}
    changes = {"data.limit": 500, "score.tasks": [task], "lens": {"own": own | {"threshold": 0.5}}}
    plan, store, outer = tiny(tiny_grid, changes)
    rates = {score.measure.mark for score in plan.scores if isinstance(score.measure.inputs, RateInputs)}
    price = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(price, Price)
    [work] = {step.operations for step in price.own.steps if step.mark in rates}
    student = decoders_of(plan, store, outer)[0]["student"]
    assert work == pytest.approx(student.forward((20 + 30 // 5) * 160, 80, 0))


def test_the_students_own_answers_and_their_reading_are_the_price_of_its_lens(tiny_grid: TinyGrid) -> None:
    """30 of the training rows' prompts, answered in 24 tokens and read again by the untrained student."""
    own = {"task": {"name": "train_answers", "limit": 30, "max_new_tokens": 24}, "metric": "support_standin"}
    changes = {"data.limit": 500, "lens": {"own": own | {"threshold": 0.5}}}
    plan, store, outer = tiny(tiny_grid, changes)
    price = priced(plan, store, outer, H100, 1, None, None)
    assert isinstance(price, Price)
    student, prompt = decoders_of(plan, store, outer)[0]["student"], price.amounts.prompt
    answering, reading = (step.operations for step in price.own.steps if step.kind == "lens")
    assert answering == pytest.approx(student.forward(30 * (prompt + 24), prompt / 2, 30 * 24))
    assert reading == pytest.approx(student.forward(30 * (prompt + 24), (prompt + 24) / 2, 0))


def test_held_out_rows_are_scored_one_by_one(tiny_grid: TinyGrid) -> None:
    changes = {"data.limit": 500, "data.heldout": 30, "score.tasks": ["heldout_loss"], "score.batch": 8}
    price = priced(*tiny(tiny_grid, changes), H100, 1, None, None)
    assert isinstance(price, Price)
    [seconds] = {step.seconds for step in price.own.steps if step.kind == "measure"}
    assert seconds == pytest.approx(30 * 2 * H100.launch, rel=1e-3)


def test_a_task_is_as_large_as_its_file_or_its_usual_data(tiny_grid: TinyGrid) -> None:
    lines_of: Path = tiny_grid.folder / "many.jsonl"
    lines_of.write_text('{"document": "a", "summary": "b"}\n' * 30)
    task = {"name": "xsum", "source": f"file:{lines_of}", "max_words": 10, "max_new_tokens": 7}
    plan, *_ = tiny(tiny_grid, {"score.tasks": [task, {"name": "arc_easy", "limit": 5}, "heldout_loss"]})
    asked = {use.name: asked_by(use, plan.grid, Amounts(50, 6, 10, 20, known=True)) for use in plan.grid.score.tasks}
    assert [(a.rows, a.sequences, a.tokens, a.answer) for a in asked.values() if a] == [
        (30, 1, 13, 7),
        (5, 4, 32, 0),
        (6, 1, 30, 0),
    ]
