"""What limits of lengths take is said where it is much, with values that keep what they say."""

from __future__ import annotations

import pytest

from kdray.plan.limits import fitting, limit_notes
from kdray.plan.prepared import prepared_notes
from kdray.report.results import collect
from kdray.report.write import write_report
from kdray.store import Store
from tests.conftest import Run, TinyGrid
from tests.plan.conftest import MakePlan

FACTS = {"read": 130, "skipped": 6, "empty": 4, "long": 60, "truncated": 0, "prompts": {"all": 900, "most": 412}}


def test_the_values_keep_all_rows_and_all_but_a_twentieth() -> None:
    lengths = [*range(300, 360)]
    kept = fitting(lengths, 120, 256)
    assert kept == {"all": 359, "most": 353}
    assert sum(length > kept["most"] for length in lengths) == 6  # a twentieth of 120
    assert fitting([300, 9000], 120, 256) == {"all": 9000, "most": 256}
    assert fitting([], 0, 256) == {"all": 256, "most": 256}


def test_a_limit_that_drops_half_of_the_rows_is_named_with_what_would_keep_them() -> None:
    (note,) = limit_notes(FACTS, 256, 1024)
    assert note == (
        "60 of 120 rows are dropped: their prompts are longer than data.max_prompt 256. 900 would keep all of them,"
        " 412 all but a twentieth of the rows"
    )
    (note,) = limit_notes(FACTS, 256, 512)
    assert note.endswith("(data.max_length, 512, must be larger)")


@pytest.mark.parametrize(("long", "said"), [(0, 0), (24, 0), (25, 1)])
def test_it_is_said_from_a_fifth_on(long: int, said: int) -> None:
    assert len(limit_notes(FACTS | {"long": long}, 256, 1024)) == said


def test_responses_that_are_cut_are_a_limits_work_too() -> None:
    facts = FACTS | {"long": 0, "prompts": None, "truncated": 30, "wholes": {"all": 700, "most": 650}}
    (note,) = limit_notes(facts, 256, 512)
    assert "30 of 120 rows lose the end of their response at data.max_length 512. 700 would keep all" in note


def test_rows_that_an_older_kdray_prepared_say_nothing() -> None:
    assert (
        limit_notes({name: FACTS[name] for name in ("read", "skipped", "empty", "long", "truncated")}, 256, 512) == []
    )


def test_the_plan_the_check_and_the_report_have_it(plan: MakePlan, store: Store, run: Run, tiny_grid: TinyGrid) -> None:
    made = plan()
    assert made.prepare
    assert prepared_notes(made, store) == []
    attempt = store.begin(made.prepare.key, made.prepare.payload or {})
    (attempt.path / "result").write_text("x")
    attempt.seal(**FACTS, kept=60, train=58, tokens=600, response_tokens=60)
    path = tiny_grid()
    said = "60 of 120 rows are dropped: their prompts are longer than data.max_prompt 256"
    for command in (["plan", path], ["check", path, "--offline"]):
        code, stdout, stderr = run(*command)
        assert (code, stderr) == (0, "")
        assert stdout.count(said) == 1
    folder = write_report(collect(made, store), tiny_grid.folder / "report")
    assert f"- {said}" in (folder / "report.md").read_text()
