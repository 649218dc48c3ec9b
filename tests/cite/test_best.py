"""Best-of-N citations: the choice against a plain loop, rewards against plain passes, and what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdray.cite import best as module
from kdray.cite.best import CLOSE, Candidates, Manner, Writer, best_of, cite, drawn
from kdray.cite.format import Span, parse
from kdray.cite.layout import Ids, Laid, Said, lay_out, statements_of
from kdray.cite.reward import Reader
from kdray.models.generation import draw, uniforms
from kdray.models.loaded import Loaded
from tests.cite.conftest import Plain

DOCUMENT = "Ada is in Paris. Ben is in Rome. Cleo is in Oslo now. Dan lives in Lima. Eve is in Cairo."
ANSWER = "Ada lives in Paris. Dan lives in Lima now."
HOW = Candidates(5, Manner(0.95, 0.7), Manner(1.2, 0.9), longest=6, limit=12, seed=3)
# The plain citation of each statement, then its candidates.
WRITTEN = [
    [f"[2-2]{CLOSE}", f"[1-1][4-4]{CLOSE}", f"[1-5]{CLOSE}", "in Rome", f"[3]{CLOSE} and more", f"{CLOSE}"],
    ["[1-2]", f"[9-9]{CLOSE}", f"[4-4]{CLOSE}", f"[4-9]{CLOSE}", f"[4-4]{CLOSE}", f"[x]{CLOSE}"],
]


@pytest.fixture(scope="module")
def asked(tiny: Loaded) -> tuple[Laid, list[tuple[str, Ids]]]:
    prompt, answer = (
        tiny.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f"Read : {DOCUMENT} Where ?", ANSWER)
    )
    statements = list(zip(*statements_of(tiny.tokenizer, answer, ANSWER), strict=True))
    return lay_out(tiny.tokenizer, prompt, DOCUMENT), statements


NUMBERED = st.lists(st.tuples(st.sets(st.integers(0, 4)).map(frozenset), st.integers(-3, 3)), min_size=1, max_size=8)


@given(NUMBERED, st.lists(st.integers(1, 9), min_size=5, max_size=5), st.integers(1, 20))
def test_the_choice_is_that_of_a_plain_loop(
    candidates: list[tuple[frozenset[int], int]], lengths: list[int], limit: int
) -> None:
    rewards = [-math.inf] * len(candidates)
    for k, (cited, reward) in enumerate(candidates):
        total = 0
        for place in cited:
            total += lengths[place]
        if total <= limit or len(cited) == 1:
            rewards[k] = reward
    kept = 0
    for k, reward in enumerate(rewards):
        if reward > rewards[kept]:
            kept = k
    assert best_of([cited for cited, _ in candidates], [reward for _, reward in candidates], lengths, limit) == kept


def test_every_statement_has_the_candidate_that_plain_passes_reward_most(
    tiny: Loaded, asked: tuple[Laid, list[tuple[str, Ids]]], plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid, statements = asked
    contexts: list[list[int]] = []

    def written(_: object, context: Sequence[int], *__: object) -> list[str]:
        contexts.append(list(context))
        return WRITTEN[len(contexts) - 1]

    monkeypatch.setattr(module, "drawn", written)
    found = cite(tiny.model, Reader(tiny.shared), Writer(tiny.tokenizer), laid, statements, HOW)
    assert [one.text for one in found] == ["Ada lives in Paris.", "Dan lives in Lima now."]
    assert [one.n_tokens for one in found] == [len(ids) for _, ids in statements]
    assert [[each.cited for each in one.candidates] for one in found] == [
        [{0, 3}, {0, 1, 2, 3, 4}, set(), {2}, set()],
        [set(), {3}, {3, 4}, {3}, set()],
    ]
    assert [one.plain.cited for one in found] == [{1}, {0, 1}]
    assert [[each.sound for each in one.candidates] for one in found] == [
        [True, True, False, True, True],
        [False, True, False, True, False],
    ]
    assert (found[0].plain.sound, found[1].plain.sound) == (True, False)
    before = Ids()
    for one, (_, ids) in zip(found, statements, strict=True):
        said = Said(before, ids)
        for candidate, reward in [(one.plain, one.plain_reward), *zip(one.candidates, one.rewards, strict=True)]:
            cited = candidate.cited
            expected = plain(laid.prompt(cited), said) - plain(laid.prompt(laid.all - cited), said)
            assert reward.total == pytest.approx(expected, abs=1e-5)
        lengths = [len(laid.sentences[place]) for place in range(5)]
        allowed = [
            k
            for k, each in enumerate(one.candidates)
            if len(each.cited) < 2 or sum(lengths[place] for place in each.cited) <= HOW.limit
        ]
        assert one.best == max(allowed, key=lambda k: one.rewards[k].total)
        assert 1 not in allowed or one is not found[0]  # all five sentences are longer than the limit
        before += ids
    text = "".join(tiny.tokenizer.decode(contexts[1]).split())
    assert text.startswith("Read:<C1>AdaisinParis.<C2>BenisinRome.")
    assert text.index("<C5>EveisinCairo.") < text.index("".join(module.INSTRUCTION.split())) < text.index("Where?")
    assert text.endswith(
        "Where?<statement>AdalivesinParis.<cite>[2-2]</cite></statement><statement>DanlivesinLimanow.<cite>"
    )


def test_what_is_drawn_equals_whole_passes_and_more_candidates_only_add(
    tiny: Loaded, asked: tuple[Laid, list[tuple[str, Ids]]]
) -> None:
    writer = Writer(tiny.tokenizer)
    context = [*writer.marked(asked[0]).prompt(asked[0].all), *writer.asks(asked[1][0][1])]
    ends = [tiny.tokenizer.eos_token_id]
    got = drawn(tiny.model, context, HOW, tiny.tokenizer, ends)
    numbers = uniforms(context, HOW.seed, 6, HOW.longest)
    for text, row, manner in zip(got, numbers, [HOW.plain, *[HOW.varied] * 5], strict=True):
        written: list[int] = []
        for number in row:
            with torch.no_grad():
                logits = tiny.model(torch.tensor([[*context, *written]])).logits[:, -1]
            written += draw(logits, number[None], manner.temperature, manner.top_p).tolist()
            if written[-1] in ends:
                break
        assert text == tiny.tokenizer.decode(written, skip_special_tokens=True)
    assert len(set(got)) > 2
    fewer = Candidates(2, HOW.plain, HOW.varied, HOW.longest, HOW.limit, HOW.seed)
    assert drawn(tiny.model, context, fewer, tiny.tokenizer, ends) == got[:3]


def test_a_candidate_ends_with_its_tag(
    tiny: Loaded, asked: tuple[Laid, list[tuple[str, Ids]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row is made to write a citation, each with another number, and then goes on."""
    texts = [f"[{i}-{i}]{CLOSE} Ada" for i in range(1, 7)]
    ids = [tiny.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    steps = iter(range(64))

    def following(*_: object) -> torch.Tensor:
        step = next(steps)
        return torch.tensor([row[min(step, len(row) - 1)] for row in ids])

    monkeypatch.setattr(module, "_drawn", following)
    how = Candidates(5, HOW.plain, HOW.varied, 64, HOW.limit, 0)
    assert drawn(tiny.model, [5, 6, 7], how, tiny.tokenizer, []) == [text.removesuffix(" Ada") for text in texts]
    assert next(steps) < 40  # no one went on


def test_a_document_is_cut_so_that_citations_fit(tiny: Loaded, asked: tuple[Laid, list[tuple[str, Ids]]]) -> None:
    laid, statements = asked
    writer, said = Writer(tiny.tokenizer), [ids for _, ids in statements]
    whole = list(writer.marked(laid).prompt(laid.all))
    for ids in said:
        whole += [*writer.asks(ids), *range(9), *writer.ids(module.SHUT)]
    assert writer.within(laid, said, 9, None) is laid
    assert writer.within(laid, said, 9, len(whole)) == laid
    cut = writer.within(laid, said, 9, len(whole) - 1)
    assert cut.texts == laid.texts[:4]
    assert cut.sentences == laid.sentences[:4]
    assert writer.within(laid, said, 9, 10).texts == ()


def test_what_is_written_for_a_statement_is_read_again(tiny: Loaded) -> None:
    writer = Writer(tiny.tokenizer)
    ids = [*writer.asks(writer.ids("Ada lives in Rome.")), *writer.cites([Span(1, 1), Span(3, 4)])]
    found = parse(tiny.tokenizer.decode(ids), 4)
    assert not found.findings
    assert (found.statements[0].text, found.statements[0].sentences) == ("Ada lives in Rome.", [0, 2, 3])
