"""A plan, and where a node's options come from, as text for people and as data for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from seeknal_k8s.cli.render import table
from seeknal_k8s.options import OptionsFile
from seeknal_k8s.progress import duration, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal_k8s.coordinator import Planned
    from seeknal_k8s.graph import Node
    from seeknal_k8s.options import Resolved
    from seeknal_k8s.plan import NodeRun, Plan
    from seeknal_k8s.request import RunRequest

_NAMED = 2
"""How many of the nodes that one waits for are named; more do not fit into a line."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One node of a plan: its run, if it has one, and its options."""

    node: Node
    run: NodeRun | None
    action: str
    options: Resolved


def lines(plan: Plan) -> list[Text]:
    """Return a plan as a table in the project's order, with a line of totals."""
    runs = {run.node.id: run for run in plan.runs}
    rows: list[list[Text | str]] = []
    for node in plan.graph.nodes:
        action = _action(plan, node)
        if run := runs.get(node):
            options = run.options.options
            waits = _briefly(run.waits_for)
            rows.append(
                [node, Text(action, "green"), options.cpu, options.memory, waits, run.because]
            )
        else:
            rows.append([Text(node, "dim"), Text(action, "dim"), "", "", "", ""])
    heads = ("NODE", "ACTION", "CPU", "MEMORY", "WAITS FOR", "WHY")
    totals = [f"{plural(len(plan.runs), 'node')} to run", f"{len(plan.cached):,} cached"]
    if plan.left_out:
        totals.append(f"{len(plan.left_out):,} left out")
    return [*table(heads, rows, "  rr"), Text(), Text(", ".join(totals), style="bold")]


def _action(plan: Plan, node: str) -> str:
    if node in plan.cached:
        return "cached"
    return "left out" if node in plan.left_out else "run"


def _briefly(ids: Sequence[str]) -> str:
    if len(ids) <= _NAMED:
        return ", ".join(ids)
    return f"{ids[0]} and {len(ids) - 1} more"


def document(planned: Planned) -> dict[str, Any]:
    """Return a plan as JSON-able data."""
    plan = planned.plan
    return {
        "project": plan.graph.root,
        "digest": plan.graph.digest,
        "runs": [_run(run) for run in plan.runs],
        "cached": list(plan.cached),
        "left_out": list(plan.left_out),
        "warnings": [
            {"what": warning.what, "fix": warning.fix, "where": warning.where}
            for warning in planned.warnings
        ],
    }


def _run(run: NodeRun) -> dict[str, Any]:
    return {
        "node": run.node.id,
        "reason": run.reason.value,
        "because": run.because,
        "waits_for": list(run.waits_for),
        "past_seconds": run.past_seconds,
        "cpu": run.options.cpu_cores,
        "memory_bytes": run.options.memory_bytes,
        "options": _options(run.options),
    }


def _options(resolved: Resolved) -> dict[str, dict[str, str]]:
    return {name: {"value": value, "from": place} for name, value, place in resolved.explain()}


def explain(plan: Plan, text: str, request: RunRequest) -> Explained:
    """Return what there is to say about one node, whether it runs or not.

    Raises:
        ProjectRefused: no node, or more than one, is called that.
    """
    node = plan.graph.find(text)
    run = next((run for run in plan.runs if run.node.id == node.id), None)
    if run is not None:
        options = run.options
    else:  # a plan keeps the options of what runs
        options = OptionsFile.load(Path(plan.graph.root)).resolve(node, tuple(request.options))
    return Explained(node, run, _action(plan, node.id), options)


def explanation(explained: Explained) -> dict[str, Any]:
    """Return an explanation as JSON-able data."""
    node, run = explained.node, explained.run
    return {
        "node": node.id,
        "file": node.file,
        "tags": list(node.tags),
        "inputs": list(node.inputs),
        "action": explained.action,
        "because": run.because if run else "",
        "options": _options(explained.options),
    }


def explanation_lines(explained: Explained) -> list[Text]:
    """Return an explanation as text."""
    node, run = explained.node, explained.run
    facts = [
        ("file", node.file),
        ("tags", ", ".join(node.tags)),
        ("reads", ", ".join(node.inputs)),
        ("action", f"{explained.action}: {run.because}" if run else explained.action),
        ("last took", duration(run.past_seconds) if run and run.past_seconds else ""),
    ]
    about = [Text(f"  {name:<9}  {value}") for name, value in facts if value]
    options = table(("OPTION", "VALUE", "FROM"), explained.options.explain())
    return [Text(node.id, style="bold"), *about, Text(), *options]
