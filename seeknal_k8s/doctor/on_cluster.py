"""The checks that ask the API server. Nothing is created: what is tried is a dry run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seeknal_k8s.doctor import judge
from seeknal_k8s.doctor.findings import Finding, Judgement, State, bad, from_error, good, unknown
from seeknal_k8s.errors import Forbidden, NotFound, QuotaExceeded, SeeknalK8sError
from seeknal_k8s.views import (
    ACCOUNTS,
    CLAIMS,
    JOBS,
    LIMIT_RANGES,
    LOCAL_QUEUES,
    MACHINES,
    NAMESPACES,
    PODS,
    PRIORITY_CLASSES,
    QUOTAS,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seeknal_k8s.cluster import Cluster
    from seeknal_k8s.doctor.needs import Need
    from seeknal_k8s.settings import Settings
    from seeknal_k8s.views import Kind, ThingView

GROUP = "cluster"

RUNNER_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "configmaps", ("create", "delete", "get")),
    ("batch", "jobs", ("create", "delete", "deletecollection", "get", "list", "patch", "watch")),
    ("", "pods", ("get", "list", "watch")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
)
"""What whoever coordinates a run, or ends one, asks of the API server: group, resource, verbs."""

_POWERS = (("", "secrets", "get"), ("", "pods", "create"), ("batch", "jobs", "create"))
"""What nobody wants user code to be able to do."""

_NO_PLAN = unknown("the project could not be read, so nobody knows what its nodes ask for")


@dataclass(frozen=True, slots=True)
class Case:
    """What is examined: a namespace, the settings, what nodes need, and the largest one's Job."""

    cluster: Cluster
    settings: Settings
    needs: tuple[Need, ...]
    job: dict[str, Any] | None


async def examine(case: Case) -> list[Finding]:
    """Return what there is to say about the cluster; if it does not answer, that only."""
    try:
        server = await case.cluster.server()
    except SeeknalK8sError as error:
        return [from_error(error).of(GROUP, "API server")]
    found = [
        judge.version(server.version).of(GROUP, "API server"),
        judge.clock(server.skew).of(GROUP, "clock"),
    ]
    for name, check in _CHECKS.items():
        finding = (await asked(lambda check=check: check(case))).of(GROUP, name)  # type: ignore[misc]
        found.append(finding)
        if name == "namespace" and finding.state is State.FAILED:
            return found  # everything else is in it
    return found


async def asked(check: Callable[[], Awaitable[Judgement]]) -> Judgement:
    """Return a check's judgement; an error becomes one, and what we may not see is unknown."""
    try:
        return await check()
    except Forbidden as error:
        said = from_error(error)
        return unknown(f"nobody knows: {said.reason}", said.fix)
    except SeeknalK8sError as error:
        return from_error(error)


async def _namespace(case: Case) -> Judgement:
    name = case.settings.namespace
    try:
        return judge.namespace(await case.cluster.get(NAMESPACES, name))
    except NotFound:
        return bad(f"there is no namespace {name}", f"kubectl create namespace {name}")


async def _accounts(case: Case) -> Judgement:
    names = (case.settings.runner_service_account, case.settings.node_service_account)
    missing = [name for name in dict.fromkeys(names) if not await _is_there(case, ACCOUNTS, name)]
    if missing:
        where = f" --namespace {case.settings.namespace}"
        return bad(
            f"there is no service account {', '.join(missing)}",
            "\n".join(f"kubectl create serviceaccount {name}{where}" for name in missing),
        )
    return good(" and ".join(dict.fromkeys(names)))


async def _is_there(case: Case, kind: Kind[ThingView], name: str) -> bool:
    try:
        await case.cluster.get(kind, name)
    except NotFound:
        return False
    return True


async def _rights(case: Case) -> Judgement:
    account = case.settings.runner_service_account
    missing = [
        (group, resource, verb)
        for group, resource, verbs in RUNNER_RULES
        for verb in verbs
        if not (await case.cluster.may(verb, resource, group, account=account)).allowed
    ]
    return judge.rights(account, missing, case.settings.namespace)


