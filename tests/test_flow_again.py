"""A flow of somebody's own whose process is killed, and started again for the same flow run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.store import Store
from tests import prefect_server
from tests.cluster.harness import until
from tests.on_kubernetes import LONG, SMALL, Volume, volume
from tests.running import new_project, python

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.cluster.harness import Namespace
    from tests.prefect_server import PrefectServer


class Flow:
    """A flow of two nodes, of which the second waits until it is let go; both leave an x each time."""

    def __init__(self, folder: Path, env: Mapping[str, str], *, store: Path | None = None) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir(exist_ok=True)
        project = new_project(folder)
        noted = 'open({!r}, "a").write("x")'
        python(project, "first", noted.format(str(self.marks / "first")))
        wait = f"while not os.path.exists({str(self.marks / 'go')!r}): time.sleep(0.05)"
        python(project, "second", f"{noted.format(str(self.marks / 'second'))}\n{wait}")
        self._env = {**env, "PROJECT": str(project), "STORE": str(store or "")}
        self._id = folder / "flow-run"

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
    for node in ("first", "second"):
        run_seeknal_node(node, os.environ["PROJECT"], store=os.environ["STORE"] or None)

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

    def killed_in_its_second_node(self) -> None:
        """Run it to its end, killed once on the way."""
        process = self.start()
        until((self.marks / "second").exists, "the second node", seconds=LONG)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        again = self.start()
        (self.marks / "go").touch()
        assert again.wait(LONG) == 0

    def ran(self, node: str) -> int:
        """Return how often a node ran."""
        return len((self.marks / node).read_text(encoding="ascii"))


def test_a_flow_run_that_is_started_again_runs_no_finished_node_again(
    prefect: PrefectServer, tmp_path: Path
) -> None:
    flow = Flow(tmp_path, {**os.environ, **prefect.env})
    flow.killed_in_its_second_node()
    assert (flow.ran("first"), flow.ran("second")) == (1, 2)  # its process has died with the flow's
    runs = Store.of(tmp_path / "project").runs()
    assert [run.about()["status"] for run in runs] == ["succeeded", "succeeded"]


@pytest.fixture
def store(audited: Namespace, image: str) -> Iterator[Volume]:
    with volume(audited, image) as made:
        yield made


def test_a_flow_run_that_is_started_again_finds_its_job(store: Volume, tmp_path: Path) -> None:
    with prefect_server.running(tmp_path) as server:
        env = {**server.env, **store.environment(**SMALL, on="kubernetes")}
        flow = Flow(store.path, env, store=store.path)
        flow.killed_in_its_second_node()
    assert (flow.ran("first"), flow.ran("second")) == (1, 1)
    requests = store.namespace.requests()
    created = Counter(r.name for r in requests if r.call == "create jobs" and r.code == 201)
    assert sorted(created.values()) == [1, 1]
