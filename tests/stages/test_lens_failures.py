"""Annotations that train no lens fail its step, and nothing else; a lens that is there already is read before anything
else.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kdray.lens.classifier import Lens
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.spec.sections.scoring import PUBLISHED_LENS
from kdray.stages import lens
from kdray.store import Outer


def test_annotations_of_one_kind_fail_the_step_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[tuple[Any, str]] = []

    def refuse(step: Any, attempt: Any, work: Any) -> None:
        raise InputError("annotations", "only factual spans", "a classifier needs both")

    monkeypatch.setattr(lens, "make_lens", refuse)

    def fail(step: Any, reason: str) -> None:
        failed.append((step, reason))

    work: Any = SimpleNamespace(each=lambda steps: [(step, None) for step in steps], fail=fail)
    lens.lens(["a", "b"], work)  # type: ignore[list-item]
    assert failed == [(step, "annotations: only factual spans; a classifier needs both") for step in "ab"]


def given(reference: str, root: Path, planned: dict[str, str] | None = None) -> Lens:
    ref, outer = parse_reference(reference), Outer(root)
    step: Any = SimpleNamespace(files={"trained": ref}, params={"trained": planned or outer.identify(ref)})
    work: Any = SimpleNamespace(outer=outer)
    return lens.given_lens(step, work)


def test_a_lens_that_is_not_what_it_was_when_the_run_began_is_refused(tmp_path: Path) -> None:
    Lens(torch.ones(2, 2, dtype=torch.float64), 0.0, 8).save(tmp_path / "lens")
    assert given(f"file:{tmp_path}/lens", tmp_path / "store").window == 8
    with pytest.raises(InputError, match=r"^lens\.trained: .*lens has changed since the run began"):
        given(f"file:{tmp_path}/lens", tmp_path / "store", {"sha256": "0" * 64})


@pytest.mark.realdata
def test_the_published_lens_is_read_from_where_it_was_fetched_to(data_dir: Path, tmp_path: Path) -> None:
    published, ref = (
        data_dir / "lookback_lens" / "classifier_anno-cnndm-7b_sliding_window_8.pkl",
        parse_reference(PUBLISHED_LENS),
    )
    assert ref.sha256
    kept = tmp_path / "cache" / "files" / ref.sha256[:16] / published.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(published.read_bytes())
    arrays = np.load(published.with_suffix(".npz"))
    for reference in (PUBLISHED_LENS, f"file:{published}"):
        found = given(reference, tmp_path)
        assert np.array_equal(found.weights.numpy(), arrays["coef"].reshape(32, 32))
        assert (found.intercept, found.window) == (arrays["intercept"], 8)
    with pytest.raises(
        InputError, match=r"lens\.trained: a lens of predefined spans; a factual rate needs one of sliding windows"
    ):
        given(f"file:{published.with_name('classifier_anno-cnndm-7b_predefined_span.pkl')}", tmp_path)
