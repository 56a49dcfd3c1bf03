"""The client against a real API server, alone and with a proxy between them that does harm."""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import yaml

from seeknal_k8s.cluster import Cluster, Patience, Rate
from seeknal_k8s.errors import (
    AlreadyExists,
    Forbidden,
    Invalid,
    NoCluster,
    NotFound,
    QuotaExceeded,
    ServerError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    UsageError,
)
from seeknal_k8s.views import CONFIG_MAPS, EVENTS, JOBS, PODS
from tests import faultproxy, real_cluster
from tests.faultproxy import FaultProxy
from tests.real_cluster import Admin, config_map, job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from seeknal_k8s.cluster import Listing, Permission
    from seeknal_k8s.errors import ClusterError
    from seeknal_k8s.views import View

T = TypeVar("T")
SHORT = Patience(answer=5.0, connect=1.0, tries=4, total=10.0)

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
    async with Cluster(namespace, kubeconfig=str(real_cluster.kubeconfig())) as opened:
        yield opened


@pytest.fixture
async def proxy(admin: Admin) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(admin.upstream) as opened:
        yield opened


@pytest.fixture
async def through(proxy: FaultProxy, namespace: str, tmp_path: Path) -> Callable[..., Cluster]:
    """Open clients that reach the API server through the proxy."""
    server = {"server": f"http://127.0.0.1:{proxy.port}"}
    path = real_cluster.write_kubeconfig(tmp_path / "proxied", server, {})
    return lambda patience=SHORT, **rest: Cluster(
        namespace, kubeconfig=path, patience=patience, **rest
    )


