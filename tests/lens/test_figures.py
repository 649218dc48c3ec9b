"""The figures show the right heads and the right chunks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from kdray.lens.figures import plot_choices, plot_heads
from kdray.lens.guided import ChunkChoice
from kdray.spec.errors import InputError


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are when they are closed."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    return figures


@pytest.mark.slow
def test_the_heaviest_heads_come_first(tmp_path, drawn):
    weights = torch.tensor([[0.5, -2.0, 3.0], [-1.0, 0.0, 1.0]])
    ratios = torch.rand(4, 2, 3)
    plot_heads(ratios, weights, ["A", " cost", " of", " $5"], tmp_path / "heads.png", top=2, spans=[(1, 3)])
    positive, negative = drawn[0].axes[:2]
    assert [label.get_text() for label in positive.get_yticklabels()] == ["layer 1, head 3", "layer 2, head 3"]
    assert [label.get_text() for label in negative.get_yticklabels()] == ["layer 1, head 2", "layer 2, head 1"]
    assert torch.equal(torch.tensor(positive.images[0].get_array().data), ratios[:, [0, 1], [2, 2]].T)
    assert [patch.get_bbox().bounds for patch in negative.patches] == [(0.5, -0.5, 2, 2)]
    assert (tmp_path / "heads.png").stat().st_size > 1000
    with pytest.raises(InputError, match="3 tokens"):
        plot_heads(ratios, weights, ["A", "B", "C"], tmp_path / "x.png")


def test_kept_and_rejected_chunks_with_their_scores(tmp_path, drawn):
    choices = [ChunkChoice([[1], [2], [3]], [0.2, 0.9, 0.1], 1), ChunkChoice([[4], [5]], [0.7, 0.6], 0)]
    plot_choices(choices, lambda ids: f"text {ids[0]} $", tmp_path / "chunks.png", rejected=1)
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert texts == [
        r"kept (0.900) text 2 \$",
        r"rejected (0.100) text 3 \$",
        r"kept (0.700) text 4 \$",
        r"rejected (0.600) text 5 \$",
    ]
    assert (tmp_path / "chunks.png").stat().st_size > 1000
