"""What a Job and its pod say about an attempt: how it ended, or why it has not begun.

Pure functions over what the API server shows. A Job has ended when its condition ``Complete`` or
``Failed`` is True, and not before: counters, ``SuccessCriteriaMet`` and ``FailureTarget`` come
earlier (https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from seeknal_k8s import exitcodes
from seeknal_k8s.attempt import Ending
from seeknal_k8s.results import NO_EXIT_CODE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seeknal_k8s.views import Condition, EventView, JobView, PodView, Terminated

CONTAINER = "node"
"""The name of the container that runs the node."""

_DISRUPTIONS = {
    "PreemptionByScheduler": "Preempted",
    "PreemptionByKubeScheduler": "Preempted",
    "EvictionByEvictionAPI": "Drained",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
    "TerminationByKubelet": "Evicted",
}
"""The reasons of the pod condition ``DisruptionTarget``, in words that people use.

https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
"""

_EXIT_CODE = re.compile(r"exit code (\d+)")


class Clock(StrEnum):
    """What an attempt that does not run yet is waiting in; each has a limit of its own."""

    QUEUE = "queued"
    SCHEDULE = "scheduling"
    START = "starting"
    RUN = "running"


@dataclass(frozen=True, slots=True)
class Wait:
    """Where an attempt stands: the clock that runs, and why. ``hopeless`` if waiting cannot help.

    ``reason`` is the word that an ending for this reason will have.
    """

    clock: Clock
    reason: str = ""
    message: str = ""
    hopeless: bool = False


def ending(job: JobView, pod: PodView | None, result: Ending | None) -> Ending | None:
    """Return how an attempt ended, None while it has not.

    ``result`` is what its supervisor has written into the store, if anything. The platform's own
    word goes before it: a pod that was evicted did not fail by itself, whatever it managed to say.
    """
    complete, failed = job.condition("Complete"), job.condition("Failed")
    terminated = _terminated(pod)
    if complete is not None:
        return _completed(result, terminated)
    if failed is None:
        return None
    reason = _platform_reason(failed, pod)
    if reason:
        observed = result or Ending(exit_code=_exit_code(terminated, failed))
        return replace(observed, reason=reason, error=_words(failed, pod), outputs=())
    if result is not None and result.exit_code != exitcodes.OK:
        return result
    error = terminated.message.strip() if terminated else ""
    return Ending(exit_code=_exit_code(terminated, failed), error=error or failed.message)


def _completed(result: Ending | None, terminated: Terminated | None) -> Ending:
    if terminated is not None and terminated.reason == "OOMKilled":
        # One of its processes was killed for memory, and the node did not notice.
        observed = result or Ending(exit_code=exitcodes.OK)
        error = "it ended well, but one of its processes was killed for memory"
        return replace(observed, reason="OOMKilled", error=error, outputs=())
    if result is None:
        return Ending(
            exit_code=exitcodes.OK, reason="ResultMissing", error="there is no result in the store"
        )
    return result


def _platform_reason(failed: Condition, pod: PodView | None) -> str:
    """Return the platform's reason for a failure, an empty string if it was the node's own."""
    if pod is not None and pod.status.reason == "Evicted" and _names_disk(pod.status.message):
        return "EphemeralStorage"
    target = pod.condition("DisruptionTarget") if pod is not None else None
    if target is not None:
        return _DISRUPTIONS.get(target.reason, "Evicted")
    if "DisruptionTarget" in failed.message:
        return "Evicted"
    if "DeadlineExceeded" in {failed.reason, pod.status.reason if pod is not None else ""}:
        return "DeadlineExceeded"
    terminated = _terminated(pod)
    if terminated is not None and terminated.reason == "OOMKilled":
        return "OOMKilled"
    if pod is not None and pod.metadata.deletion_timestamp is not None:
        return "PodDeleted"
    return ""


def _names_disk(message: str) -> bool:
    return "ephemeral" in message.lower() or "emptydir" in message.lower()


def _words(failed: Condition, pod: PodView | None) -> str:
    """Return what the cluster says about a failure, unless that is only which rule it matches."""
    target = pod.condition("DisruptionTarget") if pod is not None else None
    own = "" if failed.reason == "PodFailurePolicy" else failed.message
    told = (pod.status.message if pod else "", target.message if target else "", own)
    return next((words for words in told if words), "")


def _terminated(pod: PodView | None) -> Terminated | None:
    container = pod.container(CONTAINER) if pod is not None else None
    return container.state.terminated if container is not None else None


def _exit_code(terminated: Terminated | None, failed: Condition) -> int:
    """Return the container's exit code: its own record's, or the one in the Job's condition."""
    if terminated is not None:
        return terminated.exit_code
    found = _EXIT_CODE.search(failed.message)
    return int(found[1]) if found else NO_EXIT_CODE


