"""What the terminal shows of intervals: the calendar, and a backfill while it goes."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from seeknal_k8s.backfill.ledger import Record
from seeknal_k8s.backfill.standing import Standing
from seeknal_k8s.cli import calendar
from seeknal_k8s.cli.backfill_view import BackfillView
from seeknal_k8s.errors import Problem
from seeknal_k8s.events import BackfillStarted, NodeEnded, NodeRetrying, StoreAwaited
from seeknal_k8s.intervals import between
from seeknal_k8s.results import PrefectRunResult

SIGN = {"✓": "done", "✗": "failed", "·": "missing", "~": "stale", "◐": "partial"}


def standings(start: str, end: str, schedule: str, signs: str) -> list[Standing]:
    """Return the intervals of a range, which stand as the signs say, again and again."""
    made = between(start, end, schedule=schedule)
    return [
        Standing(each, SIGN[sign]) for each, sign in zip(made, itertools.cycle(signs), strict=False)
    ]


def drawn(*given: Standing) -> list[str]:
    return [str(line).rstrip() for line in calendar.lines("transform.x", given)]


def test_days_stand_below_their_number_a_month_in_a_line() -> None:
    assert drawn(*standings("2024-01-30", "2024-02-03", "daily", "✓✗·~✓")) == [
        "transform.x",
        "            1        10        20        30",
        f"2024-01     {' ' * 29}✓✗",
        "2024-02     ·~✓",
        "✓ 2 done   ~ 1 done with other logic   ✗ 1 failed   · 1 missing",
    ]


def test_hours_stand_a_day_in_a_line_and_weeks_a_year() -> None:
    hours = drawn(*standings("2024-01-01", "2024-01-02", "hourly", "✓✓✓·"))
    assert hours[1:3] == [f"2024-01-01  {'✓✓✓·' * 6}", f"2024-01-02  {'✓✓✓·' * 6}"]
    weeks = drawn(*standings("2023-12-24", "2024-01-13", "weekly", "✓"))
    assert weeks[1:3] == ["2023        ✓✓", "2024        ✓"]


def test_days_across_daylight_saving_are_days() -> None:
    made = between("2024-03-30", "2024-04-01", timezone="Europe/Berlin")
    assert drawn(*(Standing(each, "done") for each in made))[2] == f"2024-03     {' ' * 29}✓✓"


def test_nothing_that_has_run_is_no_calendar() -> None:
    assert drawn() == ["no interval of transform.x has run yet"]


def test_as_a_document_an_interval_has_what_the_ledger_knows() -> None:
    (each,) = between("2024-01-01", "2024-01-01")
    record = Record(each.key, "UTC", "logic", "r1", "now", rows=7)
    assert calendar.document([Standing(each, "done", record), Standing(each, "missing")]) == [
        {
            "interval": "2024-01-01/2024-01-02",
            "status": "done",
            "rows": 7,
            "run": "r1",
            "when": "now",
            "error": "",
        },
        {
            "interval": "2024-01-01/2024-01-02",
            "status": "missing",
            "rows": None,
            "run": None,
            "when": None,
            "error": "",
        },
    ]


def result(*, success: bool) -> PrefectRunResult:
    reason = "Succeeded" if success else "NodeFailed"
    return PrefectRunResult(
        success, 0 if success else 1, "", "", 2.0, reason=reason, attempts=1, rows=3
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_told_in_lines_and_on_a_terminal_by_a_bar(*, terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal, color_system=None)
    clock = iter([float(second) for second in range(0, 1000, 10)])
    with BackfillView(console, lambda: next(clock)) as view:
        view(StoreAwaited("run r0 is at work"))
        warnings = (Problem("2 intervals are stale"),)
        pieces = {"2024-01-01/2024-01-03": 2, "2024-01-03/2024-01-05": 2}
        view(BackfillStarted("r1", "transform.x", pieces, done=6, total=10, warnings=warnings))
        view(NodeRetrying("2024-01-01/2024-01-03", 1, 5.0, "OOMKilled: no memory"))
        view(NodeEnded("2024-01-01/2024-01-03", result(success=True)))
        view.tick()
        view(NodeEnded("2024-01-03/2024-01-05", result(success=False)))
        view.stopping()
    told = out.getvalue()
    for line in (
        "waiting: run r0 is at work",
        "warning: 2 intervals are stale",
        "backfill r1: 4 intervals of transform.x",
        "↻ 2024-01-01/2024-01-03  again in 5.00s: OOMKilled: no memory",
        "✓ 2024-01-01/2024-01-03  2.00s  3 rows  [8/10]",
        "✗ 2024-01-03/2024-01-05  NodeFailed  3 rows  [10/10]",
        "stopping: what is done is kept",
    ):
        assert line in told
    assert ("8/10 " in told.replace("[8/10]", "")) is terminal
