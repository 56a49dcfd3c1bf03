"""How long an attempt may wait, and when it is looked at again."""

from __future__ import annotations

import time

import pytest

from seeknal_k8s.backends.clocks import LOOK_EVERY, Clocks
from seeknal_k8s.diagnosis import Clock, Wait
from seeknal_k8s.manifest import GRACE
from seeknal_k8s.settings import load

SETTINGS = load(
    namespace="n",
    image="localhost/none",
    queue_timeout="600s",
    schedule_timeout="300s",
    start_timeout="200s",
    image_pull_grace="50s",
)


def waiting_for(seconds: float, clock: Clock, reason: str = "") -> Clocks:
    """Return the clocks of an attempt that has been where it is for so long."""
    then = time.monotonic() - seconds
    return Clocks(Wait(clock, reason), since=then, reason_since=then)


def look_again(clocks: Clocks) -> float | None:
    """Return after how many seconds it is looked at again."""
    return clocks.look_again(clocks.left(SETTINGS))


@pytest.mark.parametrize(
    ("clock", "limit"), [(Clock.QUEUE, 600), (Clock.SCHEDULE, 300), (Clock.START, 200)]
)
def test_each_clock_has_its_own_limit(clock: Clock, limit: int) -> None:
    assert waiting_for(20, clock).left(SETTINGS) == pytest.approx(limit - 20, abs=1)


def test_a_pod_that_runs_is_not_looked_at_until_something_is_heard() -> None:
    running = waiting_for(10_000, Clock.RUN)

    assert running.left(SETTINGS) == float("inf")
    assert look_again(running) is None


def test_a_pod_that_runs_and_was_told_to_end_has_its_grace_and_a_margin() -> None:
    left = waiting_for(10, Clock.RUN, "Evicted").left(SETTINGS)

    assert left == pytest.approx(GRACE + SETTINGS.deadline_margin - 10, abs=1)


def test_an_image_that_cannot_be_pulled_is_waited_for_less_long() -> None:
    assert waiting_for(20, Clock.START, "ImagePull").left(SETTINGS) == pytest.approx(30, abs=1)


def test_what_is_hopeless_is_not_waited_for() -> None:
    wait = Wait(Clock.QUEUE, "ServiceAccountMissing", hopeless=True)

    assert Clocks(wait).left(SETTINGS) == 0


def test_looks_become_rarer_the_longer_an_attempt_waits() -> None:
    assert look_again(waiting_for(0, Clock.QUEUE)) == LOOK_EVERY
    assert look_again(waiting_for(100, Clock.QUEUE)) == pytest.approx(25, abs=1)


def test_a_limit_is_waited_for_to_the_moment() -> None:
    assert look_again(waiting_for(199, Clock.START)) == pytest.approx(1, abs=0.9)
    assert look_again(waiting_for(300, Clock.START)) == 0


def test_a_change_of_clock_or_reason_begins_its_time_anew() -> None:
    clocks = waiting_for(100, Clock.QUEUE)
    clocks.see(Wait(Clock.START))
    assert clocks.left(SETTINGS) == pytest.approx(200, abs=1)

    clocks.since -= 160
    clocks.see(Wait(Clock.START, "ImagePull"))
    assert clocks.left(SETTINGS) == pytest.approx(40, abs=1)
