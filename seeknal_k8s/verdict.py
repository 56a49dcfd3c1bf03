"""Ending → Verdict: what an attempt's end means, whose fault it is, and what to do next.

A closed list, and a pure function. A backend's own ``reason`` comes first, the exit code last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from seeknal_k8s import exitcodes

if TYPE_CHECKING:
    from seeknal_k8s.attempt import Ending


class Fault(StrEnum):
    """Whose fault a failure is: it decides which budget a retry is taken from."""

    NOBODY = "nobody"
    NODE = "node"
    PLATFORM = "platform"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Our reading of an ending: one word, a sentence, the fault, and whether to try again.

    ``hint`` says what to do, with ``{node}`` to be filled in.
    """

    reason: str
    summary: str
    fault: Fault
    retry: bool
    hint: str = ""

    @property
    def success(self) -> bool:
        """Whether the attempt's outputs may be accepted."""
        return self.fault is Fault.NOBODY


_LOGS = "seeknal-k8s logs {node}"

SUCCEEDED = Verdict("Succeeded", "the node succeeded", Fault.NOBODY, retry=False)
_BY_CODE = {
    exitcodes.OK: SUCCEEDED,
    exitcodes.NODE_FAILED: Verdict(
        "NodeFailed", "the node failed", Fault.NODE, retry=True, hint=_LOGS
    ),
    exitcodes.UNVERIFIED: Verdict(
        "VerificationFailed",
        "the node said it succeeded, but its output is not right",
        Fault.NODE,
        retry=True,
        hint=_LOGS,
    ),
    exitcodes.INPUT_MISSING: Verdict(
        "InputMissing",
        "an input of the node is gone",
        Fault.USER,
        retry=False,
        hint="seeknal-k8s run --select +{node}",
    ),
    exitcodes.UNAVAILABLE: Verdict(
        "StoreUnavailable",
        "the store could not be written",
        Fault.PLATFORM,
        retry=True,
        hint="make room on the disk, then resume",
    ),
    exitcodes.OUT_OF_MEMORY: Verdict(
        "OutOfMemory",
        "the node's DuckDB ran out of its memory",
        Fault.NODE,
        retry=True,
        hint="give it more: --set {node}:memory=4Gi, or `kubernetes: {{memory: 4Gi}}` in its file",
    ),
    exitcodes.CONFIGURATION: Verdict(
        "ConfigurationError",
        "the node was not run: its project is not the one that was planned",
        Fault.USER,
        retry=False,
        hint="seeknal-k8s plan",
    ),
    exitcodes.TIMEOUT: Verdict(
        "Timeout",
        "the node ran out of time",
        Fault.NODE,
        retry=True,
        hint="give it longer: --set {node}:timeout=1h, or `kubernetes: {{timeout: 1h}}` in its file",
    ),
    exitcodes.TERMINATED: Verdict("Cancelled", "the node was cancelled", Fault.USER, retry=False),
}
_KILLED = Verdict("Killed", "the node's process was killed", Fault.NODE, retry=True, hint=_LOGS)
_LOST = Verdict(
    "Lost", "the attempt ended without a result", Fault.PLATFORM, retry=True, hint=_LOGS
)


def _platform(reason: str, summary: str) -> Verdict:
    return Verdict(reason, summary, Fault.PLATFORM, retry=True, hint="kubectl get events")


def _refused(reason: str, summary: str, hint: str) -> Verdict:
    return Verdict(reason, summary, Fault.USER, retry=False, hint=hint)


_MORE_MEMORY = (
    "give it more: --set {node}:memory=4Gi, or let it grow: `kubernetes: {{memory_max: 8Gi}}`"
)
_BY_REASON = {
    verdict.reason: verdict
    for verdict in (
        Verdict(
            "OOMKilled",
            "the node needed more memory than its limit",
            Fault.NODE,
            retry=True,
            hint=_MORE_MEMORY,
        ),
        Verdict(
            "EphemeralStorage",
            "the node needed more disk than its limit",
            Fault.NODE,
            retry=True,
            hint="give it more: --set {node}:ephemeral_storage=10Gi",
        ),
        Verdict(
            "DeadlineExceeded",
            "the Job's deadline ended the pod, and its log with it",
            Fault.NODE,
            retry=True,
            hint="give it longer: --set {node}:timeout=1h",
        ),
        _platform("Evicted", "the kubelet ended the pod to protect its machine"),
        _platform("Preempted", "the scheduler ended the pod for a more important one"),
        _platform("Drained", "the pod was evicted, as when a machine is emptied"),
        _platform("NodeLost", "the machine of the pod has gone"),
        _platform("PodDeleted", "somebody deleted the pod"),
        _platform("ResultMissing", "the pod ended well, but its result is not in the store"),
        _platform("JobVanished", "the Job has gone, and there is no result in the store"),
        _refused("JobDeleted", "somebody deleted the Job", "seeknal-k8s run --resume latest"),
        _refused("Unschedulable", "no machine of the cluster has room for it", "kubectl get nodes"),
        _refused(
            "QuotaExceeded", "the namespace's quota had no room for it", "kubectl describe quota"
        ),
        _refused("Suspended", "its queue did not let it start in time", "kubectl get workloads"),
        _refused("ImagePull", "its image cannot be pulled", "kubectl describe pod"),
        _refused("InvalidImageName", "the name of its image is not valid", "correct the image"),
        _refused(
            "ContainerConfig", "a Secret or ConfigMap it names is not there", "kubectl get secrets"
        ),
        _refused("VolumeMissing", "a volume it needs cannot be mounted", "kubectl get pvc"),
        _refused("ServiceAccountMissing", "its service account is not there", "kubectl get sa"),
        _refused("AdmissionRefused", "the cluster's rules forbid its pod", "kubectl get events"),
        _refused("PodNotCreated", "its pod could not be created", "kubectl get events"),
        _refused("NotStarted", "its pod did not start in time", "kubectl describe pod"),
    )
}


MEMORY = frozenset({"OOMKilled", "OutOfMemory"})
"""The reasons that more memory may mend."""


def every() -> list[Verdict]:
    """Return the whole list, for docs and tests."""
    return [*_BY_CODE.values(), _KILLED, _LOST, *_BY_REASON.values()]


def read(ending: Ending) -> Verdict:
    """Return the verdict on an ending: the backend's own reason first, the exit code last."""
    if ending.reason in _BY_REASON:
        return _BY_REASON[ending.reason]
    if known := _BY_CODE.get(ending.exit_code):
        return known
    if ending.exit_code > 128:  # noqa: PLR2004 - 128 + the number of a signal, as in a shell
        return _KILLED
    return _LOST if ending.exit_code < 0 else _BY_CODE[exitcodes.NODE_FAILED]
