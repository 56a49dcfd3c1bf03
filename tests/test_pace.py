"""How fast we ask, under a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from seeknal_k8s.cluster import Backoff, Rate


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def taken(rate: Rate, clock: Clock, seconds: float) -> int:
    """Take every turn there is in so many seconds; return how many."""
    end, turns = clock.now + seconds, 0
    while clock.now < end:
        if wait := rate.reserve():
            clock.now += wait
        else:
            turns += 1
    return turns


def test_turns_come_at_the_rate() -> None:
    clock = Clock()

    assert taken(Rate(50, clock=clock), clock, 4) == pytest.approx(200, abs=2)


def test_what_was_not_used_is_not_saved_up() -> None:
    clock = Clock()
    rate = Rate(50, clock=clock)
    clock.now += 60

    assert taken(rate, clock, 1) == pytest.approx(50, abs=2)


def test_a_refusal_halves_the_rate_that_was_reached() -> None:
    clock = Clock()
    rate = Rate(500, clock=clock)
    for _ in range(300):
        rate.reserve()
        clock.now += 0.01  # a caller that wants 100 a second, of the 500 it might

    rate.refused(clock.now)

    assert rate.per_second == pytest.approx(50, rel=0.05)


def test_a_volley_of_refusals_halves_it_once() -> None:
    clock = Clock()
    rate = Rate(100, clock=clock)
    taken(rate, clock, 2)
    before = clock.now
    clock.now += 0.1

    for _ in range(16):
        rate.refused(before)

    assert 40 < rate.per_second <= 50


def test_nobody_gets_a_turn_before_the_server_wants_to_be_asked_again() -> None:
    clock = Clock()
    rate = Rate(100, clock=clock)

    rate.refused(clock.now, retry_after=5.0)

    assert rate.reserve() == pytest.approx(5.0)


def test_it_is_back_after_twenty_seconds_without_a_refusal() -> None:
    clock = Clock()
    rate = Rate(100, clock=clock)
    for _ in range(20):
        clock.now += 0.1
        rate.refused(clock.now)
    assert rate.per_second == 1.0

    clock.now += 10
    rate.reserve()
    halfway = rate.per_second
    clock.now += 10
    rate.reserve()

    assert halfway == pytest.approx(51)
    assert rate.per_second == 100


def test_pauses_double_up_to_the_most_and_begin_again_after_a_success() -> None:
    backoff = Backoff(first=1.0, most=8.0)

    pauses = [backoff.pause() for _ in range(6)]
    backoff.reset()

    assert all(most / 2 <= p <= most for p, most in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True))
    assert backoff.pause() <= 1.0


def test_a_pause_is_at_least_what_the_server_asked_for() -> None:
    assert Backoff().pause(at_least=3.0) >= 3.0
