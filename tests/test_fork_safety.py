"""A thousand forks of one engine process: all alike, none lost, nothing leaked."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psutil
import pytest

from seeknal_k8s.attempt import AttemptSpec
from seeknal_k8s.engine_client import EngineClient
from tests.projects import FEATURE_STORE, csv, node, transform, write
from tests.running import isolate, python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads and open files are counted in /proc"
)
FORKS = 1000 if os.environ.get("SEEKNAL_K8S_SLOW") else 200
AT_ONCE = 4
QUERY = "SELECT id, value * 2 AS double, DATE '2024-01-01' AS event_time FROM __THIS__"
FEATURES = """
    entity: {name: item, join_keys: [id]}
    features:
      double: {dtype: FLOAT}
"""


class Engine:
    """An engine process, a small project for it, and attempts at the nodes of that project."""

    def __init__(self, client: EngineClient, folder: Path, project: Path) -> None:
        self.client = client
        self.folder = folder
        self.project = project
        write(project, "seeknal_project.yml", "name: forks\nversion: 1.0.0\n")
        csv(project, "items", rows=100)
        transform(project, "doubled", QUERY, "source.items")
        python(project, "script", "return ctx.ref('transform.doubled')", "transform.doubled")
        python(project, "looks", "print(os.environ.get('MARK'), os.getcwd())")
        for number in range(AT_ONCE):  # no two attempts at one feature group share its store
            group = f"feature_group.items{number}"
            node(project, group, FEATURES, inputs=("transform.doubled",))

    async def open(self, *, spares: int) -> None:
        pins = {"today": "2024-01-01", "run_date": "2024-01-01T00:00:00", "run_id": "r"}
        root = str(self.project)
        raw = await self.client.call(
            "open", root=root, home=root, pins=pins, overrides={}, profile=None
        )
        nodes = [found["id"] for found in raw["nodes"]]
        places = str(self.folder / "environments")
        await self.client.call("warm", nodes=nodes, environments=places, spares=spares)

    def spec(self, name: str, node_id: str, *inputs: str) -> AttemptSpec:
        return AttemptSpec(
            node_id=node_id,
            folder=str(self.folder / "attempts" / name),
            project=str(self.project),
            target=str(self.project / "target"),
            inputs=inputs,
            memory=256 << 20,
            threads=1,
            environments=str(self.folder / "environments"),
        )

    async def attempt(self, spec: AttemptSpec) -> dict[str, Any]:
        """Run an attempt, which has to succeed."""
        ended: dict[str, Any] = await self.client.call("run", spec=spec.to_dict())
        assert ended["exit_code"] == 0, ended
        return ended

    async def publish(self, node_id: str, *inputs: str) -> None:
        """Run a node and put its files where those below it find them."""
        spec = self.spec(f"first-{node_id}", node_id, *inputs)
        for name in (await self.attempt(spec))["outputs"]:
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (spec.out / name).replace(self.project / name)

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.client.pid}/task").iterdir()))

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.client.pid}/fd").iterdir()))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.client.pid).children(recursive=True)

    async def settled(self, children: int) -> None:
        """Wait until there are so many processes below it, which can only be looked at."""
        async with asyncio.timeout(30):
            while len(self.children()) != children:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    isolate(monkeypatch, tmp_path / "home")
    project = tmp_path / f"forks_{uuid.uuid4().hex[:8]}"
    async with EngineClient() as client:
        yield Engine(client, tmp_path, project)
    shutil.rmtree(FEATURE_STORE / project.name, ignore_errors=True)


def _table(file: Path) -> tuple[Any, ...]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        rows = connection.read_parquet(str(file)).project("id, double").fetchall()
    return tuple(sorted(rows))


async def test_the_engine_process_never_has_a_second_thread(engine: Engine) -> None:
    await engine.open(spares=2)
    assert engine.threads() == 1
    await engine.publish("source.items")
    await engine.publish("transform.doubled", "source.items")
    await engine.publish("transform.script", "transform.doubled")
    await engine.publish("feature_group.items0", "transform.doubled")
    assert engine.threads() == 1


@pytest.mark.parametrize(
    "spares", [pytest.param(0, id="forked on demand"), pytest.param(3, id="forked ahead")]
)
async def test_many_forks_are_all_alike_and_leave_nothing(engine: Engine, spares: int) -> None:
    await engine.open(spares=spares)
    await engine.publish("source.items")
    await engine.publish("transform.doubled", "source.items")
    await engine.settled(spares)
    files = engine.files()
    left = iter(range(FORKS // 2))
    tables = []

    async def work(worker: int) -> None:
        for number in left:
            node_id = "transform.doubled" if number % 2 else f"feature_group.items{worker}"
            read = "source.items" if number % 2 else "transform.doubled"
            spec = engine.spec(str(number), node_id, read)
            ended = await engine.attempt(spec)
            assert ended["rows"] == 100
            output = f"target/intermediate/{node_id.replace('.', '_')}.parquet"
            assert output in ended["outputs"]
            tables.append(_table(spec.out / output))

    await asyncio.gather(*(work(worker) for worker in range(AT_ONCE)))
    assert len(tables) == FORKS // 2
    assert len(set(tables)) == 1
    await engine.settled(spares)
    assert (engine.threads(), engine.files()) == (1, files)


async def test_a_spare_that_was_killed_is_replaced(engine: Engine) -> None:
    await engine.open(spares=2)
    await engine.publish("source.items")
    await engine.settled(2)
    spares = engine.children()
    for spare in spares:
        spare.kill()
    psutil.wait_procs(spares, timeout=30)
    for number in range(4):
        await engine.attempt(engine.spec(str(number), "source.items"))
    await engine.settled(2)
    assert not {spare.pid for spare in spares} & {child.pid for child in engine.children()}


async def test_an_attempt_sees_nothing_of_the_one_before(engine: Engine) -> None:
    await engine.open(spares=1)
    first = replace(engine.spec("first", "transform.looks"), env=(("MARK", "set"),))
    second = engine.spec("second", "transform.looks")
    seen = []
    for spec in (first, second):
        await engine.attempt(spec)
        seen.append((Path(spec.folder) / "stdout").read_text().splitlines()[0])
    assert seen == [f"set {first.workspace}", f"None {second.workspace}"]


def test_what_nodes_need_is_imported_before_the_first_fork(tmp_path: Path) -> None:
    """Or every worker imports it again: that has cost 15 ms a node once."""
    (tmp_path / "seeknal").mkdir()
    (tmp_path / "seeknal/a.yml").write_text("kind: transform\nname: a\ntransform: SELECT 1 AS x\n")
    code = f"""
import sys
from pathlib import Path
from seeknal_k8s.engine import execute, project
root = Path({str(tmp_path)!r})
opened = project.open_project(
    project.Request(root, root, project.Pins("2024-01-01", "2024-01-01T00:00:00", "r"), {{}})
)
project.warm(opened, ["transform.a"])
execute.keep_spare_connection()
before = set(sys.modules)
task = execute.Task("transform.a", root / "ws", root / "scratch")
(root / "ws/target/intermediate").mkdir(parents=True)
outcome = execute.run_node(opened, task)
print(outcome.exit_code, sorted(set(sys.modules) - before))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines()[-1] == "0 []", ran.stderr
