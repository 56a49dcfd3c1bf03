"""What a Job and its pod say, as the API server says it, and what we make of that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seeknal_k8s.attempt import Ending
from seeknal_k8s.diagnosis import Clock, Wait, ending, waiting
from seeknal_k8s.verdict import every, read
from seeknal_k8s.views import EVENTS, JOBS, PODS, EventView, JobView, PodView

POLICY = "PodFailurePolicy"
BY_CODE = (
    "Container node for pod ns/a-1-x failed with exit code {} matching FailJob rule at index 1"
)
BY_CONDITION = "Pod ns/a-1-x has condition DisruptionTarget matching FailJob rule at index 0"
FINE = Ending(0, rows=3, outputs=("target/a.parquet",))
ALWAYS = "2026-11-24T03:28:55Z"


def condition(kind: str, reason: str = "", message: str = "", status: str = "True") -> Any:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def a_job(*conditions: Any, **spec: Any) -> JobView:
    body = {"metadata": {"name": "a-1"}, "spec": spec, "status": {"conditions": list(conditions)}}
    return JOBS.one.decode(json.dumps(body))


def failed(message: str, reason: str = POLICY) -> JobView:
    return a_job(condition("FailureTarget", reason), condition("Failed", reason, message))


COMPLETE = a_job(condition("SuccessCriteriaMet"), condition("Complete", "CompletionsReached"))


def a_pod(
    state: Any = None,
    *conditions: Any,
    machine: str = "node1",
    deleted: bool = False,
    **status: Any,
) -> PodView:
    containers = [] if state is None else [{"name": "node", "state": state}]
    body = {
        "metadata": {"name": "a-1-x", **({"deletionTimestamp": ALWAYS} if deleted else {})},
        "spec": {"nodeName": machine},
        "status": {"conditions": list(conditions), "containerStatuses": containers, **status},
    }
    return PODS.one.decode(json.dumps(body))


def terminated(code: int, reason: str = "Error", message: str = "") -> Any:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def waits(reason: str, message: str = "why") -> Any:
    return {"waiting": {"reason": reason, "message": message}}


def events(*told: tuple[str, str]) -> list[EventView]:
    bodies = [{"reason": reason, "message": message} for reason, message in told]
    return [EVENTS.one.decode(json.dumps(body)) for body in bodies]


def case(job: JobView, pod: PodView | None, more: Any, *expected: Any, id: str) -> Any:  # noqa: A002
    """Return a line of a table: what is seen, and what is to come of it."""
    return pytest.param(job, pod, more, expected, id=id)


NOT_ENDED = [
    pytest.param(a_job(), id="a Job without conditions"),
    pytest.param(a_job(condition("SuccessCriteriaMet")), id="about to be complete"),
    pytest.param(a_job(condition("FailureTarget", POLICY)), id="about to be failed"),
    pytest.param(a_job(condition("Complete", status="False")), id="a condition that is not True"),
    pytest.param(a_job(condition("Suspended")), id="suspended"),
]


@pytest.mark.parametrize("job", NOT_ENDED)
@pytest.mark.parametrize("result", [FINE, None], ids=["with a result", "without one"])
def test_a_job_has_ended_when_a_condition_says_so_and_not_before(
    job: JobView, result: Ending | None
) -> None:
    assert ending(job, a_pod(terminated(0, "Completed")), result) is None


def evicted(by: str, why: str = "", **status: Any) -> PodView:
    return a_pod(terminated(137), condition("DisruptionTarget", by, why), **status)


KILLED = terminated(137, "OOMKilled")
ENDINGS = [
    case(COMPLETE, a_pod(terminated(0)), FINE, "Succeeded", 0, "", id="success"),
    case(COMPLETE, None, FINE, "Succeeded", 0, "", id="success, its pod is gone"),
    case(
        COMPLETE, None, None, "ResultMissing", 0, "no result", id="success without a result"
    ),
    case(
        COMPLETE, a_pod(terminated(0, "OOMKilled")), FINE, "OOMKilled", 0, "one of its processes",
        id="success, but out of memory",
    ),
    case(
        failed(BY_CODE.format(1)), a_pod(terminated(1)), Ending(1, "ValueError"), "NodeFailed", 1,
        "ValueError", id="the node failed",
    ),
    case(
        failed(BY_CODE.format(78)), a_pod(terminated(78, "Error", "another project\n")), None,
        "ConfigurationError", 78, "another project", id="the pod's last words, without a result",
    ),
    case(
        failed(BY_CODE.format(3)), None, None, "NodeFailed", 3, "exit code 3",
        id="only the Job's word is left",
    ),
    case(
        failed("Job has reached the specified backoff limit", "BackoffLimitExceeded"), None, None,
        "Lost", -1, "backoff limit", id="not even a code is left",
    ),
    case(
        failed(BY_CODE.format(139)), a_pod(terminated(139)), FINE, "Killed", 139, "139",
        id="a success that the pod does not confirm",
    ),
    case(
        failed(BY_CODE.format(137)), a_pod(KILLED), None, "OOMKilled", 137, "", id="out of memory"
    ),
    case(
        failed(BY_CODE.format(1)), a_pod(terminated(1, "OOMKilled")), Ending(1, "code 137"),
        "OOMKilled", 1, "", id="a script out of memory, and its worker tells",
    ),
    case(
        failed(BY_CODE.format(137)), a_pod(terminated(137)), None, "Killed", 137, "137",
        id="killed, and not for memory",
    ),
    case(
        failed(BY_CODE.format(137)), a_pod(terminated(137), deleted=True), None, "PodDeleted", 137,
        "", id="kubectl delete pod",
    ),
    case(
        failed("Job was active longer than specified deadline", "DeadlineExceeded"),
        a_pod(terminated(143), deleted=True), Ending(143, "told to end"), "DeadlineExceeded", 143,
        "specified deadline", id="the Job's deadline",
    ),
    *(
        case(
            failed(BY_CONDITION), evicted(reason, "it had to go"), None, meant, 137, "had to go",
            id=reason,
        )
        for reason, meant in {
            "PreemptionByScheduler": "Preempted",
            "EvictionByEvictionAPI": "Drained",
            "DeletionByTaintManager": "NodeLost",
            "DeletionByPodGC": "NodeLost",
            "TerminationByKubelet": "Evicted",
            "SomethingOfTomorrow": "Evicted",
        }.items()
    ),
    case(
        failed(BY_CONDITION), None, None, "Evicted", -1, "", id="disrupted, its pod is gone"
    ),
    case(
        failed(BY_CONDITION), evicted("TerminationByKubelet"), Ending(1, "it lost its file"),
        "Evicted", 1, "", id="disrupted, and it says that it failed",
    ),
    *(
        case(
            failed(BY_CONDITION),
            evicted("TerminationByKubelet", "x", reason="Evicted", message=message), None,
            "EphemeralStorage", 137, message, id=message,
        )
        for message in (
            'Usage of EmptyDir volume "tmp" exceeds the limit "50Mi". ',
            "Container node exceeded its local ephemeral storage limit",
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi.",
        )
    ),
    case(
        failed(BY_CONDITION),
        evicted("TerminationByKubelet", reason="Evicted", message="The node was low on memory."),
        None, "Evicted", 137, "low on memory", id="evicted for the machine's memory",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("job", "pod", "result", "expected"), ENDINGS)
def test_how_an_attempt_ended(
    job: JobView, pod: PodView | None, result: Ending | None, expected: tuple[str, int, str]
) -> None:
    reason, code, said = expected
    found = ending(job, pod, result)
    assert found is not None
    assert (read(found).reason, found.exit_code) == (reason, code)
    assert said in found.error


@pytest.mark.parametrize(("job", "pod", "result", "expected"), ENDINGS)
def test_outputs_are_kept_of_a_success_only(
    job: JobView, pod: PodView | None, result: Ending | None, expected: tuple[str, int, str]
) -> None:
    found = ending(job, pod, result)
    assert found is not None
    assert bool(found.outputs) == (expected[0] == "Succeeded")


HOPELESS = {"InvalidImageName", "ServiceAccountMissing", "AdmissionRefused"}
PENDING = [
    case(a_job(suspend=True), None, (), Clock.QUEUE, "Suspended", id="suspended"),
    case(a_job(), None, (), Clock.QUEUE, "", id="no pod yet"),
    *(
        case(
            a_job(), None, (("FailedCreate", message),), Clock.QUEUE, reason, id=message
        )
        for message, reason in (
            ('pods "a-1-x" is forbidden: exceeded quota: none, used: pods=0', "QuotaExceeded"),
            (
                'error looking up service account ns/x: serviceaccount "x" not found',
                "ServiceAccountMissing",
            ),
            (
                'pods "a-1-x" is forbidden: violates PodSecurity "restricted:latest": hostPath',
                "AdmissionRefused",
            ),
            ('admission webhook "x" denied the request: no', "AdmissionRefused"),
            ('Pod "a-1-x" is invalid: spec.x: Required value', "AdmissionRefused"),
            ('pods "a-1-x" is forbidden: no PriorityClass with name x', "AdmissionRefused"),
            ("Internal error occurred: connection refused", "PodNotCreated"),
        )
    ),
    case(
        a_job(), None, (("SuccessfulCreate", "Created pod"),), Clock.QUEUE, "",
        id="an event of no account",
    ),
    case(a_job(), a_pod(machine=""), (), Clock.SCHEDULE, "", id="not scheduled yet"),
    case(
        a_job(),
        a_pod(None, condition("PodScheduled", "Unschedulable", "why", "False"), machine=""), (),
        Clock.SCHEDULE, "Unschedulable", id="nowhere to go",
    ),
    case(
        a_job(),
        a_pod(
            None,
            condition(
                "PodScheduled", "Unschedulable",
                '0/1 nodes are available: persistentvolumeclaim "x" not found.', "False",
            ),
            machine="",
        ), (), Clock.SCHEDULE, "VolumeMissing", id="no claim",
    ),
    case(a_job(), a_pod(), (), Clock.START, "", id="on a machine"),
    case(
        a_job(), a_pod(waits("ContainerCreating")), (), Clock.START, "", id="being made"
    ),
    *(
        case(
            a_job(), a_pod(waits(word)), (), Clock.START, reason, id=word
        )
        for word, reason in {
            "InvalidImageName": "InvalidImageName",
            "ErrImagePull": "ImagePull",
            "ImagePullBackOff": "ImagePull",
            "ErrImageNeverPull": "ImagePull",
            "CreateContainerConfigError": "ContainerConfig",
            "CreateContainerError": "ContainerConfig",
        }.items()
    ),
    *(
        case(
            a_job(), a_pod(waits("ContainerCreating")), ((word, "no volume"),), Clock.START,
            "VolumeMissing", id=word,
        )
        for word in ("FailedMount", "FailedAttachVolume")
    ),
    case(
        a_job(), a_pod({"running": {"startedAt": ALWAYS}}), (), Clock.RUN, "", id="running"
    ),
    case(
        a_job(), a_pod(terminated(0)), (), Clock.RUN, "", id="ended, the Job not yet"
    ),
    case(
        a_job(), a_pod({"running": {}}, deleted=True), (), Clock.RUN, "PodDeleted",
        id="told to end",
    ),
    case(
        a_job(),
        a_pod(waits("x"), condition("DisruptionTarget", "DeletionByTaintManager", "x"), deleted=True),
        (), Clock.RUN, "NodeLost", id="told to end on a machine that may be gone",
    ),
    case(
        a_job(condition("FailureTarget", "DeadlineExceeded", "x")),
        a_pod({"running": {}}, deleted=True), (), Clock.RUN, "DeadlineExceeded",
        id="told to end by the deadline",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("job", "pod", "told", "expected"), PENDING)
def test_where_an_attempt_stands(
    job: JobView,
    pod: PodView | None,
    told: tuple[tuple[str, str], ...],
    expected: tuple[Clock, str],
) -> None:
    found = waiting(job, pod, events(*told))
    assert (found.clock, found.reason) == expected
    reason = expected[1]
    assert found.hopeless == (reason in HOPELESS)
    assert bool(found.message) == (reason not in {"", "PodDeleted"})
    assert reason in {"", *(verdict.reason for verdict in every())}


def test_why_an_image_is_not_there_is_the_registrys_word() -> None:
    pod = a_pod(waits("ErrImagePull", "dial tcp 127.0.0.1:1: connection refused"))
    assert waiting(a_job(), pod) == Wait(
        Clock.START, "ImagePull", "dial tcp 127.0.0.1:1: connection refused"
    )


def test_of_what_is_said_about_a_volume_the_one_that_names_it_counts() -> None:
    """A kubelet that is busy first says that it has waited in vain."""
    told = events(
        ("FailedMount", "timed out waiting for the condition"),
        ("FailedMount", 'configmap "nowhere" not found'),
    )
    found = waiting(a_job(), a_pod(waits("ContainerCreating")), told)
    assert found.message == 'configmap "nowhere" not found'
