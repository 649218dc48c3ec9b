"""Chat templates are code of a model's: their arguments, what they refuse, and the thoughts that they open."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from kdray.data.example import Example
from kdray.data.templates import open_template
from kdray.data.templates.alpaca import alpaca
from kdray.data.templates.chat import chat
from kdray.data.templates.plain import plain
from kdray.data.tokenise import plain_prompt, tokenise
from kdray.spec.errors import InputError
from tests.tiny import TEMPLATE, write_tokenizer

ASKED = Example("Say yes.", "", "yes")
UNLESS = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
THINKING = TEMPLATE.replace("assistant\n{%", f"assistant\n{UNLESS}{{%")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return write_tokenizer(tmp_path)


def test_arguments_reach_the_template_and_without_them_it_is_as_it_was(tokenizer: Any) -> None:
    tokenizer.chat_template = THINKING
    plain = chat(ASKED, tokenizer)
    assert plain.endswith("assistant\n")
    off = open_template({"name": "chat", "params": {"arguments": {"enable_thinking": False}}})
    assert off(ASKED, tokenizer) == f"{plain}<think>\n\n</think>\n\n"
    assert open_template({"name": "chat", "params": {}}) is chat


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"enable_thinkin": False},
            "data.template.arguments.enable_thinkin: the model's chat template does not read it",
        ),
        ({"think": True}, "data.template.arguments.think: the model's chat template does not read it"),
        ({"messages": "x"}, "data.template.arguments.messages: is kdray's to set"),
        ({"tokenize": True}, "data.template.arguments.tokenize: is kdray's to set"),
    ],
)
def test_an_argument_that_would_change_nothing_is_refused(arguments: dict[str, Any], said: str, tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ enable_thinking }} {{ messages[0]['content'] }}"
    with pytest.raises(InputError, match=said):
        chat(ASKED, tokenizer, arguments=arguments)


def test_a_template_that_passes_what_is_asked_by_is_refused_and_one_that_moves_white_space_is_not(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = "user: {% for part in messages[0]['content'] %}{{ part['text'] }}{% endfor %}\nassistant:"
    with pytest.raises(InputError, match=r"^data\.template: the model's chat template leaves out what is asked"):
        chat(ASKED, tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] | trim | replace('\n\n', '\n') }}"  # Falcon's
    assert chat(Example(" a\n\nb ", " c \n", "x"), tokenizer) == "a\nb \n c"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('Conversation roles must alternate') }}", "Conversation roles must alternate"),
        ("{{ nowhere.else }}", "'nowhere' is undefined"),
        ("{% if %}", "Expected an expression"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "access to attribute 'append'|is not safely callable"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
    ],
)
def test_what_a_template_raises_is_one_line(template: str, reason: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    begin = r"^data\.template: the model's chat template cannot write this prompt"
    with pytest.raises(InputError, match=rf"{begin} \(.*({reason}).*\); use the template 'alpaca'$"):
        chat(ASKED, tokenizer)


def test_a_thought_that_the_template_opens_can_be_closed(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE.replace("assistant\n{%", "assistant\n<think>\n{%")
    assert chat(ASKED, tokenizer).endswith("assistant\n<think>\n")
    assert chat(ASKED, tokenizer, close_thought=True).endswith("assistant\n<think>\n\n</think>\n\n")
    tokenizer.chat_template = TEMPLATE
    assert chat(ASKED, tokenizer, close_thought=True) == chat(ASKED, tokenizer)


def test_alpaca_may_begin_with_bos(tokenizer: Any) -> None:
    with_bos = functools.partial(alpaca, bos=True)
    with pytest.raises(InputError, match=r"data\.template\.bos: true, and this tokenizer has no bos token"):
        with_bos(ASKED, tokenizer)
    tokenizer.bos_token = "<|im_start|>"
    for example in (ASKED, Example("Say", "It is so.", "yes")):
        assert with_bos(example, tokenizer) == f"<|im_start|>{alpaca(example, tokenizer)}"


def test_qwens_marks_stand_around_the_same_text(tokenizer: Any) -> None:
    example = Example("Where is Ada ?", "Ada is in Rome .", "Rome")
    plain, marked = alpaca(example, tokenizer), alpaca(example, tokenizer, chatml=True)
    assert plain.endswith("### Response:\n")
    assert marked == f"<|im_start|>{plain}<|im_end|><|im_start|>Assistant:"
    assert tokenizer.convert_ids_to_tokens(tokenizer(marked)["input_ids"]).count("<|im_start|>") == 2


def test_marks_that_a_tokenizer_would_take_apart_are_refused() -> None:
    class Other:
        def get_added_vocab(self) -> dict[str, int]:
            return {"<|im_start|>": 1}

    with pytest.raises(
        InputError, match=r"^data.template.chatml: true, and the tokenizer has no token <\|im_end\|>; leave it out"
    ):
        alpaca(ASKED, Other(), chatml=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("begin", ["", "<|im_start|>"])
def test_plain_is_the_instruction_begun_as_every_text_and_a_space_before_the_response(
    begin: str, tokenizer: Any
) -> None:
    if begin:
        special = [(begin, tokenizer.convert_tokens_to_ids(begin))]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=special)
    asked = Example("Where does Ada live? Answer:", "", "Rome")
    assert plain(asked, tokenizer) == f"{begin}Where does Ada live? Answer:"
    assert plain(Example("Shorten.", "It rains.", "Rain."), tokenizer) == f"{begin}Shorten.\n\nIt rains."
    [[row]] = tokenise([asked], plain, tokenizer, 50, 60, before=" ")
    assert row.input_ids[: row.n_prompt] == plain_prompt(asked.instruction, tokenizer)
    assert tokenizer.decode(row.input_ids[row.n_prompt :]) == " Rome<|im_end|>"
    assert tokenise([Example("Why?", "", "")], plain, tokenizer, 50, 60, before=" ") == [
        []
    ]  # a space alone is no response
