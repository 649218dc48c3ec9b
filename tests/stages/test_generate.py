"""Kept answers: thoughts are kept beside them, and what is damaged is said; prompts that fit the window of their
model.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
import torch

from kdray.artifacts.answers import THOUGHTS, read_answers
from kdray.artifacts.parts import all_parts
from kdray.artifacts.responses import read_responses
from kdray.artifacts.scores import read_scores
from kdray.artifacts.tables import write_table_part
from kdray.data.example import Example
from kdray.data.templates.chat import chat
from kdray.lens.align import mark_tokens
from kdray.lens.sources.jsonl import jsonl
from kdray.models.load import load_folder, load_tokenizer
from kdray.models.loaded import load_as
from kdray.orchestration.items import Part
from kdray.orchestration.measurer import AnswerMetrics, Measurer, MetricUse
from kdray.plan import make_plan, reading
from kdray.plan.inputs import GenerateInputs
from kdray.score.kept import read_kept
from kdray.score.prompts import Prompt
from kdray.spec import load_grid
from kdray.spec.errors import InputError
from kdray.stages.annotate import Annotator
from kdray.stages.augment import Answerer
from kdray.stages.generate import Generating, _decoding, answer_all, keep, prompts_of, what_is_asked
from kdray.stages.prepare import require_closed
from kdray.store import Outer, Store
from tests.answers import prompt_batch
from tests.conftest import TinyGrid
from tests.tiny import write_model, write_rows, write_tokenizer


def kept(
    folder: Path, tokenizer: Any, outputs: list[str], prompt: str = "Where ?", stops: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """What is read of outputs that were kept."""
    prompts = [Prompt(i, tokenizer(prompt)["input_ids"], "", "s", ["Ada in Rome"], []) for i in range(len(outputs))]
    folder.mkdir(exist_ok=True)
    keep(
        prompt_batch(folder, prompts, stops=stops),
        [tokenizer(output)["input_ids"] for output in outputs],
        1.0,
        tokenizer,
    )
    return read_answers(folder)


def test_a_thought_is_kept_beside_its_answer_and_stops_end_the_answer_alone(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "model")
    texts = ["<think>\nBen ?\n\nNo .</think>\n\nAda in Rome\nBen", "<think>Ben ?\n", "Ada in Rome\nBen"]
    texts.append("<think></think><answer>Ada</answer>")
    rows = kept(tmp_path / "kept", tokenizer, texts, stops=("\n",))
    assert [row["answer"] for row in rows] == ["Ada in Rome", "", "Ada in Rome", "Ada"]
    assert [row["thought"] for row in rows] == ["Ben ?\n\nNo .", "Ben ?", None, ""]
    assert [row["thought_end"] for row in rows] == ["</think>", None, None, "</think>"]
    for row, text in zip(rows, texts, strict=True):
        assert text.startswith(tokenizer.decode([*row["thought_ids"], *row["output_ids"]]))
    assert tokenizer.decode(rows[0]["output_ids"]) == "Ada in Rome\n"
    assert rows[1]["output_ids"] == []
    (opened,) = kept(tmp_path / "opened", tokenizer, ["Ben ?</think>Ada"], prompt="Where ?\n<think>\n")
    assert (opened["thought"], opened["answer"]) == ("Ben ?", "Ada")


def test_what_was_kept_with_its_thought_is_read_without_it(tmp_path: Path) -> None:
    """Answers as they were kept before: without columns for thoughts, special marks lost from their text."""
    tokenizer = write_tokenizer(tmp_path / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    tokenizer.save_pretrained(tmp_path / "model")
    new = kept(tmp_path / "kept", tokenizer, ["[THINK]Ben ?[/THINK]Ada", "Ben\n", "[THINK]Ben ?"])
    (tmp_path / "old").mkdir()
    rows = [{name: value for name, value in row.items() if name not in THOUGHTS} for row in new]
    for row, known in zip(rows, new, strict=True):
        row["output_ids"] = [*known["thought_ids"], *known["output_ids"]]
        row["answer"] = tokenizer.decode(row["output_ids"], skip_special_tokens=True).strip()
    assert [row["answer"] for row in rows] == ["Ben ?Ada", "Ben", "Ben ?"]
    for name, row in enumerate(rows):  # a folder may have parts of either kind
        write_table_part(tmp_path / "old", name, pa.Table.from_pylist([row]))
    assert read_kept(tmp_path / "old", lambda: load_tokenizer(tmp_path / "model")) == new


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("output", "prompt", "rouge", "unfinished"),
    [
        ("{answer}", "Summarize .", 100, 0),
        (
            "<think>\n{thought}\n</think>\n\n{answer}",
            "Summarize .",
            100,
            0,
        ),  # 42 as long as thoughts were part of answers
        ("{thought}\n</think>\n\n{answer}", "Summarize .<think>\n", 100, 0),
        ("<think>\n{thought}\n{answer}", "Summarize .", 0, 100),
    ],
)
def test_real_summaries_are_scored_without_their_thoughts(
    output: str, prompt: str, rouge: float, unfinished: float, tmp_path: Path, data_dir: Path
) -> None:
    lines = (data_dir / "xsum.test.jsonl").read_text().splitlines()[:20]
    tokenizer = write_tokenizer(tmp_path / "model")
    prompts, outputs = [], []
    for i, row in enumerate(map(json.loads, lines)):
        prompts.append(Prompt(i, tokenizer(prompt)["input_ids"], "", row["document"], [row["summary"]], []))
        thought = f"The user wants a sentence. {' '.join(row['document'].split()[:40])}"
        outputs.append(tokenizer(output.format(thought=thought, answer=row["summary"]))["input_ids"])
    keep(prompt_batch(tmp_path, prompts), outputs, 1.0, tokenizer)
    rouge_alone = (MetricUse("rouge", {}),)
    folders: dict[str, Any] = {
        "target": tmp_path,
        "outputs": tmp_path,
        "answerer": tmp_path / "model",
        "cache": tmp_path,
    }
    Measurer(load_as)(AnswerMetrics(key="x", metrics=rouge_alone, **folders))
    scores = read_scores(tmp_path)
    assert scores["rougeL"].value == pytest.approx(rouge)
    assert scores["unfinished"].value == scores["empty"].value == unfinished


@pytest.mark.parametrize(("room", "asked"), [(8, [6]), (3, [6, 3, 3]), (2, [6, 3, 1, 2, 3, 1, 2])])
def test_a_batch_that_memory_is_too_short_for_is_answered_in_halves(room: int, asked: list[int]) -> None:
    sizes = []

    def decode(model: Any, tokenizer: Any, prompts: Any, max_new_tokens: int, /) -> list[list[int]]:
        sizes.append(len(prompts))
        if len(prompts) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [[prompt.example] for prompt in prompts]

    prompts = [Prompt(i, [5], "", "", [], []) for i in range(6)]
    assert answer_all(decode, None, None, prompts, 4) == [[i] for i in range(6)]
    assert sizes == asked
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        answer_all(decode, None, None, prompts, 4)


def test_the_teachers_answers_are_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_folder(write_model(tmp_path / "model"))[1]
    write_rows(tmp_path / "rows", tokenizer)
    sizes: list[int] = []

    def answers(model: Any, tokenizer: Any, prompts: Any, *_: Any) -> list[list[int]]:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [[len(prompt)] for prompt in prompts]

    monkeypatch.setattr("kdray.stages.augment.generate_greedy", answers)
    answerer = Answerer(tmp_path / "model", "float32", tmp_path / "rows", 6, [])
    answerer(Part(key="0", target=tmp_path, index=0, rows=[3, 1, 2]))
    assert sizes == [3, 1, 2]
    lengths = answerer.rows.prompt_lengths
    assert [ids.as_py() for ids in read_responses(tmp_path)] == [[int(lengths[row])] for row in (1, 2, 3)]


def test_a_prompt_without_a_token_is_its_own_rows_error() -> None:
    asked = []

    def decode(model: Any, tokenizer: Any, prompts: Any, max_new_tokens: int, /) -> list[list[int]]:
        asked.append([prompt.example for prompt in prompts])
        return [[prompt.example] for prompt in prompts]

    prompts = [Prompt(i, ids, "", "", [], []) for i, ids in enumerate([[], [5], [], [6]])]
    prompts[2] = Prompt(2, [], "", "", [], [], refused="no room")
    assert answer_all(decode, None, None, prompts, 4) == ["a prompt without a token", [1], "no room", [3]]
    assert answer_all(decode, None, None, [prompts[0]], 4) == ["a prompt without a token"]
    assert asked == [[1, 3]]


def test_responses_behind_an_open_thought_are_not_trained_on(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    examples = [Example("Say", "", "yes")]
    require_closed(examples, chat, tokenizer)
    tokenizer.chat_template += "<think>\n"
    require_closed([Example("Say", "", "well</think>yes")], chat, tokenizer)
    with pytest.raises(
        InputError, match=r"^data\.template: the prompt opens a thought, .* </think> .*close_thought: true"
    ):
        require_closed(examples, chat, tokenizer)


def test_a_students_own_answers_are_annotated_behind_their_thoughts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = write_tokenizer(tmp_path / "model")
    (row,) = kept(tmp_path / "kept", tokenizer, ["<think>Ben ?</think>\nAda in Rome"])
    said = {"judge": 0.0, "spans": [[7, 11]]}
    monkeypatch.setattr("kdray.stages.annotate.load_metric", lambda *_: lambda answers: [said for _ in answers])
    find = Annotator(tmp_path / "kept", tmp_path / "model", "judge", {}, {}, tmp_path, 50.0)
    find(Part(key="0", target=tmp_path, index=0, rows=[0]))
    (path,) = all_parts(tmp_path)
    (found,) = jsonl(path)
    assert (found.response, found.spans) == ("Ada in Rome", ((7, 11),))
    assert (found.input_ids, found.output_ids) == ((*row["input_ids"], *row["thought_ids"]), tuple(row["output_ids"]))
    marked = mark_tokens(tokenizer, found.output_ids or (), found.response, found.spans)
    assert (
        tokenizer.decode([token for token, wrong in zip(row["output_ids"], marked, strict=True) if wrong]).strip()
        == "Rome"
    )


@pytest.mark.parametrize(
    "config", [{"model_type": "gpt2", "n_positions": 300}, {"model_type": "mpt", "max_seq_len": 300}]
)
def test_a_text_is_cut_to_the_window_under_whatever_name_it_is_said(
    config: dict[str, Any], tiny_grid: TinyGrid
) -> None:
    tiny_grid.rows("xsum.jsonl", [{"document": "It rained in Rome . " * 40, "summary": "Rain."}])
    write_tokenizer(tiny_grid.folder / "student")
    grid = load_grid(
        tiny_grid({"score.tasks": [{"name": "xsum", "source": "file:HERE/xsum.jsonl", "max_new_tokens": 20}]})
    )
    outer = Outer(Store(grid.runtime.store).root)
    step = next(step for step in make_plan(grid, outer).steps() if step.kind == "generate")
    work = cast(Any, SimpleNamespace(origin=lambda _: tiny_grid.folder / "student", outer=outer))
    [whole] = prompts_of(step, work)
    (tiny_grid.folder / "student" / "config.json").write_text(json.dumps(config))
    [cut] = prompts_of(step, work)
    assert len(whole.input_ids) > 600
    assert 270 < len(cut.input_ids) <= 280
    assert whole.source.startswith(cut.source)


def test_a_prompt_with_a_token_that_the_model_has_no_embedding_of_is_named(tiny_grid: TinyGrid) -> None:
    """Of two models with one tokenizer, the one that knows it is asked."""
    rows = [{"document": text, "summary": "Rain."} for text in ("It rained .", "It rained <more> .", "<more>")]
    tiny_grid.rows("xsum.jsonl", rows)
    student = tiny_grid.folder / "student"
    tokenizer = write_tokenizer(student)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(student)
    grid = load_grid(tiny_grid({"score.tasks": [{"name": "xsum", "source": "file:HERE/xsum.jsonl"}]}))
    outer = Outer(Store(grid.runtime.store).root)
    step = next(step for step in make_plan(grid, outer).steps() if step.kind == "generate")
    work, asked = cast(Any, SimpleNamespace(origin=lambda _: student, outer=outer)), set()
    for known in (len(tokenizer), len(tokenizer) - 1):
        (student / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": known}))
        asked.add(what_is_asked(step, work))
        if known == len(tokenizer):
            assert len(prompts_of(step, work)) == 3
            continue
        with pytest.raises(InputError) as caught:
            prompts_of(step, work)
        found = f"score.tasks.xsum: its embedding has {known} tokens, and rows 2, 3 token {known} ('<more>')"
        assert str(caught.value).startswith(found)
    assert len(asked) == 2


def test_a_guide_is_what_it_was_when_the_run_began_however_long_answers_take(tiny_grid: TinyGrid) -> None:
    guide = tiny_grid.folder / "guides" / "states.safetensors"
    guide.parent.mkdir()
    guide.write_bytes(b"before")
    guided = {"name": "lookback_guided", "guide": f"file:{guide}"}
    grid = load_grid(tiny_grid({"score.decoding": [guided]}))
    outer = Outer(Store(grid.runtime.store).root)
    steps = reading(make_plan(grid, outer).steps(), GenerateInputs)
    work = cast(Any, SimpleNamespace(outer=outer, scratch=tiny_grid.folder / "scratch", missing=lambda _: []))
    work.once_an_origin = lambda _: []
    Generating(steps, work).look()
    guide.write_bytes(b"after")
    used = Path(_decoding(steps[0], work)["params"]["guide"])
    assert (used.name, used.read_bytes()) == (guide.name, b"before")
    work.scratch = tiny_grid.folder / "another run's"
    with pytest.raises(InputError, match=r"^score\.decoding\.0\.guide: .* has changed since the run began"):
        Generating(steps, work).look()
