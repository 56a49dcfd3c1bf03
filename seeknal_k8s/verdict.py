"""Ending → Verdict: what an attempt's end means, whose fault it is, and what to do next.

A closed list, and a pure function. A backend's own ``reason`` comes first, the exit code last.
``python -m seeknal_k8s.verdict`` prints ``docs/troubleshooting.md``.
"""

from __future__ import annotations

import sys
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

    ``evidence`` is what it is read from, ``hint`` what to do, with ``{node}`` to be filled in.
    """

    reason: str
    summary: str
    fault: Fault
    retry: bool
    evidence: str
    hint: str = ""

    @property
    def success(self) -> bool:
        """Whether the attempt's outputs may be accepted."""
        return self.fault is Fault.NOBODY


_LOGS = "seeknal-k8s logs {node}"

SUCCEEDED = Verdict(
    "Succeeded",
    "the node succeeded",
    Fault.NOBODY,
    retry=False,
    evidence="exit code 0, and outputs that passed verification",
)
_BY_CODE = {
    exitcodes.OK: SUCCEEDED,
    exitcodes.NODE_FAILED: Verdict(
        "NodeFailed",
        "the node failed",
        Fault.NODE,
        retry=True,
        evidence="any exit code without a meaning of its own",
        hint=_LOGS,
    ),
    exitcodes.UNVERIFIED: Verdict(
        "VerificationFailed",
        "the node said it succeeded, but its output is not right",
        Fault.NODE,
        retry=True,
        evidence="exit code 65: an output is missing, older than the attempt, unreadable or empty",
        hint=_LOGS,
    ),
    exitcodes.INPUT_MISSING: Verdict(
        "InputMissing",
        "an input of the node is gone",
        Fault.USER,
        retry=False,
        evidence="exit code 66: a published file of an upstream node is not in the store",
        hint="seeknal-k8s run --select +{node}",
    ),
    exitcodes.UNAVAILABLE: Verdict(
        "StoreUnavailable",
        "the store could not be written",
        Fault.PLATFORM,
        retry=True,
        evidence="exit code 69: a write to the store failed, or its disk is full",
        hint="make room on the disk, then resume",
    ),
    exitcodes.OUT_OF_MEMORY: Verdict(
        "OutOfMemory",
        "the node's DuckDB ran out of its memory",
        Fault.NODE,
        retry=True,
        evidence="exit code 77: DuckDB or Python said so before the kernel had to act",
        hint="give it more: --set {node}:memory=4Gi, or `kubernetes: {{memory: 4Gi}}` in its file",
    ),
    exitcodes.CONFIGURATION: Verdict(
        "ConfigurationError",
        "the node was not run: its project is not the one that was planned",
        Fault.USER,
        retry=False,
        evidence="exit code 78: the digest of the project in the pod differs, or its order cannot be read",
        hint="seeknal-k8s plan",
    ),
    exitcodes.TIMEOUT: Verdict(
        "Timeout",
        "the node ran out of time",
        Fault.NODE,
        retry=True,
        evidence="exit code 124: the clock inside the pod, so log and result are kept",
        hint="give it longer: --set {node}:timeout=1h, or `kubernetes: {{timeout: 1h}}` in its file",
    ),
    exitcodes.TERMINATED: Verdict(
        "Cancelled",
        "the node was cancelled",
        Fault.USER,
        retry=False,
        evidence="exit code 143: its process was told to end, by Ctrl-C, cancel or a deletion",
        hint="seeknal-k8s run --resume latest",
    ),
}
_KILLED = Verdict(
    "Killed",
    "the node's process was killed",
    Fault.NODE,
    retry=True,
    evidence="an exit code above 128, and no word from the platform why",
    hint=_LOGS,
)
_LOST = Verdict(
    "Lost",
    "the attempt ended without a result",
    Fault.PLATFORM,
    retry=True,
    evidence="no exit code, no result in the store, no reason",
    hint=_LOGS,
)


