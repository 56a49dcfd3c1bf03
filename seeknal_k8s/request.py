"""What somebody wants to have run, and what one run of it settles: its id and its clock."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seeknal_k8s.errors import UsageError
from seeknal_k8s.options import Override

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seeknal_k8s.results import RunResults
    from seeknal_k8s.settings import Settings
    from seeknal_k8s.store import Store


Backend = Literal["local", "kubernetes"]
"""Where attempts run."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What somebody wants to have run.

    ``select`` and ``exclude`` are selectors, ``full`` runs everything. ``options`` are overrides
    of node options (``options.parse_overrides``); ``params`` are Seeknal's own ``--params``,
    ``--date``, ``--start-date`` and ``--end-date``. ``on`` is where nodes run, and ``settings`` are needed for
    ``kubernetes``. ``at_once`` bounds how many nodes run together,
    None for as many as fit. ``resume`` is the id of a run to go on with; it brings its own
    selection and parameters. ``resume_if_started`` goes on with run ``run_id`` if there is one, for
    whoever may be started twice; one that has ended is only looked at, unless ``retry_failed`` and
    a node of it failed. ``wait`` is how many seconds to wait for the store's lock.
    """

    project: Path
    store: Path | None = None
    run_id: str | None = None
    resume_if_started: bool = False
    retry_failed: bool = False
    resume: str | None = None
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    full: bool = False
    options: Sequence[Override] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    profile: Path | None = None
    on: Backend = "local"
    settings: Settings | None = None
    at_once: int | None = None
    fail_fast: bool = False
    wait: float = 0.0

    @property
    def store_root(self) -> Path | None:
        """Where the store is: where every pod has it, or given; None for the one in the project."""
        if self.settings is not None and self.on == "kubernetes":
            return Path(self.settings.store_path)
        return self.store

    @property
    def home(self) -> Path:
        """The folder below which ``target/`` is: what the run publishes to."""
        if self.on == "kubernetes" and self.store_root is not None:
            return self.store_root
        return self.project.resolve()


def new_run_id() -> str:
    """Return an id for a run that starts now: ids sort by time."""
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def new_pins(run_id: str) -> dict[str, str]:
    """Return what every process of a run that starts now must agree on: day, time and run id."""
    now = datetime.now()  # noqa: DTZ005 - Seeknal's own {{ run_date }} is naive local time
    return {"today": now.date().isoformat(), "run_date": now.isoformat(), "run_id": run_id}


@dataclass(frozen=True, slots=True)
class Settled:
    """A request as it is carried out, the pins of its run, and, if that has ended, its results."""

    request: RunRequest
    pins: dict[str, str]
    ended: RunResults | None = None


def named(request: RunRequest, store: Store) -> RunRequest:
    """Return the request with the whole id of the run that it goes on with, or that it begins.

    Raises:
        UsageError: there is no run that it could go on with.
    """
    if request.resume is not None:
        return replace(request, resume=store.run(request.resume).id)
    return replace(request, run_id=request.run_id or new_run_id())


def settled(request: RunRequest, store: Store) -> Settled:
    """Return what carrying out a request that was ``named`` means, as the store is now.

    A resumed run keeps the selection, the parameters and the clock it was started with. Only while
    the store is locked nobody can make it mean something else.

    Raises:
        UsageError: the run cannot be begun, or not be gone on with.
    """
    if request.resume is None:
        run = store.folder(str(request.run_id))
        about = run.about()
        _refuse_backfill(run.id, about)
        lost = request.resume_if_started and "request" not in about
        if lost or not (run.path / "run.json").exists():  # new, or killed before it had begun
            return Settled(request, new_pins(run.id))
        if not request.resume_if_started:
            raise UsageError(f"there is a run '{run.id}' already; go on with it: --resume {run.id}")
        final = {"succeeded"} if request.retry_failed else {"succeeded", "failed"}
        if about.get("status") in final and (results := run.results()) is not None:
            return Settled(request, {}, results)
        request = replace(request, run_id=None, resume=run.id)
    return _resumed(request, store)


def _resumed(request: RunRequest, store: Store) -> Settled:
    folder = store.folder(str(request.resume))
    about = folder.about()
    _refuse_backfill(folder.id, about)
    for newer in store.runs():
        if newer.id == folder.id:
            break
        if newer.accepted():
            raise UsageError(
                f"run '{newer.id}' has published since, and run '{folder.id}' would publish over it"
                "\n  → start a new run: seeknal-k8s run"
            )
    try:
        asked = about["request"]
        request = replace(
            request,
            select=tuple(asked["select"]),
            exclude=tuple(asked["exclude"]),
            full=asked["full"],
            params=asked["params"],
            profile=Path(asked["profile"]) if asked["profile"] else None,
            options=(*(Override(**one) for one in asked.get("set", ())), *request.options),
        )
        return Settled(request, about["pins"])
    except KeyError as error:
        raise UsageError(f"run '{folder.id}' cannot be resumed: it never started") from error


def _refuse_backfill(run_id: str, about: Mapping[str, Any]) -> None:
    if about.get("kind") == "backfill":
        raise UsageError(
            f"'{run_id}' is a backfill of {about.get('node')}\n"
            "  → go on with it: the same command as before"
        )
