"""A run of 200 Jobs while networks and servers fail: right results, no double create, few requests.

The API server and its controllers are real, and only this test's. The nodes are kwok's: their pods
end well after a moment, and nothing runs in them. So a stand-in for the pods writes what each would
have written, as soon as it is ordered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s import coordinator
from seeknal_k8s.attempt import write_record
from seeknal_k8s.backends import following
from seeknal_k8s.cluster import Cluster
from seeknal_k8s.coordinator import RunRequest
from seeknal_k8s.events import NodeEnded, NodeStarted
from seeknal_k8s.pod import Order
from seeknal_k8s.settings import load
from seeknal_k8s.views import CONFIG_MAPS
from seeknal_k8s.watch import Rhythm, Watcher
from tests.faultproxy import (
    FaultProxy,
    answers,
    breaks_off,
    comes_late,
    falls_silent,
    loses_the_answer,
    says_in_the_stream,
)
from tests.on_kubernetes import CLAIM, claim
from tests.projects import write
from tests.real_cluster import Admin, write_kubeconfig
from tests.running import isolate, new_project

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from seeknal_k8s.events import Event
    from seeknal_k8s.results import RunResults
    from tests.cluster.harness import ControlPlane, Namespace

    Trouble = Callable[["Faulty", ControlPlane], Coroutine[Any, Any, None]]

JOBS = 200
EXPIRED = json.dumps(
    {
        "type": "ERROR",
        "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
    }
)
ON_FAKE_NODES = {
    "metadata": {"annotations": {"fake/duration": "1s"}},
    "spec": {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    },
}


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[Namespace]:
    with control_plane.up().namespace("faults") as made, claim(made, Path("/nowhere")):
        yield made


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project of so many nodes that do not wait for each other."""
    project = new_project(tmp_path_factory.mktemp("many"))
    write(project, "data/n.csv", "n\n1\n")
    for number in range(JOBS):
        name = f"n{number:03}"
        text = f"kind: source\nname: {name}\nsource: csv\ntable: data/n.csv\n"
        write(project, f"seeknal/sources/{name}.yml", text)
    return project


def rows_of(node_id: str) -> int:
    """Return the rows that the stand-in says a node has."""
    return int(node_id.removeprefix("source.n")) + 1


class Pods:
    """The stand-in for what runs in the pods: it does each order once, and counts."""

    def __init__(self, store: Path) -> None:
        self.done: Counter[str] = Counter()
        self._store = store
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        seen: set[Path] = set()
        while not self._over.wait(0.05):
            for file in set(self._store.glob("runs/*/bundles/*/*/order.json")) - seen:
                with contextlib.suppress(ValueError):  # it is just being written
                    spec = Order.read(file).spec
                    rows = rows_of(spec.node_id)
                    write_record(spec, outcome={"exit_code": 0, "rows": rows, "seconds": 0.1})
                    self.done[spec.node_id] += 1
                    seen.add(file)


@dataclass
class Faulty:
    """A run behind the proxy: what it has told so far."""

    proxy: FaultProxy
    ended: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, event: Event) -> None:
        """Count the nodes that have ended."""
        if isinstance(event, NodeStarted):
            self.begun.set()
        if isinstance(event, NodeEnded):
            self.ended += 1
            self._more.set()

    async def until_ended(self, count: int) -> None:
        """Wait until so many nodes have ended."""
        while self.ended < count:
            self._more.clear()
            await self._more.wait()


async def run_with(
    trouble: Trouble,
    namespace: Namespace,
    plane: ControlPlane,
    project: Path,
    store: Path,
) -> tuple[RunResults, Faulty, Pods]:
    """Run the project while ``trouble`` goes on beside it."""
    pods = Pods(store)
    async with FaultProxy(Admin(namespace.cluster.kubeconfig).upstream) as proxy:
        where = {"server": f"http://127.0.0.1:{proxy.port}"}
        os.environ["KUBECONFIG"] = write_kubeconfig(store / "kubeconfig", where, {})
        settings = load(
            namespace=namespace.name,
            image="localhost/none",
            store_claim=CLAIM,
            store_path=str(store),
            node_pod_template=ON_FAKE_NODES,
        )
        faulty = Faulty(proxy)
        request = RunRequest(project=project, on="kubernetes", settings=settings, run_id="r1")
        with pods:
            making = asyncio.create_task(trouble(faulty, plane))
            try:
                results = await coordinator.run(request, faulty.see)
            finally:
                making.cancel()
    return results, faulty, pods


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Give a store, in an environment that has nothing of this user's."""
    isolate(monkeypatch, tmp_path / "home")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as store:  # in /tmp pods have their own
        yield Path(store)


async def bursts_of_429(faulty: Faulty, _: ControlPlane) -> None:
    faulty.proxy.on("list", answers(429, "Retry-After: 1"), times=2)
    faulty.proxy.on("watch", answers(429), times=2)
    await faulty.begun.wait()
    faulty.proxy.on("create", answers(429, "Retry-After: 1"), times=30)


