"""From a schedule and two dates to intervals: half-open, in order, without gaps.

A boundary is a moment at which the schedule fires; an interval reaches from one to the next. The
schedule is read on the wall clock of a time zone, so with daylight saving a day has 23 or 25 hours:

- A time that the clocks skip counts as the first moment after the gap.
- A time that comes twice counts the first time; with every hour (``*`` or ``*/n`` as the
  hour), both times.

The last interval may be cut short by the end of the range. It is ``partial``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterError, croniter

from seeknal_k8s.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PRESETS = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "midnight": "0 0 * * *",
    "weekly": "0 0 * * 0",
    "monthly": "0 0 1 * *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
"""The words for a schedule, with or without ``@``; a week begins on Sunday, as in cron."""

LIMIT = 100_000
"""So many intervals are planned without asking."""

_LOOK_AHEAD = timedelta(days=8 * 366 + 1)
"""Within this every schedule that ever fires has fired: 29 February, across a year like 2100."""

_FIELDS = 5
_NUMBER = re.compile(r"(\d+)\s*(min|m|h|d|w)", re.IGNORECASE)
_UNITS = {"min": "minutes", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?")
_YEARS = range(1900, 2201)


@dataclass(frozen=True)
class Interval:
    """From ``start`` to before ``end``; both know their time zone.

    ``partial`` is one that the end of the range has cut short.
    """

    start: datetime
    end: datetime
    partial: bool = False

    @cached_property
    def key(self) -> str:
        """Return both ends as text, such as ``2024-01-01/2024-01-02``."""
        return f"{text_of(self.start)}/{text_of(self.end)}"

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have a moment in common."""
        return _utc(self.start) < _utc(other.end) and _utc(other.start) < _utc(self.end)


def text_of(moment: datetime) -> str:
    """Return a moment as it is written in keys: a day alone where it is the start of that day.

    A time has its offset from UTC, unless the zone is UTC: in autumn an hour comes twice.
    """
    if _utc(moment) == _utc(_first_moment(moment.date(), moment.tzinfo)):
        return moment.date().isoformat()
    plain = moment.replace(tzinfo=None).isoformat(timespec="auto" if moment.second else "minutes")
    return plain + ("" if _is_utc(moment.tzinfo) else _offset(moment))


def parse_key(key: str, zone: tzinfo) -> Interval:
    """Return the interval of a key that ``Interval.key`` has made.

    Raises:
        UsageError: it is none.
    """
    start, slash, end = key.partition("/")
    if not slash:
        raise UsageError(f"{key!r} is not an interval; write it like 2024-01-01/2024-01-02")
    return Interval(_moment(start, zone, "the start"), _moment(end, zone, "the end"))


def holder(keys: Iterable[str], text: str, timezone: str) -> str | None:
    """Return the first of these intervals that a day, a time, or another interval lies in, if any.

    Raises:
        UsageError: ``text`` is none of these.
    """
    zone = zone_of(timezone)
    if "/" in text:
        wanted = parse_key(text, zone)
        start, end = _utc(wanted.start), _utc(wanted.end)
        if end <= start:
            raise UsageError(f"{text} ends before it has begun")
    else:
        start = _utc(_moment(text, zone, "it"))
        end = start + timedelta.resolution
    for key in keys:
        interval = parse_key(key, zone)
        if _utc(interval.start) <= start and end <= _utc(interval.end):
            return key
    return None


def zone_of(name: str) -> tzinfo:
    """Return the time zone of this name.

    Raises:
        UsageError: there is none.
    """
    if name.upper() in {"UTC", "Z", "ETC/UTC"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"there is no time zone '{name}'; write one like UTC or Europe/Berlin"
        ) from None


def between(
    start: str,
    end: str,
    *,
    schedule: str = "@daily",
    timezone: str = "UTC",
    end_inclusive: bool = True,
) -> list[Interval]:
    """Return the intervals of a range, in order: from the first boundary in it to its end.

    ``start`` and ``end`` are days or times. An end that is a day belongs to the range as a whole
    if ``end_inclusive``: from 2024-01-01 to 2024-01-31 are the 31 days of January. An end that is
    a time never belongs to it.

    Raises:
        UsageError: a date, the schedule or the zone is none; the range is empty, or no interval
            begins in it.
    """
    zone = zone_of(timezone)
    clock = Schedule(schedule)
    first, last = _moment(start, zone, "the start"), _moment(end, zone, "the end")
    if _utc(first) > _utc(last):
        raise UsageError(f"the start {start} is after the end {end}")
    if end_inclusive and _DAY.fullmatch(end.strip()):
        last = _first_moment(last.date() + timedelta(days=1), zone)
    if _utc(first) == _utc(last):
        raise UsageError(f"the range from {start} to {end} is empty: its end does not belong to it")
    boundaries = clock.boundaries(first, last)
    if not boundaries:
        following = next(clock.after(first), None)
        when = f"; the next one begins at {text_of(following)}" if following else ""
        raise UsageError(f"no interval of '{schedule}' begins between {start} and {end}{when}")
    following = next(clock.after(last), None)
    whole = following is not None and _utc(following) == _utc(last)
    ends = [*boundaries[1:], last]
    made = [Interval(*pair) for pair in zip(boundaries, ends, strict=True)]
    if not whole:
        made[-1] = Interval(boundaries[-1], last, partial=True)
    return made


