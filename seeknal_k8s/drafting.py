"""A plan from a project as the engine has described it: graph, options and state put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import graph as graphs
from seeknal_k8s import plan as planning
from seeknal_k8s.options import OptionsFile, resolve_all
from seeknal_k8s.selection import select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seeknal_k8s.errors import Problem
    from seeknal_k8s.plan import Plan
    from seeknal_k8s.request import RunRequest


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what the user should know about the project."""

    plan: Plan
    warnings: tuple[Problem, ...]


def draft(raw: dict[str, Any], request: RunRequest) -> Planned:
    """Plan a project as the engine has read it."""
    graph, warnings = graphs.build(raw)
    options = resolve_all(
        OptionsFile.load(Path(raw["root"])), graph.nodes.values(), request.options
    )
    state = {node_id: planning.PastRun(**past) for node_id, past in (raw["state"] or {}).items()}
    meant = None
    if request.select or request.exclude:
        meant = frozenset(select(graph, request.select, request.exclude))
    made = planning.make(
        graph,
        state=state,
        missing=frozenset(raw["missing"]),
        refresh=frozenset(raw["refresh"]),
        options=options,
        selected=meant if request.select else None,
        within=meant,
        full=request.full,
    )
    return Planned(made, tuple(warnings))


def without(plan: Plan, done: Mapping[str, Any]) -> Plan:
    """Return the plan without what is done already; those nodes no longer hold up others."""
    runs = tuple(
        replace(run, waits_for=tuple(other for other in run.waits_for if other not in done))
        for run in plan.runs
        if run.node.id not in done
    )
    return replace(plan, runs=runs)
