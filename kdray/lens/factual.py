"""The factual rate: how much of what a model wrote looks factual to a lens.

The papers name the number and do not define it. Ours: windows of the lens's size, stride 1 (a shorter response is one
window); of each example the share of windows with P(factual) above the threshold, 0.5; the mean over examples, in
percent. One teacher-forced pass over kept ids; nothing is generated. A lens says nothing about the documents that
trained it: those examples are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.artifacts.lens import KEPT_OUT
from kdray.artifacts.scores import DOUBTED
from kdray.data.estimates import mean, pooled_mean
from kdray.data.thoughts import split_thought
from kdray.lens.align import Aligned, make_passage, mark_characters, read_aligned
from kdray.lens.annotations import Sketch
from kdray.lens.classifier import Lens
from kdray.lens.evaluate import auroc, auroc_stderr
from kdray.lens.features import Follow, batches, unfollowed
from kdray.lens.ratios import RULE, token_logits
from kdray.lens.spans import sliding_windows
from kdray.spec.errors import InputError

DRIFT = 5.0  # points of AUROC (0.05) by which a detector may fall before a report flags it


@dataclass(frozen=True)
class FactualRate:
    """`scores` as {metric: {value, stderr, n}}, one row an example, and `facts`: what the numbers depend on, and what
    was left out. A row's `doubted` are the stretches [begin, end) of the answer in windows that look hallucinated.
    """

    scores: Mapping[str, Mapping[str, float]]
    rows: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]


def window_probabilities(logits: Tensor, size: int) -> Tensor:
    """[R] logits of tokens -> [max(R - size, 0) + 1] P(factual) of its windows.

    A window's logit is the mean of its tokens', because the logit of a mean vector is.
    """
    size = min(size, len(logits))
    return logits.double().unfold(0, size, 1).mean(-1).sigmoid()


def doubted_tokens(probabilities: Tensor, lens: Lens, n_tokens: int) -> list[bool]:
    """For each of a response's tokens whether it is in a window whose P(factual), [W], is not above the threshold."""
    size = n_tokens - len(probabilities) + 1
    below = [window for window, p in enumerate(probabilities.tolist()) if p <= lens.threshold]
    inside = {token for window in below for token in range(window, window + size)}
    return [token in inside for token in range(n_tokens)]


def factual_rate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Mapping[str, Any]],
    lens: Lens,
    follow: Follow = unfollowed,
) -> FactualRate:
    """The factual rate of kept answers: rows with `example`, `input_ids` and `output_ids`, and `source`, the document's
    text.

    A thought (`thought_ids`; without that column it is looked for in `output_ids`) is read like the prompt, and not
    rated.

    Raises:
        InputError: the lens is for another number of heads, or no answer is left to be measured.
    """
    config: Any = model.config
    lens.require_shape(config.num_hidden_layers, config.num_attention_heads)
    lens.require_windows()
    left_out = {"training_documents": 0, "empty": 0, "one_token": 0, "no_context": 0}
    passages, texts = [], {}
    for answer in answers:
        try:
            thought, output = _told_apart(answer, tokenizer)
            if answer["source"] in lens.documents:
                left_out["training_documents"] += 1
            elif len(output) < 2:
                left_out["one_token" if output else "empty"] += 1
            else:
                passage = make_passage(tokenizer, answer["input_ids"], answer["source"], output, thought)
                passages.append(Aligned(str(answer["example"]), (), passage, (False,) * passage.n_response))
                texts[passages[-1].id] = answer.get("answer", "")
        except InputError:
            left_out["no_context"] += 1
    if not passages:
        counted = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise InputError(
            "lens",
            f"no answer to measure ({counted})",
            "needs answers of two tokens to documents it was not trained on",
        )
    rows = []
    for batch in follow(list(batches(passages)), "reading"):
        logits = token_logits(model, [row.passage for row in batch], lens.weights, lens.intercept)
        for row, values in zip(batch, logits, strict=True):
            probabilities = window_probabilities(values, lens.window)
            doubted = doubted_tokens(probabilities, lens, len(values))
            response = row.passage.input_ids[row.passage.n_prompt :]
            marked = mark_characters(tokenizer, response, texts[row.id], doubted)
            rows.append(_example(row.id, probabilities, lens.threshold) | {DOUBTED: [list(span) for span in marked]})
    rows.sort(key=lambda row: int(row["example"]))
    shares = [row["factual"] for row in rows]
    scores = {
        "fr": mean(shares),
        "fr_micro": pooled_mean(shares, [row["windows"] for row in rows]),
        "fr_mean_p": mean([row["mean_p"] for row in rows]),
        "fr_all": mean([100.0 * (share == 100.0) for share in shares]),
    }
    facts = {"lens": lens.id, "threshold": lens.threshold, "window": lens.window, "rule": RULE, "left_out": left_out}
    return FactualRate(scores, rows, facts)


def measured_rate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, answers: Sequence[Mapping[str, Any]], folder: Path
) -> FactualRate:
    """As `factual_rate` by the lens in `folder`, with its AUROC on the documents kept out beside it; companions are
    facts.
    """
    lens = Lens.load(folder)
    rate = factual_rate(model, tokenizer, answers, lens)
    own = lens.record["auroc_test"]  # of the model that trained it; None if it could not be tested
    companions = {name: score for name, score in rate.scores.items() if name != "fr"}
    facts = {**rate.facts, **companions, "auroc_own": own, "drifted": False}
    scores = {"fr": rate.scores["fr"]}
    if own is not None:
        scores["fr_auroc"] = lens_auroc(model, read_aligned(folder / KEPT_OUT), lens)
        facts["drifted"] = has_drifted(scores["fr_auroc"]["value"], own)
    return FactualRate(scores, rate.rows, facts)


def lens_auroc(model: PreTrainedModel, rows: Sequence[Aligned], lens: Lens) -> dict[str, float]:
    """How well the lens still tells factual windows from hallucinated ones by this very checkpoint's attention.

    AUROC in percent over the windows of labelled responses whose documents did not train it, with its standard error
    and their number.
    """
    factual: list[int] = []
    scores: list[float] = []
    documents: list[Sketch] = []
    for batch in batches([row for row in rows if row.document not in lens.documents]):
        logits = token_logits(model, [row.passage for row in batch], lens.weights, lens.intercept)
        for row, values in zip(batch, logits, strict=True):
            factual += [int(span.factual) for span in sliding_windows(row.hallucinated, lens.window)]
            scores += window_probabilities(values, lens.window).tolist()
            documents += [row.document] * (len(factual) - len(documents))
    return {"value": auroc(factual, scores), "stderr": auroc_stderr(factual, scores, documents), "n": len(factual)}


def has_drifted(own: float, trained_on: float) -> bool:
    """Whether a checkpoint's AUROC lies so far below that of the model that trained the lens that its factual rate
    misleads.
    """
    return trained_on - own > DRIFT


def _told_apart(answer: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids of the thought and of the answer."""
    output = list(answer["output_ids"])
    if "thought_ids" in answer:
        return list(answer["thought_ids"]), output
    found = split_thought(answer["input_ids"], output, tokenizer)
    return (output[: found.n_ids], output[found.n_ids :]) if found else ([], output)


def _example(id: str, probabilities: Tensor, threshold: float) -> dict[str, Any]:
    share = (probabilities > threshold).double().mean().item()
    return {
        "example": id,
        "windows": len(probabilities),
        "factual": 100 * share,
        "mean_p": 100 * probabilities.mean().item(),
    }