def waiting(job: JobView, pod: PodView | None, events: Iterable[EventView] = ()) -> Wait:
    """Return where an attempt that has not ended stands, and why."""
    if job.suspended:
        return Wait(
            Clock.QUEUE, "Suspended", "the Job is suspended; a queue decides when it starts"
        )
    if pod is None:
        return _without_pod(events)
    if pod.metadata.deletion_timestamp is not None:
        return _leaving(job, pod)
    container = pod.container(CONTAINER)
    if container is not None and (container.state.running or container.state.terminated):
        return Wait(Clock.RUN)
    if not pod.spec.node_name:
        told = next((c for c in pod.status.conditions or () if c.type == "PodScheduled"), None)
        message = told.message if told is not None else ""
        if "persistentvolumeclaim" in message.lower():
            return Wait(Clock.SCHEDULE, "VolumeMissing", message)
        return Wait(Clock.SCHEDULE, "Unschedulable" if message else "", message)
    return _starting(pod, events)


def _leaving(job: JobView, pod: PodView) -> Wait:
    """Return why a pod is told to end: on a machine that is gone, nobody ever does that."""
    failing, target = job.condition("FailureTarget"), pod.condition("DisruptionTarget")
    if failing is not None and failing.reason == "DeadlineExceeded":
        return Wait(Clock.RUN, "DeadlineExceeded", failing.message)
    if target is not None:
        return Wait(Clock.RUN, _DISRUPTIONS.get(target.reason, "Evicted"), target.message)
    return Wait(Clock.RUN, "PodDeleted")


_REFUSALS = (
    ("exceeded quota", "QuotaExceeded", False),
    ("serviceaccount", "ServiceAccountMissing", True),
    ("violates PodSecurity", "AdmissionRefused", True),
    ("admission webhook", "AdmissionRefused", True),
    ("is invalid", "AdmissionRefused", True),
    ("forbidden", "AdmissionRefused", True),
)
"""What the Job controller's event ``FailedCreate`` says when it may not create the pod."""


def _without_pod(events: Iterable[EventView]) -> Wait:
    for event in events:
        if event.reason != "FailedCreate":
            continue
        for words, reason, hopeless in _REFUSALS:
            if words in event.message:
                return Wait(Clock.QUEUE, reason, event.message, hopeless=hopeless)
        return Wait(Clock.QUEUE, "PodNotCreated", event.message)
    return Wait(Clock.QUEUE)


_NO_VOLUME = frozenset({"FailedMount", "FailedAttachVolume"})


def _starting(pod: PodView, events: Iterable[EventView]) -> Wait:
    container = pod.container(CONTAINER)
    waits = container.state.waiting if container is not None else None
    if waits is not None:
        if waits.reason == "InvalidImageName":
            return Wait(Clock.START, "InvalidImageName", waits.message, hopeless=True)
        if waits.reason in {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"}:
            return Wait(Clock.START, "ImagePull", waits.message)
        if waits.reason in {"CreateContainerConfigError", "CreateContainerError"}:
            return Wait(Clock.START, "ContainerConfig", waits.message)
    told = [event.message for event in events if event.reason in _NO_VOLUME]
    if told:  # others may only say that a wait for it was in vain
        message = next((message for message in told if "not found" in message), told[0])
        return Wait(Clock.START, "VolumeMissing", message)
    return Wait(Clock.START)
