"""What each decoding costs: its tokens a second beside those of greedy decoding of the same models on the same
tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from kdray.plan import ScoreStep
from kdray.spec.decodings import PLAIN
from kdray.store import Store

Cost = tuple[float, float]  # tokens, seconds


def costs(scores: Iterable[ScoreStep], store: Store) -> Iterator[str]:
    """A line for every decoding but greedy, over the models and tasks that both have answered."""
    kept: dict[str, dict[object, Cost]] = defaultdict(dict)
    for score in scores:
        artifact = score.generate and score.generate.id and store.get(score.generate.key)
        if artifact and "answer_tokens" in (facts := artifact.facts):
            kept[score.decoding][score.subject, score.position, score.task.name] = (
                facts["answer_tokens"],
                facts["answer_seconds"],
            )
    greedy = kept.pop(PLAIN, {})
    for decoding, found in kept.items():
        shared = found.keys() & greedy.keys()
        rate, plain = _rate(found[key] for key in shared), _rate(greedy[key] for key in shared)
        if rate and plain:
            yield f"{decoding}: {rate:.1f} tokens/s, greedy {plain:.1f}: a token costs {plain / rate:.2f} times as much"


def _rate(found: Iterable[Cost]) -> float:
    """Tokens a second; 0 where nothing was measured."""
    pairs = list(found)
    seconds = sum(seconds for _, seconds in pairs)
    return sum(tokens for tokens, _ in pairs) / seconds if seconds else 0.0
