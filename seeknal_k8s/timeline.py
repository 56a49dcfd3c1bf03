"""When what happened to an attempt: its Job's, its pod's and their events' times, in order.

Pure functions over what the API server shows. Kubernetes' times are whole seconds, and of three
machines' clocks, so what follows from them is that exact and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seeknal_k8s.diagnosis import CONTAINER, Clock
from seeknal_k8s.views import ContainerState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from seeknal_k8s.views import EventView, JobView, PodView


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened, when, and more about it."""

    at: datetime
    what: str
    detail: str = ""


_TOLD = {
    "Pulling": "pulling its image",
    "Pulled": "image there",
    "FailedScheduling": "could not be scheduled",
    "FailedCreate": "pod could not be created",
    "FailedMount": "a volume could not be mounted",
    "FailedAttachVolume": "a volume could not be attached",
    "Evicted": "evicted",
    "Preempted": "preempted",
    "Killing": "being ended",
    "BackOff": "waits before it tries again",
    "Failed": "failed to start",
    "Suspended": "suspended",
    "Resumed": "admitted by its queue",
    "DeadlineExceeded": "its deadline has passed",
}
"""The reasons of events that say when, or why not; the others repeat what Job and pod say."""


def steps(job: JobView, pod: PodView | None, events: Iterable[EventView]) -> list[Step]:
    """Return what happened to an attempt, in order."""
    found = [_step(job.metadata.creation_timestamp, "Job created", job.name)]
    if pod is not None:
        state = _state(pod)
        running, done = state.running, state.terminated
        started = running.started_at if running else done.started_at if done else None
        found += [
            _step(pod.metadata.creation_timestamp, "pod created", pod.name),
            _step(_scheduled(pod), "scheduled", f"to {pod.spec.node_name}"),
            _step(started, "started"),
            _step(pod.metadata.deletion_timestamp, "pod to be gone", "somebody deletes it"),
        ]
        if done is not None:
            found.append(
                _step(done.finished_at, "process ended", _ending(done.exit_code, done.reason))
            )
    for kind in ("Complete", "Failed"):
        if told := job.condition(kind):
            found.append(_step(told.last_transition_time, f"Job {kind.lower()}", told.message))
    for event in events:
        if event.reason in _TOLD:
            times = f" ({event.count} times)" if event.count > 1 else ""
            found.append(_step(event.last, _TOLD[event.reason] + times, event.message))
    return sorted((step for step in found if step is not None), key=lambda step: step.at)


def clocks(job: JobView, pod: PodView | None, now: datetime) -> dict[Clock, float]:
    """Return how many seconds an attempt has spent in each clock so far; the last one may still run."""
    marks: list[tuple[Clock, datetime | None]] = [(Clock.QUEUE, job.metadata.creation_timestamp)]
    ended = next(
        (
            told.last_transition_time
            for kind in ("Complete", "Failed")
            if (told := job.condition(kind))
        ),
        None,
    )
    if pod is not None:
        state = _state(pod)
        marks += [
            (Clock.SCHEDULE, pod.metadata.creation_timestamp),
            (Clock.START, _scheduled(pod)),
        ]
        if state.running is not None:
            marks.append((Clock.RUN, state.running.started_at))
        elif state.terminated is not None:
            marks.append((Clock.RUN, state.terminated.started_at))
            ended = state.terminated.finished_at or ended
    known = [(clock, at) for clock, at in marks if at is not None]
    ends = [at for _, at in known[1:]] + [ended or now]
    return {
        clock: max(0.0, (end - at).total_seconds())
        for (clock, at), end in zip(known, ends, strict=True)
    }


def _step(at: datetime | None, what: str, detail: str = "") -> Step | None:
    return None if at is None else Step(at, what, detail)


def _state(pod: PodView) -> ContainerState:
    container = pod.container(CONTAINER)
    return container.state if container is not None else ContainerState()


def _scheduled(pod: PodView) -> datetime | None:
    told = pod.condition("PodScheduled")
    return told.last_transition_time if told is not None else None


def _ending(code: int, reason: str) -> str:
    return f"exit code {code}" + (
        f", {reason}" if reason and reason not in {"Error", "Completed"} else ""
    )
