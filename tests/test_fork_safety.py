"""A thousand forks of one engine process: all alike, none lost, nothing leaked."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psutil
import pytest

from seeknal_k8s.attempt import AttemptSpec
from seeknal_k8s.engine_client import EngineClient
from tests.projects import csv, node, transform
from tests.running import isolate, new_project, python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads and open files are counted in /proc"
)
FORKS = 1000 if os.environ.get("SEEKNAL_K8S_SLOW") else 200
AT_ONCE = 4
FEATURES = """
    entity: {name: item, join_keys: [id]}
    features:
      double: {dtype: FLOAT}
"""


class Engine:
    """An engine process with a small project open, and attempts at its nodes."""

    def __init__(self, client: EngineClient, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.project = new_project(folder)
        csv(self.project, "items", rows=100)
        query = "SELECT id, value * 2 AS double, DATE '2024-01-01' AS event_time FROM __THIS__"
        transform(self.project, "doubled", query, "source.items")
        node(self.project, "feature_group.items", FEATURES, inputs=("transform.doubled",))
        python(self.project, "script", "return ctx.ref('transform.doubled').sort_values('id')")

    async def open(self, *, spares: int) -> None:
        pins = {"today": "2024-01-01", "run_date": "2024-01-01T00:00:00", "run_id": "r"}
        root = str(self.project)
        raw = await self.client.call("open", root=root, pins=pins, overrides={}, profile=None)
        nodes = [found["id"] for found in raw["nodes"]]
        places = str(self.folder / "environments")
        await self.client.call("warm", nodes=nodes, environments=places, spares=spares)

    def spec(self, node_id: str, name: str, *inputs: str) -> AttemptSpec:
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
        ended: dict[str, Any] = await self.client.call("run", spec=spec.to_dict())
        return ended

    async def publish(self, node_id: str, *inputs: str) -> None:
        """Run a node and put its files where those below it find them."""
        spec = self.spec(node_id, f"first-{node_id}", *inputs)
        ended = await self.attempt(spec)
        assert ended["exit_code"] == 0, ended
        for name in ended["outputs"]:
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (spec.out / name).replace(self.project / name)

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.client.pid}/task").iterdir()))

    def files(self) -> int:
        return len(list(Path(f"/proc/{self.client.pid}/fd").iterdir()))

    def children(self) -> int:
        return len(psutil.Process(self.client.pid).children(recursive=True))

    async def quiet(self, children: int) -> None:
        """Wait until the processes of attempts that have ended are gone."""
        async with asyncio.timeout(30):
            while self.children() > children:
                await asyncio.sleep(0.01)


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    isolate(monkeypatch, tmp_path / "home")
    async with EngineClient() as client:
        yield Engine(client, tmp_path)


def _table(file: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(":memory:") as connection:
        return sorted(connection.read_parquet(str(file)).fetchall())


async def test_the_engine_process_never_has_a_second_thread(engine: Engine) -> None:
    await engine.open(spares=2)
    assert engine.threads() == 1
    await engine.publish("source.items")
    await engine.publish("transform.doubled", "source.items")
    await engine.publish("transform.script", "transform.doubled")
    await engine.publish("feature_group.items", "transform.doubled")
    assert engine.threads() == 1


@pytest.mark.parametrize(
    "spares", [pytest.param(0, id="forked on demand"), pytest.param(3, id="forked ahead")]
)
async def test_many_forks_are_all_alike_and_leave_nothing(engine: Engine, spares: int) -> None:
    await engine.open(spares=spares)
    await engine.publish("source.items")
    await engine.publish("transform.doubled", "source.items")
    await engine.quiet(spares)
    files = engine.files()
    left = iter(range(FORKS // 2))
    tables = set()

    async def work() -> None:
        for number in left:
            node_id = ("transform.doubled", "feature_group.items")[number % 2]
            inputs = ("source.items", "transform.doubled")[number % 2]
            spec = engine.spec(node_id, str(number), inputs)
            ended = await engine.attempt(spec)
            assert (ended["exit_code"], ended["rows"]) == (0, 100), ended
            (output,) = (
                file for file in ended["outputs"] if "intermediate/" in file and file.endswith("t")
            )
            tables.add((node_id, tuple(_table(spec.out / output))))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    assert sorted(node_id for node_id, _ in tables) == ["feature_group.items", "transform.doubled"]
    await engine.quiet(spares)
    assert engine.threads() == 1
    assert engine.files() <= files + spares  # spares come and go, each with one pipe


async def test_a_spare_that_was_killed_is_replaced(engine: Engine) -> None:
    await engine.open(spares=2)
    await engine.publish("source.items")
    async with asyncio.timeout(30):
        while engine.children() != 2:
            await asyncio.sleep(0.01)
    for spare in psutil.Process(engine.client.pid).children():
        spare.kill()
    for number in range(4):
        ended = await engine.attempt(engine.spec("source.items", str(number)))
        assert ended["exit_code"] == 0, ended


async def test_an_attempt_sees_nothing_of_the_one_before(engine: Engine) -> None:
    await engine.open(spares=1)
    spec = engine.spec("source.items", "first")
    assert (await engine.attempt(replace(spec, env=(("MARK", "set"),))))["exit_code"] == 0
    python(engine.project, "looks", "print(os.environ.get('MARK'), os.getcwd())")
    await engine.open(spares=1)
    looks = engine.spec("transform.looks", "looks")
    assert (await engine.attempt(looks))["exit_code"] == 0
    seen = (Path(looks.folder) / "stdout").read_text().splitlines()[0]
    assert seen == f"None {looks.workspace}"
