"""A flow of somebody's own whose process is killed, and started again for the same flow run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.store import Store
from tests import prefect_server
from tests.cluster.harness import until
from tests.on_kubernetes import LONG, Volume, volume
from tests.running import new_project, python

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.cluster.harness import Namespace


class Flow:
    """A flow of one node that waits until it is let go, and fails where another one like it waits."""

    def __init__(self, store: Volume, env: Mapping[str, str]) -> None:
        self._marks = store.marks
        project = new_project(store.path)
        body = f"""
            import fcntl
            file = open({str(store.marks / "waits")!r}, "a")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write("x")
            file.flush()
            while not os.path.exists({str(store.marks / "go")!r}):
                time.sleep(0.05)
            """
        python(project, "waits", body)
        self._env = {**env, "PROJECT": str(project), "STORE": str(store.path)}
        self._id = store.path / "flow-run"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the flow's process, for the same flow run each time."""
        code = f"""
import os, pathlib
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from seeknal_k8s import run_seeknal_node

@flow
def mine():
    run_seeknal_node("waits", os.environ["PROJECT"], store=os.environ["STORE"])

file = pathlib.Path({str(self._id)!r})
with get_client(sync_client=True) as client:
    if not file.exists():
        file.write_text(str(client.create_flow_run(mine).id))
    run = client.read_flow_run(file.read_text())
run_flow(mine, flow_run=run)
"""
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=self._env,
            umask=0,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ran(self) -> int:
        """Return how often the node has begun."""
        file = self._marks / "waits"
        return len(file.read_text(encoding="ascii")) if file.exists() else 0


@pytest.fixture
def store(audited: Namespace, image: str) -> Iterator[Volume]:
    with volume(audited, image) as made:
        yield made


def test_a_flow_run_that_is_started_again_first_ends_the_job_that_it_left(
    store: Volume, tmp_path: Path
) -> None:
    with prefect_server.running(tmp_path) as server:
        flow = Flow(store, {**server.env, **store.environment(on="kubernetes")})
        process = flow.start()
        until(lambda: flow.ran() == 1, "the node", seconds=LONG)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        again = flow.start()
        until(lambda: flow.ran() == 2, "the node again", seconds=LONG)
        store.mark("go")
        assert again.wait(LONG) == 0
    assert [run.about()["status"] for run in Store(store.path).runs()] == [
        "succeeded",
        "interrupted",
    ]
    (job,) = store.jobs()
    assert job["status"]["succeeded"] == 1
