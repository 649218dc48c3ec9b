"""The grids of the smoothed-KD paper's three families, and of its appendix A: 30 points each, checked and planned
without a hub.

The hub's cache is played by configurations of the models' real shapes (tests/shapes) and made-up tokenizers, one a
family, so that an offline check has something to look into.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from kdray.check.checks import check_grid
from kdray.plan import make_plan
from kdray.run import resolve
from kdray.spec import InputError, load_grid
from kdray.spec.chat import CHATML
from kdray.spec.grid import Grid
from kdray.spec.load import parse_grid
from kdray.spec.refs import Reference
from kdray.store import Outer, io
from kdray.store import outer as module
from tests.conftest import ROOT

SHAPES = ROOT / "tests" / "shapes"
FAMILIES = {  # the teacher's method, and the weights in each model: 10^9, from its shape
    "llama2_7b": ("full", {"student": 6.7, "teacher": 13.0}),
    "llama31_8b": ("qlora", {"student": 8.0, "teacher": 70.6}),
    "qwen25_7b": ("qlora", {"student": 7.6, "teacher": 32.8}),
}
DATA = {"databricks/databricks-dolly-15k", "EdinburghNLP/xsum", "abisee/cnn_dailymail"}
DATA |= {"allenai/ai2_arc", "Rowan/hellaswag", "allenai/openbookqa", "tau/commonsense_qa"}
DATA |= {"qiaojin/PubMedQA", "knkarthick/dialogsum", "hotpotqa/hotpot_qa", "truthfulqa/truthful_qa"}
COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds the models' configurations and tokenizers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # they are for a cluster
    for name in [*FAMILIES, "overconfidence"]:
        for role in ("student", "teacher"):
            fetch(tmp_path / "hub", grid_of(name), role)
    return tmp_path / "hub"


def fetch(cache: Path, grid: Grid, role: str, tokens: str = "") -> Path:
    """Put a model into the cache as the hub's client would; returns its folder."""
    name = hub_id(grid, role)
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True, exist_ok=True)
    (model / "refs" / "main").write_text(COMMIT)
    folder = model / "snapshots" / COMMIT
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text((SHAPES / f"{name.partition('/')[2]}.json").read_text())
    vocabulary = {token: i for i, token in enumerate(["<end>", tokens or grid.family, *CHATML])}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return folder


def hub_id(grid: Grid, role: str) -> str:
    return grid.models()[role][1].model.removeprefix("hf:")


def grid_of(name: str) -> Grid:
    return load_grid(ROOT / "grids" / f"{name}.yaml")


def sources_of(grid: Grid) -> set[str]:
    """Everything on the hub that a grid names."""
    return {str(source) for step in make_plan(grid, Outer(Path("no-such-store"))).steps() for source in step.references}


def weights(config: dict[str, int]) -> float:
    """10^9 weights of a Llama or Qwen2 of this shape, from its matrices alone."""
    d, heads = config["hidden_size"], config["num_attention_heads"]
    attention = 2 * d * d * (1 + config["num_key_value_heads"] / heads)
    return (
        config["num_hidden_layers"] * (attention + 3 * d * config["intermediate_size"]) + 2 * config["vocab_size"] * d
    ) / 1e9


