"""Nothing runs twice: a coordinator killed at every single call of the API, and killed pods.

Each run, or backfill, has a namespace, a store and a proxy of its own; the proxy counts the
coordinator's calls and kills it at one of them. The same one is then started again, as a Job or a
flow would be.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from seeknal_k8s.backfill.ledger import Ledger
from seeknal_k8s.store import Store
from tests.cluster.harness import until
from tests.faithful import differences, states
from tests.faultproxy import FaultProxy, calls
from tests.on_kubernetes import LONG, Volume, evict, volume
from tests.projects import write
from tests.real_cluster import Admin, write_kubeconfig
from tests.running import new_project, python
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.harness import Cluster, Namespace

AT_ONCE = 3
"""Runs at the same time: more only wait for the two cores of a small machine."""


def two_nodes(folder: Path) -> None:
    """Make a project of two nodes, one after the other."""
    project = new_project(folder)
    write(
        project,
        "seeknal/sources/numbers.yml",
        "kind: source\nname: numbers\nsource: csv\ntable: data/n.csv\n",
    )
    write(project, "data/n.csv", "n\n1\n2\n")
    write(
        project,
        "seeknal/transforms/sums.yml",
        "kind: transform\nname: sums\ninputs: [{ref: source.numbers}]\n"
        "transform: SELECT sum(n) AS total FROM ref('source.numbers')\n",
    )


def a_day(folder: Path) -> None:
    """Make a project of one node that is given a day, and reads nothing."""
    python(new_project(folder), "day", 'ctx.params["start_date"]')
    file = folder / "project" / "seeknal" / "py" / "day.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("inputs=[]", 'start_date="none"'), encoding="utf-8")


@dataclass(frozen=True)
class Work:
    """What a coordinator is to do, with which project, and what of it is told by the store.

    In the command ``{project}`` is the project's folder.
    """

    project: Callable[[Path], None]
    command: tuple[str, ...]
    told: Callable[[Path], dict[str, object]]

    @contextlib.contextmanager
    def place(self, cluster: Cluster, image: str) -> Iterator[Volume]:
        """Give a namespace with a store and the project."""
        with cluster.namespace("killed") as namespace, volume(namespace, image) as store:
            self.project(store.path)
            yield store

    def evidence(self, store: Volume) -> dict[str, object]:
        """Return what is left: how often each Job was created and each pod begun, and what is told."""
        return {"created": store.created(), "begun": store.begun(), **self.told(store.path)}


async def coordinate(store: Volume, work: Work, kubeconfig: str) -> asyncio.subprocess.Process:
    """Start it, or go on with it."""
    return await asyncio.create_subprocess_exec(
        *PROGRAM,
        *(part.format(project=store.path / "project") for part in work.command),
        *("--on", "kubernetes", "--run-id", "r1"),
        env={**store.environment(), "KUBECONFIG": kubeconfig},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        umask=0,
    )


async def killed_at(store: Volume, work: Work, number: int, *, answered: bool) -> tuple[int, bool]:
    """Run to the end, killed once at call ``number``; return how many calls there were, and if it was."""
    killed = False
    async with FaultProxy(Admin(store.namespace.cluster.kubeconfig).upstream) as proxy:
        where = {"server": f"http://127.0.0.1:{proxy.port}"}
        kubeconfig = write_kubeconfig(store.path / "kubeconfig", where, {})
        process = await coordinate(store, work, kubeconfig)

        def kill() -> None:
            nonlocal killed
            killed = True
            process.kill()

        proxy.on_request(number, calls(kill, answered=answered))
        said, _ = await asyncio.wait_for(process.communicate(), LONG)
        asked = len(proxy.seen)
        proxy.heal()
        if killed:
            process = await coordinate(store, work, kubeconfig)
            said, _ = await asyncio.wait_for(process.communicate(), LONG)
        assert process.returncode == 0, f"killed at call {number}: {said.decode()}"
    return asked, killed


def of_run(path: Path) -> dict[str, object]:
    """Return how often a run has accepted each node, its results, and what Seeknal knows of it."""
    ledger = (path / "runs" / "r1" / "accepted.jsonl").read_text(encoding="utf-8")
    results = Store.of(path, path).run("r1").results()
    assert results is not None
    return {
        "accepted": dict(Counter(json.loads(line)["node"] for line in ledger.splitlines() if line)),
        "results": {node: (r.reason, r.attempts) for node, r in results.items()},
        "states": states(path),
    }


def of_backfill(path: Path) -> dict[str, object]:
    """Return which intervals are done, and their rows."""
    ledger = Ledger(Store(path), "transform.day")
    files = [str(file) for file in ledger.files("transform.day")]
    with duckdb.connect(":memory:") as connection:
        rows = connection.read_parquet(files, hive_partitioning=True).order("ALL").fetchall()
    return {"accepted": dict.fromkeys(ledger.done(), 1), "rows": rows}


RUN = Work(two_nodes, ("run", "{project}", "--resume-if-started"), of_run)
DAYS = ("--start", "2025-01-01", "--end", "2025-01-03", "--max-parallel", "2")
BACKFILL = Work(a_day, ("backfill", "day", "--project", "{project}", *DAYS), of_backfill)


@pytest.mark.parametrize(
    ("work", "jobs", "pods"), [(RUN, 2, 2), (BACKFILL, 1, 3)], ids=["run", "backfill"]
)
async def test_a_coordinator_killed_at_any_call_runs_nothing_twice(
    cluster: Cluster,
    image: str,
    record_property: Callable[[str, object], None],
    work: Work,
    *,
    jobs: int,
    pods: int,
) -> None:
    at_once = asyncio.Semaphore(AT_ONCE)
    with work.place(cluster, image) as undisturbed:
        calls_made, _ = await killed_at(undisturbed, work, 0, answered=False)
        wanted = work.evidence(undisturbed)
        assert (len(undisturbed.created()), len(undisturbed.begun())) == (jobs, pods)
        for counts in (undisturbed.created(), undisturbed.begun(), wanted["accepted"]):
            assert set(counts.values()) == {1}  # type: ignore[attr-defined]

        async def disturbed(number: int, *, answered: bool) -> bool:
            async with at_once:
                with contextlib.ExitStack() as stack:
                    place = work.place(cluster, image)
                    store = await asyncio.to_thread(stack.enter_context, place)
                    _, killed = await killed_at(store, work, number, answered=answered)
                    left = work.evidence(store)
                    assert left == wanted, f"killed at call {number}, {answered=}"
                    assert differences(undisturbed.path, store.path) == []
                    await asyncio.to_thread(stack.close)
                    return killed

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(disturbed(number, answered=answered))
                for number in range(1, calls_made + 1)
                for answered in (False, True)
            ]
        kills = sum(task.result() for task in tasks)
    # How often it looks at events depends on the machine; all other calls are there in every run.
    assert kills >= 2 * (calls_made - 2)
    record_property("measured", f"{kills} kills at {calls_made} calls of {work.command[0]}")


@pytest.fixture
def store(namespace: Namespace, image: str) -> Iterator[Volume]:
    with volume(namespace, image) as ours:
        yield ours


@pytest.mark.parametrize("how", ["delete", "evict"])
def test_a_pod_taken_away_while_its_node_runs_is_repeated_once_and_accepted_once(
    store: Volume, how: str
) -> None:
    project = new_project(store.path)
    python(
        project,
        "slow",
        f"""
        first = not os.path.exists({str(store.marks / "began")!r})
        open({str(store.marks / "began")!r}, "w").close()
        while first:
            time.sleep(0.05)
        """,
    )
    python(project, "last", "pass", "transform.slow")
    with store.run(run_id="r1") as ran:
        store.wait_for_mark("began")
        pod = store.pod("transform.slow")
        if how == "delete":
            store.namespace.kubectl("delete", "pod", pod, "--wait=false")
        else:
            evict(store.namespace, pod)
    assert {node: (r.reason, r.attempts) for node, r in ran.results.items()} == {
        "transform.slow": ("Succeeded", 2),
        "transform.last": ("Succeeded", 1),
    }
    left = RUN.evidence(store)
    assert left["accepted"] == {"transform.slow": 1, "transform.last": 1}
    assert sorted(left["created"].values()) == [1, 1, 1]  # type: ignore[attr-defined]


def test_a_pod_killed_after_its_result_was_written_is_not_repeated(store: Volume) -> None:
    """Its process is killed by force between its last write and its exit."""
    project = new_project(store.path)
    python(project, "done", "pass")
    with store.run(run_id="r1") as ran:
        folder = store.path / "runs" / "r1" / "bundles"
        until(lambda: list(folder.glob("*/1/result.json")), "the result", seconds=LONG)
        store.namespace.kubectl("delete", "pod", "--all", "--grace-period=0", "--force")
    result = ran["transform.done"]
    assert result.success
    left = RUN.evidence(store)
    assert left["accepted"] == {"transform.done": 1}
    assert set(left["created"].values()) == {1}  # type: ignore[attr-defined]
    assert result.attempts == len(left["created"])  # type: ignore[arg-type]


def test_a_pod_killed_before_its_node_began_costs_nothing(store: Volume) -> None:
    """It is deleted as soon as it is there; on a slow machine its node waits for that."""
    wait = f'while not os.path.exists("{store.marks}/gone"): time.sleep(0.05)'
    python(new_project(store.path), "done", wait)
    with store.run(run_id="r1") as ran:
        until(lambda: store.pods("transform.done"), "a pod", seconds=LONG)
        pod = store.pod("transform.done")
        store.namespace.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        store.mark("gone")
    assert (ran["transform.done"].success, ran["transform.done"].attempts) == (True, 2)
    left = RUN.evidence(store)
    assert left["accepted"] == {"transform.done": 1}
    assert sorted(left["created"].values()) == [1, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", ["node", "outputs"])
def test_a_pod_whose_processes_are_killed_before_its_result_is_repeated_once(
    store: Volume, stage: str
) -> None:
    """What runs at the exit of a Python node comes after its outputs and before its result."""
    began = str(store.marks / "began")
    wait = f"""
        def wait():
            if not os.path.exists({began!r}):
                open({began!r}, "w").close()
                while True:
                    time.sleep(0.05)
        """
    then = {"node": "wait()", "outputs": "import atexit; atexit.register(wait)"}[stage]
    python(new_project(store.path, "defaults: {retries: 1}\n"), "slow", f"{wait}\n        {then}\n")
    with store.run(run_id="r1") as ran:
        store.wait_for_mark("began")
        folder = store.path / "runs" / "r1" / "bundles"
        assert list(folder.glob("*/1/result.json")) == []
        kill_pod_of(folder)
    assert (ran["transform.slow"].success, ran["transform.slow"].attempts) == (True, 2)
    left = RUN.evidence(store)
    assert left["accepted"] == {"transform.slow": 1}
    assert sorted(left["created"].values()) == [1, 1]  # type: ignore[attr-defined]


def kill_pod_of(folder: Path) -> None:
    """Kill the first process of the container whose order lies below a folder of this test alone."""
    killed = 0
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_text(encoding="utf-8", errors="replace").split("\0")
            ours = any(w.startswith(f"{folder}/") and w.endswith("/order.json") for w in words)
            status = (file.parent / "status").read_text(encoding="utf-8")
            first = any(
                line.startswith("NSpid:") and line.split()[-1] == "1" and len(line.split()) > 2
                for line in status.splitlines()
            )
            if ours and first:
                os.kill(int(file.parent.name), signal.SIGKILL)
                killed += 1
    assert killed == 1
