"""Chat templates are tried before anything runs, by their files alone; what only transformers knows is left to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdray.check.chat import check_chat_template
from kdray.check.checks import check_grid
from kdray.spec import InputError, load_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid
from tests.tiny import TEMPLATE

OF_PARTS = (  # as models for images and text have it, whose contents are lists
    "{% for m in messages %}{{ m['role'] }}: {% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}assistant:"
)
DOCUMENTS = {"data.recipe": {"name": "text", "column": "response"}, "score.tasks": ["heldout_loss"]}
XSUM = {"name": "xsum", "source": "file:HERE/xsum.jsonl"}


def write_template(folder: Path, template: object, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, **config}))
    return folder


def check(grid: TinyGrid, changes: dict[str, Any]) -> list[str]:
    spec = load_grid(grid(changes))
    return check_grid(spec, Outer(Store(spec.runtime.store).root), offline=True)


@pytest.mark.parametrize(
    ("template", "arguments", "reason"),
    [
        ("{{ raise_exception('System role not supported') }}", {}, "cannot write a prompt (System role not supported)"),
        ("{% if %}", {}, "cannot write a prompt (Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", {}, "cannot write a prompt (access to attribute '__class__'"),
        (None, {}, "the student has no chat template"),
        (TEMPLATE, {"enable_thinking": False}, "the model's chat template does not read it"),
        (OF_PARTS, {}, "the student's chat template leaves out what is asked"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(
    template: Any, arguments: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = write_template(tmp_path / "model", template)
    with pytest.raises(InputError) as caught:
        check_chat_template(folder, "student", arguments, "data.template", "use the template 'alpaca'")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("data.template")


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE,
        "{{ bos_token + messages[0]['content'] }}",  # the token may be one that transformers adds
        (
            "{{ strftime_now('%Y') }}{% generation %}x{% endgeneration %}{% for m in messages %}{% break %}{% endfor"
            " %}{{ messages | tojson }}"
        ),
        "{% if tools is not none %}{{ raise_exception('tools') }}{% endif %}{{ messages[0]['content'] | trim }}",
        [{"name": "tool_use", "template": "{% if %}"}, {"name": "default", "template": TEMPLATE}],
    ],
)
def test_a_template_that_transformers_could_use_is_not_refused(template: object, tmp_path: Path) -> None:
    check_chat_template(write_template(tmp_path / "model", template), "student", {}, "data.template", "")


def test_a_template_beside_the_configuration_counts_and_special_tokens_are_known(tmp_path: Path) -> None:
    folder = write_template(tmp_path / "model", "{% if %}", bos_token={"content": "<s>"})
    refuses = "{{ raise_exception(bos_token + x) }}"
    (folder / "chat_template.jinja").write_text(refuses)
    with pytest.raises(InputError, match=r"cannot write a prompt \(<s>1\)"):
        check_chat_template(folder, "student", {"x": "1"}, "data.template", "")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data.template": "chat"}, "data.template: the student's"),
        ({"score.tasks": [{**XSUM, "prompt": "chat"}]}, "score.tasks.0.prompt: the student's"),
        (
            {"score.tasks": [{"name": "lm_eval:arc_easy", "chat_template": True}]},
            "score.tasks.0.chat_template: the student's",
        ),
    ],
)
def test_it_is_tried_where_a_grid_needs_it_and_nowhere_else(
    changes: dict[str, Any], field: str, tiny_grid: TinyGrid
) -> None:
    write_template(tiny_grid.folder / "student", "{{ raise_exception('no') }}")
    assert check(tiny_grid, {"data.template": "alpaca"}) == []
    with pytest.raises(InputError) as caught:
        check(tiny_grid, changes)
    assert str(caught.value).startswith(f"{field} chat template cannot write a prompt (no); ")


def test_a_teachers_template_is_needed_only_where_the_teacher_answers(tiny_grid: TinyGrid) -> None:
    write_template(tiny_grid.folder / "student", TEMPLATE)
    write_template(tiny_grid.folder / "teacher", "{{ raise_exception('no') }}")
    soft = {"data.template": "chat", "score.tasks": ["heldout_loss", "heldout_answers"]}
    assert check(tiny_grid, soft) == []  # it is given the student's prompts
    assert check(tiny_grid, {"data.template": "chat", "score.references": ["student"]}) == []
    with pytest.raises(InputError, match=r"^data\.template: the teacher's chat template"):
        check(tiny_grid, {"data.template": "chat"})


def test_prompts_without_the_bos_that_gemma_needs_are_warned_of(tiny_grid: TinyGrid) -> None:
    for name in ("student", "teacher"):
        (tiny_grid.folder / name / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    (note,) = check(tiny_grid, {})
    assert note.startswith("data.template: prompts do not begin with the bos token, without which gemma2 models fail")
    assert check(tiny_grid, {"data.template": {"name": "alpaca", "bos": True}}) == []
    (note,) = check(tiny_grid, DOCUMENTS | {"data.template": "plain"})  # of which it makes nothing
    assert note.startswith("data.template: documents do not begin with the bos token, without which gemma2 models fail")
    assert check(tiny_grid, {"data.template": "plain"}) == []  # it has what the tokenizer puts before every text


def test_marks_of_a_chat_that_a_tokenizer_lacks_are_seen_before_anything_runs(tiny_grid: TinyGrid) -> None:
    marked = {"data.template": {"name": "alpaca", "chatml": True}}
    with pytest.raises(
        InputError, match=r"^data.template.chatml: true, and the tokenizer has no token <\|im_start\|>; leave it out$"
    ):
        check(tiny_grid, marked)
    for role in ("student", "teacher"):
        tiny_grid.model(role, tokens=("<|im_start|>", "<|im_end|>"))
    assert check(tiny_grid, marked) == []
