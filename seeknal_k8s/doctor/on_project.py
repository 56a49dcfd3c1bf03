"""The checks that ask nobody: the settings, and the project with its options."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from seeknal_k8s import coordinator, manifest
from seeknal_k8s.doctor.findings import Finding, Judgement, from_error, good, unknown
from seeknal_k8s.doctor.needs import needs
from seeknal_k8s.errors import SeeknalK8sError
from seeknal_k8s.settings import load

if TYPE_CHECKING:
    from seeknal_k8s.doctor.needs import Need
    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.request import RunRequest
    from seeknal_k8s.settings import Settings

GROUP = "project"

_NO_UID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found here, and what the cluster is then asked about; ``job`` is the largest node's.

    ``settings`` is None where they are wrong, and without them nobody can be asked.
    """

    findings: tuple[Finding, ...]
    settings: Settings | None
    needs: tuple[Need, ...]
    job: dict[str, Any] | None


async def examine(
    request: RunRequest, engine: EngineProcess | None, *, offline: bool = False
) -> Looked:
    """Return what there is to say about settings and project."""
    settings, judged = _settings(offline=offline)
    found = [_versions().of(GROUP, "versions"), judged.of(GROUP, "settings")]
    plan, judged = await _plan(request, engine)
    found.append(judged.of(GROUP, "project"))
    if plan is None or not plan.runs:
        return Looked(tuple(found), settings, (), None)
    asked = needs(plan)
    if settings is None:
        return Looked(tuple(found), settings, asked, None)
    job, judged = _manifests(plan, asked, settings)
    found.append(judged.of(GROUP, "manifests"))
    return Looked(tuple(found), settings, asked, job)


def _versions() -> Judgement:
    names = ("seeknal-k8s", "seeknal", "duckdb", "kubernetes")
    return good(
        ", ".join(
            [f"Python {platform.python_version()}"]
            + [f"{name} {metadata.version(name)}" for name in names]
        )
    )


def _settings(*, offline: bool) -> tuple[Settings | None, Judgement]:
    try:
        settings = load()
    except SeeknalK8sError as error:
        return None, from_error(error)
    try:
        if not offline:
            settings.ensure_runnable()
    except SeeknalK8sError as error:
        return settings, from_error(error)
    return settings, good(f"namespace {settings.namespace}, image {settings.image or 'none'}")


async def _plan(request: RunRequest, engine: EngineProcess | None) -> tuple[Plan | None, Judgement]:
    try:
        planned = await coordinator.plan(request, engine)
    except SeeknalK8sError as error:
        return None, from_error(error)
    plan = planned.plan
    if not plan.runs:
        return plan, good(f"{plan.graph.name} has no node")
    largest = needs(plan)[0]
    said = f"{plan.graph.name}: {len(plan.runs)} nodes, the largest asks {largest.text}"
    return plan, good("\n".join([said, *(str(one) for one in planned.warnings)]))


def _manifests(
    plan: Plan, asked: tuple[Need, ...], settings: Settings
) -> tuple[dict[str, Any] | None, Judgement]:
    """Make every node's Job, and return the largest node's."""
    if settings.image is None or not (settings.store_claim or settings.store_host_path):
        return None, unknown("not made: no image or no store is set")
    owner = manifest.Owner("doctor", plan.graph.name, "doctor", _NO_UID)
    jobs = {}
    try:
        for run in plan.runs:
            draft = manifest.Draft(run.node, run.options)
            order = f"{settings.store_path}/order.json"
            jobs[run.node.id] = manifest.build(draft, owner, settings, order=order)
    except SeeknalK8sError as error:
        return None, from_error(error)
    return jobs[asked[0].node], good(f"{len(jobs)} Jobs can be made")