def _platform(reason: str, summary: str, evidence: str) -> Verdict:
    hint = "kubectl get events"
    return Verdict(reason, summary, Fault.PLATFORM, retry=True, evidence=evidence, hint=hint)


def _refused(reason: str, summary: str, evidence: str, hint: str) -> Verdict:
    return Verdict(reason, summary, Fault.USER, retry=False, evidence=evidence, hint=hint)


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
            evidence="the container's own record says OOMKilled, also where it exited with 0",
            hint=_MORE_MEMORY,
        ),
        Verdict(
            "EphemeralStorage",
            "the node needed more disk than its limit",
            Fault.NODE,
            retry=True,
            evidence="the pod was Evicted, and the kubelet's message names its disk",
            hint="give it more: --set {node}:ephemeral_storage=10Gi",
        ),
        Verdict(
            "DeadlineExceeded",
            "the Job's deadline ended the pod, and its log with it",
            Fault.NODE,
            retry=True,
            evidence="the Job's condition Failed has this reason; only a pod that cannot keep its own clock gets there",
            hint="give it longer: --set {node}:timeout=1h",
        ),
        _platform(
            "Evicted",
            "the kubelet ended the pod to protect its machine",
            "the pod's condition DisruptionTarget, reason TerminationByKubelet",
        ),
        _platform(
            "Preempted",
            "the scheduler ended the pod for a more important one",
            "the pod's condition DisruptionTarget, reason PreemptionByScheduler",
        ),
        _platform(
            "Drained",
            "the pod was evicted, as when a machine is emptied",
            "the pod's condition DisruptionTarget, reason EvictionByEvictionAPI",
        ),
        _platform(
            "NodeLost",
            "the machine of the pod has gone",
            "the pod's condition DisruptionTarget, reason DeletionByTaintManager or DeletionByPodGC",
        ),
        _platform(
            "PodDeleted",
            "somebody deleted the pod",
            "the pod has a deletion timestamp, and nobody else claims the deletion",
        ),
        _platform(
            "ResultMissing",
            "the pod ended well, but its result is not in the store",
            "the Job is Complete, and no result came within 5 s",
        ),
        _platform(
            "JobVanished",
            "the Job has gone, and there is no result in the store",
            "the Job was there and is not, and its pod had succeeded",
        ),
        _refused(
            "JobDeleted",
            "somebody deleted the Job",
            "the Job was there and is not, and no result was written",
            "seeknal-k8s run --resume latest",
        ),
        _refused(
            "Unschedulable",
            "no machine of the cluster has room for it",
            "the pod's condition PodScheduled is False for longer than SEEKNAL_K8S_SCHEDULE_TIMEOUT",
            "kubectl get nodes",
        ),
        _refused(
            "QuotaExceeded",
            "the namespace's quota had no room for it",
            "the refusal of the Job or of its pod, for longer than SEEKNAL_K8S_QUEUE_TIMEOUT",
            "kubectl describe quota",
        ),
        _refused(
            "Suspended",
            "its queue did not let it start in time",
            "spec.suspend is true for longer than SEEKNAL_K8S_QUEUE_TIMEOUT",
            "kubectl get workloads",
        ),
        _refused(
            "ImagePull",
            "its image cannot be pulled",
            "the container waits with ErrImagePull for longer than SEEKNAL_K8S_IMAGE_PULL_GRACE",
            "kubectl describe pod",
        ),
        _refused(
            "InvalidImageName",
            "the name of its image is not valid",
            "the container waits with this reason; waiting cannot help",
            "correct the image",
        ),
        _refused(
            "ContainerConfig",
            "a Secret or ConfigMap it names is not there",
            "the container waits with CreateContainerConfigError for longer than SEEKNAL_K8S_START_TIMEOUT",
            "kubectl get secrets",
        ),
        _refused(
            "VolumeMissing",
            "a volume it needs cannot be mounted",
            "the scheduler names a PersistentVolumeClaim, or the pod's event is FailedMount",
            "kubectl get pvc",
        ),
        _refused(
            "ServiceAccountMissing",
            "its service account is not there",
            "the Job's event FailedCreate names a service account",
            "kubectl get sa",
        ),
        _refused(
            "AdmissionRefused",
            "the cluster's rules forbid its pod",
            "the API server's refusal of the Job, or the Job's event FailedCreate, names Pod Security, a webhook or an invalid field",
            "kubectl get events",
        ),
        _refused(
            "NameTaken",
            "another Job has its name",
            "the API server answers 409, and the Job of that name has other labels",
            "kubectl get jobs --show-labels",
        ),
        _refused(
            "PodNotCreated",
            "its pod could not be created",
            "the Job's event FailedCreate has another message",
            "kubectl get events",
        ),
        _refused(
            "NotStarted",
            "its pod did not start in time",
            "none of the above, and a clock ran out",
            "kubectl describe pod",
        ),
    )
}


