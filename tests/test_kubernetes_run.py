"""Whole runs on a real cluster: equal to a local one, waiting, interrupted, killed and resumed."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.errors import Interrupted
from seeknal_k8s.events import NodeEnded
from seeknal_k8s.store import Store
from tests.cluster.harness import until
from tests.faithful import EXAMPLE, copy_project, differences, states
from tests.on_kubernetes import LONG, Volume, kill, volume
from tests.projects import write
from tests.running import new_project, python, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seeknal_k8s.results import RunResults
    from tests.cluster.harness import Namespace


@pytest.fixture
def store(namespace: Namespace, image: str) -> Iterator[Volume]:
    with volume(namespace, image) as ours:
        yield ours


def waits_for(store: Volume, name: str) -> str:
    """Return the body of a node that says that it runs, and runs until the test says so."""
    return f"""
        open({str(store.marks / name)!r}, "w").close()
        print("it runs", flush=True)
        while not os.path.exists({str(store.marks / "go")!r}):
            time.sleep(0.05)
    """


def results(store: Volume) -> RunResults:
    """Return the results of the only run."""
    found = Store.of(store.path, store.path).run("r1").results()
    assert found is not None
    return found


def test_the_example_is_equal_to_a_local_run(store: Volume, tmp_path: Path) -> None:
    here, there = tmp_path / "project", store.path / "project"
    copy_project(EXAMPLE, there)
    copy_project(EXAMPLE, here)
    assert run(here).results.success
    with store.run(run_id="r1") as ran:
        pass
    assert ran.results.success
    assert {result.attempts for result in ran.results.values()} == {1}
    assert differences(here, store.path) == []
    assert states(store.path) == states(here)
    jobs = store.jobs()
    assert len(jobs) == len(ran.results)
    assert {job["metadata"]["ownerReferences"][0]["kind"] for job in jobs} == {"ConfigMap"}


def test_a_node_that_waits_for_quota_runs_when_there_is_some(store: Volume) -> None:
    python(new_project(store.path), "modest", "pass")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    store.namespace.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    limits = {"queue_timeout": "5m"}
    with store.run(settings=limits) as ran:
        refused = ("events", "--field-selector=reason=FailedCreate")
        until(lambda: store.namespace.get(*refused)["items"], "the refusal", seconds=LONG)
        assert not ran.told(NodeEnded, "transform.modest")
        store.namespace.apply({**quota, "spec": {"hard": {"pods": "10"}}})
    assert ran["transform.modest"].success
    assert ran["transform.modest"].attempts == 1


def test_a_suspended_job_runs_when_it_may_and_not_another_project(store: Volume) -> None:
    """Two Jobs wait for their queue; between the one and the other the project changes."""
    project = new_project(store.path, "defaults: {queue: team, retries: 2, backoff: 1s}\n")
    for name in ("first", "second"):
        python(project, name, "pass")
    with store.run() as ran:
        until(lambda: len(store.jobs()) == 2, "two Jobs", seconds=LONG)
        for job in store.jobs():
            assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
            assert job["spec"]["suspend"] is True
        assert store.pods() == []
        admit(store, "transform.first")
        until(lambda: ran.told(NodeEnded, "transform.first"), "its end", seconds=LONG)
        python(project, "third", "pass")
        admit(store, "transform.second")
    assert ran["transform.first"].success
    result = ran["transform.second"]
    assert (result.reason, result.exit_code, result.attempts) == ("ConfigurationError", 78, 1)
    assert "is not the one that was planned" in result.message


def admit(store: Volume, node_id: str) -> None:
    """Let a Job start, as Kueue does."""
    patch = '{"spec": {"suspend": false}}'
    store.namespace.kubectl("patch", "job", store.job(node_id), "--type=merge", "-p", patch)


def test_ctrl_c_leaves_no_job_and_no_pod(store: Volume) -> None:
    project = new_project(store.path)
    for name in ("one", "two", "three"):
        python(project, name, waits_for(store, name))
    python(project, "queued", "pass")
    write(project, "seeknal-k8s.yml", "nodes: {transform.queued: {queue: nobody}}\n")
    program = store.start("--run-id", "r1")
    for name in ("one", "two", "three"):
        store.wait_for_mark(name)
    assert len(store.jobs()) == 4
    program.send_signal(signal.SIGINT)
    said, _ = program.communicate(timeout=LONG)
    assert program.returncode == Interrupted.exit_code
    assert "--resume r1" in said
    assert store.jobs() == []
    assert store.pods() == []
    assert {result.reason for result in results(store).values()} == {"Interrupted"}


def test_a_killed_coordinator_comes_back_to_its_own_jobs(store: Volume) -> None:
    """One Job has ended, and even gone, while nobody looked; another still runs."""
    project = new_project(store.path)
    python(
        project, "quick", waits_for(store, "quick").replace('"go"', '"on"').replace("/go'", "/on'")
    )
    python(project, "slow", waits_for(store, "slow"))
    python(project, "last", "pass", "transform.quick", "transform.slow")
    program = store.start("--run-id", "r1")
    for name in ("quick", "slow"):
        store.wait_for_mark(name)
    kill(program)
    job = store.job("transform.quick")
    store.mark("on")
    assert store.namespace.ended(job) == "Complete"
    forget = '{"spec": {"ttlSecondsAfterFinished": 0}}'
    store.namespace.kubectl("patch", "job", job, "--type=merge", "-p", forget)
    until(lambda: store.jobs("transform.quick") == [], "its removal", seconds=LONG)

    program = store.start("--resume", "r1")
    until(lambda: "409" in _answers(store), "the second coordinator at its Job", seconds=LONG)
    store.mark("go")
    said, _ = program.communicate(timeout=LONG)

    assert program.returncode == 0, said
    ended = results(store)
    assert {node: (result.reason, result.attempts) for node, result in ended.items()} == {
        "transform.quick": ("Succeeded", 1),
        "transform.slow": ("Succeeded", 1),
        "transform.last": ("Succeeded", 1),
    }
    assert ended["transform.slow"].stdout.startswith("it runs\n")
    created = [
        r.name for r in store.namespace.requests() if r.call == "create jobs" and r.code == 201
    ]
    assert len(created) == len(set(created)) == 3
    accepted = store.path / "runs" / "r1" / "accepted.jsonl"
    nodes = [json.loads(line)["node"] for line in accepted.read_text().splitlines() if line]
    assert sorted(nodes) == sorted(ended)


def _answers(store: Volume) -> set[str]:
    return {str(r.code) for r in store.namespace.requests() if r.call == "create jobs"}
