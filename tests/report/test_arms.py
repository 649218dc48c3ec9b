"""What rows are called: nothing that is the same for all, everything that tells them apart."""

from __future__ import annotations

import pytest

from kdray.report.arms import Arm


@pytest.mark.parametrize(
    ("arm", "name"),
    [
        (Arm("gold", 0.0), "SFT"),
        (Arm("gold", 0.0, smoothing=0.1), "SFT smoothed 0.1"),
        (Arm("gold", 1.0, "big", rows="balanced"), "KD 1 (big), balanced rows"),
        (Arm("gold", 1.0), "KD 1"),
        (Arm("gold", 1.0, temperature=2.0), "KD 1 T=2"),
        (Arm("gold", 1.0, smoothing=0.1), "SFT smoothed 0.1 + KD 1"),
        (Arm("gold", 10.0, "self"), "KD 10 (self)"),
        (Arm("teacher", 1.0, rows="random", aligned=True), "SeqKD + KD 1, random rows, aligned"),
        (Arm("student", 1.0, on_policy=1.0), "on-policy KD 1"),
        (Arm("student", 1.0, "big", on_policy=0.5), "on-policy 0.5 KD 1 (big)"),
        (Arm("student", 1.0, smoothing=0.1, on_policy=0.0), "SFT smoothed 0.1 + on-policy 0 KD 1"),
        (Arm("teacher", 0.0), "SeqKD"),
        (Arm("teacher", 1.0, "big", 0.1, 2.0), "SeqKD smoothed 0.1 + KD 1 T=2 (big)"),
    ],
)
def test_a_row_is_called_by_what_its_points_share(arm: Arm, name: str) -> None:
    assert arm.name == name
