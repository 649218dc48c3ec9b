"""How much there is to do: rows of the data and of the tasks, and their tokens in the mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kdray.plan.steps import Plan
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.grid import Grid
from kdray.spec.refs import parse_reference
from kdray.spec.sections.base import Use
from kdray.store import Store

PROMPT, RESPONSE = 75, 105  # tokens of Dolly's rows in the mean, under a limit of 256 for prompts and 512 in all
WORDS = 1.3  # tokens a word
SENTENCE = 25  # tokens of a sentence
HELDOUT_BATCH = 8  # rows of a pass in which training looks at those that are held out
LINES = (".jsonl", ".csv")  # a row a line


@dataclass(frozen=True)
class Amounts:
    """Rows to train on and held out, and tokens of their prompts and responses in the mean.

    `known`: they are prepared.
    """

    train: int
    heldout: int
    prompt: float
    response: float
    known: bool

    @property
    def tokens(self) -> float:
        """Of a row."""
        return self.prompt + self.response


@dataclass(frozen=True)
class Asked:
    """What a task asks of a model: rows of so many sequences of `tokens` tokens; answers are at most `answer` long, 0
    if it wants none. A row's sequences begin with `shared` tokens that are read once.
    """

    rows: int
    sequences: int
    tokens: float
    answer: int
    shared: float = 0.0

    @property
    def read(self) -> float:
        """Tokens of a sequence in the mean, those that it shares counted once."""
        return self.tokens - self.shared * (1 - 1 / self.sequences)


def amounts_of(plan: Plan, store: Store, rows: int | None = None) -> Amounts | None:
    """Of a grid's data: what its preparation has counted or, before it, `rows` or the grid's own limit of rows like
    Dolly's.

    None where nobody has said how many rows there are.
    """
    data, artifact = plan.grid.data, plan.prepare and plan.prepare.id and store.get(plan.prepare.key)
    if artifact and "tokens" in artifact.facts:
        facts = artifact.facts
        response = facts["response_tokens"] / facts["kept"]
        return Amounts(facts["train"], data.heldout, facts["tokens"] / facts["kept"] - response, response, known=True)
    if rows is None and data.limit is None:
        return None
    train = rows if rows is not None else (data.limit or 0) - data.heldout - data.test
    return Amounts(
        train, data.heldout, min(PROMPT, data.max_prompt), min(RESPONSE, data.max_length - data.max_prompt), known=False
    )


def asked_by(task: Use, grid: Grid, amounts: Amounts) -> Asked | None:
    """What a task asks; None where that is not known, as of most of lm-eval's."""
    asks, limit, answer = (
        declared(declare.Task, task.name),
        task.params.get("limit"),
        task.params.get("max_new_tokens", 0),
    )
    if isinstance(asks, declare.HeldoutTask):
        return Asked(min(limit or amounts.heldout, amounts.heldout), 1, amounts.tokens, 0)
    if isinstance(asks, declare.AnswerTask) and asks.rows:
        rows = (grid.data.test or amounts.heldout) if asks.rows == "unseen" else amounts.train
        return Asked(min(limit or rows, rows), 1, amounts.prompt, answer)
    if asks.usual is None:
        return None
    if (there := _lines(task.params["source"]) or asks.usual.rows) is None:
        return None
    tokens, shared = asks.usual.tokens * (1 + (task.params.get("shots") or 0)), 0.0
    if words := task.params.get("max_words"):
        tokens = min(tokens, WORDS * words)
    if asks.usual.choice and grid.score.likelihood == "shared_prefix":
        shared = tokens - min(asks.usual.choice, tokens * asks.usual.choice / asks.usual.tokens)
    return Asked(min(limit or there, there), asks.usual.choices, tokens, answer, shared)


def reread(asked: Asked, answer: float, considered: int) -> Asked:
    """What the metric `selfcite` reads of answers of so many tokens: the prompt, none of its document, each of at most
    `considered` sentences left out, and for every statement its best sentences, without and with them.
    """
    sequences = 2 + min(considered, asked.tokens / SENTENCE) + 3 * max(1.0, answer / SENTENCE)
    return replace(asked, sequences=round(sequences), tokens=asked.tokens + answer)


def _lines(source: str | None) -> int | None:
    """Rows of a local file that has one a line."""
    ref = parse_reference(source, "source") if source else None
    if (
        ref is None
        or ref.scheme != "file"
        or Path(ref.name).suffix.lower() not in LINES
        or not Path(ref.name).is_file()
    ):
        return None
    with Path(ref.name).open("rb") as file:
        return sum(1 for line in file if line.strip())
