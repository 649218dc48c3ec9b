"""Rewards of citations against one plain pass a sequence, in float64."""

from __future__ import annotations

import pytest
import torch

from kdray.cite import reward as module
from kdray.cite.attribution import best, held, nearest
from kdray.cite.layout import Laid, Said, lay_out, statements_of
from kdray.cite.reward import Reader, rewards
from kdray.models.loaded import Loaded
from tests.cite.conftest import Plain

DOCUMENT = "Ada is in Paris. Ben is in Rome. Cleo is in Oslo now. Dan lives in Lima. Eve is in Cairo."
ANSWER = "Ada lives in Paris. Dan lives in Lima now. Eve ."
CANDIDATES = [
    [frozenset({0}), frozenset({0, 3}), frozenset[int]()],
    [frozenset({3}), frozenset({0}), frozenset({1, 2, 3}), frozenset({0, 1, 2, 3, 4})],
    [],
]


@pytest.fixture(scope="module")
def asked(tiny: Loaded) -> tuple[Laid, list[Said]]:
    ids = [
        tiny.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f"Read : {DOCUMENT} Where ?", ANSWER)
    ]
    statements = statements_of(tiny.tokenizer, ids[1], ANSWER)[1]
    said = [Said(tuple(sum(statements[:i], ())), part) for i, part in enumerate(statements)]
    return lay_out(tiny.tokenizer, ids[0], DOCUMENT), said


@pytest.mark.parametrize(("row", "of_a_pass"), [(2048, 8192), (60, 100), (1, 1)])
def test_they_are_equation_5_1(
    row: int,
    of_a_pass: int,
    tiny: Loaded,
    asked: tuple[Laid, list[Said]],
    plain: Plain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ROW", row)
    monkeypatch.setattr(module, "PASS", of_a_pass)
    laid, said = asked
    read = Reader(tiny.shared)
    found = rewards(read, laid, said, CANDIDATES)
    assert [len(some) for some in found] == [3, 4, 0]
    for one, candidates, of_one in zip(said, CANDIDATES, found, strict=True):
        whole = plain(laid.prompt(laid.all), one) if candidates else 0.0
        for cited, got in zip(candidates, of_one, strict=True):
            alone, without = (plain(laid.prompt(kept), one) for kept in (cited, laid.all - cited))
            assert got.drop == pytest.approx(whole - without, abs=1e-5)
            assert got.hold == pytest.approx(alone - whole, abs=1e-5)
            assert got.total == pytest.approx(alone - without, abs=1e-5)
    # of the first statement the whole, two citations with and without, and none; of the second as much for three
    assert read.sequences == 1 + 2 + 2 + 1 + 1 + 3 + 3 + 1


def test_what_sequences_share_is_read_once(tiny: Loaded, asked: tuple[Laid, list[Said]]) -> None:
    laid, said = asked
    together, apart = Reader(tiny.shared), Reader(tiny.shared)
    each = [((*laid.prompt(laid.all - {place}), *said[0].ids), len(said[0].ids)) for place in range(5)]
    found = together([*each, each[0]])
    assert len(found) == 6
    assert torch.equal(found[0], found[5])
    expected = [apart([one])[0] for one in each]
    torch.testing.assert_close(torch.stack(found[:5]), torch.stack(expected), atol=1e-5, rtol=0)
    assert together.sequences == apart.sequences == 5
    assert apart.tokens == sum(len(ids) - 1 for ids, _ in each)
    assert together.tokens < apart.tokens


def test_the_best_sentences_are_those_that_a_statement_loses_most_by(
    tiny: Loaded, asked: tuple[Laid, list[Said]], plain: Plain
) -> None:
    laid, said = asked
    read = Reader(tiny.shared)
    found = held(read, laid, ANSWER, [one.ids for one in said], considered=4, cited=2)
    looked_at = nearest(laid.texts, ANSWER, 4)
    for one, cited in zip(said, found.cited, strict=True):
        whole = plain(laid.prompt(laid.all), one)
        losses = {place: whole - plain(laid.prompt(laid.all - {place}), one) for place in looked_at}
        ranked = sorted(losses, key=lambda place: -losses[place])[:2]
        assert cited == {place for place in ranked if losses[place] > 0} or cited == {ranked[0]}
    expected = rewards(Reader(tiny.shared), laid, said, [[one] for one in found.cited])
    n = sum(len(one.ids) for one in said)
    numbers = found.numbers
    assert numbers["cite_drop"] == pytest.approx(sum(one.drop for [one] in expected) / n, abs=1e-6)
    assert numbers["selfcite"] == pytest.approx(sum(one.total for [one] in expected) / n, abs=1e-6)
    everything = sum(plain(laid.prompt(laid.all), one) - plain(laid.prompt(()), one) for one in said)
    assert numbers["cite_all"] == pytest.approx(everything / n, abs=1e-6)
    assert read.sequences <= 2 + 4 + 3 * len(said)


def test_rare_words_bring_a_sentence_near() -> None:
    sentences = ["It is in the city .", "The mayor is in Oslo .", "It is in Rome ."]
    assert nearest(sentences, "The mayor is in Rome .", 2) == [1, 2]
    assert nearest(["One.", "Two.", "Three."], "Nothing.", 2) == [0, 1]


def test_at_least_one_sentence_is_best() -> None:
    assert best([4, 7, 9], [0.1, 0.3, 0.2], 2) == {7, 9}
    assert best([4, 7, 9], [-0.1, 0.3, 0.0], 3) == {7}
    assert best([4, 7, 9], [-0.3, -0.1, -0.2], 3) == {7}
