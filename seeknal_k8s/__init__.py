"""Run Seeknal data pipelines node by node: one process, or one Kubernetes Job, per node.

Importing this package imports nothing else: each public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from seeknal_k8s.version import __version__

if TYPE_CHECKING:
    from seeknal_k8s.coordinator import run
    from seeknal_k8s.deployments import create_prefect_deployment
    from seeknal_k8s.errors import ProjectRefused, SeeknalK8sError
    from seeknal_k8s.flows import run_seeknal_node, seeknal_backfill_flow, seeknal_run_flow
    from seeknal_k8s.request import RunRequest
    from seeknal_k8s.results import PrefectRunResult, RunResults


_HOMES = {
    "PrefectRunResult": "results",
    "ProjectRefused": "errors",
    "RunRequest": "request",
    "RunResults": "results",
    "SeeknalK8sError": "errors",
    "create_prefect_deployment": "deployments",
    "run": "coordinator",
    "run_seeknal_node": "flows",
    "seeknal_backfill_flow": "flows",
    "seeknal_run_flow": "flows",
}

__all__ = [
    "PrefectRunResult",
    "ProjectRefused",
    "RunRequest",
    "RunResults",
    "SeeknalK8sError",
    "__version__",
    "create_prefect_deployment",
    "run",
    "run_seeknal_node",
    "seeknal_backfill_flow",
    "seeknal_run_flow",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"prefect", "prefect_kubernetes"}:
            raise
        raise ImportError(
            f'Prefect is not installed, and {name} needs it\n  → pip install "seeknal-k8s[prefect]"'
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
