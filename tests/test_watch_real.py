"""Watching a real API server, alone and with a proxy between them that does harm.

Whatever happens on the way: what is known in the end is what is there, nobody is asked too often,
and nobody waits for a word that was lost.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from seeknal_k8s.cluster import Cluster, Patience
from seeknal_k8s.errors import Forbidden, ServerError
from seeknal_k8s.views import CONFIG_MAPS, JOBS, ConfigMapView
from seeknal_k8s.watch import Change, Happened, Rhythm, Watcher
from tests import faultproxy, real_cluster
from tests.faultproxy import FaultProxy
from tests.real_cluster import Admin, config_map, job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Watch = Callable[..., AbstractAsyncContextManager[Watcher[ConfigMapView]]]

QUICK = Rhythm(relist=60.0, silence=30.0, apart=0.1)
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
FOR_EVER = float("inf")

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def admin() -> Admin:
    return Admin(real_cluster.kubeconfig())


@pytest.fixture
def namespace(admin: Admin) -> Iterator[str]:
    name = admin.namespace()
    yield name
    admin.forget(name)


@pytest.fixture
async def cluster(namespace: str) -> AsyncIterator[Cluster]:
    """The API server itself, by which the tests change things."""
    async with Cluster(namespace, kubeconfig=str(real_cluster.kubeconfig())) as opened:
        yield opened


@pytest.fixture
async def proxy(admin: Admin) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(admin.upstream) as opened:
        yield opened


@pytest.fixture
def watch(proxy: FaultProxy, namespace: str, tmp_path: Path) -> Watch:
    """Watch the ConfigMaps labelled ``test=mine`` through the proxy."""
    server = {"server": f"http://127.0.0.1:{proxy.port}"}
    path = real_cluster.write_kubeconfig(tmp_path / "proxied", server, {})
    patience = Patience(answer=5.0, connect=1.0, tries=3, total=5.0)

    @asynccontextmanager
    async def opened(rhythm: Rhythm = QUICK) -> AsyncIterator[Watcher[ConfigMapView]]:
        async with (
            Cluster(namespace, kubeconfig=path, patience=patience) as through,
            Watcher(through, CONFIG_MAPS, "test=mine", rhythm=rhythm) as watcher,
        ):
            yield watcher

    return opened


async def knows(watcher: Watcher[ConfigMapView], *names: str, within: float = 15.0) -> None:
    """Wait until exactly these are known, or fail and say what is."""
    known: list[str] = []
    async with asyncio.timeout(within):
        while known != sorted(names):
            await asyncio.sleep(0.02)
            known = sorted(view.name for view in watcher.snapshot().values())


async def watched(proxy: FaultProxy, times: int = 1) -> None:
    """Wait until a watch has been asked for so many times."""
    while proxy.count("watch") < times:  # noqa: ASYNC110 - the proxy is no event
        await asyncio.sleep(0.02)


async def make(cluster: Cluster, *names: str, label: str = "mine") -> None:
    for name in names:
        await cluster.create(CONFIG_MAPS, config_map(name, label=label))


# --- Without faults -------------------------------------------------------------------------------


async def test_each_object_comes_as_a_change_those_listed_first_too(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    await make(cluster, "old")
    await make(cluster, "another", label="not-mine")
    seen: list[tuple[str, str]] = []
    async with watch() as watcher:
        await watched(proxy)
        await make(cluster, "new")
        await cluster.delete(CONFIG_MAPS, "old")
        async for change in watcher:
            seen.append((change.happened.value, change.view.name))
            if change.happened is Happened.DELETED:
                break
        await knows(watcher, "new")

    assert set(seen) <= {("added", "old"), ("added", "new"), ("deleted", "old")}
    assert seen[-1] in {("deleted", "old"), ("added", "new")}
    assert proxy.count("list") == proxy.count("watch") == 1


async def test_jobs_are_watched_like_anything_else(cluster: Cluster) -> None:
    async with Watcher(cluster, JOBS, "test=mine") as watcher:
        await cluster.create(JOBS, job("suspended"))
        async for change in watcher:
            if change.view.condition("Suspended"):  # the Job controller has seen it
                break
        uid = change.view.uid

        assert watcher.snapshot()[uid].suspended
        assert watcher.counters.events >= 1


async def test_who_is_late_misses_steps_in_between_and_not_the_last(
    cluster: Cluster, watch: Watch, proxy: FaultProxy, admin: Admin
) -> None:
    async with watch() as watcher:
        await watched(proxy)
        await make(cluster, "busy", "brief")
        path = f"/api/v1/namespaces/{cluster.namespace}/configmaps/busy"
        for number in range(20):
            status, _ = admin.request("PUT", path, config_map("busy", step=str(number)))
            assert status == 200
        await cluster.delete(CONFIG_MAPS, "brief")
        await make(cluster, "last")
        await knows(watcher, "busy", "last")
        waiting = [await anext(watcher) for _ in range(3)]

    told = {change.view.name: change for change in waiting}
    assert told["busy"].happened is Happened.ADDED
    assert told["busy"].view.data == {"step": "19"}
    assert told["brief"].happened is Happened.DELETED
    assert watcher.counters.events == 24


async def test_leaving_ends_the_iteration_and_the_connection(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    async with watch() as watcher:
        await watched(proxy)
    changes = [change async for change in watcher]

    assert changes == []
    await make(cluster, "after")
    assert watcher.snapshot() == {}
    assert proxy.count("watch") == 1


async def test_a_consumer_may_be_cancelled_while_it_waits_and_come_back(
    cluster: Cluster, watch: Watch
) -> None:
    async with watch() as watcher:
        for _ in range(3):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(watcher)
        await make(cluster, "late")
        change: Change[ConfigMapView] = await anext(watcher)

    assert change.view.name == "late"


async def test_a_watch_that_is_not_allowed_is_said_so_at_once(
    admin: Admin, namespace: str, tmp_path: Path
) -> None:
    path = admin.kubeconfig(tmp_path / "reader", {"token": admin.token(namespace, "reader")})
    rules = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    admin.make(f"{rules}/roles", {"metadata": {"name": "reader"}, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    who = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    body = {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [who]}
    admin.make(f"{rules}/rolebindings", body)

    async with Cluster(namespace, kubeconfig=path) as cluster:
        while not (await cluster.may("list", "configmaps")).allowed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        async with Watcher(cluster, CONFIG_MAPS, "test=mine") as watcher:
            with pytest.raises(Forbidden, match=r'verbs: \["watch"\]'):
                await anext(watcher)


def test_a_watch_that_is_left_leaves_no_connection_open(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[object] = []
    gc.collect()  # what others left is not its
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: left.append(seen.exc_value))

    async def leave(name: str) -> None:
        async with (
            Cluster(namespace, kubeconfig=str(real_cluster.kubeconfig())) as cluster,
            Watcher(cluster, CONFIG_MAPS, "test=mine") as watcher,
        ):
            await make(cluster, name)
            await knows(watcher, *made[: made.index(name) + 1])  # so the watch has been answered

    made = [f"made-{number}" for number in range(8)]  # whether a server is slow to hang up is luck
    for name in made:
        asyncio.run(leave(name))
    gc.collect()
    assert left == []


# --- Under faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faultproxy.answers(410), id="410 as an answer"),
        pytest.param(
            faultproxy.says_in_the_stream(json.dumps({"type": "ERROR", "object": GONE})),
            id="410 in the stream",
        ),
        pytest.param(faultproxy.answers(500), id="500"),
        pytest.param(faultproxy.answers(429, "Retry-After: 1"), id="429"),
        pytest.param(faultproxy.says_in_the_stream("<html>"), id="what nobody understands"),
        pytest.param(
            faultproxy.says_in_the_stream('{"type": "NEW", "object": {}}'), id="an unknown event"
        ),
        pytest.param(faultproxy.says_in_the_stream(""), id="nothing and an end"),
        pytest.param(faultproxy.answers(403), id="403, as while the server starts"),
    ],
)
async def test_what_is_known_is_right_after_three_watches_met(
    fault: faultproxy.Fault, cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    await make(cluster, "stays", "goes")
    async with watch() as watcher:
        await watched(proxy)
        await make(cluster, "begun")
        await knows(watcher, "stays", "goes", "begun")
        await cluster.delete(CONFIG_MAPS, "begun")
        # The first watch has been answered, and ends by a cut; the next three meet the fault.
        proxy.on("watch", fault, times=3)
        await proxy.close()
        await proxy.open()
        await cluster.delete(CONFIG_MAPS, "goes")
        await make(cluster, "comes")
        await knows(watcher, "stays", "comes")
        while proxy.count("watch") < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await make(cluster, "later")
        await knows(watcher, "stays", "comes", "later")

    assert proxy.count("list") <= 5
    assert proxy.count("watch") == 5


async def test_no_watch_ever_succeeds_and_it_is_known_all_the_same(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    proxy.on("watch", faultproxy.answers(410), times=FOR_EVER)
    async with watch() as watcher:
        await asyncio.sleep(4.0)
        asked = len(proxy.seen)
        await make(cluster, "comes")
        await knows(watcher, "comes")

    assert asked <= 14  # pauses of 0.25, 0.5, 1, 2 s, jittered, each followed by a list and a watch
    assert watcher.counters.failures == proxy.count("watch")


async def test_a_watch_that_breaks_off_goes_on_where_it_was(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    await make(cluster, "old")
    proxy.on("watch", faultproxy.breaks_off(after=300), times=3)
    async with watch() as watcher:
        await watched(proxy)
        for number in range(5):
            await make(cluster, f"new-{number}")
        await knows(watcher, "old", *(f"new-{number}" for number in range(5)))

    # Cut before the first whole line, nothing was brought: that one lists again, to be sure.
    assert proxy.count("list") <= 4
    assert proxy.count("watch") <= 5


async def test_a_watch_cut_after_each_event_does_not_list_again(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    proxy.on("watch", faultproxy.breaks_off(after=900), times=3)
    async with watch() as watcher:
        await watched(proxy)
        for number in range(4):
            await make(cluster, f"new-{number}")
        await knows(watcher, *(f"new-{number}" for number in range(4)))

    assert proxy.count("list") == 1
    assert 2 <= proxy.count("watch") <= 4


async def test_a_watch_that_falls_silent_is_not_believed(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    await make(cluster, "goes")
    proxy.on("watch", faultproxy.falls_silent())
    async with watch(Rhythm(silence=1.0)) as watcher:
        await watched(proxy)
        await cluster.delete(CONFIG_MAPS, "goes")
        await make(cluster, "comes")
        before = time.monotonic()
        assert before - watcher.heard < 5
        changes = {}
        for _ in range(3):
            change = await anext(watcher)
            changes[change.view.name] = change.happened
            if len(changes) == 2 and changes["goes"] is Happened.DELETED:
                break

    assert changes == {"goes": Happened.DELETED, "comes": Happened.ADDED}
    assert watcher.heard > before
    assert proxy.count("list") >= 2


async def test_what_a_watch_never_told_is_found_by_the_next_list(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    proxy.on("watch", faultproxy.falls_silent(), times=FOR_EVER)
    async with watch(Rhythm(relist=1.0, silence=60.0)) as watcher:
        await watched(proxy)
        await make(cluster, "untold")
        await knows(watcher, "untold", within=3.0)

    assert proxy.count("list") == 2


async def test_lists_that_fail_are_no_hot_loop(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    async with watch() as watcher:
        await watched(proxy)
        await make(cluster, "before")
        await knows(watcher, "before")
        proxy.on("list", faultproxy.answers(503), times=FOR_EVER)
        proxy.on("watch", faultproxy.answers(503), times=FOR_EVER)
        await proxy.close()
        await proxy.open()
        asked = len(proxy.seen)
        await asyncio.sleep(3.0)
        asked = len(proxy.seen) - asked
        proxy.heal()
        await make(cluster, "after")
        await knows(watcher, "before", "after")

    assert 2 <= asked <= 12


async def test_a_server_that_is_away_is_no_error_and_is_found_again(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    await make(cluster, "goes")
    async with watch() as watcher:
        await watched(proxy)
        heard = watcher.heard
        await proxy.close()
        await cluster.delete(CONFIG_MAPS, "goes")
        await make(cluster, "comes")
        await asyncio.sleep(1.5)
        assert [view.name for view in watcher.snapshot().values()] == ["goes"]
        assert watcher.heard == heard
        await proxy.open()
        await knows(watcher, "comes")

    assert proxy.count("list") + proxy.count("watch") <= 5


async def test_the_first_list_failing_is_an_error(watch: Watch, proxy: FaultProxy) -> None:
    proxy.on("list", faultproxy.answers(503), times=FOR_EVER)
    with pytest.raises(ServerError):
        async with watch():
            pass

    assert proxy.count("list") == 3


async def test_two_hundred_objects_under_a_storm_end_up_right(
    cluster: Cluster, watch: Watch, proxy: FaultProxy
) -> None:
    for fault in (
        faultproxy.breaks_off(after=5_000),
        faultproxy.answers(410),
        faultproxy.answers(429, "Retry-After: 1"),
        faultproxy.comes_late(1.0),
        faultproxy.answers(500),
        faultproxy.breaks_off(after=40_000),
    ):
        proxy.on("watch", fault)
    proxy.on("list", faultproxy.comes_late(0.2))
    proxy.on("list", faultproxy.breaks_off(after=1_000), times=2)
    names = [f"one-{number}" for number in range(200)]
    kept = {name for number, name in enumerate(names) if number % 3}
    state: set[str] = set()
    async with watch() as watcher:

        async def follow() -> None:
            async for change in watcher:
                (state.discard if change.happened is Happened.DELETED else state.add)(
                    change.view.name
                )

        following = asyncio.create_task(follow())
        for name in names:
            await make(cluster, name)
            if name not in kept:
                await cluster.delete(CONFIG_MAPS, name)
            await asyncio.sleep(0.01)
        await knows(watcher, *kept)
        await asyncio.sleep(0.1)
        following.cancel()

    assert state == kept
    assert len(proxy.seen) <= 25