@pytest.mark.parametrize("name", ["appendix_b_qa", "appendix_b_summaries"])
def test_appendix_b_compares_answers_with_answers_and_soft_labels_across_tokenizers(name: str) -> None:
    plan = make_plan(grid := grid_of(name), Outer(Path("no-such-store")))
    arms = Counter((point.point.labels, point.point.alpha) for point in plan.points)
    assert arms == {("gold", 0.0): 3, ("teacher", 0.0): 3, ("teacher", 1.5): 3}
    assert (grid.objective.loss.name, grid.soft_labels.align) == ("uld", "position")
    assert (grid.train.total, grid.train.weight_decay, grid.axes.batch) == (5, 0.1, [4])
    asked = {use.name: use.params for use in grid.score.tasks if use.name != "heldout_loss"}
    assert asked.keys() == ({"hotpotqa", "truthfulqa"} if name == "appendix_b_qa" else {"cnn_dailymail"})
    assert {params["prompt"] for params in asked.values()} == {"appendix_b"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_grid_is_the_papers(name: str) -> None:
    grid, (method, sizes) = grid_of(name), FAMILIES[name]
    points = [point.point for point in make_plan(grid, Outer(Path("no-such-store"))).points]
    settings = {(point.lr, point.batch, point.alpha) for point in points}
    assert settings == {
        (lr, batch, alpha) for lr in (1e-5, 5e-6) for batch in (8, 16, 32) for alpha in (0, 0.01, 0.1, 1, 10)
    }
    assert len(points) == len(settings) == 30
    assert {point.seed for point in points} == {10}
    assert (grid.objective.weighting, grid.data.split, grid.data.max_prompt, grid.data.max_length) == (
        "ratio",
        "first",
        256,
        1024,
    )
    assert (grid.train.kept, grid.train.warmup, grid.train.weight_decay, grid.train.clip) == ([1, 2, 3], 0, 0.01, 1)
    assert grid.data.template.params["chatml"] == (name == "qwen25_7b")
    sequence_level = name == "llama2_7b"  # the paper's KD students of this family learn from the teacher's answers
    assert {(point.alpha > 0, point.labels) for point in points} == {
        (False, "gold"),
        (True, "teacher" if sequence_level else "gold"),
    }
    tasks = {task.name: task.params for task in grid.score.tasks}
    assert {"arc_challenge", "arc_easy", "hellaswag", "openbookqa"} <= set(tasks)
    for news in ("xsum", "cnn_dailymail"):
        asked = tasks[news]
        assert (asked["prompt"], asked["max_words"], asked["max_new_tokens"], asked["limit"]) == (
            "paper",
            None,
            256,
            None,
        )
    assert [use.name for use in grid.score.metrics] == ["hhem", "factkb", "rouge_paper"]
    assert grid.report.checkpoint == "best_answers"
    assert tasks["heldout_answers"]["limit"] is None
    assert grid.teacher
    assert grid.teacher.tune
    tune = grid.teacher.tune
    assert (tune.method, tune.lr, tune.batch, tune.total) == (method, 1e-5, 16, 3)
    assert method == "full" or (tune.rank, tune.scale, tune.dropout) == (8, 4, 0.1)
    for role, size in sizes.items():
        shape = json.loads((SHAPES / f"{hub_id(grid, role).partition('/')[2]}.json").read_text())
        assert weights(shape) == pytest.approx(size, rel=0.01), role


@pytest.mark.parametrize("name", FAMILIES)
def test_a_grid_passes_the_check_and_is_planned_offline(name: str, hub: Path, tmp_path: Path) -> None:
    outer = Outer(tmp_path / "store")
    notes = check_grid(grid_of(name), outer, offline=True)
    assert all("is not pinned" in note or "every node of the cluster must have it" in note for note in notes)
    steps = Counter(step.kind for step in make_plan(grid_of(name), outer).steps())
    answers = 1 if name == "llama2_7b" else 0  # and the soft labels of these rows, beside those of the held-out ones
    models = 30 * 3 + 2  # every kept checkpoint, the untrained student and the teacher
    assert steps["train"] == 30
    assert steps["student"] == 90
    assert (steps["teach"], steps["prepare"], steps["augment"], steps["soften"]) == (1, 1, answers, 1 + answers)
    rated = models - 1  # a lens fits the student's shape, not the teacher's
    assert (steps["annotate"], steps["lens"]) == (1, 1)
    told = 3  # tasks with answers, each with HHEM, FactKB and factual rates apart
    assert (steps["generate"], steps["measure"]) == (told * models + 1, (8 + 2 * told) * models + told * rated)
    assert not outer.lockfile.exists()


def test_appendix_a_compares_fine_tuning_and_distillation_with_the_untrained_model(hub: Path, tmp_path: Path) -> None:
    """Trained models, the teacher too, are asked as they were trained; the untrained one sees solved examples."""
    grid, outer = grid_of("overconfidence"), Outer(tmp_path / "store")
    notes = check_grid(grid, outer, offline=True)
    assert all("is not pinned" in note or "every node of the cluster must have it" in note for note in notes)
    assert (grid.train.method, grid.train.rank, grid.train.scale, grid.train.dropout) == ("qlora", 8, 4.0, 0.1)
    assert (grid.data.recipe.name, grid.data.template.name) == ("commonsense_qa", "plain")
    io.put_json(outer.lockfile, dict.fromkeys(sources_of(grid), COMMIT), durable=False)
    plan = make_plan(grid, outer)
    assert Counter(point.point.alpha for point in plan.points) == dict.fromkeys((0, 0.01, 0.1, 1, 10), 6)
    asked = {
        str(score.subject): score.measure.params["task"]["params"]
        for score in plan.scores
        if score.task.name == "commonsense_qa"
    }
    shots = {subject: params["shots"] for subject, params in asked.items()}
    assert len(shots) == 32
    assert shots.pop("student") == 5
    assert set(shots.values()) == {0}
    assert all(params["either_case"] and "untrained_shots" not in params for params in asked.values())
    for role, size in {"student": 6.7, "teacher": 13.0}.items():
        shape = json.loads((SHAPES / f"{hub_id(grid, role).partition('/')[2]}.json").read_text())
        assert weights(shape) == pytest.approx(size, rel=0.01), role


def test_an_offline_check_reads_what_the_hubs_cache_has(hub: Path, tmp_path: Path) -> None:
    text = yaml.safe_load((ROOT / "grids" / "llama2_7b.yaml").read_text())
    text["data"]["max_length"] = 4097
    with pytest.raises(InputError, match=r"data.max_length: 4097; the student has positions for 4096 tokens"):
        check_grid(parse_grid(yaml.safe_dump(text)), Outer(tmp_path / "store"), offline=True)
    fetch(hub, grid_of("llama2_7b"), "teacher", tokens="another")
    with pytest.raises(InputError, match=r"teacher.model: its tokenizer is not the student's"):
        check_grid(grid_of("llama2_7b"), Outer(tmp_path / "store"), offline=True)
    text["data"]["max_length"] = 512
    text["student"]["model"] = "hf:meta-llama/never-fetched"
    check_grid(parse_grid(yaml.safe_dump(text)), Outer(tmp_path / "store"), offline=True)


@pytest.mark.parametrize("path", sorted((ROOT / "grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_hub_is_asked_for_data_sets_and_models_as_what_they_are(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def answer(ref: Reference, _: str, dataset: bool) -> str:
        asked.append((ref.name, dataset))
        return COMMIT

    monkeypatch.setattr(module, "ask_hub", answer)
    plan = resolve(load_grid(path), Outer(tmp_path / "store"))
    assert None not in [step.id for step in plan.steps()]
    assert asked or path.stem in ("quickstart", "controls_smollm2")  # of packages from PyPI
    assert all(dataset == (name in DATA) for name, dataset in asked), asked
