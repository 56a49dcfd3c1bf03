"""What runs in a Job's pod, run here: the same process, without the pod around it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s import exitcodes, graph
from seeknal_k8s.attempt import AttemptSpec, Ending
from seeknal_k8s.engine_client import EngineClient
from seeknal_k8s.pod import Order
from seeknal_k8s.request import new_pins
from tests.faithful import environment

if TYPE_CHECKING:
    from pathlib import Path

PINS = new_pins("run-1")
WAITS = """
from pathlib import Path
import time
from seeknal.pipeline.decorators import transform

@transform(name="waits")
def waits(ctx):
    print("begun", flush=True)
    Path("{marker}").touch()
    time.sleep(600)
"""


class Pod:
    """A project, and orders to run nodes of it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home, self.marker = folder / "project", folder / "store", folder / "begun"
        self.env = environment(folder / "config")
        (self.root / "seeknal").mkdir(parents=True)
        (self.root / "orders.csv").write_text("id,value\n1,10\n2,20\n")
        self.write("orders.yml", "kind: source\nname: orders\nsource: csv\ntable: orders.csv\n")
        self.write(
            "bad.yml", "kind: transform\nname: bad\ntransform: SELECT nothing FROM nowhere\n"
        )
        self.write("waits.py", WAITS.format(marker=self.marker))

    def write(self, name: str, text: str) -> None:
        (self.root / "seeknal" / name).write_text(text)

    def digest(self) -> str:
        async def read() -> Any:
            async with EngineClient() as client:
                return await client.call(
                    "open",
                    root=str(self.root),
                    home=str(self.home),
                    pins=PINS,
                    overrides={},
                    profile=None,
                )

        return graph.build(asyncio.run(read()))[0].digest

    def order(self, node: str, *, digest: str | None = None, timeout: float | None = None) -> Path:
        folder = self.home / "attempt"
        folder.mkdir(parents=True)
        spec = AttemptSpec(
            node_id=node,
            folder=str(folder),
            project=str(self.root),
            target=str(self.home / "target"),
            memory=256 << 20,
            threads=1,
            timeout=timeout,
        )
        order = Order(spec, str(self.home), digest or self.digest(), PINS, {})
        file = folder / "order.json"
        file.write_text(json.dumps(order.to_dict()))
        return file

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "seeknal_k8s.pod", *arguments],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> Ending:
        ending = Ending.read(self.home / "attempt" / "result.json")
        assert ending is not None
        return ending


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def test_a_node_runs_and_its_outputs_wait_to_be_accepted(pod: Pod) -> None:
    process = pod.start(str(pod.order("source.orders")))
    process.communicate()
    assert process.returncode == exitcodes.OK
    assert pod.result().rows == 2
    assert all((pod.home / "attempt" / "out" / name).exists() for name in pod.result().outputs)
    assert not (pod.home / "target").exists()


def test_a_failed_node_says_why_in_the_containers_log_and_in_the_store(pod: Pod) -> None:
    process = pod.start(str(pod.order("transform.bad")))
    _, stderr = process.communicate()
    assert process.returncode == exitcodes.NODE_FAILED
    assert "nowhere" in stderr
    assert stderr.endswith((pod.home / "attempt" / "stderr").read_text())
    assert "nowhere" in pod.result().error


def test_another_project_than_the_planned_one_is_refused(pod: Pod) -> None:
    process = pod.start(str(pod.order("source.orders", digest="0" * 64)))
    _, stderr = process.communicate()
    assert process.returncode == exitcodes.CONFIGURATION
    assert "not the one that was planned" in stderr
    assert pod.result().exit_code == exitcodes.CONFIGURATION


def test_a_broken_project_is_refused_with_its_problems(pod: Pod) -> None:
    order = pod.order("source.orders")
    pod.write("broken.yml", "kind: [")
    process = pod.start(str(order))
    _, stderr = process.communicate()
    assert process.returncode == exitcodes.CONFIGURATION
    assert "broken.yml" in stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param([], exitcodes.USAGE, id="no order is a wrong call"),
        pytest.param(
            ["/nowhere/order.json"], exitcodes.UNAVAILABLE, id="a store that is not there"
        ),
    ],
)
def test_a_pod_without_an_order_says_so(pod: Pod, arguments: list[str], code: int) -> None:
    process = pod.start(*arguments)
    _, stderr = process.communicate()
    assert (process.returncode, bool(stderr)) == (code, True)


def test_a_text_that_is_no_order_is_refused(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text("{}")
    process = pod.start(str(tmp_path / "order.json"))
    _, stderr = process.communicate()
    assert process.returncode == exitcodes.CONFIGURATION
    assert "is not an order" in stderr


def test_a_timeout_is_kept_inside_the_pod_and_the_log_survives(pod: Pod) -> None:
    process = pod.start(str(pod.order("transform.waits", timeout=3)))
    stdout, _ = process.communicate()
    assert process.returncode == exitcodes.TIMEOUT
    assert "begun" in stdout
    assert pod.result().exit_code == exitcodes.TIMEOUT


def test_an_evicted_pod_never_counts_as_complete(pod: Pod) -> None:
    process = pod.start(str(pod.order("transform.waits")))
    assert process.stdout is not None
    while "begun" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == exitcodes.TERMINATED
    assert pod.result().exit_code == exitcodes.TERMINATED
