"""Which sentences of a document an answer without citations rests on, by leaving out one after the other.

Of the document's sentences those that share most words with the answer are `considered`, a word counting the less the
more sentences have it; each is left out once, in one reading of the whole answer, which tells for every statement how
much less likely it is (the leave-one-out case of ContextCite's ablations, without its linear model). A statement's best
sentences are those that it loses most by, at most `cited`, as far as it loses by them; else the first of them alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from kdray.cite.layout import Ids, Laid, Said
from kdray.cite.reward import Cited, Reader, Reward, rewards
from kdray.data.words import tokens


@dataclass(frozen=True)
class Held:
    """An answer's statements: their best sentences, the rewards of citing these, in nats, and how much likelier the
    whole document makes them than none of it.
    """

    cited: Sequence[Cited]
    rewards: Sequence[Reward]
    everything: float
    n_tokens: int

    @property
    def numbers(self) -> Mapping[str, float]:
        """All in nats a token of the answer."""
        drop, hold = (sum(getattr(each, name) for each in self.rewards) / self.n_tokens for name in ("drop", "hold"))
        return {
            "selfcite": drop + hold,
            "cite_drop": drop,
            "cite_hold": hold,
            "cite_all": self.everything / self.n_tokens,
        }


def held(read: Reader, laid: Laid, answer: str, statements: Sequence[Ids], considered: int, cited: int) -> Held:
    """What an answer's statements, one after the other as token ids, rest on."""
    said = [Said(tuple(sum(statements[:i], ())), ids) for i, ids in enumerate(statements)]
    whole, lengths = tuple(sum(statements, ())), [len(ids) for ids in statements]
    looked_at = nearest(laid.texts, answer, considered)
    kept = [laid.all, frozenset[int](), *(laid.all - {place} for place in looked_at)]
    logs = read([((*laid.prompt(some), *whole), len(whole)) for some in kept])
    by_statement = torch.stack([torch.stack([part.sum() for part in log.split(lengths)]) for log in logs])  # [kept, S]
    losses = by_statement[0] - by_statement[2:]
    chosen = [best(looked_at, of_one, cited) for of_one in losses.T.tolist()]
    found = rewards(read, laid, said, [[one] for one in chosen])
    gained = float(by_statement[0].sum() - by_statement[1].sum())
    return Held(chosen, [one for [one] in found], gained, len(whole))


def nearest(sentences: Sequence[str], answer: str, count: int) -> list[int]:
    """The places of the `count` sentences that share most words with the answer; of equal ones the first."""
    words = [set(tokens(sentence)) for sentence in sentences]
    having = Counter(word for of_one in words for word in of_one)
    shared = [sum(1 / having[word] for word in of_one & set(tokens(answer))) for of_one in words]
    return sorted(range(len(sentences)), key=lambda place: (-shared[place], place))[:count]


def best(places: Sequence[int], losses: Sequence[float], count: int) -> Cited:
    """Of these places at most `count` by whose loss a statement loses most, and something; else the first of them."""
    ranked = sorted(zip(places, losses, strict=True), key=lambda pair: -pair[1])
    return frozenset(place for i, (place, loss) in enumerate(ranked[:count]) if i == 0 or loss > 0)
