"""Whatever stands in a grid file or a reference is taken, or refused in one line."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kdray.spec.load import parse_grid
from kdray.spec.refs import parse_reference
from tests.conftest import ROOT
from tests.mutations import DAMAGED, loads_or_says_so, refusal

GRID = yaml.safe_load((ROOT / "grids" / "quickstart.yaml").read_text())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["file:x", "a: b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values in a grid."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = [way for key, value in below for way in places(value, (*here, key))]
    return [here, *found] if here else found


@DAMAGED
@given(st.text())
def test_any_text_is_no_grid_in_one_line(text: str) -> None:
    loads_or_says_so(lambda: parse_grid(text))


@DAMAGED
@given(st.sampled_from(places(GRID)), VALUES, st.none() | st.text(max_size=5))
def test_any_value_anywhere_is_taken_or_refused(way: tuple[Any, ...], value: Any, added: str | None) -> None:
    tree = copy.deepcopy(GRID)
    section = tree
    for key in way[:-1]:
        section = section[key]
    section[way[-1] if added is None or isinstance(section, list) else added] = value
    loads_or_says_so(lambda: parse_grid(yaml.safe_dump(tree, allow_unicode=True)))


@DAMAGED
@given(st.sampled_from(["", "hf:", "file:", "wheel:", "https://"]), st.text("hfw:@/#=.-_0a \\\n%?&[]é"))
def test_a_reference_is_refused_or_written_as_it_is_read(scheme: str, text: str) -> None:
    loads_or_says_so(lambda: parse_reference(scheme + text))
    if not refusal(lambda: parse_reference(scheme + text)):
        found = parse_reference(scheme + text)
        assert parse_reference(str(found)) == found
