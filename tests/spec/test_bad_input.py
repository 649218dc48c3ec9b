"""Every wrong grid file gets one line that names the field, what was found and what is allowed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from kdray.spec import InputError, load_grid
from kdray.spec.load import parse_grid
from tests.conftest import ABSENT, TinyGrid

NAN, INF = math.nan, math.inf
POINT = {"lr": 1e-3, "batch": 2, "alpha": 0}
TUNE = {"lr": 1e-3, "steps": 2}
TEACHER = {"model": "file:HERE/teacher"}
TEACHERS = {"teacher": ABSENT, "teachers": {"big": TEACHER, "small": {"model": "file:HERE/student"}}}
MIX = {"big": 1, "small": 1}
SHA = "ab" * 32

# what is changed in a valid grid, and what the line must say
SCHEMA = {
    "a misspelt section": ({"axis": {}}, ["axis: unknown field", "did you mean 'axes'?"]),
    "a misspelt section that is then missing": ({"axes": ABSENT, "axess": {}}, ["axess: unknown field", "did you mean 'axes'?"]),
    "a misspelt field": ({"train.shedule": "cosine"}, ["train.shedule: unknown field", "did you mean 'schedule'?"]),
    "a misspelt field deep down": ({"teacher.tune.methd": "lora"}, ["teacher.tune.methd: unknown field", "did you mean 'method'?"]),
    "a misspelt field in a list": ({"include": [{**POINT, "sead": 1}]}, ["include.0.sead: unknown field", "did you mean 'seed'?"]),
    "a field unlike any other": ({"train.zzz": 1}, ["train.zzz: unknown field", "known: ", "weight_decay"]),
    "no student": ({"student": ABSENT}, ["student: missing", "required"]),
    "no lr": ({"axes.lr": ABSENT}, ["axes.lr: missing"]),
    "no store": ({"runtime.store": ABSENT}, ["runtime.store: missing"]),
    "an empty store": ({"runtime.store": ""}, ["runtime.store: empty", "a folder that all nodes see"]),
    "a store in a bucket": ({"runtime.store": "s3://bucket/x"}, ["runtime.store: 's3://bucket/x' is an address", "all nodes see"]),
    "a blank tracking URI": ({"runtime.mlflow": " "}, ["runtime.mlflow: empty", "leave it out"]),
    "a tracking URI of the home folder": ({"runtime.mlflow": "sqlite:///~/m.db"}, ["runtime.mlflow: ", "~ is not expanded"]),
    "a tracking URI with a variable": ({"runtime.mlflow": "sqlite:///$HOME/m.db"}, ["runtime.mlflow: ", "$HOME is not expanded"]),
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
    "an unknown engine": ({"runtime.engine": "horovod"}, ["runtime.engine: no engine 'horovod'", "known: ddp"]),
    "a name with spaces": ({"name": "My grid"}, ['name: "My grid"', "must match pattern"]),
    "a name that leaves the folder": ({"name": "../x"}, ['name: "../x"', "pattern"]),
    "both epochs and steps": ({"train.epochs": 1}, ["train: both epochs and steps", "give one of them"]),
    "neither epochs nor steps": ({"train": {"keep": []}}, ["train: neither epochs nor steps"]),
    "no length for the teacher": ({"teacher.tune": {"lr": 1e-3}}, ["teacher.tune: neither epochs nor steps"]),
    "keep after the end": ({"train.keep": [2, 5]}, ["train.keep: 5", "before or at the end, 4 steps"]),
    "keep twice": ({"train.keep": [2, 2]}, ["train.keep: 2 twice", "give each once"]),
    "keep half a step": ({"train.keep": [2.5]}, ["train.keep: 2.5", "must be a whole number of steps"]),
    "keep step 0": ({"train.keep": [0]}, ["train.keep.0: 0", "greater than 0"]),
    "a prompt as long as the whole": ({"data.max_prompt": 512}, ["data.max_prompt: 512", "must be less than max_length 512"]),
    "a prompt longer than the whole": ({"data.max_prompt": 600}, ["data.max_prompt: 600", "must be less than max_length 512"]),
    "nothing left to train on": ({"data.limit": 2}, ["data.limit: 2", "must be more than heldout 2"]),
    "nothing left beside test": ({"data.limit": 5, "data.test": 3}, ["data.limit: 5", "must be more than heldout 2 and test 3"]),
    "a negative number of test rows": ({"data.test": -1}, ["data.test: -1", "greater than or equal to 0"]),
    "layers backwards": ({"student.drop_layers": [3, 3]}, ["student.drop_layers: [3, 3]", "0 <= first < end"]),
    "one border of layers": ({"student.drop_layers": [3]}, ["student.drop_layers: [3]", "at least 2 items"]),
    "no tasks": ({"score.tasks": []}, ["score.tasks: empty", "at least 1 item"]),
    "a decoding twice": ({"score.decoding": ["greedy", "greedy"]}, ["score.decoding.1: 'greedy' a second time", "once"]),
    "a reference twice": ({"score.references": ["student", "student"]}, ["score.references: student twice", "give each once"]),
    "a task twice": ({"score.tasks": ["xsum", {"name": "xsum", "limit": 3}]}, ["score.tasks.1: 'xsum' a second time", "once"]),
    "alpha without a teacher": ({"teacher": ABSENT}, ["axes.alpha: alpha > 0 without a teacher", "add a teacher"]),
    "alpha without a teacher by hand": (
        {"teacher": ABSENT, "axes.alpha": [0], "include": [{**POINT, "alpha": 1}]},
        ["alpha > 0 without a teacher"],
    ),
    "unknown labels": ({"axes.labels": ["golden"]}, ['axes.labels.0: "golden"', "'gold', 'teacher' or 'both'"]),
    "one kind of labels, not a list": ({"axes.labels": "teacher"}, ['axes.labels: "teacher"', "must be a list"]),
    "no labels": ({"axes.labels": []}, ["axes.labels: empty", "at least 1 item"]),
    "labels twice": ({"axes.labels": ["both", "both"]}, ["axes: the point lr0.001-b2-a0-s0-both occurs twice"]),
    "unknown labels by hand": ({"include": [{**POINT, "labels": "golden"}]}, ['include.0.labels: "golden"']),
    "excluding labels that are not there": ({"exclude": [{**POINT, "labels": "teacher"}]}, ["lr0.001-b2-a0-s0-teacher is not in the grid"]),
    "answers without a teacher": (
        {"teacher": ABSENT, "axes.alpha": [0], "axes.labels": ["gold", "teacher"]},
        ["axes.labels: a teacher's answers without a teacher", "add a teacher"],
    ),
    "answers without a teacher by hand": (
        {"teacher": ABSENT, "axes.alpha": [0], "include": [{**POINT, "labels": "both"}]},
        ["axes.labels: a teacher's answers without a teacher"],
    ),
    "answers of no tokens": ({"augment.max_new_tokens": 0}, ["augment.max_new_tokens: 0", "greater than 0"]),
    "a misspelt field of the answers": ({"augment.max_tokens": 9}, ["augment.max_tokens: unknown field", "did you mean 'max_new_tokens'?"]),
    "a value twice on an axis": ({"axes.lr": [1e-3, 1e-4, 1e-3]}, ["axes: the point lr0.001-b2-a0-s0 occurs twice", "once"]),
    "alpha 0 and -0.0": ({"axes.alpha": [0, -0.0]}, ["axes: the point lr0.001-b2-a0-s0 occurs twice"]),
    "values that look the same": ({"axes.lr": [1e-3, 1.0000001e-3]}, ["axes: the point lr0.001-b2-a0-s0 occurs twice", "six digits"]),
    "including a point of the axes": ({"include": [POINT]}, ["include: the point lr0.001-b2-a0-s0 occurs twice"]),
    "including a point twice": (
        {"include": [{**POINT, "seed": 1}, {**POINT, "seed": 1}]},
        ["include: the point lr0.001-b2-a0-s1 occurs twice"],
    ),
    "excluding what is not there": ({"exclude": [{**POINT, "lr": 5}]}, ["exclude.0: lr5-b2-a0-s0 is not in the grid"]),
    "excluding a point twice": ({"exclude": [POINT, {**POINT}]}, ["exclude.1: lr0.001-b2-a0-s0 is not in the grid"]),
    "excluding every point": ({"axes.lr": [1e-3], "axes.alpha": [0], "exclude": [POINT]}, ["exclude: leaves no point"]),
    "a verdict about an unmeasured task": (
        {"report.primary": "arc_easy/acc"},
        ["report.primary: nothing measures 'arc_easy/acc'", "known: ", "xsum/rougeL"],
    ),
    "a verdict about an unknown metric": ({"report.primary": "xsum/rougel"}, ["report.primary: ", "did you mean 'xsum/rougeL'?"]),
    "a verdict about a factual rate without a lens": ({"report.primary": "xsum/fr"}, ["report.primary: nothing measures 'xsum/fr'"]),
    "a lens without answers for it": (
        {"lens": {"annotations": "jsonl", "source": "file:HERE/rows.jsonl"}, "score.tasks": ["heldout_loss"]},
        ["lens: none of the grid's tasks", "add one of cnn_dailymail, heldout_answers, xsum"],
    ),
    "a decoding that vllm has not": (
        {"score.engine": "vllm", "score.decoding": ["greedy", "dola"]},
        ["score.decoding.1: 'dola' with score.engine vllm", "greedy, sampled"],
    ),
    "a lens of nothing": ({"lens": {"window": 4}}, ["lens: has nothing to learn from", "annotations and source, own, or trained"]),
    "a lens that is there and two sets to test it": (
        {"lens": {"trained": "published", "source": "file:HERE/rows.jsonl", "own": {"task": "train_answers", "metric": "hhem"}}},
        ["lens: has source, own, trained"],
    ),
    "a lens by another name": ({"lens": {"trained": "publised"}}, ["lens.trained: 'publised'", "file:FOLDER, or published"]),
    "a lens from elsewhere": ({"lens": {"trained": "hf:org/lens"}}, ["lens.trained: 'hf:org/lens'", "file: and a folder", "`published`"]),
    "a lens at an address that is no classifier": (
        {"lens": {"trained": f"https://host/lens.zip#sha256={SHA}"}},
        ["lens.trained: 'https://host/lens.zip", "classifier_*.pkl"],
    ),
    "another window for a lens that is there": ({"lens": {"trained": "file:HERE/lens", "window": 8}}, ["lens.window: ", "leave it out"]),
    "a lens of annotations without their file": ({"lens": {"annotations": "jsonl"}}, ["lens: has annotations", "annotations and source"]),
    "a lens of a repository": (
        {"lens": {"annotations": "jsonl", "source": "hf:org/annotations"}},
        ["lens.source: 'hf:org/annotations' is a repository", "one file: file:, wheel: or https:"],
    ),
    "a lens of a file and of its own answers": (
        {"lens": {"annotations": "jsonl", "source": "file:HERE/rows.jsonl", "own": {"task": "train_answers", "metric": "hhem"}}},
        ["lens: has annotations, source, own"],
    ),
    "a lens of answers to choices": (
        {"lens": {"own": {"task": "mmlu_bundled", "metric": "hhem"}}},
        ["lens.own.task: 'mmlu_bundled' gives no text to be true to", "train_answers"],
    ),
    "a lens by a metric of references": (
        {"lens": {"own": {"task": "train_answers", "metric": "rouge"}}},
        ["lens.own.metric: 'rouge' is not about an answer's source", "hhem, judge, lettucedetect, minicheck, support_standin"],
    ),
    "a lens by a metric with a typo": (
        {"lens": {"own": {"task": "train_answers", "metric": {"name": "hhem", "bach": 2}}}},
        ["lens.own.metric.bach: ", "did you mean 'batch'?"],
    ),
    "annotations of several files": (
        {"lens": {"annotations": "ragtruth", "source": "file:HERE/rows.jsonl"}},
        ["lens.annotations: 'ragtruth' needs", "beside its file", "jsonl"],
    ),
    "a margin for an unmeasured task": (
        {"report.margin": {"arc_easi": 1}, "score.tasks": [{"name": "arc_easy", "source": "file:HERE/arc.jsonl"}]},
        ["report.margin.arc_easi: ", "did you mean 'arc_easy'?"],
    ),
    "a margin for what is no multiple choice": ({"report.margin": {"xsum": 1}}, ["report.margin.xsum: none of", "multiple-choice"]),
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
    "the best answers to test rows": (
        {"report.checkpoint": "best_answers", "data.test": 1},
        ["report.checkpoint: best_answers with data.test 1", "no choice may see the test rows"],
    ),
    "a guided decoding of what has no text": (
        {
            "score.tasks": ["xsum", {"name": "truthfulqa", "source": "file:HERE/t.csv"}],
            "score.decoding": ["greedy", {"name": "lookback_guided", "guide": "support"}],
        },
        ["score.decoding.1: 'lookback_guided' of the task 'truthfulqa'", "needs tasks with a source"],
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
    "a teacher beside teachers": ({"teachers": {"big": TEACHER}}, ["teachers: beside `teacher`", "name all of them in `teachers`"]),
    "a choice among one teacher": ({"axes.teacher": ["big"]}, ["axes.teacher: big without teachers"]),
    "an unknown teacher": (TEACHERS | {"axes.teacher": ["bigg"]}, ["axes.teacher: no teacher 'bigg'", "did you mean 'big'?"]),
    "a reserved name": ({"teacher": ABSENT, "teachers": {"student": TEACHER}}, ["teachers.student: a name with a meaning of its own"]),
    "an ensemble of strangers": (
        TEACHERS | {"ensembles": {"mix": {"big": 1, "smal": 1}}},
        ["ensembles.mix.smal: no such teacher", "did you mean 'small'?"],
    ),
    "an ensemble of one": (TEACHERS | {"ensembles": {"mix": {"big": 1}}}, ["ensembles.mix: ", "at least 2 items"]),
    "an ensemble with a weight of 0": (
        TEACHERS | {"ensembles": {"mix": {"big": 1, "small": 0}}},
        ["ensembles.mix.small: 0", "greater than 0"],
    ),
    "an ensemble with a teacher's name": (TEACHERS | {"ensembles": {"big": MIX}}, ["ensembles.big: is the name of a teacher too"]),
    "an ensemble of sampled labels": (
        TEACHERS | {"ensembles": {"mix": MIX}, "soft_labels.form": "sampled"},
        ["ensembles: with soft_labels.form sampled", "hidden, logits or online"],
    ),
    "answers of an ensemble": (
        TEACHERS | {"ensembles": {"mix": MIX}, "axes.labels": ["teacher"]},
        ["axes.labels: answers of an ensemble", "use labels: [gold]"],
    ),
    "a point by hand without its teacher": (
        TEACHERS | {"include": [{"lr": 1e-5, "batch": 2, "alpha": 1}]},
        ["include.0.teacher: missing", "known: big, small"],
    ),
    "a temperature of 0": ({"objective.temperature": 0}, ["objective.temperature: 0", "greater than 0"]),
    "a negative margin": ({"report.margin": {"xsum": -1}}, ["report.margin.xsum: -1", "greater than or equal to 0"]),
}

COMPONENTS = {
    "task": ({"score.tasks": ["xsun"]}, ["score.tasks.0: no task 'xsun'", "did you mean 'xsum'?"]),
    "recipe": ({"data.recipe": "doly"}, ["data.recipe: no recipe 'doly'", "did you mean 'dolly'?"]),
    "template": ({"data.template": "chatt"}, ["data.template: no template 'chatt'", "did you mean 'chat'?"]),
    "schedule": ({"train.schedule": "cosin"}, ["train.schedule: no schedule 'cosin'", "did you mean 'cosine'?"]),
    "the teacher's schedule": ({"teacher.tune.schedule": "cosin"}, ["teacher.tune.schedule: no schedule 'cosin'"]),
    "form": ({"soft_labels.form": "hiden"}, ["soft_labels.form: no soft labels 'hiden'", "did you mean 'hidden'?"]),
    "form's parameter": ({"soft_labels": {"form": "hidden", "dtyp": "int8"}}, ["soft_labels.dtyp: ", "did you mean 'dtype'?"]),
    "form's type": ({"soft_labels.dtype": "int4"}, ["soft_labels.dtype: 'int4'", "must be Literal"]),
    "form's number": ({"soft_labels": {"form": "topk", "k": 0}}, ["soft_labels.k: 0", "must be int > 0"]),
    "loss": ({"objective.loss": "forwrd_kl"}, ["objective.loss: no loss 'forwrd_kl'", "did you mean 'forward_kl'?"]),
    "share": ({"objective.loss": {"name": "jsd", "beta": 1}}, ["objective.loss.beta: 1", "must be float > 0 and < 1"]),
    "a file that is no component": ({"data.recipe": "__init__"}, ["data.recipe: no recipe '__init__'"]),
    "no name": ({"data.recipe": {"max_words": 3}}, ["data.recipe: ", "write a name, or a mapping with a name"]),
    "a number": ({"data.recipe": 3}, ["data.recipe: 3", "write a name"]),
    "unknown parameter": (
        {"score.tasks": [{"name": "xsum", "limits": 3}]},
        ["score.tasks.0.limits: task 'xsum' has no such field", "did you mean 'limit'?"],
    ),
    "parameter of a component without any": ({"data.recipe": {"name": "dolly", "x": 1}}, ["data.recipe.x: ", "known: none"]),
    "missing parameter": ({"data.recipe": "columns"}, ["data.recipe.response: missing", "'columns' needs response: str"]),
    "wrong type": ({"score.tasks": [{"name": "xsum", "limit": "all"}]}, ["score.tasks.0.limit: 'all'", "must be "]),
    "bool for an integer": ({"score.tasks": [{"name": "xsum", "max_words": True}]}, ["score.tasks.0.max_words: True", "must be int > 0"]),
    "bool for a float": ({"train.schedule": {"name": "cosine", "floor": True}}, ["train.schedule.floor: True", "must be float"]),
    "nan": ({"train.schedule": {"name": "cosine", "floor": NAN}}, ["train.schedule.floor: nan", "must be float"]),
    "inf": ({"train.schedule": {"name": "cosine", "floor": INF}}, ["train.schedule.floor: inf", "must be float"]),
    "list for a word": ({"data.recipe": {"name": "columns", "response": ["a"]}}, ["data.recipe.response: ['a']", "must be str"]),
}

YAML = {
    "a Python tag": ("a: 1\nb: !!python/object/apply:os.system [echo]\n", ["grid:2: the YAML tag", "python/object", "no tags"]),
    "a made-up tag": ("a: !foo 1\n", [":1: the YAML tag !foo", "no tags"]),
    "a standard tag": ("a: !!str 1\n", [":1: the YAML tag", "no tags"]),
    "the empty tag": ("a: ! 1\n", [":1: the YAML tag !", "no tags"]),
    "a duplicate key": ("name: a\nfamily: b\nname: c\n", [":3: duplicate key 'name'", "each key once"]),
    "a duplicate key deep down": ("axes: {lr: [1], lr: [2]}\n", [":1: duplicate key 'lr'"]),
    "a key that is a number": ("1: a\n", [":1: key 1 is not a string"]),
    "a key that is a list": ("? [a]\n: b\n", ["key ['a'] is not a string"]),
    "a list": ("- a\n- b\n", ["holds list, not a mapping", "top-level fields: name"]),
    "a word": ("hello\n", ["holds str, not a mapping"]),
    "nothing": ("", ["holds NoneType, not a mapping"]),
    "only comments": ("# nothing here\n", ["holds NoneType, not a mapping"]),
    "no YAML": ("a: [1\n", ["write plain YAML"]),
    "a tab": ("a:\n\tb: 1\n", [":2: ", "write plain YAML"]),
    "a control character": ("a: \x00\n", ["not YAML", "write plain YAML"]),
    "two documents": ("a: 1\n---\nb: 2\n", [":2: ", "another document"]),
    "a list that holds itself": ("a: &a [*a]\n", ["grid:1: the YAML alias *a", "write the value out"]),
    "a bomb": ("a: &a [x, x]\nb: &b [*a, *a]\n", [":2: the YAML alias *a"]),
    "nesting without end": ("a: " + "[" * 600 + "]" * 600, ["grid: ", "write plain YAML"]),
    "half a character": ('name: "\\ud800"', ["grid: holds text that is no Unicode"]),
    "nesting that pydantic refuses": ("a: " + "[" * 300 + "]" * 300, ["grid: is nested too deep"]),
    "a number of ten thousand digits": ("a: " + "1" * 10_000, ["not YAML"]),
}

REFERENCES = {
    "no scheme": ("my-model", ["'my-model' has no known scheme", "write hf:org/name@commit, file:path, wheel:"]),
    "unknown scheme": ("s3:bucket/model", ["'s3:bucket/model' has no known scheme", "write hf:"]),
    "an address alone": ("https://huggingface.co/a/b", ["names no file by its content", "https://host/path#sha256=HEX, or hf:org/name"]),
    "an address without a file": (f"https://host/#sha256={SHA}", ["names no file by its content"]),
    "an address with a password": (f"https://me:secret@host/a#sha256={SHA}", ["'https://...@host/a#", "names no file by its content"]),
    "an address with half a hash": ("https://host/a#sha256=ab", ["sha256 'ab'", "64 lower-case"]),
    "an address that anyone may change": (f"http://host/a#sha256={SHA}", ["has no known scheme"]),
    "nothing": ("", ["'' has no known scheme"]),
    "no path": ("file:", ["'file:' names no path", "write file:path"]),
    "no hub id": ("hf:", ["'hf:' is no hub id", "write hf:org/name@commit"]),
    "a hub id of three parts": ("hf:a/b/c", ["is no hub id"]),
    "a hub id that climbs": ("hf:../../etc", ["is no hub id"]),
    "a hub id with a space": ("hf: a/b", ["is no hub id"]),
    "an empty revision": ("hf:a/b@", ["is no hub id"]),
    "an unknown option of the hub": ("hf:a/b#revision=1", ["'#revision=1'", "allowed after #, once each: config=..., split=..."]),
    "an empty option": ("hf:a/b#split=", ["'#split='", "allowed after #"]),
    "an option twice": ("hf:a/b#split=a&split=b", ["'#split=b'", "once each"]),
    "an option without a value": ("hf:a/b#train", ["'#train'", "allowed after #"]),
    "a wheel without a version": ("wheel:pkg/file.gguf", ["is no wheel reference", "write wheel:NAME==VERSION/path"]),
    "a wheel without a path": ("wheel:pkg==1.0", ["is no wheel reference"]),
    "a wheel of any version": ("wheel:pkg==1.*/x", ["is no wheel reference"]),
    "a wheel that is an option of pip's": ("wheel:--pre==1/x", ["is no wheel reference"]),
    "a path out of the wheel": ("wheel:pkg==1.0/../../x", ["the path '../../x' leaves the wheel", "without '..'"]),
    "a path out of the wheel in the middle": ("wheel:pkg==1.0/a/../../x", ["leaves the wheel"]),
    "an absolute path": ("wheel:pkg==1.0//etc/passwd", ["the path '/etc/passwd' leaves the wheel"]),
    "a Windows path": ("wheel:pkg==1.0/a\\..\\b", ["leaves the wheel"]),
    "a short sha256": ("wheel:pkg==1.0/x#sha256=abc", ["sha256 'abc'", "64 lower-case hexadecimal digits"]),
    "a sha256 in capitals": (f"wheel:pkg==1.0/x#sha256={'A' * 64}", ["64 lower-case hexadecimal digits"]),
    "an unknown option of a wheel": ("wheel:pkg==1.0/x#md5=abc", ["'#md5=abc'", "allowed after #, once each: sha256=..."]),
    "an option of the hub on a wheel": ("wheel:pkg==1.0/x#split=test", ["'#split=test'"]),
}


def cases(table: dict[str, tuple[Any, list[str]]]) -> Any:
    return pytest.mark.parametrize(("wrong", "said"), table.values(), ids=[name.replace(" ", "-") for name in table])


def check(text: str, said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_grid(text)
    line = str(caught.value)
    assert "\n" not in line
    assert line == f"{caught.value.field}: {caught.value.found}; {caught.value.allowed}".strip()
    for part in [*said, "; "]:
        assert part in line
    assert line.count("grid:") <= 1  # no message inside another


@cases(SCHEMA)
def test_a_wrong_value_is_named(wrong: dict[str, Any], said: list[str], tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text(wrong), said)


@cases(COMPONENTS)
def test_a_wrong_component_is_named(wrong: dict[str, Any], said: list[str], tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text(wrong), said)


@cases(YAML)
def test_what_is_not_plain_yaml_is_refused(wrong: str, said: list[str]) -> None:
    check(wrong, said)


@cases(REFERENCES)
@pytest.mark.parametrize("field", ["student.model", "teacher.model", "data.source"])
def test_a_wrong_reference_is_named(wrong: str, said: list[str], field: str, tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text({field: wrong}), [f"{field}: ", *said])


def test_a_tag_is_never_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(InputError):
        parse_grid(f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]\n")
    assert not mark.exists()


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", "folder"])
def test_a_grid_that_cannot_be_read_is_named(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"^grid: .*grid\.yaml.*; give ") as caught:
        load_grid(path)
    assert "\n" not in str(caught.value)


def test_an_error_survives_being_sent_to_another_process() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(InputError("a", "b\nc", "d")))  # noqa: S301 - our own
    assert (str(error), error.field, error.found, error.allowed) == ("a: b c; d", "a", "b\nc", "d")
