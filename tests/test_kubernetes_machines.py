"""Machines as they are: a kubelet that dies while nodes run, and clocks that disagree."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.store import Store
from tests.cluster import harness
from tests.on_kubernetes import LONG, Volume, volume
from tests.running import new_project, python
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.harness import Namespace


@pytest.fixture
def store(namespace: Namespace, image: str) -> Iterator[Volume]:
    with volume(namespace, image) as ours:
        yield ours


def test_nodes_outlive_a_kubelet_that_is_killed(store: Volume) -> None:
    """For the seconds that it is away nothing starts, and what runs goes on."""
    python(
        new_project(store.path),
        "slow",
        f"""
        open({str(store.marks / "slow")!r}, "w").close()
        print("before", flush=True)
        while not os.path.exists({str(store.marks / "go")!r}):
            time.sleep(0.05)
        print("after", flush=True)
        """,
    )
    with store.run(run_id="r1") as ran:
        store.wait_for_mark("slow")
        (pod,) = store.pods()
        pid = int((harness.root() / "run" / "kubelet.pid").read_text(encoding="ascii"))
        os.kill(pid, signal.SIGKILL)
        harness.program("up")
        store.mark("go")
    result = ran["transform.slow"]
    assert (result.success, result.attempts) == (True, 1)
    assert "before\nafter\n" in result.stdout
    assert [one["metadata"]["uid"] for one in store.pods()] == [pod["metadata"]["uid"]]


def test_a_coordinator_whose_clock_is_ten_minutes_ahead_judges_no_differently(
    store: Volume,
) -> None:
    """Ten minutes are as long as a pod may wait for a machine: no limit is taken from two clocks."""
    project = new_project(store.path, "defaults: {retries: 0}\n")
    python(project, "good", "time.sleep(1)")
    python(project, "bad", "raise ValueError('no')")
    python(project, "late", "time.sleep(60)")
    options = ("--set", "transform.late:timeout=3s")
    done = subprocess.run(
        [
            *("faketime", "-f", "+10m", *PROGRAM, "run", str(project)),
            *("--on", "kubernetes", "--run-id", "r1", *options),
        ],
        env={**store.environment(), "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * LONG,
        umask=0,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    results = Store.of(store.path, store.path).run("r1").results()
    assert results is not None
    assert {node: (r.reason, r.exit_code) for node, r in results.items()} == {
        "transform.good": ("Succeeded", 0),
        "transform.bad": ("NodeFailed", 1),
        "transform.late": ("Timeout", 124),
    }
    assert all(result.attempts == 1 for result in results.values())
    assert all(0 <= result.duration_seconds < 60 for result in results.values())
