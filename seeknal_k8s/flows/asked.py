"""A flow's parameters → what the coordinator is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seeknal_k8s.errors import UsageError
from seeknal_k8s.options import parse_overrides
from seeknal_k8s.request import RunRequest
from seeknal_k8s.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seeknal_k8s.settings import Settings

On = Literal["local", "kubernetes"]
"""Where nodes run: as processes here, or as Jobs."""

LOCK_PATIENCE = 24 * 3600.0
"""Seconds that a task waits for the store: another task of the same flow may be at work on it."""


def where(on: On | None) -> tuple[On, Settings]:
    """Return where nodes run, and the settings: the argument goes before ``SEEKNAL_K8S_ON``.

    Raises:
        UsageError: a setting is wrong, or one that Kubernetes needs is missing.
    """
    settings = load()
    chosen = on or settings.on
    if chosen == "kubernetes":
        settings.ensure_runnable()
    return chosen, settings


def exactly(node_ids: Sequence[str] | None) -> tuple[str, ...]:
    """Return the selectors that mean these nodes and no others; none for all.

    Raises:
        UsageError: there is a list, and nothing in it: nobody who made one means all nodes.
    """
    if node_ids is None:
        return ()
    if not node_ids:
        raise UsageError("node_ids is empty\n  → name the nodes to run, or leave it out to run all")
    return tuple(f"node:{node}" for node in node_ids)


def at_once(max_parallel: int | None, *, parallel: bool) -> int | None:
    """Return how many nodes may run together, None for as many as fit.

    Raises:
        UsageError: it is less than one.
    """
    if max_parallel is not None and max_parallel < 1:
        raise UsageError(f"max_parallel is {max_parallel}\n  → it is at least 1; None for no bound")
    return max_parallel if parallel else 1


def request(
    project_path: str | Path,
    *,
    on: On | None,
    store: str | Path | None = None,
    options: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    **more: Any,
) -> RunRequest:
    """Return the request for a run of the project.

    Raises:
        UsageError: a setting or an option is wrong.
    """
    chosen, settings = where(on)
    return RunRequest(
        project=Path(project_path).expanduser(),
        store=None if store is None else Path(store).expanduser(),
        on=chosen,
        settings=settings if chosen == "kubernetes" else None,
        options=parse_overrides(options),
        params=dict(params or {}),
        **more,
    )
