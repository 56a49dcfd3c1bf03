"""From a request to results: read the project, plan, run, publish. What the CLI and flows call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from seeknal_k8s.drafting import Planned, draft
from seeknal_k8s.engine_client import EngineClient
from seeknal_k8s.errors import (
    Problem,
    ProjectRefused,
    StateUnreadable,
    StoreLocked,
)
from seeknal_k8s.events import RunEnded, StoreAwaited
from seeknal_k8s.execution import Execution
from seeknal_k8s.request import RunRequest, named, new_pins, new_run_id, settled
from seeknal_k8s.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from seeknal_k8s.engine_process import EngineProcess
    from seeknal_k8s.events import Observer
    from seeknal_k8s.results import RunResults


__all__ = ["Planned", "RunRequest", "new_run_id", "plan", "run"]

_PAUSE = 0.2
"""Seconds between two looks at a lock that somebody else holds."""


async def plan(request: RunRequest, engine: EngineProcess | None = None) -> Planned:
    """Read the project and plan, without running anything.

    Raises:
        ProjectRefused: the project, its options or the selection is wrong.
        StateUnreadable: ``target/run_state.json`` cannot be read.
    """
    async with EngineClient(engine) as client:
        raw = await _read(client, request, new_pins(request.run_id or new_run_id()))
        client.hang_up()  # it takes 20 ms to end: meanwhile, we plan
        _refuse_unreadable_state(raw, request)
        return draft(raw, request)


async def run(
    request: RunRequest, observer: Observer, engine: EngineProcess | None = None
) -> RunResults:
    """Run what the request asks for and return how every node ended.

    Cancelling the task ends every node, keeps what was accepted, and raises ``Interrupted``.

    Raises:
        ProjectRefused, StateUnreadable, StoreUnavailable, StoreLocked: nothing was run.
        Interrupted: it was stopped; the message says how to resume.
    """
    began = time.monotonic()
    async with EngineClient(engine) as client:
        _require_folder(request.project)
        store = Store.of(request.project, request.store_root)
        request = named(request, store)
        run_id = str(request.resume or request.run_id)
        if (ended := settled(request, store).ended) is not None:
            observer(RunEnded(ended, 0.0))
            return ended
        async with locked(_to_lock(store, request), run_id, request.wait, observer):
            # While this has waited, that run may have ended, or a newer one published.
            now = settled(request, store)
            if now.ended is not None:
                observer(RunEnded(now.ended, time.monotonic() - began))
                return now.ended
            raw = await _read(client, now.request, now.pins)
            _set_unreadable_state_aside(raw, now.request, run_id)
            folder = store.folder(run_id)
            execution = Execution(
                client, now.request, folder, observer=observer, raw=raw, pins=now.pins
            )
            results = await execution.run()
            observer(RunEnded(results, time.monotonic() - began, execution.warnings))
            return results


def _to_lock(store: Store, request: RunRequest) -> list[Store]:
    """Return whose locks a run needs: its store's, and that of the place it publishes to.

    Two runs with stores of their own would otherwise write one ``target/``.
    """
    published = Store.of(request.project.resolve())
    same = request.on == "kubernetes" or store.root.resolve() == published.root
    return [store] if same else [published, store]


@contextlib.asynccontextmanager
async def locked(
    stores: Sequence[Store],
    run_id: str,
    wait: float,
    observer: Observer,
    *,
    shared: bool = False,
) -> AsyncIterator[None]:
    """Hold the stores' locks, asking for it again and again: Ctrl-C ends that, a thread it cannot."""
    for store in stores:
        store.prepare()
    until = time.monotonic() + wait
    told = False
    with contextlib.ExitStack() as held:
        for store in stores:
            while True:
                try:
                    held.enter_context(store.lock(run_id, shared=shared))
                    break
                except StoreLocked as locked:
                    if time.monotonic() >= until:
                        raise
                    if not told:
                        observer(StoreAwaited(str(locked).partition("\n")[0]))
                        told = True
                    await asyncio.sleep(_PAUSE)
        yield


def _require_folder(project: Path) -> None:
    if not project.is_dir():
        raise ProjectRefused(
            [Problem(f"there is no folder {project}", "name the project's folder")]
        )


async def _read(client: EngineClient, request: RunRequest, pins: dict[str, str]) -> dict[str, Any]:
    _require_folder(request.project)
    raw: dict[str, Any] = await client.call(
        "open",
        root=str(request.project.resolve()),
        home=str(request.home),
        pins=pins,
        overrides=dict(request.params),
        profile=str(request.profile.resolve()) if request.profile else None,
    )
    return raw


def _refuse_unreadable_state(raw: dict[str, Any], request: RunRequest) -> None:
    if raw["state_error"] and not request.full:
        raise StateUnreadable(
            f"{raw['state_error']}\n"
            "  → it is kept as it is. Put a backup in its place (target/run_state.json.bak.*), or "
            "run everything anew: seeknal-k8s run --full (which sets the file aside)"
        )


def _set_unreadable_state_aside(raw: dict[str, Any], request: RunRequest, run_id: str) -> None:
    """Keep a corrupt state file under another name, when the user has chosen to start anew."""
    _refuse_unreadable_state(raw, request)
    if raw["state_error"]:
        file = request.home / "target" / "run_state.json"
        file.replace(file.with_name(f"{file.name}.corrupt.{run_id}"))