def left_out(intervals: list[Interval], start: str, timezone: str) -> str:
    """Return what lies between the start of the range and the first boundary; empty if nothing."""
    first = _moment(start, zone_of(timezone), "the start")
    begins = intervals[0].start
    return "" if _utc(first) == _utc(begins) else f"{text_of(first)}/{text_of(begins)}"


def last(
    duration: str, now: datetime, *, schedule: str = "@daily", timezone: str = "UTC"
) -> list[Interval]:
    """Return the whole intervals that lie in the last ``7d`` (or 12h, 4w, 90min) before ``now``.

    Raises:
        UsageError: the duration, the schedule or the zone is none, or no interval is that young.
    """
    found = _NUMBER.fullmatch(duration.strip())
    if found is None or int(found[1]) == 0:
        raise UsageError(f"'{duration}' is not a duration; write it like 7d, 12h, 4w or 90min")
    zone, clock = zone_of(timezone), Schedule(schedule)
    now = now.astimezone(zone)
    end = clock.latest(now)
    try:
        back = timedelta(**{_UNITS[found[2].lower()]: int(found[1])})
        # On the wall clock: a day back is the same time of the day before.
        start = _local(end.replace(tzinfo=None) - back, zone)
    except OverflowError:
        raise UsageError(f"'{duration}' is longer than time") from None
    ends = [*clock.boundaries(start, end), end]
    if len(ends) < 2:  # noqa: PLR2004 - one interval has two ends
        raise UsageError(f"no whole interval of '{schedule}' lies in the last {duration}")
    return [Interval(*pair) for pair in pairwise(ends)]


class Schedule:
    """When something fires, on the wall clock: a word such as ``@daily``, or five fields of cron.

    Raises:
        UsageError: the text is no schedule, or one that never fires.
    """

    def __init__(self, text: str) -> None:
        """Read ``text``."""
        self.text = text
        word = text.strip().lower().removeprefix("@")
        expression = PRESETS.get(word, text.strip())
        fields = self._fields(expression)
        minutes, hours, self._days, self._months, self._weekdays = fields
        self._times = [
            time(hour, minute)
            for hour in sorted(hours or range(24))
            for minute in sorted(minutes or range(60))
        ]
        self._every_hour = expression.split()[1].startswith("*")
        if next(self.after(datetime(2000, 1, 1, tzinfo=UTC)), None) is None:
            raise UsageError(f"the schedule '{text}' never fires")

    def _fields(self, expression: str) -> list[frozenset[int] | None]:
        """Return each field as numbers, None for any."""
        wrong = UsageError(
            f"'{self.text}' is not a schedule; write @hourly, @daily, @weekly, @monthly, @yearly, "
            "or five fields of cron such as '*/30 * * * *'"
        )
        if len(expression.split()) != _FIELDS:
            raise wrong
        try:
            expanded, nth_weekdays = croniter.expand(expression)
        except (CroniterError, ValueError, KeyError) as error:
            raise wrong from error
        numbers = [[int(value) for value in field if value not in ("*", "l")] for field in expanded]
        if nth_weekdays or any("l" in field for field in expanded):
            raise UsageError(f"'{self.text}': L and # are not part of plain cron")
        return [frozenset(field) if field else None for field in numbers]

    def _fires_on(self, day: date) -> bool:
        if self._months is not None and day.month not in self._months:
            return False
        by_day = self._days is None or day.day in self._days
        by_weekday = self._weekdays is None or day.isoweekday() % 7 in self._weekdays
        if self._days is not None and self._weekdays is not None:
            return by_day or by_weekday  # as every cron has it
        return by_day and by_weekday

    def _of_day(self, day: date, zone: tzinfo) -> list[datetime]:
        """Return the day's boundaries, in order."""
        moments = [datetime.combine(day, at, zone) for at in self._times]
        if _offset_at(day, zone) == _offset_at(day + timedelta(days=1), zone):
            return moments
        found = set()
        for moment in moments:
            found.add(_first_after_gap(moment))
            if self._every_hour and _is_doubled(moment):
                found.add(moment.replace(fold=1).astimezone(UTC))
        return [moment.astimezone(zone) for moment in sorted(found)]

    def after(self, moment: datetime, until: datetime | None = None) -> Iterator[datetime]:
        """Yield the boundaries from ``moment`` on, it included, as far as one can look ahead."""
        zone = moment.tzinfo or UTC
        # A day earlier, since a gap can push a time of one day into the next.
        day, left = moment.date() - timedelta(days=1), _LOOK_AHEAD.days
        stop = None if until is None else until.date() + timedelta(days=1)
        latest = moment.astimezone(UTC) - timedelta(microseconds=1)
        while left and (stop is None or day <= stop):
            if self._fires_on(day):
                left = _LOOK_AHEAD.days
                for boundary in self._of_day(day, zone):
                    instant = boundary.astimezone(UTC)
                    if instant > latest:
                        latest = instant
                        yield boundary
            day += timedelta(days=1)
            left -= 1

    def boundaries(self, start: datetime, end: datetime) -> list[datetime]:
        """Return the boundaries from ``start``, it included, to before ``end``."""
        zone = start.tzinfo or UTC
        found = []
        stop = end.astimezone(UTC)
        for boundary in self.after(start, until=end.astimezone(zone)):
            if boundary.astimezone(UTC) >= stop:
                break
            found.append(boundary)
        return found

    def latest(self, now: datetime) -> datetime:
        """Return the last boundary that is not after ``now``."""
        for days in (1, 40, 400, _LOOK_AHEAD.days):
            found = self.boundaries(now - timedelta(days=days), now + timedelta(microseconds=1))
            if found:
                return found[-1]
        raise UsageError(f"the schedule '{self.text}' never fires")


