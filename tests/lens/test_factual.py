"""The factual rate against its definition, what it leaves out, and the detector's own AUROC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.artifacts.scores import DOUBTED
from kdray.data.templates.alpaca import alpaca
from kdray.lens import factual
from kdray.lens.align import Aligned, align
from kdray.lens.annotations import Annotated, Documents, sketch
from kdray.lens.classifier import Lens
from kdray.lens.factual import factual_rate, has_drifted, lens_auroc, window_probabilities
from kdray.lens.features import LOOKBACK, States, hidden_states, make_tables
from kdray.lens.ratios import lookback_ratios
from kdray.lens.spans import sliding_windows
from kdray.models.load import load_folder
from kdray.spec.errors import InputError
from tests.tiny import write_model

WINDOW = 3
PLACES = ["Paris", "Rome", "Oslo"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_folder(write_model(tmp_path_factory.mktemp("model"), layers=3))


def lens(**changes: Any) -> Lens:
    torch.manual_seed(0)
    return Lens(**{"weights": 8 * torch.randn(3, 4, dtype=torch.float64), "intercept": 0.3, "window": WINDOW} | changes)


def answer(tokenizer: PreTrainedTokenizerBase, example: int, source: str, output: str) -> dict[str, Any]:
    prompt = tokenizer(f"Read : {source}\nSummary : ", add_special_tokens=False)["input_ids"]
    ids = tokenizer(output, add_special_tokens=False)["input_ids"] if output else []
    return {"example": example, "source": source, "input_ids": prompt, "output_ids": ids}


@pytest.mark.slow
def test_it_is_its_definition(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = tiny
    answers = [
        answer(tokenizer, i, f"Ada is in {place} .", f"Ada lives in {place} now . " * (3 - i))
        for i, place in enumerate(PLACES)
    ]
    answers[2]["output_ids"] = answers[2]["output_ids"][:2]  # shorter than a window: one window
    # Ratios lie around a half: so do the probabilities of this lens.
    detector, expected = lens(intercept=-0.5 * lens().weights.sum().item()), []
    for row in answers:
        n_prompt = len(row["input_ids"])
        n_context = len(tokenizer(f"Read : {row['source']}", add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]
        ratios = lookback_ratios(model, [*row["input_ids"], *row["output_ids"]], n_context, n_prompt)
        size = min(WINDOW, len(ratios))
        windows = torch.stack([ratios[i : i + size].mean(0) for i in range(len(ratios) - size + 1)])
        expected.append(detector.probability(windows).numpy())
    result = factual_rate(model, tokenizer, answers, detector)
    assert len({len(windows) for windows in expected}) == 3
    assert 0 < np.mean(expected[0] > 0.5) < 1
    assert [row["example"] for row in result.rows] == ["0", "1", "2"]
    wanted = {
        "fr": np.mean([np.mean(p > 0.5) for p in expected]),
        "fr_micro": np.mean(np.concatenate(expected) > 0.5),
        "fr_mean_p": np.mean([p.mean() for p in expected]),
        "fr_all": np.mean([np.all(p > 0.5) for p in expected]),
    }
    for name, value in wanted.items():
        assert result.scores[name]["value"] == pytest.approx(100 * value, abs=1e-3), name
    assert result.facts["lens"] == detector.id


def test_what_is_doubted_is_what_low_windows_cover(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny
    text = "Ada lives in Paris ."
    rows = [answer(tokenizer, 0, "Ada is in Oslo .", text) | {"answer": text}]
    for low, doubted in {(1,): ["lives in Paris"], (0, 2): [text], (): [], (2,): ["in Paris ."]}.items():
        chosen = torch.tensor([0.5 if window in low else 0.9 for window in range(3)], dtype=torch.float64)
        monkeypatch.setattr(factual, "window_probabilities", lambda *_, chosen=chosen: chosen)
        [row] = factual_rate(model, tokenizer, rows, lens()).rows
        assert [text[begin:end] for begin, end in row[DOUBTED]] == doubted
    rows[0]["answer"] = "another text"
    assert factual_rate(model, tokenizer, rows, lens()).rows[0][DOUBTED] == []


def test_windows_of_logits() -> None:
    logits = torch.tensor([1.0, -1.0, 3.0, -5.0])
    torch.testing.assert_close(window_probabilities(logits, 2), torch.tensor([0.0, 1.0, -1.0]).double().sigmoid())
    torch.testing.assert_close(window_probabilities(logits, 9), torch.tensor([-0.5]).double().sigmoid())


def test_what_is_left_out_is_counted(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = tiny
    rows = [
        answer(tokenizer, 0, "Ada is in Paris .", "in Paris now ."),
        answer(tokenizer, 1, "ada is  in OSLO.", "in Oslo now ."),
        answer(tokenizer, 2, "Ben is in Rome .", ""),
        answer(tokenizer, 3, "Cleo is in Rome .", "R"),
    ]
    rows.append(rows[0] | {"example": 4, "source": "Not in the prompt"})
    trained = lens(documents=Documents([sketch("Ada is in Oslo.")]))
    result = factual_rate(model, tokenizer, rows, trained)
    assert [row["example"] for row in result.rows] == ["0"]
    assert result.facts["left_out"] == {"training_documents": 1, "empty": 1, "one_token": 1, "no_context": 1}
    with pytest.raises(InputError, match=r"no answer to measure \(1 training_documents\)"):
        factual_rate(model, tokenizer, rows[1:2], trained)
    with pytest.raises(InputError, match="a lens for 4 layers x 4 heads; the model has 3 x 4"):
        factual_rate(model, tokenizer, rows, lens(weights=torch.zeros(4, 4)))
    with pytest.raises(InputError, match="predefined spans"):
        factual_rate(model, tokenizer, rows, lens(window=0))


def labelled(tokenizer: PreTrainedTokenizerBase) -> list[Aligned]:
    rows = [
        Annotated(
            str(i),
            f"Ada is in {place} .",
            f"Ada lives in {other} . Ben too .",
            ((13, 13 + len(other)),) if other != place else (),
        )
        for i, (place, other) in enumerate((place, other) for place in PLACES for other in PLACES)
    ]
    return align(rows, tokenizer, alpaca)[0]


@pytest.mark.slow
def test_the_detector_is_tested_on_other_documents(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = tiny
    rows = labelled(tokenizer)
    detector = lens(documents=Documents([sketch("Ada is in Rome .")]))
    labels, scores = [], []
    for row in rows:
        if row.document != sketch("Ada is in Rome ."):
            ratios = lookback_ratios(model, row.passage.input_ids, row.passage.n_context, row.passage.n_prompt)  # pyright: ignore[reportArgumentType]
            for span in sliding_windows(row.hallucinated, WINDOW):
                labels.append(int(span.factual))
                scores.append(detector.logit(ratios[list(span.tokens)].mean(0)).item())
    got = lens_auroc(model, rows, detector)
    assert got["n"] == len(labels)
    assert got["value"] == pytest.approx(100 * roc_auc_score(labels, scores))
    assert got["stderr"] > 0
    assert has_drifted(60.0, 65.1)
    assert not has_drifted(60.0, 65.0)


def test_tables_hold_the_mean_of_each_span(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    """Lookback ratios, and hidden states that equal the model's own account of them."""
    model, tokenizer = tiny
    rows = labelled(tokenizer)[:3]
    wanted = {
        "one": States([2]),
        "two": States([3, 1]),
        "max": States([1, 2], pooling="max"),
        "block": States([1], "attention"),
    }
    tables = make_tables(model, rows, [0, WINDOW], hidden_states(wanted)) | make_tables(model, rows, [0, WINDOW])
    longest = max(rows, key=lambda row: len(row.passage.input_ids)).passage  # the first, as batches go by length
    with torch.no_grad():
        states: Any = model(torch.tensor([list(longest.input_ids)]), output_hidden_states=True).hidden_states
    queries = [state[0, longest.n_prompt - 1 : longest.n_prompt - 1 + WINDOW] for state in states]
    # the last of transformers' states is after the final norm, so that only layers 1 and 2 can be compared
    np.testing.assert_allclose(tables["one", WINDOW].features[0], queries[2].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tables["two", WINDOW].features[0][32:], queries[1].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        tables["max", WINDOW].features[0], torch.maximum(queries[1], queries[2]).mean(0), rtol=1e-4, atol=1e-5
    )
    assert not np.allclose(tables["block", WINDOW].features[0], tables["one", WINDOW].features[0])
    ratios = lookback_ratios(model, longest.input_ids, longest.n_context, longest.n_prompt)
    np.testing.assert_allclose(tables[LOOKBACK, WINDOW].features[0], ratios[:WINDOW].mean(0).flatten(), rtol=1e-5)
    assert len(tables[LOOKBACK, WINDOW].factual) == sum(len(sliding_windows(row.hallucinated, WINDOW)) for row in rows)
    assert 0 < tables[LOOKBACK, 0].factual.mean() < 1


