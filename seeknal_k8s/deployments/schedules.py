"""When a deployment runs: what people write → Prefect's own schedule, or why it is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import ValidationError

from seeknal_k8s.quantity import format_duration, parse_duration

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import SCHEDULE_TYPES

HELP = "write cron (`0 2 * * *`, `@daily`), an interval (`every 30m`) or a rule (`FREQ=DAILY`)"

_EVERY = re.compile(r"every\s+(?P<time>\S+)", re.IGNORECASE)
_RULE = re.compile(r"(RRULE:|RDATE|EXRULE|EXDATE|DTSTART|FREQ=)", re.IGNORECASE)
_ENDLESS = re.compile(r"INTERVAL=0*(?![1-9])|FREQ=SECONDLY", re.IGNORECASE)
_UNTIL = re.compile(r"UNTIL=([0-9]{8})", re.IGNORECASE)
_ADDED = re.compile(r"^DTSTART:20200101T000000\n")  # by Prefect, to a rule without a start
_PRESET = re.compile(r"@[a-z]+", re.IGNORECASE)
_CRON_FIELDS = 5
_SHORTEST = timedelta(minutes=1)
_ANCHOR = datetime(2020, 1, 1)  # noqa: DTZ001 - midnight in the schedule's own time zone
"""What intervals are counted from: `every 30m` is at :00 and :30, whenever it was deployed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A schedule that Prefect takes, and the text of it for people."""

    schedule: SCHEDULE_TYPES
    text: str


def parse(given: str | timedelta, timezone: str) -> Timing:
    """Return the schedule that is meant. ``timezone`` is one that ``check_zone`` has let pass.

    Raises:
        ValueError: it is none, or one that never comes; the message is for people.
    """
    if isinstance(given, timedelta):
        return _interval(given, timezone)
    text = given.strip()
    if found := _EVERY.fullmatch(text):
        return _interval(timedelta(seconds=parse_duration(found["time"])), timezone)
    if _RULE.match(text):
        return _rule(text, timezone)
    return _cron(text, timezone)


def check_zone(name: str) -> None:
    """Do nothing if there is such a time zone.

    Raises:
        ValueError: there is not; the nearest is named.
    """
    known = available_timezones()
    if name not in known:
        by_folded = {zone.casefold(): zone for zone in known}
        near = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.7)
        hint = f"; did you mean {by_folded[near[0]]}?" if near else ", such as Europe/Berlin or UTC"
        raise ValueError(f"there is no time zone {name!r}{hint}")


def text_of(schedule: Any) -> str:
    """Return one of Prefect's schedules as it is written here."""
    zone = getattr(schedule, "timezone", None) or "UTC"
    if isinstance(schedule, CronSchedule):
        return f"{schedule.cron} ({zone})"
    if isinstance(schedule, IntervalSchedule):
        return f"every {_written(schedule.interval)} ({zone})"
    if isinstance(schedule, RRuleSchedule):
        return f"{_ADDED.sub('', schedule.rrule)} ({zone})"
    return str(schedule)


def _interval(every: timedelta, timezone: str) -> Timing:
    if every < _SHORTEST:
        raise ValueError(f"an interval of {every.total_seconds():g} s is below the shortest, 1m")
    anchor = _ANCHOR.replace(tzinfo=ZoneInfo(timezone))
    schedule = IntervalSchedule(interval=every, anchor_date=anchor, timezone=timezone)
    return Timing(schedule, text_of(schedule))


def _written(every: timedelta) -> str:
    seconds = every.total_seconds()
    return format_duration(int(seconds)) if seconds.is_integer() else f"{seconds:g}s"


def _cron(text: str, timezone: str) -> Timing:
    if not _PRESET.fullmatch(text) and len(text.split()) != _CRON_FIELDS:
        raise ValueError(f"{text!r} is no schedule; {HELP}")
    try:
        schedule = CronSchedule(cron=text, timezone=timezone)
    except ValidationError as error:
        raise ValueError(f"{text!r} is not cron: {_said(error)}; {HELP}") from None
    if not _comes(text):
        raise ValueError(f"{text!r} never comes; {HELP}")
    return Timing(schedule, text_of(schedule))


def _comes(cron: str) -> bool:
    """Whether there is a next time: 30 February is good cron, and Prefect would look for it for long."""
    if cron.startswith("@"):
        return True
    days, months = cron.split()[2:4]
    if cron.split()[4] != "*":
        return True  # a day of the week comes in every month
    lengths = {
        1: 31,
        2: 29,
        3: 31,
        4: 30,
        5: 31,
        6: 30,
        7: 31,
        8: 31,
        9: 30,
        10: 31,
        11: 30,
        12: 31,
    }
    if not all(part.isdigit() for part in (*days.split(","), *months.split(","))):
        return True
    return any(
        int(day) <= lengths[int(month)] for day in days.split(",") for month in months.split(",")
    )


def _rule(text: str, timezone: str) -> Timing:
    if _ENDLESS.search(text):  # whoever asks such a rule for its next time never gets an answer
        raise ValueError(f"{text!r} has INTERVAL=0 or FREQ=SECONDLY; {HELP}")
    try:
        schedule = RRuleSchedule(rrule=text, timezone=timezone)
    except ValidationError as error:
        raise ValueError(f"{text!r} is not a rule of RFC 5545: {_said(error)}; {HELP}") from None
    ends = [found[1] for found in _UNTIL.finditer(text)]
    if ends and max(ends) < f"{datetime.now(UTC) - timedelta(days=1):%Y%m%d}":
        raise ValueError(f"{text!r} has ended already; {HELP}")
    return Timing(schedule, text_of(schedule))


def _said(error: ValidationError) -> str:
    return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
