"""What the nodes of a plan ask of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seeknal_k8s.options import Resolved
    from seeknal_k8s.plan import Plan


@dataclass(frozen=True, slots=True)
class Need:
    """What one node's pod asks for. ``amounts`` is by Kubernetes' names: cores, bytes, pieces."""

    node: str
    amounts: Mapping[str, float]
    text: str
    selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, str]] = ()
    queue: str | None = None
    priority_class: str | None = None


def needs(plan: Plan) -> tuple[Need, ...]:
    """Return what each node of a plan asks for, the largest memory first."""
    found = [_need(run.node.id, run.options) for run in plan.runs]
    return tuple(sorted(found, key=lambda need: (-need.amounts["memory"], -need.amounts["cpu"])))


def _need(node: str, resolved: Resolved) -> Need:
    options = resolved.options
    amounts = {
        "cpu": resolved.cpu_cores,
        "memory": float(resolved.memory_bytes),
        "ephemeral-storage": float(resolved.ephemeral_storage_bytes),
    }
    text = f"cpu {options.cpu}, memory {options.memory}"
    if options.gpu:
        amounts[options.gpu.resource] = float(options.gpu.count)
        text += f", {options.gpu.count} {options.gpu.resource}"
    return Need(
        node,
        amounts,
        text,
        selector=dict(options.node_selector),
        tolerations=tuple(
            one.model_dump(by_alias=True, exclude_none=True) for one in options.tolerations
        ),
        queue=options.queue,
        priority_class=options.priority_class,
    )