def test_a_thought_is_read_and_not_rated(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> None:
    """Its tokens are in no window, they stand before the answer, and the context ends where the prompt's document
    does.
    """
    model, tokenizer = tiny
    thought = tokenizer("<think>Ada is in Paris . Ben ?</think>", add_special_tokens=False)["input_ids"]
    row = answer(tokenizer, 0, "Ada is in Paris .", "Ada lives in Paris now .")
    n_context = len(tokenizer("Read : Ada is in Paris .", add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]
    prompt, output = [*row["input_ids"], *thought], row["output_ids"]
    ratios = lookback_ratios(model, [*prompt, *output], n_context, len(prompt))
    wanted = torch.stack([ratios[i : i + WINDOW].mean(0) for i in range(len(ratios) - WINDOW + 1)])
    detector = lens(intercept=-0.5 * lens().weights.sum().item())
    mean = 100 * detector.probability(wanted).mean().item()
    together = {name: value for name, value in row.items() if name != "thought_ids"} | {
        "output_ids": [*thought, *output]
    }
    for told in (row | {"thought_ids": thought}, together):
        (found,) = factual_rate(model, tokenizer, [told], detector).rows
        assert found["windows"] == len(output) - WINDOW + 1
        assert found["mean_p"] == pytest.approx(mean, abs=1e-3)
    unrated = factual_rate(model, tokenizer, [row], detector).rows[0]["mean_p"]
    assert unrated != pytest.approx(mean, abs=1e-2), "the thought makes no difference"
