from __future__ import annotations

from datetime import timedelta

import pytest

from seeknal_k8s.deployments.schedules import check_zone, parse

ZONE = "Europe/Berlin"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        pytest.param("0 2 * * *", "0 2 * * *", id="cron of five fields is taken"),
        pytest.param("@daily", "@daily", id="a preset is taken"),
        pytest.param("0 2 * * MON-FRI", "0 2 * * MON-FRI", id="names of days are taken"),
        pytest.param("0 0 29 2 *", "0 0 29 2 *", id="a leap day comes"),
        pytest.param("0 0 31 4 MON", "0 0 31 4 MON", id="a day of the week comes in any month"),
        pytest.param(" every 90m ", "every 1h30m", id="an interval may be a text"),
        pytest.param(timedelta(days=1), "every 24h", id="an interval may be a timedelta"),
        pytest.param("FREQ=DAILY", "FREQ=DAILY", id="a rule needs no prefix"),
        pytest.param("RRULE:FREQ=WEEKLY", "RRULE:FREQ=WEEKLY", id="a rule may have its prefix"),
    ],
)
def test_what_people_write_becomes_a_schedule(given: str | timedelta, text: str) -> None:
    assert parse(given, ZONE).text.removeprefix("DTSTART:20200101T000000\n") == f"{text} ({ZONE})"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param("daily", "is no schedule", id="a word is none"),
        pytest.param("", "is no schedule", id="nothing is none"),
        pytest.param("0 2 * * * *", "is no schedule", id="six fields are none"),
        pytest.param("61 * * * *", "is not cron", id="minute 61 is refused"),
        pytest.param("@reboot", "is not cron", id="a preset that Prefect lacks is refused"),
        pytest.param("R * * * *", "is not cron", id="random cron is refused"),
        pytest.param("0 0 30 2 *", "never comes", id="30 February never comes"),
        pytest.param("0 0 31 4,6 *", "never comes", id="31 April never comes"),
        pytest.param("every 10s", "below the shortest", id="an interval below a minute"),
        pytest.param("every day", "is not a duration", id="an interval in words"),
        pytest.param("FREQ=SOMETIMES", "is not a rule", id="an unknown frequency"),
        pytest.param("FREQ=DAILY;INTERVAL=0", "INTERVAL=0", id="a rule that never advances"),
        pytest.param("FREQ=DAILY;UNTIL=20200101T000000Z", "has ended", id="a rule of the past"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(given: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(given, ZONE)


def test_an_interval_is_counted_from_midnight_and_not_from_now() -> None:
    first, second = parse("every 30m", ZONE).schedule, parse("every 30m", ZONE).schedule
    assert first == second


def test_a_time_zone_is_taken_as_it_is_spelt() -> None:
    check_zone(ZONE)


@pytest.mark.parametrize("name", ["Europe/Berln", "europe/berlin"])
def test_the_time_zone_that_was_meant_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="did you mean Europe/Berlin"):
        check_zone(name)


def test_a_time_zone_that_is_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        check_zone("Mars")
