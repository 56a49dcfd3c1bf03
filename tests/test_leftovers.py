"""What Job, pod, events and store say of an attempt and of a run: when, how long, and who lives."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s import cleaning, timeline
from seeknal_k8s.diagnosis import Clock
from seeknal_k8s.store import Store
from seeknal_k8s.views import CONFIG_MAPS, EVENTS, JOBS, PODS

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.views import ConfigMapView, EventView, JobView, PodView

NINE = datetime(2026, 1, 2, 9, 0, tzinfo=UTC)
RUN = "20260102-090000-ab12"


def view(kind: Any, **raw: Any) -> Any:
    return kind.one.decode(json.dumps(raw, default=lambda moment: moment.isoformat()))


def at(seconds: float) -> datetime:
    return NINE + timedelta(seconds=seconds)


def a_job(
    *, created: float = 0, labels: dict[str, str] | None = None, **conditions: float
) -> JobView:
    told = [
        {"type": kind, "status": "True", "lastTransitionTime": at(when), "message": kind}
        for kind, when in conditions.items()
    ]
    metadata = {
        "name": "job-1",
        "creationTimestamp": at(created),
        "labels": {"seeknal.io/run": RUN, **(labels or {})},
        "annotations": {"seeknal.io/run-id": RUN},
    }
    found: JobView = view(JOBS, metadata=metadata, status={"conditions": told})
    return found


def a_pod(**state: Any) -> PodView:
    found: PodView = view(
        PODS,
        metadata={"name": "job-1-x7k2p", "creationTimestamp": at(5)},
        spec={"nodeName": "node1"},
        status={
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(9)}],
            "containerStatuses": [{"name": "node", "state": state}],
        },
    )
    return found


def an_event(seconds: float, reason: str, message: str = "", count: int = 1) -> EventView:
    found: EventView = view(
        EVENTS,
        metadata={"name": reason},
        reason=reason,
        message=message,
        count=count,
        lastTimestamp=at(seconds),
    )
    return found


ENDED = {"startedAt": at(20), "finishedAt": at(50), "exitCode": 137, "reason": "OOMKilled"}


def test_a_timeline_is_in_order_and_says_nothing_twice() -> None:
    events = [
        an_event(19, "Pulled", "in 9 s"),
        an_event(7, "FailedScheduling", "no room", 3),
        an_event(19, "Created"),
    ]
    told = timeline.steps(a_job(Failed=51), a_pod(terminated=ENDED), events)
    assert [((step.at - NINE).total_seconds(), step.what, step.detail) for step in told] == [
        (0, "Job created", "job-1"),
        (5, "pod created", "job-1-x7k2p"),
        (7, "could not be scheduled (3 times)", "no room"),
        (9, "scheduled", "to node1"),
        (19, "image there", "in 9 s"),
        (20, "started", ""),
        (50, "process ended", "exit code 137, OOMKilled"),
        (51, "Job failed", "Failed"),
    ]


@pytest.mark.parametrize(
    ("job", "pod", "expected"),
    [
        pytest.param(a_job(), None, {Clock.QUEUE: 60}, id="no pod yet"),
        pytest.param(
            a_job(),
            a_pod(waiting={"reason": "ErrImagePull"}),
            {Clock.QUEUE: 5, Clock.SCHEDULE: 4, Clock.START: 51},
            id="pulling",
        ),
        pytest.param(
            a_job(),
            a_pod(running={"startedAt": at(20)}),
            {Clock.QUEUE: 5, Clock.SCHEDULE: 4, Clock.START: 11, Clock.RUN: 40},
            id="running",
        ),
        pytest.param(
            a_job(Failed=51),
            a_pod(terminated=ENDED),
            {Clock.QUEUE: 5, Clock.SCHEDULE: 4, Clock.START: 11, Clock.RUN: 30},
            id="ended: the process's own time counts",
        ),
        pytest.param(a_job(Failed=30), None, {Clock.QUEUE: 30}, id="ended without a pod"),
    ],
)
def test_four_clocks_share_an_attempts_time(
    job: JobView, pod: PodView | None, expected: dict[Clock, float]
) -> None:
    assert timeline.clocks(job, pod, at(60)) == expected


def an_anchor(store: str) -> ConfigMapView:
    found: ConfigMapView = view(
        CONFIG_MAPS, metadata={"name": "anchor"}, data={"store-path": store}
    )
    return found


RUNNER = {"app.kubernetes.io/component": "runner"}


@pytest.mark.parametrize(
    ("status", "jobs", "dead", "why"),
    [
        ("running", [a_job()], True, "its coordinator has died"),
        ("running", [], True, "its coordinator has died"),
        ("interrupted", [a_job()], True, "it was interrupted, but not all of its Jobs have ended"),
        (
            "failed",
            [a_job(Failed=1)],
            False,
            "it has failed; its ended Jobs go when their time is up",
        ),
        ("succeeded", [], True, "it has succeeded"),
        ("running", [a_job(labels=RUNNER)], False, "its coordinator runs inside the cluster"),
        (
            None,
            [a_job(Failed=1, labels=RUNNER)],
            False,
            "its coordinator, a Job, has ended; its ended Jobs go when their time is up",
        ),
        (
            None,
            [a_job()],
            False,
            "its store knows nothing of it: it has just begun, or is another's",
        ),
    ],
)
def test_a_run_is_dead_when_its_own_store_shows_it(
    tmp_path: Path, status: str | None, jobs: list[JobView], *, dead: bool, why: str
) -> None:
    store = Store.of(tmp_path, tmp_path)
    if status is not None:
        store.new_run(RUN).note(status=status)
    left = cleaning.Leftover(RUN, an_anchor(str(tmp_path)), jobs)
    assert cleaning.judge(left, store) == (dead, why)


def test_a_run_whose_lock_is_held_lives_whatever_else_there_is(tmp_path: Path) -> None:
    store = Store.of(tmp_path, tmp_path)
    store.new_run(RUN).note(status="interrupted")
    left = cleaning.Leftover(RUN, None, [a_job()])
    with store.lock(RUN):
        assert cleaning.judge(left, store) == (False, "its coordinator holds the store's lock")
    assert cleaning.judge(left, store) == (True, "its anchor is gone")
    with store.lock("another run"):
        assert cleaning.judge(left, store)[0]


@pytest.mark.parametrize("there", [True, False])
def test_a_run_of_a_store_that_is_not_to_be_seen_is_left_alone(
    tmp_path: Path, *, there: bool
) -> None:
    store = Store.of(tmp_path, tmp_path) if there else None
    left = cleaning.Leftover(RUN, an_anchor("/another"), [a_job()])
    dead, why = cleaning.judge(left, store)
    assert not dead
    assert why == "whether its coordinator lives can only be seen from its store, /another"
    left.jobs.append(a_job(Failed=3, labels=RUNNER))
    assert cleaning.judge(left, store)[0]


def test_a_leftover_is_as_old_as_the_newest_of_it() -> None:
    left = cleaning.Leftover(RUN, an_anchor("/"), [a_job(created=5), a_job(created=2, Complete=3)])
    assert left.since == at(5)
    assert left.unfinished == 1