async def errors_of_the_server(faulty: Faulty, _: ControlPlane) -> None:
    for status in (500, 503):
        faulty.proxy.on("list", answers(status), times=2)
        faulty.proxy.on("watch", answers(status), times=2)
    await faulty.begun.wait()
    for status in (500, 503):
        faulty.proxy.on("create", answers(status), times=10)


async def cut_lists_and_watches(faulty: Faulty, _: ControlPlane) -> None:
    faulty.proxy.on("watch", breaks_off(20_000), times=12)
    await faulty.until_ended(10)
    faulty.proxy.on("list", breaks_off(3_000), times=3)
    faulty.proxy.on("watch", says_in_the_stream(EXPIRED), times=2)


async def answers_to_creates_are_lost(faulty: Faulty, _: ControlPlane) -> None:
    await faulty.begun.wait()
    faulty.proxy.on("create", loses_the_answer(), times=25)


async def every_watch_is_too_old(faulty: Faulty, _: ControlPlane) -> None:
    faulty.proxy.on("watch", says_in_the_stream(EXPIRED), times=float("inf"))


async def watches_fall_silent(faulty: Faulty, _: ControlPlane) -> None:
    faulty.proxy.on("watch", falls_silent(8_000), times=4)


async def all_takes_two_seconds(faulty: Faulty, _: ControlPlane) -> None:
    for verb in ("create", "list", "watch", "get"):
        faulty.proxy.on(verb, comes_late(2.0), times=float("inf"))


async def the_server_is_killed(faulty: Faulty, plane: ControlPlane) -> None:
    await faulty.until_ended(20)
    plane.kill("kube-apiserver")
    await asyncio.to_thread(plane.up)


async def etcd_is_compacted_and_the_server_killed(faulty: Faulty, plane: ControlPlane) -> None:
    """Only a server that has just started has nothing older in its own memory either."""
    await faulty.until_ended(20)
    await asyncio.to_thread(plane.compact)
    plane.kill("kube-apiserver")
    await asyncio.to_thread(plane.up)
    await asyncio.to_thread(plane.compact)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(bursts_of_429, id="429 in bursts"),
        pytest.param(errors_of_the_server, id="500 and 503"),
        pytest.param(cut_lists_and_watches, id="lists and watches cut in the middle"),
        pytest.param(answers_to_creates_are_lost, id="lost answers to creates"),
        pytest.param(every_watch_is_too_old, id="every watch answers 410"),
        pytest.param(watches_fall_silent, id="watches that fall silent"),
        pytest.param(all_takes_two_seconds, id="two seconds of latency"),
        pytest.param(the_server_is_killed, id="the API server killed"),
        pytest.param(etcd_is_compacted_and_the_server_killed, id="compaction"),
    ],
)
async def test_two_hundred_jobs_survive(
    trouble: Trouble,
    *,
    namespace: Namespace,
    control_plane: ControlPlane,
    project: Path,
    away: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    if trouble is watches_fall_silent:  # or it would take as long as a server may be silent
        impatient = partial(Watcher, rhythm=Rhythm(silence=3.0))
        monkeypatch.setattr(following, "Watcher", impatient)
    results, faulty, pods = await run_with(trouble, namespace, control_plane, project, away)

    assert {node: result.rows for node, result in results.items()} == {
        node: rows_of(node) for node in results
    }
    assert len(results) == JOBS
    assert {(r.reason, r.attempts) for r in results.values()} == {("Succeeded", 1)}
    assert set(pods.done.values()) == {1}
    # One Job and one pod each; a server that is killed may forget to note that it made one.
    for kind in ("jobs", "pods"):
        assert len(namespace.get(kind)["items"]) == JOBS
    ours = namespace.requests(agent="seeknal-k8s/")
    created = Counter(r.name for r in ours if r.call == "create jobs" and r.code == 201)
    assert set(created.values()) == {1}
    asked = len(faulty.proxy.seen)
    assert asked <= 2 * JOBS
    record_property("measured", f"{trouble.__name__}: {asked} requests for {JOBS} Jobs")


async def test_a_version_that_etcd_has_forgotten_is_told_by_the_server_itself(
    namespace: Namespace, control_plane: ControlPlane
) -> None:
    """Only a server that has just started has nothing older in its own memory either."""
    control_plane.compact()
    control_plane.kill("kube-apiserver")
    control_plane.up()
    kubeconfig = str(namespace.cluster.kubeconfig)
    async with Cluster(namespace.name, kubeconfig=kubeconfig) as cluster:
        lines = cluster.watch(CONFIG_MAPS, labels="", version="1", seconds=5, silence=5.0)
        async with contextlib.aclosing(lines):
            said = json.loads(await anext(lines))
    assert (said["type"], said["object"]["code"]) == ("ERROR", 410)
