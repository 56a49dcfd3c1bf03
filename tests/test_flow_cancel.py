"""A flow of somebody's own whose process is told to end while its nodes run in Prefect's threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.store import Store
from tests.cluster.harness import until
from tests.running import new_project, python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.prefect_server import PrefectServer


def own_flow(server: PrefectServer, project: Path, body: str) -> subprocess.Popen[bytes]:
    code = f"""
from prefect import flow
from seeknal_k8s import run_seeknal_node

@flow
def mine():
    future = run_seeknal_node.submit("waits", {str(project)!r})
    {body}

mine()
"""
    env = {**os.environ, **server.env}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_flow_of_ones_own_that_is_told_to_end_ends_its_nodes(
    prefect: PrefectServer, tmp_path: Path, told: signal.Signals
) -> None:
    project, mark = new_project(tmp_path), tmp_path / "pid"
    body = f"""
        with open({str(mark)!r}, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    """
    python(project, "waits", body)
    process = own_flow(prefect, project, "return future.result()")
    try:
        until(lambda: mark.exists() and mark.read_text(), "the node", seconds=90)
        process.send_signal(told)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    until(lambda: not lives(int(mark.read_text())), "the end of the node")
    (run,) = Store.of(project).runs()
    assert run.about()["status"] == "interrupted"


def test_a_node_that_nobody_waits_for_is_run_to_its_end(
    prefect: PrefectServer, tmp_path: Path
) -> None:
    project, left = new_project(tmp_path), tmp_path / "left"
    body = f"""
        deadline = time.monotonic() + 60
        while not os.path.exists({str(left)!r}) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)  # longer than between two looks at whether the process is to end
    """
    python(project, "waits", body)
    process = own_flow(prefect, project, f"open({str(left)!r}, 'w').close()")
    try:
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    (run,) = Store.of(project).runs()
    assert run.about()["status"] == "succeeded"
