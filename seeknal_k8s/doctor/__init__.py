"""Whether everything is in place for a run: each check a finding with its reason and its remedy.

findings    what a check returns
needs       what the nodes of a plan ask for
judge       values → judgement, without asking anybody
on_project  the settings and the project, on this machine
on_cluster  the API server; nothing is created
on_prefect  the API, the pool, its worker, the flow
probe       two real pods, where that is asked for
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seeknal_k8s.cluster import Cluster, Patience
from seeknal_k8s.doctor import on_cluster, on_prefect, on_project, probe
from seeknal_k8s.doctor.findings import Finding, Judgement, State, from_error, unknown
from seeknal_k8s.errors import NoCluster

if TYPE_CHECKING:
    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.request import RunRequest
    from seeknal_k8s.settings import Settings

__all__ = ["Finding", "State", "examine"]

_PATIENCE = Patience(answer=10.0, connect=5.0, tries=2, total=15.0)


async def examine(
    request: RunRequest,
    engine: EngineProcess | None = None,
    *,
    offline: bool = False,
    pods: bool = False,
) -> tuple[Finding, ...]:
    """Return all findings, in order. ``offline`` asks nobody; ``pods`` also starts two pods."""
    looked = await on_project.examine(request, engine, offline=offline)
    found = list(looked.findings)
    settings = looked.settings
    if offline or settings is None:
        return tuple(found)
    try:
        async with Cluster(
            namespace=settings.namespace, context=settings.context, patience=_PATIENCE
        ) as cluster:
            case = on_cluster.Case(cluster, settings, looked.needs, looked.job)
            asked = await on_cluster.examine(case)
            found += asked
            if pods:
                probed = await _probed(cluster, settings, asked)
                found.append(probed.of("pods", "image and store"))
    except NoCluster as error:
        found.append(from_error(error).of(on_cluster.GROUP, "API server"))
    return (*found, *await on_prefect.examine(settings))


async def _probed(cluster: Cluster, settings: Settings, asked: list[Finding]) -> Judgement:
    """Return what two pods find out, if there is a cluster and a namespace for them."""
    needed = {"API server", "namespace"}
    if any(one.check in needed and one.state is State.FAILED for one in asked):
        return unknown("not tried: there is no place for pods")
    return await probe.judge(cluster, settings)
