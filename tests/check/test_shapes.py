"""Decodings in a plan: their ids, and whether they fit the models."""

from __future__ import annotations

import json

import pytest
import torch

from kdray.artifacts.lens import RECORD
from kdray.check.checks import check_grid
from kdray.lens.classifier import Lens
from kdray.lens.guides import HiddenGuide
from kdray.plan import make_plan
from kdray.report.results import primary_metric
from kdray.spec import InputError, load_grid
from kdray.spec.refs import parse_reference
from kdray.spec.sections.scoring import PUBLISHED_LENS
from kdray.store import Outer, Store

SHAPE = {"num_hidden_layers": 6, "num_attention_heads": 4, "hidden_size": 32, "tie_word_embeddings": True}


def plan_of(tiny_grid, *decodings):
    grid = load_grid(tiny_grid({"score.decoding": list(decodings)}))
    return make_plan(grid, Outer(Store(grid.runtime.store).root))


def asked(plan):
    """What the answers of the untrained student on XSUM are generated with, by the decoding's label."""
    return {
        s.decoding: s.generate for s in plan.scores if s.generate and s.subject == "student" and s.task.name == "xsum"
    }


def test_choices_under_dola_are_steps_beside_those_by_likelihood(tiny_grid):
    def measured(**changes):
        tasks = [{"name": name, "source": "file:HERE/xsum.jsonl"} for name in ("arc_easy", "truthfulqa_mc")]
        grid = load_grid(tiny_grid({"score.tasks": [*tasks, "heldout_loss"], **changes}))
        plan = make_plan(grid, Outer(Store(grid.runtime.store).root))
        return {(s.task.name, s.decoding): s.measure for s in plan.scores if s.subject == "student"}, plan

    plainly, _ = measured()
    both, plan = measured(**{"score.choices": ["greedy", {"name": "dola", "layers": [1]}]})
    assert list(plainly) == [("arc_easy", ""), ("truthfulqa_mc", ""), ("heldout_loss", "")]
    assert {key: step.id for key, step in both.items() if not key[1]} == {key: step.id for key, step in plainly.items()}
    assert set(both) - set(plainly) == {("arc_easy", "dola-layers-1"), ("truthfulqa_mc", "dola-layers-1")}
    step = both["arc_easy", "dola-layers-1"]
    assert step.params["decoding"] == {"name": "dola", "version": 1, "params": {"layers": [1], "plausibility": 0.1}}
    assert step.slug.endswith("arc_easy-dola-layers-1")
    # a softmax over the log-ratios, but for TruthfulQA, as the method's authors found
    assert [both[name, "dola-layers-1"].params["softmax"] for name in ("arc_easy", "truthfulqa_mc")] == [True, False]
    assert primary_metric(plan) == "arc_e"
    _, alone = measured(**{"score.choices": [{"name": "dola", "layers": [1]}]})
    assert primary_metric(alone) == "arc_e.dola-layers-1"


def make_lens(folder, layers=6, heads=4):
    Lens(torch.zeros(layers, heads), 0.0).save(folder)
    return f"file:{folder}"


def test_greedy_answers_keep_the_id_that_they_had_before_there_were_others(tiny_grid):
    steps = asked(plan_of(tiny_grid, "greedy", {"name": "dola", "layers": [1]}))
    assert steps["greedy"].params["decoding"] == "greedy"
    named = steps["dola-layers-1"].params["decoding"]
    assert named == {
        "name": "dola",
        "version": 1,
        "params": {"layers": [1], "plausibility": 0.1, "repetition_penalty": 1.2},
    }
    assert steps["dola-layers-1"].slug.endswith("-dola-layers-1")


