"""A schedule and two dates: which intervals they make. An oracle looks at every single minute."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seeknal_k8s import intervals
from seeknal_k8s.errors import UsageError
from seeknal_k8s.intervals import Interval, between, holder, last, left_out, parse_key, zone_of

BERLIN = "Europe/Berlin"


def keys(made: list[Interval]) -> list[str]:
    return [interval.key for interval in made]


COUNTS = [
    pytest.param("2024-01-01", "2024-01-31", "@daily", 31, id="January, the guide's own range"),
    pytest.param("2024-01-01", "2024-12-31", "@daily", 366, id="a leap year"),
    pytest.param("2023-01-01", "2023-12-31", "Daily", 365, id="a common year"),
    pytest.param("2024-01-01", "2024-01-01", "@hourly", 24, id="a day of hours"),
    pytest.param("2024-01-01", "2024-12-31", "monthly", 12, id="a year of months"),
    pytest.param("2020-01-01", "2024-12-31", "YEARLY", 5, id="five years"),
    pytest.param("2024-01-07", "2024-02-03", "@weekly", 4, id="four weeks, from Sunday"),
    pytest.param("2024-01-01", "2024-01-01", "*/30 * * * *", 48, id="a day of half hours"),
    pytest.param("2024-01-01T02:00", "2024-01-31T02:00", "0 2 * * *", 30, id="nights at two"),
    pytest.param("2024-01-01", "2024-01-07", "0 9 * * MON-FRI", 5, id="working days"),
    pytest.param("2096-02-29", "2105-01-01", "0 0 29 2 *", 2, id="29 February, around 2100"),
]


@pytest.mark.parametrize(("start", "end", "schedule", "count"), COUNTS)
def test_a_range_has_so_many_intervals(start: str, end: str, schedule: str, count: int) -> None:
    made = between(start, end, schedule=schedule)
    assert len(made) == count
    assert all(one.end == next_one.start for one, next_one in pairwise(made))


def test_the_first_boundary_is_kept_and_an_end_that_is_a_day_belongs_to_the_range() -> None:
    assert keys(between("2024-01-01", "2024-01-03")) == [
        "2024-01-01/2024-01-02",
        "2024-01-02/2024-01-03",
        "2024-01-03/2024-01-04",
    ]


def test_an_exclusive_end_and_an_end_that_is_a_time_do_not_belong_to_it() -> None:
    exclusive = between("2024-01-01", "2024-01-03", end_inclusive=False)
    assert keys(exclusive) == ["2024-01-01/2024-01-02", "2024-01-02/2024-01-03"]
    assert between("2024-01-01", "2024-01-03T00:00") == exclusive


def test_times_that_are_not_the_start_of_a_day_are_written_out() -> None:
    made = between("2024-01-01T22:00", "2024-01-02T01:00", schedule="hourly")
    assert keys(made) == [
        "2024-01-01T22:00/2024-01-01T23:00",
        "2024-01-01T23:00/2024-01-02",
        "2024-01-02/2024-01-02T01:00",
    ]


def test_a_last_interval_that_the_range_cuts_short_is_partial() -> None:
    made = between("2024-01-01", "2024-01-02T12:00")
    assert [(one.key, one.partial) for one in made] == [
        ("2024-01-01/2024-01-02", False),
        ("2024-01-02/2024-01-02T12:00", True),
    ]


def test_what_lies_before_the_first_boundary_is_named() -> None:
    made = between("2024-01-03", "2024-01-20", schedule="weekly")
    assert made[0].key == "2024-01-07/2024-01-14"
    assert left_out(made, "2024-01-03", "UTC") == "2024-01-03/2024-01-07"
    assert left_out(between("2024-01-03", "2024-01-04"), "2024-01-03", "UTC") == ""


CLOCKS = [
    pytest.param(
        "2024-03-31",
        "hourly",
        BERLIN,
        ["2024-03-31T01:00+01:00/2024-03-31T03:00+02:00"],
        23,
        id="the missing hour",
    ),
    pytest.param(
        "2024-10-27",
        "hourly",
        BERLIN,
        [
            "2024-10-27T02:00+02:00/2024-10-27T02:00+01:00",
            "2024-10-27T02:00+01:00/2024-10-27T03:00+01:00",
        ],
        25,
        id="the doubled hour",
    ),
    pytest.param(
        "2024-03-31", "*/30 * * * *", BERLIN, ["2024-03-31T01:30+01:00/2024-03-31T03:00+02:00"], 46
    ),
    pytest.param(
        "2018-11-04",
        "daily",
        "America/Sao_Paulo",
        ["2018-11-04/2018-11-05"],
        1,
        id="a day that has no midnight",
    ),
    pytest.param(
        "2024-11-03",
        "hourly",
        "America/Havana",
        ["2024-11-03/2024-11-03T00:00-05:00", "2024-11-03T00:00-05:00/2024-11-03T01:00-05:00"],
        25,
        id="a day that has two midnights",
    ),
]


@pytest.mark.parametrize(("day", "schedule", "zone", "among", "count"), CLOCKS)
def test_daylight_saving(day: str, schedule: str, zone: str, among: list[str], count: int) -> None:
    made = between(day, day, schedule=schedule, timezone=zone)
    assert len(made) == count
    assert [key for key in keys(made) if key in among] == among
    assert len(set(keys(made))) == count


def test_days_across_daylight_saving_have_23_and_25_hours() -> None:
    hours = [
        (one.end.astimezone(UTC) - one.start.astimezone(UTC)) / timedelta(hours=1)
        for day in ("2024-03-31", "2024-10-27")
        for one in between(day, day, timezone=BERLIN)
    ]
    assert hours == [23, 25]


def test_a_time_that_is_skipped_counts_as_the_end_of_the_gap_and_a_doubled_one_once() -> None:
    spring = between("2024-03-30", "2024-04-01", schedule="30 2 * * *", timezone=BERLIN)
    assert [one.key.partition("/")[0] for one in spring] == [
        "2024-03-30T02:30+01:00",
        "2024-03-31T03:00+02:00",
        "2024-04-01T02:30+02:00",
    ]
    autumn = between("2024-10-27", "2024-10-27", schedule="30 2 * * *", timezone=BERLIN)
    assert keys(autumn) == ["2024-10-27T02:30+02:00/2024-10-28"]


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "America/Havana"])
def test_a_key_can_be_read_again(zone: str) -> None:
    for made in between("2024-10-26", "2024-11-04", schedule="hourly", timezone=zone):
        read = parse_key(made.key, zone_of(zone))
        assert (read.start.astimezone(UTC), read.end.astimezone(UTC)) == (
            made.start.astimezone(UTC),
            made.end.astimezone(UTC),
        )


def test_overlapping_goes_by_moments_not_by_the_wall_clock() -> None:
    doubled = between("2024-10-27", "2024-10-27", schedule="hourly", timezone=BERLIN)[2:4]
    assert not doubled[0].overlaps(doubled[1])
    assert doubled[0].overlaps(doubled[0])


NOW = datetime(2024, 3, 10, 5, 17, tzinfo=UTC)


def test_the_last_days_are_whole_days_before_now() -> None:
    assert keys(last("2d", NOW)) == ["2024-03-08/2024-03-09", "2024-03-09/2024-03-10"]
    assert keys(last("1w", NOW, schedule="weekly")) == ["2024-03-03/2024-03-10"]
    assert keys(last("2h", NOW, schedule="hourly"))[-1] == "2024-03-10T04:00/2024-03-10T05:00"
    assert len(last("90min", NOW, schedule="*/30 * * * *")) == 3


@pytest.mark.parametrize("text", ["7", "0d", "d7", "-1d", "1y", "", "99999999999d"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"duration|longer"):
        last(text, NOW)


def test_a_duration_shorter_than_the_schedule_is_refused() -> None:
    with pytest.raises(UsageError, match="no whole interval"):
        last("2d", NOW, schedule="weekly")


REFUSED = [
    pytest.param("2024-02-01", "2024-01-01", "@daily", "UTC", "is after the end", id="backwards"),
    pytest.param("2024-02-30", "2024-03-01", "@daily", "UTC", "is not a date", id="no such day"),
    pytest.param("yesterday", "2024-03-01", "@daily", "UTC", "is not a date", id="a word"),
    pytest.param("20240101", "2024-03-01", "@daily", "UTC", "is not a date", id="another format"),
    pytest.param("2024-01-01", "2024-01-01' OR 1=1 --", "@daily", "UTC", "not a date", id="SQL"),
    pytest.param("1600-01-01", "2024-01-01", "@daily", "UTC", "the year", id="long ago"),
    pytest.param("2024-01-01T03:00", "2024-01-01T03:00", "@daily", "UTC", "is empty", id="empty"),
    pytest.param("2024-01-02", "2024-01-03", "@monthly", "UTC", "no interval", id="between two"),
    pytest.param("2024-01-01", "2024-01-03", "0 0 31 2 *", "UTC", "never fires", id="31 February"),
    pytest.param("2024-01-01", "2024-01-03", "2h", "UTC", "is not a schedule", id="a duration"),
    pytest.param("2024-01-01", "2024-01-03", "@reboot", "UTC", "is not a schedule", id="@reboot"),
    pytest.param(
        "2024-01-01", "2024-01-03", "0 25 * * *", "UTC", "not a schedule", id="25 o'clock"
    ),
    pytest.param("2024-01-01", "2024-01-03", "* * * *", "UTC", "not a schedule", id="four fields"),
    pytest.param("2024-01-01", "2024-01-03", "0 0 0 * * *", "UTC", "not a schedule", id="six"),
    pytest.param("2024-01-01", "2024-01-03", "0 0 L * *", "UTC", "plain cron", id="the last day"),
    pytest.param("2024-01-01", "2024-01-03", "@daily", "Mars/Base", "no time zone", id="Mars"),
    pytest.param("2024-01-01", "2024-01-03", "@daily", "../etc", "no time zone", id="a path"),
]


@pytest.mark.parametrize(("start", "end", "schedule", "zone", "says"), REFUSED)
def test_what_makes_no_sense_is_refused(
    start: str, end: str, schedule: str, zone: str, says: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        between(start, end, schedule=schedule, timezone=zone)


def test_a_hundred_thousand_intervals_are_planned() -> None:
    made = between("2012-01-01", "2023-12-31", schedule="hourly", timezone=BERLIN)
    assert len(made) > intervals.LIMIT
    assert len(set(keys(made))) == len(made)


ZONES = [
    "UTC",
    BERLIN,
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Asia/Kathmandu",
]

# Around when these zones change their clocks, and around a leap day.
DAYS = st.sampled_from(
    [
        date(2018, 11, 3),
        date(2018, 2, 17),
        date(2024, 2, 28),
        date(2024, 3, 9),
        date(2024, 3, 30),
        date(2024, 4, 6),
        date(2024, 10, 5),
        date(2024, 10, 26),
        date(2024, 11, 2),
        date(2023, 12, 30),
    ]
)


def _numbers(low: int, high: int) -> st.SearchStrategy[str]:
    some = st.sets(st.integers(low, high), min_size=1, max_size=3)
    return some.map(lambda values: ",".join(str(value) for value in sorted(values)))


CRON = st.tuples(
    st.one_of(_numbers(0, 59), st.sampled_from(["*/30", "*/7", "0", "0", "59"])),
    st.one_of(_numbers(0, 3), st.sampled_from(["*", "*/6", "*/1", "0", "2"])),
    st.one_of(st.just("*"), _numbers(1, 31)),
    st.one_of(st.just("*"), st.just("2,3,10,11")),
    st.one_of(st.just("*"), _numbers(0, 6)),
).map(" ".join)


def _field(text: str, values: range) -> set[int]:
    """Read a field of cron, as far as the strategy above makes them."""
    if text.startswith("*"):
        step = int(text.partition("/")[2] or 1)
        return {value for value in values if (value - values.start) % step == 0}
    return {int(value) for value in text.split(",")}


def _matches(wall: datetime, cron: str) -> bool:
    minute, hour, day, month, weekday = cron.split()
    on_day = wall.day in _field(day, range(1, 32))
    on_weekday = wall.isoweekday() % 7 in _field(weekday, range(7))
    either = day != "*" and weekday != "*"
    return (
        wall.minute in _field(minute, range(60))
        and wall.hour in _field(hour, range(24))
        and wall.month in _field(month, range(1, 13))
        and (on_day or on_weekday if either else on_day and on_weekday)
    )


def oracle(start: datetime, end: datetime, cron: str) -> list[datetime]:
    """Look at every minute of the range, and of the hours around it, for whether the clock fires."""
    zone = start.tzinfo
    assert zone is not None
    both = cron.split()[1].startswith("*")
    seen: set[datetime] = set()
    found = []
    moment = start.astimezone(UTC) - timedelta(hours=26)
    while moment < end.astimezone(UTC):
        wall = moment.astimezone(zone).replace(tzinfo=None)
        before = (moment - timedelta(minutes=1)).astimezone(zone).replace(tzinfo=None)
        skipped = int((wall - before) / timedelta(minutes=1))
        shown = [before + timedelta(minutes=n) for n in range(1, skipped)]
        fires = any(_matches(one, cron) for one in shown)
        fires |= _matches(wall, cron) and (both or wall not in seen)
        seen.add(wall)
        if fires and moment >= start.astimezone(UTC):
            found.append(moment)
        moment += timedelta(minutes=1)
    return found


@settings(max_examples=60, deadline=None)
@given(day=DAYS, cron=CRON, zone=st.sampled_from(ZONES), hours=st.integers(1, 60))
def test_the_boundaries_are_those_that_a_look_at_every_minute_finds(
    day: date, cron: str, zone: str, hours: int
) -> None:
    start = datetime(day.year, day.month, day.day, 12, tzinfo=zone_of(zone))
    end = (start.astimezone(UTC) + timedelta(hours=hours)).astimezone(zone_of(zone))
    try:
        clock = intervals.Schedule(cron)
    except UsageError:  # 30 and 31 February
        assert set(cron.split()[2].split(",")) <= {"30", "31"}
        return
    found = [boundary.astimezone(UTC) for boundary in clock.boundaries(start, end)]
    assert found == oracle(start, end, cron)


def test_the_oracle_knows_the_doubled_hour() -> None:
    zone = ZoneInfo(BERLIN)
    start, end = datetime(2024, 10, 27, tzinfo=zone), datetime(2024, 10, 27, 4, tzinfo=zone)
    assert len(oracle(start, end, "0 * * * *")) == 5
    assert len(oracle(start, end, "0 2 * * *")) == 1


HELD = ["2025-01-01/2025-01-08", "2025-01-08/2025-01-15"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("2025-01-01", HELD[0]),
        ("2025-01-07T23:59", HELD[0]),
        ("2025-01-08", HELD[1]),
        ("2025-01-02/2025-01-03", HELD[0]),
        (HELD[1], HELD[1]),
        ("2025-01-07/2025-01-09", None),
        ("2025-01-15", None),
        ("2024-12-31", None),
    ],
)
def test_a_day_a_time_and_an_interval_are_found_in_what_holds_them(
    text: str, key: str | None
) -> None:
    assert holder(HELD, text, "UTC") == key


def test_a_day_is_looked_for_on_the_clock_of_the_time_zone() -> None:
    hours = [
        "2025-10-26T02:00+02:00/2025-10-26T02:00+01:00",
        "2025-10-26T02:00+01:00/2025-10-26T03:00+01:00",
    ]
    assert holder(hours, "2025-10-26T02:30+01:00", "Europe/Berlin") == hours[1]


@pytest.mark.parametrize("text", ["daily", "2025-01-02/2025-01-01", "2025-01-01/2025-01-01"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        holder(HELD, text, "UTC")
