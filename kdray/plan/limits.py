"""What `data.max_prompt` and `data.max_length` take from the rows, and which values would leave them whole.

`prepare` counts it, `kdray check` guesses it of the first rows; whoever tells it takes the words from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MUCH = 0.2  # of the rows: from here on a limit is spoken of
FEW = 0.05  # of the rows, which a value that keeps `most` may still take


def fitting(lengths: Sequence[int], count: int, limit: int) -> dict[str, int]:
    """Of `count` rows those `lengths`, in tokens, that are beyond a limit: the limits that would keep all rows, and
    most.
    """
    longest = sorted(lengths, reverse=True)
    beyond = int(FEW * count)
    return {"all": max([limit, *longest]), "most": longest[beyond] if beyond < len(longest) else limit}


def limit_notes(facts: Mapping[str, Any], max_prompt: int, max_length: int, of: str = "", least: str = "") -> list[str]:
    """A line for each limit that takes more than a fifth of the rows.

    `facts` are those of prepared rows: how many there are (`read`, less `skipped` and `empty`), how many have a `long`
    prompt or are `truncated`, and what `fitting` says of both (`prompts`, `wholes`); `of` says which rows these are,
    `least` that there may be more.
    """
    if "prompts" not in facts and "wholes" not in facts:  # prepared before it was counted
        return []
    count, notes = facts["read"] - facts["skipped"] - facts["empty"], []
    if facts.get("prompts") and facts["long"] > MUCH * count:
        most, every = facts["prompts"]["most"], facts["prompts"]["all"]
        notes.append(
            f"{least}{facts['long']} of {count} {of}rows are dropped: their prompts are longer than data.max_prompt"
            f" {max_prompt}. {_values(most, every)}" + _below(every, max_length)
        )
    left = count - facts["long"]
    if facts.get("wholes") and facts["truncated"] > MUCH * left:
        most, every = facts["wholes"]["most"], facts["wholes"]["all"]
        notes.append(
            f"{facts['truncated']} of {left} {of}rows lose the end of their response at data.max_length {max_length}."
            f" {_values(most, every)}"
        )
    return notes


def _values(most: int, every: int) -> str:
    return f"{every} would keep all of them" + (f", {most} all but a twentieth of the rows" if most < every else "")


def _below(every: int, max_length: int) -> str:
    return f" (data.max_length, {max_length}, must be larger)" if every >= max_length else ""