async def until(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer that is true; the limit is the test's own."""
    while True:
        if answer := await ask():
            return answer
        await asyncio.sleep(0.05)


async def of_a_list(asked: Awaitable[Listing[View]]) -> tuple[View, ...]:
    return (await asked).items


async def allowed(asked: Awaitable[Permission]) -> bool:
    return (await asked).allowed


# --- What it can do -------------------------------------------------------------------------------


async def test_what_is_created_can_be_read_listed_and_deleted(cluster: Cluster) -> None:
    made = await cluster.create(JOBS, job("first"))

    assert (await cluster.get(JOBS, "first")).uid == made.uid
    assert made.suspended
    assert [view.name for view in (await cluster.list(JOBS, labels="test=mine")).items] == ["first"]
    assert (await cluster.list(JOBS, labels="test=other")).items == ()
    assert await cluster.delete(JOBS, "first")
    assert not await cluster.delete(JOBS, "first")
    with pytest.raises(NotFound):
        await cluster.get(JOBS, "first")


async def test_a_dry_run_leaves_nothing_behind(cluster: Cluster) -> None:
    await cluster.create(JOBS, job("rehearsed"), dry_run=True)

    assert (await cluster.list(JOBS)).items == ()


async def test_only_the_very_object_is_deleted_whose_uid_is_given(cluster: Cluster) -> None:
    made = await cluster.create(CONFIG_MAPS, config_map("anchor", key="value"))
    before = cluster.requests

    assert not await cluster.delete(CONFIG_MAPS, "anchor", uid="that-of-another")
    assert cluster.requests == before + 1
    assert (await cluster.get(CONFIG_MAPS, "anchor")).data == {"key": "value"}
    assert await cluster.delete(CONFIG_MAPS, "anchor", uid=made.uid)


async def test_jobs_are_deleted_by_their_label_and_never_all_of_them(cluster: Cluster) -> None:
    for number in range(3):
        await cluster.create(JOBS, job(f"a-{number}", label="a"))
    await cluster.create(JOBS, job("b", label="b"))

    await cluster.delete_jobs("test=a")

    assert [view.name for view in (await cluster.list(JOBS)).items] == ["b"]
    with pytest.raises(UsageError):
        await cluster.delete_jobs(" ")


async def test_a_long_list_is_read_page_by_page(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    async with through() as cluster:
        names = {f"many-{number}" for number in range(510)}
        await asyncio.gather(*(cluster.create(CONFIG_MAPS, config_map(name)) for name in names))
        whole = await cluster.list(CONFIG_MAPS, labels="test=mine")
        pages = proxy.count("list")
        proxy.on("list", faultproxy.breaks_off(after=2_000))
        proxy.on("list", faultproxy.answers(503))
        mended = await cluster.list(CONFIG_MAPS, labels="test=mine")

    assert {view.name for view in whole.items} == names
    assert pages == 2
    assert {view.name for view in mended.items} == names
    assert proxy.count("list") == pages + 4


async def test_a_list_whose_pages_expire_is_read_at_once(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    async with through() as cluster:
        await cluster.create(CONFIG_MAPS, config_map("one"))
        proxy.on("list", faultproxy.answers(410))
        listed = await cluster.list(CONFIG_MAPS, labels="test=mine")

    assert [view.name for view in listed.items] == ["one"]
    assert ["limit=500" in seen.query for seen in proxy.seen if seen.verb == "list"] == [
        True,
        False,
    ]


async def test_the_events_of_a_job_say_why_it_has_no_pod(cluster: Cluster) -> None:
    manifest = job("lonely")
    manifest["spec"]["suspend"] = False
    manifest["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    await cluster.create(JOBS, manifest)
    fields = "involvedObject.kind=Job,involvedObject.name=lonely,reason=FailedCreate"

    found = await until(lambda: of_a_list(cluster.list(EVENTS, fields=fields)))

    assert 'serviceaccount "nobody" not found' in found[0].message
    assert found[0].involved_object.name == "lonely"
    assert found[0].last is not None


async def test_a_pod_without_a_log_is_an_error(cluster: Cluster) -> None:
    with pytest.raises(NotFound):
        await cluster.log_tail("nobody", "node", 100)
    with pytest.raises(NotFound):
        async for _ in cluster.logs("nobody", "node", follow=True):
            pass


async def test_the_server_tells_its_version_and_its_clock(cluster: Cluster) -> None:
    server = await cluster.server()

    assert re.match(r"v1\.\d+", server.version)
    assert abs(server.skew) < 2


async def test_a_manifest_that_makes_no_sense_is_told_from_a_namespace_that_is_missing(
    cluster: Cluster,
) -> None:
    with pytest.raises(Invalid, match=r"spec\.template\.spec\.containers"):
        await cluster.create(JOBS, {"metadata": {"name": "empty"}})
    await cluster.create(JOBS, job("twice"))
    with pytest.raises(AlreadyExists) as met:
        await cluster.create(JOBS, job("twice"))
    assert met.value.call is not None
    assert met.value.call.name == "twice"
    async with Cluster("not-there", kubeconfig=str(real_cluster.kubeconfig())) as lost:
        with pytest.raises(NotFound, match="kubectl create namespace not-there"):
            await lost.create(JOBS, job("homeless"))


# --- Who we are -----------------------------------------------------------------------------------


async def test_the_rule_that_forbidden_names_is_the_one_that_was_missing(
    admin: Admin, namespace: str, tmp_path: Path
) -> None:
    user = {"token": admin.token(namespace, "runner")}
    path = admin.kubeconfig(tmp_path / "runner", user)
    async with Cluster(namespace, kubeconfig=path) as cluster:
        assert not (await cluster.may("create", "jobs", "batch")).allowed
        with pytest.raises(Forbidden) as refused:
            await cluster.create(JOBS, job("wanted"))
        named = re.search(r"add to its Role: (\{.*\})", str(refused.value))
        assert named is not None
        allow(admin, namespace, refused.value.account, yaml.safe_load(named[1]))

        await until(lambda: allowed(cluster.may("create", "jobs", "batch")))
        await cluster.create(JOBS, job("wanted"))
        assert not (await cluster.may("get", "pods/log")).allowed


def allow(admin: Admin, namespace: str, account: str, rule: dict[str, Any]) -> None:
    group = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    admin.make(f"{group}/roles", {"metadata": {"name": "runner"}, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "runner"}
    who = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": account}
    body = {"metadata": {"name": "runner"}, "roleRef": role, "subjects": [who]}
    admin.make(f"{group}/rolebindings", body)


async def test_a_token_that_nobody_knows_is_said_so_and_not_shown(
    admin: Admin, namespace: str, tmp_path: Path
) -> None:
    path = admin.kubeconfig(tmp_path / "stranger", {"token": "swordfish"})
    async with Cluster(namespace, kubeconfig=path) as cluster:
        with pytest.raises(Unauthorized) as refused:
            await cluster.list(JOBS)
        with pytest.raises(Unauthorized):
            await cluster.list(JOBS)

    assert "swordfish" not in "".join(traceback.format_exception(refused.value))
    assert cluster.requests == 3  # once with renewed credentials, and not again so soon


async def test_an_exec_plugin_is_asked_again_when_its_token_has_expired(
    admin: Admin, namespace: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("expired")
    credential = '{"apiVersion":"%s","kind":"ExecCredential","status":{"token":"%s"}}'
    version = "client.authentication.k8s.io/v1"
    script = f"printf '{credential}' {version} $(cat {token}); echo >> {tmp_path}/asked"
    plugin = {"apiVersion": version, "command": "sh", "args": ["-c", script]}
    path = admin.kubeconfig(tmp_path / "plugged", {"exec": plugin})
    async with Cluster(namespace, kubeconfig=path) as cluster:
        token.write_text(admin.token(namespace, "runner"))
        with pytest.raises(Forbidden, match="system:serviceaccount"):
            await cluster.list(JOBS)
        with pytest.raises(Forbidden):
            await cluster.list(JOBS)

    assert (tmp_path / "asked").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("text", "context", "why"),
    [
        pytest.param(None, None, "no kubeconfig at", id="no file"),
        pytest.param("clusters: [", None, "cannot be used", id="no YAML"),
        pytest.param("[]", None, "cannot be used", id="something else"),
        pytest.param("{contexts: []}", "mine", "cannot be used", id="no such context"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used(
    text: str | None, context: str | None, why: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    with pytest.raises(NoCluster, match=why):
        async with Cluster(kubeconfig=str(tmp_path / "config"), context=context):
            pass


async def test_another_certificate_than_expected_is_not_tried_again(
    admin: Admin, tmp_path: Path
) -> None:
    path = real_cluster.write_kubeconfig(tmp_path / "config", {"server": admin.server}, {})
    async with Cluster(kubeconfig=path) as cluster:
        with pytest.raises(NoCluster, match="certificate"):
            await cluster.server()

    assert cluster.requests == 1


# --- Quotas ---------------------------------------------------------------------------------------


def limit(admin: Admin, namespace: str, jobs: int) -> None:
    """Set a quota, and wait until the controller has counted for the first time."""
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    spec = {"hard": {"count/jobs.batch": str(jobs)}}
    admin.make(path, {"metadata": {"name": "few"}, "spec": spec})
    while "used" not in admin.request("GET", f"{path}/few")[1]["status"]:
        time.sleep(0.05)


async def test_a_quota_that_is_used_up_is_not_tried_again(
    cluster: Cluster, admin: Admin, namespace: str
) -> None:
    limit(admin, namespace, 1)
    await cluster.create(JOBS, job("first"))
    before = cluster.requests

    with pytest.raises(QuotaExceeded, match="describe quota"):
        await cluster.create(JOBS, job("second"))

    assert cluster.requests == before + 1


async def test_creates_that_meet_at_one_quota_all_succeed(
    cluster: Cluster, admin: Admin, namespace: str
) -> None:
    limit(admin, namespace, 40)

    await asyncio.gather(*(cluster.create(JOBS, job(f"at-once-{n}")) for n in range(40)))

    assert len((await cluster.list(JOBS)).items) == 40
    assert cluster.requests < 41 * 3


# --- Under faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faultproxy.loses_the_answer(), id="its answer is lost"),
        pytest.param(faultproxy.breaks_off(after=10), id="its answer breaks off"),
    ],
)
async def test_a_create_is_done_once_although(
    fault: faultproxy.Fault, proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    proxy.on("create", fault)
    async with through() as cluster:
        with pytest.raises(AlreadyExists) as met:
            await cluster.create(JOBS, job("once"))
        there = await cluster.list(JOBS)

    assert met.value.call is not None
    assert met.value.call.name == there.items[0].name == "once"
    assert (proxy.count("create"), len(there.items)) == (2, 1)


@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_a_create_is_made_again_after(
    status: int, proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    proxy.on("create", faultproxy.answers(status), times=2)
    async with through() as cluster:
        await cluster.create(JOBS, job("once"))
        there = await cluster.list(JOBS)

    assert (proxy.count("create"), len(there.items)) == (3, 1)


async def test_the_server_is_left_alone_as_long_as_it_wants(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    rate = Rate(100)
    proxy.on("create", faultproxy.answers(429, "Retry-After: 1"), times=4)
    async with through(rate=rate) as cluster:
        began = time.monotonic()
        await asyncio.gather(*(cluster.create(JOBS, job(f"many-{n}")) for n in range(20)))
        took = time.monotonic() - began
        there = await cluster.list(JOBS)

    assert len(there.items) == 20
    assert proxy.count("create") == 24
    assert 1.0 < took < 8.0
    assert rate.per_second < 100


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(faultproxy.answers(429, "Retry-After: 0"), TooManyRequests, id="429"),
        pytest.param(faultproxy.answers(503), ServerError, id="503"),
        pytest.param(faultproxy.says_in_the_stream("<html>"), ServerError, id="a page"),
        pytest.param(faultproxy.breaks_off(), Unreachable, id="nothing but the head"),
        pytest.param(faultproxy.falls_silent(), TimedOut, id="silence"),
        pytest.param(faultproxy.comes_late(2.0), TimedOut, id="latency"),
    ],
)
async def test_it_gives_up_after_so_many_tries(
    fault: faultproxy.Fault,
    error: type[ClusterError],
    proxy: FaultProxy,
    through: Callable[..., Cluster],
) -> None:
    proxy.on("get", fault, times=float("inf"))
    async with through(replace(SHORT, answer=0.3)) as cluster:
        with pytest.raises(error):
            await cluster.get(JOBS, "anything")

    assert proxy.count("get") == SHORT.tries


async def test_it_gives_up_after_so_much_time(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    proxy.on("get", faultproxy.answers(429, "Retry-After: 3600"))
    async with through() as cluster:
        with pytest.raises(TooManyRequests) as refused:
            await cluster.get(JOBS, "anything")

    assert refused.value.retry_after == 3600
    assert proxy.count("get") == 1


async def test_a_server_that_is_away_for_a_moment_is_waited_for(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    async with through() as cluster:
        await cluster.create(JOBS, job("before"))
        await proxy.close()
        asking = asyncio.create_task(cluster.list(JOBS))
        await asyncio.sleep(0.3)
        await proxy.open()

        assert [view.name for view in (await asking).items] == ["before"]

    assert cluster.requests <= 1 + SHORT.tries


async def test_latency_changes_nothing_but_the_time(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    proxy.on("create", faultproxy.comes_late(1.0), times=8)
    async with through() as cluster:
        began = time.monotonic()
        await asyncio.gather(*(cluster.create(JOBS, job(f"late-{n}")) for n in range(8)))
        took = time.monotonic() - began

    assert (proxy.count("create"), took < 4) == (8, True)


async def test_no_more_calls_are_under_way_at_once_than_allowed(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    proxy.on("get", faultproxy.comes_late(0.2), times=8)
    async with through(replace(SHORT, at_once=2)) as cluster:
        began = time.monotonic()
        await asyncio.gather(*(cluster.may("get", "pods") for _ in range(2)))
        reads = [cluster.get(CONFIG_MAPS, "kube-root-ca.crt") for _ in range(8)]
        await asyncio.gather(*reads, return_exceptions=True)

    assert time.monotonic() - began > 0.8


async def test_the_proxy_writes_down_what_really_went_over_the_wire(
    proxy: FaultProxy, through: Callable[..., Cluster]
) -> None:
    async with through() as cluster:
        await cluster.list(PODS, labels="a=b", fields="status.phase=Running")

    assert json.dumps(proxy.seen[0].query) == json.dumps(
        ["labelSelector=a=b", "fieldSelector=status.phase=Running", "limit=500"]
    )