MEMORY = frozenset({"OOMKilled", "OutOfMemory"})
"""The reasons that more memory may mend."""


def every() -> list[Verdict]:
    """Return the whole list, for docs and tests."""
    return [*_BY_CODE.values(), _KILLED, _LOST, *_BY_REASON.values()]


def hint(reason: str) -> str:
    """Return what to do about a reason, with ``{node}`` to be filled in; empty if there is none."""
    return next((verdict.hint for verdict in every() if verdict.reason == reason), "")


def read(ending: Ending) -> Verdict:
    """Return the verdict on an ending: the backend's own reason first, the exit code last."""
    if ending.reason in _BY_REASON:
        return _BY_REASON[ending.reason]
    if known := _BY_CODE.get(ending.exit_code):
        return known
    if ending.exit_code > 128:  # noqa: PLR2004 - 128 + the number of a signal, as in a shell
        return _KILLED
    return _LOST if ending.exit_code < 0 else _BY_CODE[exitcodes.NODE_FAILED]


_HEAD = """\
# Troubleshooting

A node's result has a `reason`: one word of the list below. `seeknal-k8s show` prints it with a
sentence and the next command, `seeknal-k8s why NODE` the whole story: what the node waited for, its
limits, its peak memory, what Kubernetes said. `seeknal-k8s logs NODE` is what it printed, also when
its pod is long gone. What is not about one node is checked by `seeknal-k8s doctor`.

Whose fault a failure is decides what happens next. The *node's*: it is tried again as often as its
option `retries` says. The *platform's*: it is tried again up to three times, and that costs the node
none of its own. *Yours*: it is not tried again, since only you can mend it.
"""

_BUDGET = {
    Fault.NOBODY: "",
    Fault.NODE: "the node's; tried again within `retries`",
    Fault.PLATFORM: "the platform's; tried again, at no cost to the node's retries",
    Fault.USER: "yours; not tried again",
}


def page() -> str:
    """Return ``docs/troubleshooting.md``: an entry per verdict that is not success."""
    failures = [verdict for verdict in every() if not verdict.success]
    entries = [_entry(verdict) for verdict in sorted(failures, key=lambda one: one.reason)]
    return "\n".join([_HEAD, *entries])


def _entry(verdict: Verdict) -> str:
    rows = [
        f"## {verdict.reason}",
        "",
        f"{verdict.summary[0].upper()}{verdict.summary[1:]}.",
        "",
        f"- Seen by: {verdict.evidence}",
        f"- Whose fault: {_BUDGET[verdict.fault]}",
    ]
    if verdict.reason in MEMORY:
        rows.append(
            "- Before that: more memory each time, up to `memory_max`, apart from `retries`"
        )
    if verdict.hint:
        rows.append(f"- Next: {_typed(verdict.hint.format(node='NODE'))}")
    return "\n".join([*rows, ""])


def _typed(hint: str) -> str:
    """Return a hint as Markdown: a whole command as code, a sentence as it is."""
    return f"`{hint}`" if hint.startswith(("seeknal-k8s ", "kubectl ")) else hint


if __name__ == "__main__":
    sys.stdout.write(page())