def _moment(text: str, zone: tzinfo, what: str) -> datetime:
    """Read a day or a time, strictly: it will be part of file names and of SQL."""
    text = text.strip()
    wrong = UsageError(f"{what} {text!r} is not a date; write it like 2024-01-31")
    if not (_DAY.fullmatch(text) or _MOMENT.fullmatch(text)):
        raise wrong
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise wrong from None
    if moment.year not in _YEARS:
        raise UsageError(f"{what} {text}: the year has to be from 1900 to 2200")
    if moment.tzinfo is not None:
        return moment.astimezone(zone)
    if _DAY.fullmatch(text):
        return _first_moment(moment.date(), zone)
    return _local(moment, zone)


def _local(wall: datetime, zone: tzinfo) -> datetime:
    """Return the moment at which the clocks show this: the first one, or the first after a gap."""
    return _first_after_gap(wall.replace(tzinfo=zone)).astimezone(zone)


def _utc(moment: datetime) -> datetime:
    """Return the moment for comparisons: those in one zone go by the wall clock, which may be wrong."""
    return moment.astimezone(UTC)


@lru_cache(maxsize=1024)
def _first_moment(day: date, zone: tzinfo | None) -> datetime:
    """Return when a day begins: not at midnight where the clocks skip that."""
    midnight = datetime.combine(day, time(), zone)
    return midnight if zone is UTC else _first_after_gap(midnight).astimezone(zone)


def _first_after_gap(moment: datetime) -> datetime:
    """Return the moment in UTC, or, if the clocks skip it, the one at which they go on."""
    instant = moment.astimezone(UTC)
    if instant.astimezone(moment.tzinfo).replace(tzinfo=None) == moment.replace(tzinfo=None):
        return instant
    # With fold=0 the offset before the gap counts, and with fold=1 the one after it: the gap ends
    # somewhere between the two, at the first minute that has the later offset.
    later = moment.replace(fold=1)
    early, offset = later.astimezone(UTC), later.utcoffset()
    minutes = range(int((instant - early) / timedelta(minutes=1)) + 1)

    def has_changed(minute: int) -> bool:
        here = (early + timedelta(minutes=minute)).astimezone(moment.tzinfo)
        return here.utcoffset() == offset

    return early + timedelta(minutes=bisect_left(minutes, True, key=has_changed))  # noqa: FBT003


def _is_doubled(moment: datetime) -> bool:
    """Whether the clocks show this twice."""
    first, second = moment.replace(fold=0), moment.replace(fold=1)
    return second.astimezone(UTC) > first.astimezone(UTC)


@cache
def _offset_at(day: date, zone: tzinfo) -> timedelta | None:
    return datetime.combine(day, time(), zone).utcoffset()


def _is_utc(zone: tzinfo | None) -> bool:
    return zone is UTC


def _offset(moment: datetime) -> str:
    return moment.isoformat()[len(moment.replace(tzinfo=None).isoformat()) :]