def test_a_guide_counts_by_its_content_and_not_by_its_place(tiny_grid, tmp_path):
    first = asked(plan_of(tiny_grid, {"name": "lookback_guided", "guide": make_lens(tmp_path / "lens")}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lens").rename(tmp_path / "elsewhere" / "lens")
    moved = asked(plan_of(tiny_grid, {"name": "lookback_guided", "guide": f"file:{tmp_path}/elsewhere/lens"}))
    assert list(first) == list(moved) == ["lookback_guided-guide-lens"]
    assert first["lookback_guided-guide-lens"].id == moved["lookback_guided-guide-lens"].id
    assert str(tmp_path) not in json.dumps(first["lookback_guided-guide-lens"].payload)
    assert moved["lookback_guided-guide-lens"].files["guide"].name == f"{tmp_path}/elsewhere/lens"
    (tmp_path / "elsewhere" / "lens" / RECORD).write_text('{"another": 1}')
    again = asked(plan_of(tiny_grid, {"name": "lookback_guided", "guide": f"file:{tmp_path}/elsewhere/lens"}))
    assert again["lookback_guided-guide-lens"].id != first["lookback_guided-guide-lens"].id


def test_a_lens_that_is_there_must_fit_the_students(tiny_grid, tmp_path):
    for role in ("student", "teacher"):
        (tmp_path / role / "config.json").write_text(json.dumps({"model_type": "llama", **SHAPE}))

    def check(lens, **more):
        grid = load_grid(tiny_grid({"lens": {"trained": lens}, **more}))
        return check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True)

    fitting = make_lens(tmp_path / "lens")
    assert check(fitting) == []
    with pytest.raises(
        InputError, match=r"lens.trained: a lens of shape \[6, 4\]; a lens for the student, which has \[5, 4\]"
    ):
        check(fitting, **{"student.drop_layers": [0, 1]})
    with pytest.raises(InputError, match=r"lens.trained: no file or folder"):
        check("file:HERE/nowhere")
    HiddenGuide(torch.zeros(32), 0.0, layer=2).save(tmp_path / "probe.safetensors")
    with pytest.raises(InputError, match=r"lens.trained: a classifier on hidden states of shape \[32\]"):
        check(f"file:{tmp_path}/probe.safetensors")


def test_the_published_lens_is_that_of_llama2_and_fits_only_its_shape(tiny_grid, tmp_path):
    def grid(**changes):
        return load_grid(tiny_grid(changes))

    unsaid, said = grid(family="llama2", lens={}), grid(lens={"trained": "published"})
    assert unsaid.lens == said.lens.model_copy(update={"trained": PUBLISHED_LENS})
    with pytest.raises(InputError, match="lens: has nothing to learn from"):
        grid(lens={})

    outer = Outer(Store(said.runtime.store).root)
    for layers, heads, refused in ((32, 32, False), (6, 4, True)):
        (tmp_path / "student" / "config.json").write_text(
            json.dumps({"model_type": "llama", **SHAPE, "num_hidden_layers": layers, "num_attention_heads": heads})
        )
        if refused:
            with pytest.raises(
                InputError,
                match=r"lens.trained: a lens of shape \[32, 32\]; a lens for the student, which has \[6, 4\]",
            ):
                check_grid(said, outer, offline=True)
        else:
            assert check_grid(said, outer, offline=True) == []


def test_a_lens_that_is_there_may_be_tested_by_own_answers_which_train_nothing(tiny_grid):
    task = {"name": "train_answers", "limit": 4}
    own = {"task": task, "metric": {"name": "support_standin", "model": "file:HERE/teacher"}}

    def step(**lens):
        grid = load_grid(tiny_grid({"lens": {"own": own, **lens}}))
        return next(
            step for step in make_plan(grid, Outer(Store(grid.runtime.store).root)).steps() if step.kind == "lens"
        )

    learned, given = step(), step(trained="published")
    assert learned.inputs.annotated.id == given.inputs.annotated.id
    assert learned.id != given.id
    assert learned.params["window"] == 8
    assert "window" not in given.params
    assert given.params["trained"] == {"sha256": parse_reference(PUBLISHED_LENS).sha256}


def test_a_lens_that_is_there_counts_by_its_content(tiny_grid, tmp_path):
    def step():
        grid = load_grid(tiny_grid({"lens": {"trained": make_lens(tmp_path / "lens")}}))
        [found] = {
            step.id: step
            for step in make_plan(grid, Outer(Store(grid.runtime.store).root)).steps()
            if step.kind == "lens"
        }.values()
        return found

    first = step()
    assert str(tmp_path) not in json.dumps(first.payload)
    assert first.files["trained"].name == f"{tmp_path}/lens"
    assert step().id == first.id
    (tmp_path / "lens" / "more.json").write_text("{}")
    assert step().id != first.id


@pytest.mark.parametrize(
    ("decoding", "cut", "says"),
    [
        ({"name": "dola", "layers": [2, 4]}, None, None),
        (
            {"name": "dola", "layers": [2, 6]},
            None,
            ["score.decoding.0.layers: [2, 6]", "from 1 to 5", "the student has 6 layers"],
        ),
        (
            {"name": "dola", "layers": [2, 4]},
            [1, 3],
            ["score.decoding.0.layers: [2, 4]", "from 1 to 3", "the student has 4 layers"],
        ),
        ({"name": "dola", "layers": [0, 2]}, None, ["score.decoding.0.layers: [0, 2]", "tied"]),
        ("dola", [0, 4], ["low of a model with 2 layers"]),
        ({"name": "lookback_guided", "guide": "file:LENS"}, None, None),
        ({"name": "lookback_guided", "guide": "support"}, [0, 1], None),
        (
            {"name": "lookback_guided", "guide": "file:LENS"},
            [0, 1],
            ["score.decoding.0.guide: a lens of shape [6, 4]", "the student has [5, 4]"],
        ),
        (
            {"name": "lookback_guided", "guide": "file:AT/NARROW"},
            None,
            ["score.decoding.0.guide: a classifier", "[16]", "has [32]"],
        ),
        ({"name": "lookback_guided", "guide": "file:AT/FIFTH"}, None, None),
        (
            {"name": "lookback_guided", "guide": "file:AT/FIFTH"},
            [0, 2],
            ["score.decoding.0.guide: a classifier on hidden states of layer 5", "the student has layers 1 to 4"],
        ),
        ({"name": "lookback_guided", "guide": "file:HERE"}, None, ["score.decoding.0.guide: no lens.safetensors in"]),
        (
            {"name": "lookback_guided", "guide": "file:HERE/xsum.jsonl"},
            None,
            ["score.decoding.0.guide: ", "no classifier on hidden states"],
        ),
        (
            {"name": "lookback_guided", "guide": "file:HERE/nowhere"},
            None,
            ["score.decoding.0.guide: no file or folder"],
        ),
        (
            {"name": "lookback_guided", "guide": "support,"},
            None,
            ["score.decoding.0.guide: 'support,'", "support, lens, or file:"],
        ),
    ],
)
def test_decodings_must_fit_the_scored_models(tiny_grid, tmp_path, decoding, cut, says):
    for role in ("student", "teacher"):
        config = {"model_type": "llama", **SHAPE, "num_hidden_layers": 6 if role == "student" else 3}
        (tmp_path / role / "config.json").write_text(json.dumps(config))
    for name, width, layer in (("NARROW", 16, 5), ("FIFTH", 32, 5)):
        HiddenGuide(torch.zeros(width), 0.0, layer).save(tmp_path / name)
    text = json.dumps(decoding).replace("LENS", make_lens(tmp_path / "lens")[5:]).replace("AT", str(tmp_path))
    changes = {"score.decoding": [json.loads(text)], "score.references": ["student"]}
    changes |= {"student.drop_layers": cut} if cut else {}

    def check():
        grid = load_grid(tiny_grid(changes))
        return check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True)

    if says is None:
        assert check() == []
        return
    with pytest.raises(InputError) as error:
        check()
    assert all(word in str(error.value) for word in says), error.value


def test_layers_by_which_choices_are_scored_must_be_there(tiny_grid, tmp_path):
    for role in ("student", "teacher"):
        (tmp_path / role / "config.json").write_text(json.dumps({"model_type": "llama", **SHAPE}))
    changes = {
        "score.tasks": ["mmlu_bundled"],
        "score.references": ["student"],
        "score.choices": [{"name": "dola", "layers": [2, 6]}],
    }
    grid = load_grid(tiny_grid(changes))
    with pytest.raises(InputError, match=r"score.choices.0.layers: \[2, 6\]; .* the student has 6 layers"):
        check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True)
