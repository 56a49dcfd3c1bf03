"""Intervals as a calendar: one sign each, a month or a day in a line."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seeknal_k8s.backfill.standing import Standing

SIGNS = {
    "done": ("✓", "green"),
    "partial": ("◐", "yellow"),
    "stale": ("~", "yellow"),
    "failed": ("✗", "bold red"),
    "missing": ("·", "dim"),
}
_MEANING = {
    "done": "done",
    "partial": "cut short",
    "stale": "done with other logic",
    "failed": "failed",
    "missing": "missing",
}
_DAY = timedelta(days=1)
_INDENT = 12


def document(standings: Iterable[Standing]) -> list[dict[str, Any]]:
    """Return the intervals as JSON-able data."""
    return [
        {
            "interval": each.interval.key,
            "status": each.status,
            "rows": each.record.rows if each.record else None,
            "run": each.record.run if each.record else None,
            "when": each.record.when if each.record else None,
            "error": each.record.error if each.record else "",
        }
        for each in standings
    ]


def lines(node_id: str, standings: Sequence[Standing]) -> list[Text | str]:
    """Return the calendar, and what its signs mean."""
    if not standings:
        return [f"no interval of {node_id} has run yet"]
    drawn: list[Text | str] = [Text(node_id, style="bold")]
    daily = all(timedelta(hours=22) < _length(each) < timedelta(hours=26) for each in standings)
    if daily:
        drawn.append(" " * _INDENT + "1        10        20        30")
    for label, several in groupby(standings, key=lambda each: _label(each, daily=daily)):
        line = Text(label.ljust(_INDENT))
        for each in several:
            column = _INDENT + each.interval.start.day - 1
            if daily and len(line) < column:
                line.append(" " * (column - len(line)))
            sign, style = SIGNS[each.status]
            line.append(sign, style=style)
        drawn.append(line)
    counts = Counter(each.status for each in standings)
    legend = Text()
    for status, (sign, style) in SIGNS.items():
        if counts[status]:
            legend.append(sign, style=style)
            legend.append(f" {counts[status]:,} {_MEANING[status]}   ")
    return [*drawn, legend]


def _length(standing: Standing) -> timedelta:
    interval = standing.interval
    return timedelta(seconds=interval.end.timestamp() - interval.start.timestamp())


def _label(standing: Standing, *, daily: bool) -> str:
    start = standing.interval.start
    if daily:
        return f"{start:%Y-%m}"
    return f"{start:%Y-%m-%d}" if _length(standing) < _DAY else f"{start:%Y}"
