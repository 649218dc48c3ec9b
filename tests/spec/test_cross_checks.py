"""Fields that do not go together, each right by itself."""

from __future__ import annotations

from typing import Any

from tests.conftest import ABSENT, TinyGrid
from tests.spec.wrong import POINT, TEACHER, TEACHERS, cases, check

MIX = {"big": 1, "small": 1}
ALIGNED = {"axes.aligned": [False, True], "align": {"lr": 1e-5, "steps": 3}}  # so is this
SAMPLED = {"axes.alpha": [1], "axes.labels": ["student"], "soft_labels": {"form": "online"}}  # a grid that is right

TOGETHER = {
    "aligned points without a word on how": (
        {"axes.aligned": [False, True]},
        ["axes.aligned: true without align", "say how: `align: {lr: 5e-7, steps: 100}`"],
    ),
    "a word on how, and no aligned point": (
        {"align": ALIGNED["align"]},
        ["align: given, and no point is aligned", "write `axes: {aligned: [false, true]}`"],
    ),
    "aligned points without those that they train on from": (
        ALIGNED | {"axes.aligned": [True]},
        ["axes.aligned: lr0.0001-b2-a0-s0-aligned without the point that it trains on from", "write [false, true]"],
    ),
    "aligned points of which one's plain one is left out": (
        ALIGNED | {"exclude": [POINT]},
        ["axes.aligned: lr0.001-b2-a0-s0-aligned without the point that it trains on from"],
    ),
    "aligned points on documents without prompts": (
        ALIGNED
        | {
            "axes.alpha": [0],
            "teacher": ABSENT,
            "data": {"source": "file:HERE/rows.jsonl", "recipe": {"name": "text", "column": "context"}},
        },
        ["data.recipe: text with axes.aligned true"],
    ),
    "aligned points from adapters": (
        ALIGNED | {"train": {"steps": 4, "method": "lora", "export": {"adapters": True}}},
        ["train.export.adapters: true with axes.aligned true", "export plain models"],
    ),
    "aligned points and vllm": (
        ALIGNED | {"score.engine": "vllm", "runtime.device": "gpu"},
        ["score.engine: vllm with axes.aligned true", "use transformers"],
    ),
    "aligned points of shared weights": (
        ALIGNED | {"runtime.engine": "fsdp"},
        ["runtime.engine: fsdp with axes.aligned true", "use ddp"],
    ),
    "aligned points whose beginnings are dropped": (
        ALIGNED | {"runtime.drop_exports": "scored"},
        ["runtime.drop_exports: scored with axes.aligned true"],
    ),
    "the best held-out loss of aligned points": (
        ALIGNED | {"report.checkpoint": "best_heldout"},
        ["report.checkpoint: best_heldout with axes.aligned true"],
    ),
    "a search among aligned points": (
        ALIGNED | {"search": "asha"},
        ["search: asha with axes.aligned true"],
    ),
    "sampled responses without a teacher": (
        SAMPLED | {"teacher": ABSENT, "axes.alpha": [0]},
        ["axes.labels: student without a teacher", "add a teacher"],
    ),
    "sampled responses at alpha 0": (
        SAMPLED | {"axes.alpha": [0, 1]},
        ["axes.labels: student at alpha 0 (lr0.0001-b2-a0-s0-student)", "by include"],
    ),
    "sampled responses whose soft labels would be kept": (
        SAMPLED | {"soft_labels": {"form": "hidden"}},
        ["soft_labels.form: hidden with labels student", "new at every step: use online"],
    ),
    "sampled responses and a form that is sparse": (
        SAMPLED | {"soft_labels": {"form": "sampled"}},
        ["soft_labels.form: sampled with labels student", "use online"],
    ),
    "sampled responses and a teacher with other tokens": (
        SAMPLED | {"soft_labels": {"form": "online", "align": "text"}},
        ["soft_labels.align: text with labels student", "the same tokenizer"],
    ),
    "sampled responses where no worker has the model": (
        SAMPLED | {"runtime.engine": "fsdp"},
        ["runtime.engine: fsdp with labels student", "use ddp"],
    ),
    "sampled responses and compiled layers": (
        SAMPLED | {"train.compile": True, "runtime.device": "gpu"},
        ["train.compile: true with labels student", "leave it out"],
    ),
    "sampled responses to no prompts": (
        SAMPLED | {"data.recipe": {"name": "text", "column": "response"}},
        ["axes.labels: answers to rows of the recipe 'text'"],
    ),
    "smoothing of labels that no step has": (
        SAMPLED | {"axes.smoothing": [0.1]},
        ["axes.smoothing: 0.1 of hard labels that no step has"],
    ),
    "a share of on-policy steps without any": (
        {"objective.on_policy": 0.5},
        ["objective.on_policy: given, and no point has labels student", "add student to axes.labels"],
    ),
    "an axis of on-policy steps without any": (
        {"axes.on_policy": [0.5, 1]},
        ["axes.on_policy: given, and no point has labels student"],
    ),
    "sampling without any": (
        {"objective.sampling": {"temperature": 0.7}},
        ["objective.sampling: given, and no point has labels student"],
    ),
    "a quantised teacher that vllm asks": (
        {"augment": {"quantise": "4bit", "engine": "vllm"}, "runtime.device": "gpu"},
        ["augment.quantise: 4bit with augment.engine vllm", "use transformers"],
    ),
    "alpha without a teacher": ({"teacher": ABSENT}, ["axes.alpha: alpha > 0 without a teacher", "add a teacher"]),
    "alpha without a teacher by hand": (
        {"teacher": ABSENT, "axes.alpha": [0], "include": [{**POINT, "alpha": 1}]},
        ["alpha > 0 without a teacher"],
    ),
    "answers without a teacher": (
        {"teacher": ABSENT, "axes.alpha": [0], "axes.labels": ["gold", "teacher"]},
        ["axes.labels: a teacher's answers without a teacher", "add a teacher"],
    ),
    "answers without a teacher by hand": (
        {"teacher": ABSENT, "axes.alpha": [0], "include": [{**POINT, "labels": "both"}]},
        ["axes.labels: a teacher's answers without a teacher"],
    ),
    "a verdict about an unmeasured task": (
        {"report.primary": "arc_easy/acc"},
        ["report.primary: nothing measures 'arc_easy/acc'", "known: ", "xsum/rougeL"],
    ),
    "a verdict about an unknown metric": (
        {"report.primary": "xsum/rougel"},
        ["report.primary: ", "did you mean 'xsum/rougeL'?"],
    ),
    "a verdict about a factual rate without a lens": (
        {"report.primary": "xsum/fr"},
        ["report.primary: nothing measures 'xsum/fr'"],
    ),
    "a margin for an unmeasured task": (
        {"report.margin": {"arc_easi": 1}, "score.tasks": [{"name": "arc_easy", "source": "file:HERE/arc.jsonl"}]},
        ["report.margin.arc_easi: ", "did you mean 'arc_easy'?"],
    ),
    "a margin for what is no multiple choice": (
        {"report.margin": {"xsum": 1}},
        ["report.margin.xsum: none of", "multiple-choice"],
    ),
    "a margin in points": (
        {"report.margin": {"arc_easy": 2}, "score.tasks": [{"name": "arc_easy", "source": "file:HERE/arc.jsonl"}]},
        ["report.margin.arc_easy: 2; a share of accuracy, 0 to 1: two points are 0.02"],
    ),
    "a margin of accuracy where there is none": (
        {
            "report.margin": {"truthfulqa_mc": 0.02},
            "score.tasks": [{"name": "truthfulqa_mc", "source": "file:HERE/arc.jsonl"}],
        },
        ["report.margin.truthfulqa_mc: the task has no accuracy; name a score of it, truthfulqa_mc/mc1"],
    ),
    "a margin for an unmeasured metric": (
        {"report.margin": {"heldout_answers/rougel": 1}},
        ["report.margin.heldout_answers/rougel: nothing measures it", "did you mean 'heldout_answers/rougeL'?"],
    ),
    "the best of checkpoints of which one is scored": (
        {"report.checkpoint": "best_heldout", "score.checkpoints": "last"},
        ["report.checkpoint: best_heldout with score.checkpoints last", "score all of them"],
    ),
    "the best answers of one checkpoint": (
        {"report.checkpoint": "best_answers", "score.checkpoints": "last"},
        ["report.checkpoint: best_answers with score.checkpoints last", "score all of them"],
    ),
    "the best answers to what is not asked": (
        {"report.checkpoint": "best_answers", "score.tasks": ["heldout_loss", "xsum"]},
        ["report.checkpoint: best_answers without the task heldout_answers", "add it to score.tasks"],
    ),
    "the best answers where none are greedy": (
        {"report.checkpoint": "best_answers", "score.decoding": ["dola"]},
        ["report.checkpoint: best_answers with answers by dola", "add greedy to score.decoding"],
    ),
    "checkpoints scored by answers to what is not asked": (
        {"score.checkpoints": "best_answers", "report.checkpoint": "best_answers", "score.tasks": ["xsum"]},
        ["score.checkpoints: best_answers without the task heldout_answers", "add it to score.tasks"],
    ),
    "tables of checkpoints that are not scored": (
        {"score.checkpoints": "best_heldout"},
        ["report.checkpoint: last with score.checkpoints best_heldout", "write best_heldout"],
    ),
    "another choice for tables than for scores": (
        {"score.checkpoints": "best_heldout", "report.checkpoint": "best_answers"},
        ["report.checkpoint: best_answers with score.checkpoints best_heldout", "write best_heldout"],
    ),
    "dropping where every checkpoint is kept": (
        {"runtime.drop_exports": "scored", "train": {"steps": 4}},
        ["runtime.drop_exports: scored with one checkpoint a point", "train.keep"],
    ),
    "early stopping by a loss that is measured once": (
        {"search": "asha", "train": {"steps": 4}},
        ["search: asha by a loss that is measured once, at the end at 4 steps", "train.keep"],
    ),
    "early stopping no sooner than at the end": (
        {"search": {"name": "asha", "grace": 3}, "train": {"steps": 4, "keep": [1, 2]}},
        ["search.grace: 3, and no checkpoint is kept from there to the end at 4 steps", "train.keep has 1, 2"],
    ),
    "early stopping of points that are alone in their arms": (
        {"search": "asha", "train": {"steps": 4, "keep": [2]}, "axes.lr": [1e-3], "axes.batch": [2]},
        ["search: asha among the points of an arm, of which each has one", "several lr"],
    ),
    "the best answers to test rows": (
        {"report.checkpoint": "best_answers", "data.test": 1},
        ["report.checkpoint: best_answers with data.test 1", "no choice may see the test rows"],
    ),
    "adapters for an engine that reads plain models": (
        {"train.method": "lora", "train.export": {"adapters": True}, "score.engine": "vllm"},
        ["train.export.adapters: true with score.engine vllm", "reads plain models"],
    ),
    "alpha > 1 with convex weights": (
        {"objective.weighting": "convex", "axes.alpha": [0, 2]},
        ["axes.alpha: 2 with objective.weighting convex", "at most 1"],
    ),
    "a loss that needs every logit": (
        {"objective.loss": "jsd", "soft_labels.form": "sampled"},
        ["objective.loss: 'jsd' with soft_labels.form sampled", "cross_entropy, forward_kl"],
    ),
    "answers where nothing is asked": (
        {"data.recipe": "text", "axes.labels": ["teacher"]},
        ["axes.labels: answers to rows of the recipe 'text'", "use labels: [gold]"],
    ),
    "a teacher beside teachers": (
        {"teachers": {"big": TEACHER}},
        ["teachers: beside `teacher`", "name all of them in `teachers`"],
    ),
    "a reserved name": (
        {"teacher": ABSENT, "teachers": {"student": TEACHER}},
        ["teachers.student: a name with a meaning of its own"],
    ),
    "an ensemble of strangers": (
        TEACHERS | {"ensembles": {"mix": {"big": 1, "smal": 1}}},
        ["ensembles.mix.smal: no such teacher", "did you mean 'small'?"],
    ),
    "an ensemble with a teacher's name": (
        TEACHERS | {"ensembles": {"big": MIX}},
        ["ensembles.big: is the name of a teacher too"],
    ),
    "an ensemble of sampled labels": (
        TEACHERS | {"ensembles": {"mix": MIX}, "soft_labels.form": "sampled"},
        ["ensembles: with soft_labels.form sampled", "hidden, logits or online"],
    ),
    "answers of an ensemble": (
        TEACHERS | {"ensembles": {"mix": MIX}, "axes.labels": ["teacher"]},
        ["axes.labels: answers of an ensemble", "use labels: [gold]"],
    ),
}


@cases(TOGETHER)
def test_what_does_not_go_together_is_named(wrong: dict[str, Any], said: list[str], tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text(wrong), said)
