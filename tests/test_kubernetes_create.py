"""What becomes of a node whose Job the API server does not create at the first try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s.names import job_name
from tests.cluster.harness import until
from tests.on_kubernetes import LONG, Volume, volume
from tests.running import new_project, python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.harness import Namespace


@pytest.fixture
def store(namespace: Namespace, image: str) -> Iterator[Volume]:
    with volume(namespace, image) as ours:
        yield ours


def suspended(node_id: str, labels: dict[str, str], **metadata: Any) -> dict[str, Any]:
    """Return a Job that never starts and has the name of a node's first attempt in run r1."""
    container = {"name": "node", "image": "localhost/pause:1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name("r1", node_id, attempt=1), "labels": labels, **metadata},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def created(store: Volume, code: int) -> list[str]:
    """Return the names of the Jobs that were asked for and answered with this status."""
    asked = store.namespace.requests(agent="seeknal-k8s/")
    return [r.name for r in asked if r.call == "create jobs" and r.code == code]


def test_a_node_whose_name_another_job_has_fails_and_the_others_run(store: Volume) -> None:
    project = new_project(store.path)
    for name in ("taken", "free"):
        python(project, name, "pass")
    store.namespace.apply(suspended("transform.taken", {"team": "another"}))
    with store.run(run_id="r1") as ran:
        pass
    assert ran["transform.free"].success
    result = ran["transform.taken"]
    assert (result.reason, result.exit_code, result.attempts) == ("NameTaken", -1, 1)
    (kept,) = store.namespace.get("jobs", "-l", "team=another")["items"]
    assert kept["spec"]["suspend"] is True


def test_a_job_of_ours_that_is_being_deleted_is_created_anew_when_it_is_gone(
    store: Volume,
) -> None:
    python(new_project(store.path), "again", "pass")
    labels = {
        "seeknal.io/run": "r1",
        "seeknal.io/node": "transform.again",
        "seeknal.io/attempt": "1",
    }
    dying = suspended("transform.again", labels, finalizers=["example.com/held"])
    store.namespace.apply(dying)
    name = dying["metadata"]["name"]
    store.namespace.kubectl("delete", "job", name, "--wait=false")
    with store.run(run_id="r1") as ran:
        until(lambda: created(store, 409), "the coordinator at the dying Job", seconds=LONG)
        release = '{"metadata": {"finalizers": null}}'
        store.namespace.kubectl("patch", "job", name, "--type=merge", "-p", release)
    assert ran["transform.again"].success
    assert ran["transform.again"].attempts == 1
    assert created(store, 201) == [name]


def test_jobs_that_a_quota_has_no_room_for_are_created_when_it_has(store: Volume) -> None:
    project = new_project(store.path)
    for name in ("one", "two"):
        python(project, name, "pass")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "jobs"}}
    store.namespace.apply({**quota, "spec": {"hard": {"count/jobs.batch": "1"}}})
    used = ("get", "quota", "jobs", "-o", "jsonpath={.status.hard}")
    until(lambda: store.namespace.kubectl(*used), "the quota's own count")
    with store.run() as ran:
        until(lambda: created(store, 403), "the refusal", seconds=LONG)
        store.namespace.apply({**quota, "spec": {"hard": {"count/jobs.batch": "5"}}})
    assert {result.reason for result in ran.results.values()} == {"Succeeded"}
    assert {result.attempts for result in ran.results.values()} == {1}


def test_a_quota_that_never_has_room_ends_the_node_when_its_clock_runs_out(store: Volume) -> None:
    python(new_project(store.path), "waits", "pass")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "jobs"}}
    store.namespace.apply({**quota, "spec": {"hard": {"count/jobs.batch": "0"}}})
    used = ("get", "quota", "jobs", "-o", "jsonpath={.status.hard}")
    until(lambda: store.namespace.kubectl(*used), "the quota's own count")
    with store.run(settings={"queue_timeout": "4s"}) as ran:
        pass
    result = ran["transform.waits"]
    assert (result.reason, result.exit_code) == ("QuotaExceeded", -1)
    assert "exceeded quota: jobs" in result.message
    assert store.jobs() == []


def test_jobs_that_wait_for_pods_ask_why_together(store: Volume) -> None:
    """A list of events for each would be more requests than all else."""
    project = new_project(store.path)
    for number in range(12):
        python(project, f"waits_{number}", "pass")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}}
    store.namespace.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    used = ("get", "quota", "pods", "-o", "jsonpath={.status.hard}")
    until(lambda: store.namespace.kubectl(*used), "the quota's own count")
    with store.run(settings={"queue_timeout": "15s"}) as ran:
        pass
    assert {result.reason for result in ran.results.values()} == {"QuotaExceeded"}
    asked = store.namespace.requests(agent="seeknal-k8s/")
    assert 1 <= sum(request.call == "list events" for request in asked) <= 8
