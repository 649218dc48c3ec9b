"""Values that the schema refuses: pydantic's complaints in one line that names the field."""

from __future__ import annotations

import math
from typing import Any

from tests.conftest import ABSENT, TinyGrid
from tests.spec.wrong import POINT, TEACHERS, cases, check

NAN, INF = math.nan, math.inf
MIX = {"big": 1, "small": 1}

SCHEMA = {
    "a misspelt section": ({"axis": {}}, ["axis: unknown field", "did you mean 'axes'?"]),
    "a misspelt section that is then missing": (
        {"axes": ABSENT, "axess": {}},
        ["axess: unknown field", "did you mean 'axes'?"],
    ),
    "a misspelt field": ({"train.shedule": "cosine"}, ["train.shedule: unknown field", "did you mean 'schedule'?"]),
    "a misspelt field deep down": (
        {"teacher.tune.methd": "lora"},
        ["teacher.tune.methd: unknown field", "did you mean 'method'?"],
    ),
    "a misspelt field in a list": (
        {"include": [{**POINT, "sead": 1}]},
        ["include.0.sead: unknown field", "did you mean 'seed'?"],
    ),
    "a field unlike any other": ({"train.zzz": 1}, ["train.zzz: unknown field", "known: ", "weight_decay"]),
    "no student": ({"student": ABSENT}, ["student: missing", "required"]),
    "no lr": ({"axes.lr": ABSENT}, ["axes.lr: missing"]),
    "no store": ({"runtime.store": ABSENT}, ["runtime.store: missing"]),
    "an empty store": ({"runtime.store": ""}, ["runtime.store: empty", "a folder that all nodes see"]),
    "a store in a bucket": (
        {"runtime.store": "s3://bucket/x"},
        ["runtime.store: 's3://bucket/x' is an address", "all nodes see"],
    ),
    "a blank tracking URI": ({"runtime.mlflow": " "}, ["runtime.mlflow: empty", "leave it out"]),
    "a tracking URI of the home folder": (
        {"runtime.mlflow": "sqlite:///~/m.db"},
        ["runtime.mlflow: ", "~ is not expanded"],
    ),
    "a tracking URI with a variable": (
        {"runtime.mlflow": "sqlite:///$HOME/m.db"},
        ["runtime.mlflow: ", "$HOME is not expanded"],
    ),
    "a word for a number": ({"axes.batch": ["two"]}, ['axes.batch.0: "two"', "must be a valid integer"]),
    "a number in quotes": ({"axes.lr": ["0.1"]}, ['axes.lr.0: "0.1"', "must be a valid number"]),
    "a number for a word": ({"family": 7}, ["family: 7", "must be a valid string"]),
    "a number for a section": ({"train": 3}, ["train: 3", "must be a mapping"]),
    "a number for a list": ({"axes.lr": 1e-3}, ["axes.lr: 0.001", "must be a list"]),
    "null for a section": ({"axes": None}, ["axes: null", "must be a mapping"]),
    "a fraction of a batch": ({"axes.batch": [2.5]}, ["axes.batch.0: 2.5", "must be a valid integer"]),
    "a bool for a number": ({"axes.alpha": [True]}, ["axes.alpha.0: true", "must be a valid number"]),
    "a bool for an integer": ({"axes.batch": [True]}, ["axes.batch.0: true", "must be a valid integer"]),
    "a bool for a seed": ({"axes.seed": [False]}, ["axes.seed.0: false", "must be a valid integer"]),
    "an empty axis": ({"axes.alpha": []}, ["axes.alpha: empty", "must have at least 1 item"]),
    "a negative lr": ({"axes.lr": [-1e-3]}, ["axes.lr.0: -0.001", "greater than 0"]),
    "lr 0": ({"axes.lr": [0]}, ["axes.lr.0: 0", "greater than 0"]),
    "a negative alpha": ({"axes.alpha": [-1]}, ["axes.alpha.0: -1", "greater than or equal to 0"]),
    "a negative seed": ({"axes.seed": [-1]}, ["axes.seed.0: -1", "greater than or equal to 0"]),
    "a seed that no generator takes": ({"axes.seed": [2**32]}, ["axes.seed.0: 4294967296", "less than 4294967296"]),
    "lr nan": ({"axes.lr": [NAN]}, ["axes.lr.0: NaN", "finite"]),
    "alpha inf": ({"axes.alpha": [INF]}, ["axes.alpha.0: Infinity", "finite"]),
    "weight decay nan": ({"train.weight_decay": NAN}, ["train.weight_decay: NaN", "finite"]),
    "a negative warm-up": ({"train.warmup": -0.1}, ["train.warmup: -0.1", "greater than or equal to 0"]),
    "a long warm-up": ({"train.warmup": 1.5}, ["train.warmup: 1.5", "less than or equal to 1"]),
    "clip 0": ({"train.clip": 0}, ["train.clip: 0", "greater than 0"]),
    "an unknown dtype": ({"train.dtype": "fp8"}, ['train.dtype: "fp8"', "'float32' or 'bfloat16'"]),
    "workers that are neither": ({"runtime.workers": "two"}, ['runtime.workers: "two"', "integer or 'auto'"]),
    "no workers": ({"runtime.workers": 0}, ["runtime.workers: 0", "greater than 0 or 'auto'"]),
    "a name with spaces": ({"name": "My grid"}, ['name: "My grid"', "must match pattern"]),
    "a name that leaves the folder": ({"name": "../x"}, ['name: "../x"', "pattern"]),
    "both epochs and steps": ({"train.epochs": 1}, ["train: both epochs and steps", "give one of them"]),
    "neither epochs nor steps": ({"train": {"keep": []}}, ["train: neither epochs nor steps"]),
    "no length for the teacher": ({"teacher.tune": {"lr": 1e-3}}, ["teacher.tune: neither epochs nor steps"]),
    "keep after the end": ({"train.keep": [2, 5]}, ["train.keep: 5", "before or at the end, 4 steps"]),
    "dropping with nothing scored": (
        {"runtime.drop_exports": "scored", "score.tasks": []},
        ["score.tasks: "],
    ),
    "dropping for another reason": (
        {"runtime.drop_exports": "always"},
        ['runtime.drop_exports: "always"', "scored"],
    ),
    "a webhook's URL in the file": (
        {"runtime.notify": "https://hooks/secret"},
        ["runtime.notify: no name of a variable; write the NAME"],
    ),
    "an export of an unknown type": (
        {"train.export": {"dtype": "float16"}},
        ['train.export.dtype: "float16"', "float32", "bfloat16"],
    ),
    "adapters where none are trained": (
        {"train.export": {"adapters": True}},
        ["train.export.adapters: true with method full", "use method lora or qlora"],
    ),
    "keep twice": ({"train.keep": [2, 2]}, ["train.keep: 2 twice", "give each once"]),
    "keep half a step": ({"train.keep": [2.5]}, ["train.keep: 2.5", "must be a whole number of steps"]),
    "keep step 0": ({"train.keep": [0]}, ["train.keep.0: 0", "greater than 0"]),
    "a prompt as long as the whole": (
        {"data.max_prompt": 512},
        ["data.max_prompt: 512", "must be less than max_length 512"],
    ),
    "a prompt longer than the whole": (
        {"data.max_prompt": 600},
        ["data.max_prompt: 600", "must be less than max_length 512"],
    ),
    "nothing left to train on": ({"data.limit": 2}, ["data.limit: 2", "must be more than heldout 2"]),
    "nothing left beside test": (
        {"data.limit": 5, "data.test": 3},
        ["data.limit: 5", "must be more than heldout 2 and test 3"],
    ),
    "a negative number of test rows": ({"data.test": -1}, ["data.test: -1", "greater than or equal to 0"]),
    "layers backwards": ({"student.drop_layers": [3, 3]}, ["student.drop_layers: [3, 3]", "0 <= first < end"]),
    "one border of layers": ({"student.drop_layers": [3]}, ["student.drop_layers: [3]", "at least 2 items"]),
    "several workers on parts of a GPU": (
        {"runtime.workers": 2, "runtime.points_per_gpu": 4},
        ["runtime.points_per_gpu: 4 with 2 workers", "workers of one point cannot share a GPU"],
    ),
    "no tasks": ({"score.tasks": []}, ["score.tasks: empty", "at least 1 item"]),
    "a reference twice": (
        {"score.references": ["student", "student"]},
        ["score.references: student twice", "give each once"],
    ),
    "unknown labels": (
        {"axes.labels": ["golden"]},
        ['axes.labels.0: "golden"', "'gold', 'teacher', 'both' or 'student'"],
    ),
    "one kind of labels, not a list": ({"axes.labels": "teacher"}, ['axes.labels: "teacher"', "must be a list"]),
    "no labels": ({"axes.labels": []}, ["axes.labels: empty", "at least 1 item"]),
    "unknown labels by hand": ({"include": [{**POINT, "labels": "golden"}]}, ['include.0.labels: "golden"']),
    "answers of no tokens": ({"augment.max_new_tokens": 0}, ["augment.max_new_tokens: 0", "greater than 0"]),
    "a misspelt field of the answers": (
        {"augment.max_tokens": 9},
        ["augment.max_tokens: unknown field", "did you mean 'max_new_tokens'?"],
    ),
    "an ensemble of one": (TEACHERS | {"ensembles": {"mix": {"big": 1}}}, ["ensembles.mix: ", "at least 2 items"]),
    "an ensemble with a weight of 0": (
        TEACHERS | {"ensembles": {"mix": {"big": 1, "small": 0}}},
        ["ensembles.mix.small: 0", "greater than 0"],
    ),
    "a temperature of 0": ({"objective.temperature": 0}, ["objective.temperature: 0", "greater than 0"]),
    "a baseline of one's own": (
        {"report.baseline": "sft"},
        ["report.baseline: is gone: every row is compared with SFT; leave it out"],
    ),
    "smoothing all of it": ({"axes.smoothing": [1]}, ["axes.smoothing.0: 1", "less than 1"]),
    "negative smoothing": ({"axes.smoothing": [-0.1]}, ["axes.smoothing.0: -0.1", "greater than or equal to 0"]),
    "smoothing twice": ({"axes.smoothing": [0, 0.1, 0.1]}, ["axes.smoothing: 0.1 twice", "give each once"]),
    "smoothing by hand": ({"include": [{**POINT, "smoothing": 2}]}, ["include.0.smoothing: 2", "less than 1"]),
    "no temperature": ({"axes.temperature": [0]}, ["axes.temperature.0: 0", "greater than 0"]),
    "a weighting that is none": (
        {"objective.weighting": "mean"},
        ['objective.weighting: "mean"', "'sum', 'ratio' or 'convex'"],
    ),
    "ratio with a negative alpha": (
        {"objective.weighting": "ratio", "axes.alpha": [0, -0.5]},
        ["axes.alpha.1: -0.5", "greater than or equal to 0"],
    ),
    "another split": ({"data.split": "last"}, ['data.split: "last"', "'random' or 'first'"]),
    "adapters without a scale": ({"teacher.tune.scale": 0}, ["teacher.tune.scale: 0", "greater than 0"]),
    "adapters that drop everything": ({"teacher.tune.dropout": 1}, ["teacher.tune.dropout: 1", "less than 1"]),
    "a negative margin": ({"report.margin": {"xsum": -1}}, ["report.margin.xsum: -1", "greater than or equal to 0"]),
}


@cases(SCHEMA)
def test_a_wrong_value_is_named(wrong: dict[str, Any], said: list[str], tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text(wrong), said)
