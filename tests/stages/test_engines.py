"""Every engine under Ray Tune and TorchTrainer, with two workers a point: the same scores as one worker with DDP."""

from __future__ import annotations

import pytest

from kdray.artifacts.scores import read_scores
from tests.here import run_here
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ENGINES = {
    "ddp": "1, engine: ddp",
    "fsdp": "2, engine: fsdp",
    "zero3": "2, engine: {name: deepspeed, stage: 3}, gradient_checkpointing: true",
}
SECTIONS = {
    "axes": "{lr: [3.0e-3], batch: [3], alpha: [1]}",
    "score": "{tasks: [heldout_loss], checkpoints: last, references: []}",
    "soft_labels": "{form: online}",
    "train": "{steps: 8, keep: [8], method: lora, rank: 4}",
}


@pytest.fixture(scope="module")
def scores(tmp_path_factory, one_ray):
    found = {}
    for name, engine in ENGINES.items():
        folder = tmp_path_factory.mktemp(name)
        runtime = f"{{store: '{folder}/store', checkpoint_every: 3, workers: {engine}}}"
        path = write_grid(folder, **SECTIONS, teacher=f"{{model: 'file:{folder}/teacher'}}", runtime=runtime)
        plan, store, failed = run_here(path)
        assert failed == {}
        (score,) = plan.scores
        found[name] = read_scores(store.get(score.measure.key).path)
        assert store.get(plan.points[0].train.key).facts["workers"] == int(engine[0])
    return found


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "ddp"])
def test_the_exported_student_scores_alike(scores, engine):
    for metric in ("ce", "kl"):
        assert scores[engine][metric].value == pytest.approx(scores["ddp"][metric].value, rel=1e-3)