async def _powers(case: Case) -> Judgement:
    account = case.settings.node_service_account
    if account == case.settings.runner_service_account:
        return bad(
            f"{account} is also the runner's, whose rights no node needs",
            "name another with SEEKNAL_K8S_NODE_SERVICE_ACCOUNT",
        )
    found = [
        f"{verb} {resource}"
        for group, resource, verb in _POWERS
        if (await case.cluster.may(verb, resource, group, account=account)).allowed
    ]
    return judge.powers(account, found)


async def _admission(case: Case) -> Judgement:
    """Try the largest node's Job, and its pod: Pod Security only looks at pods."""
    if case.job is None:
        return _NO_PLAN
    await case.cluster.create(JOBS, case.job, dry_run=True)
    template = case.job["spec"]["template"]
    metadata = {**template["metadata"], "name": case.job["metadata"]["name"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    try:
        await case.cluster.create(PODS, pod, dry_run=True)
    except QuotaExceeded as error:
        return unknown(f"no room for a pod now: {str(error).splitlines()[0]}", "try again later")
    return good(f"a Job of {case.needs[0].node} and its pod would be let in")


async def _quotas(case: Case) -> Judgement:
    if not case.needs:
        return _NO_PLAN
    return judge.quotas(case.needs, (await case.cluster.list(QUOTAS)).items)


async def _limits(case: Case) -> Judgement:
    if not case.needs:
        return _NO_PLAN
    return judge.limit_ranges(case.needs, (await case.cluster.list(LIMIT_RANGES)).items)


async def _machines(case: Case) -> Judgement:
    if not case.needs:
        return _NO_PLAN
    return judge.machines(case.needs, (await case.cluster.list(MACHINES)).items)


async def _store(case: Case) -> Judgement:
    if case.settings.store_claim is None:
        return unknown(f"a folder of the machine: {case.settings.store_host_path}")
    return await _claim(case, case.settings.store_claim)


async def _project(case: Case) -> Judgement:
    if case.settings.project_claim is None:
        return unknown(f"{case.settings.project_path} is in the image, or on the store's volume")
    return await _claim(case, case.settings.project_claim)


async def _claim(case: Case, name: str) -> Judgement:
    try:
        found = await case.cluster.get(CLAIMS, name)
    except NotFound:
        return bad(
            f"there is no PersistentVolumeClaim {name}",
            f"kubectl get pvc --namespace {case.settings.namespace}",
        )
    try:
        machines = len((await case.cluster.list(MACHINES)).items)
    except Forbidden:
        machines = None
    return judge.claim(found, machines)


async def _queues(case: Case) -> Judgement:
    names = {need.queue or case.settings.queue for need in case.needs} | {case.settings.queue}
    wanted = sorted(name for name in names if name)
    if not wanted:
        return unknown("none is used")
    for name in wanted:
        try:
            judgement = judge.queue(await case.cluster.get(LOCAL_QUEUES, name))
        except NotFound:
            return bad(f"there is no LocalQueue {name}, or no Kueue", "kubectl get localqueues")
        if judgement.state is not State.OK:
            return judgement
    return good(f"{', '.join(wanted)}: active")


async def _priorities(case: Case) -> Judgement:
    default = case.settings.priority_class
    names = {need.priority_class or default for need in case.needs} | {default}
    wanted = sorted(name for name in names if name)
    missing = [name for name in wanted if not await _is_there(case, PRIORITY_CLASSES, name)]
    if missing:
        return bad(f"there is no PriorityClass {', '.join(missing)}", "kubectl get priorityclasses")
    return good(", ".join(wanted)) if wanted else unknown("none is used")


_CHECKS: dict[str, Callable[[Case], Awaitable[Judgement]]] = {
    "namespace": _namespace,
    "accounts": _accounts,
    "runner's rights": _rights,
    "nodes' rights": _powers,
    "admission": _admission,
    "quota": _quotas,
    "limit range": _limits,
    "machines": _machines,
    "store": _store,
    "project volume": _project,
    "queue": _queues,
    "priority class": _priorities,
}
