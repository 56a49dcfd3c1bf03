"""What a run tells whoever watches it: the terminal, a log, a Prefect flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeknal_k8s.errors import Problem
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.results import PrefectRunResult, RunResults


@dataclass(frozen=True, slots=True)
class StoreAwaited:
    """Somebody else is at work on the store, and we wait; ``holder`` says who."""

    holder: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The plan is made and the store is ours. ``resumed`` are nodes an earlier try has done."""

    run_id: str
    plan: Plan
    resumed: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """An attempt has begun; attempts count from 1."""

    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NodeRetrying:
    """An attempt failed and another will follow after ``delay`` seconds."""

    node: str
    attempt: int
    delay: float
    message: str


@dataclass(frozen=True, slots=True)
class NodeEnded:
    """The node is done: succeeded, failed, or skipped for an upstream's failure."""

    node: str
    result: PrefectRunResult


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Everything is done and written; ``warnings`` are of what Seeknal does as best it can."""

    results: RunResults
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackfillStarted:
    """A backfill is planned, and its intervals are ours.

    ``pieces`` are the keys under which it will tell of its progress, each with its number of
    intervals; ``done`` is how many of the ``total`` intervals an earlier one has finished.
    """

    run_id: str
    node: str
    pieces: dict[str, int]
    done: int
    total: int
    warnings: tuple[Problem, ...] = ()


Event = (
    BackfillStarted | StoreAwaited | RunStarted | NodeStarted | NodeRetrying | NodeEnded | RunEnded
)
Observer = Callable[[Event], None]
