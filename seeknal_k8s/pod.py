"""``python -m seeknal_k8s.pod ORDER``: what runs inside a Job's pod.

ORDER is a JSON file in the store, written by the coordinator: which attempt, and how the project is
to be read. The first process of the container reads the project, checks that it is the one that was
planned, forks a worker, keeps its clock, and copies what it prints to the container's own log.
Its exit code is the attempt's (see ``exitcodes``); everything else it has to say is in
``result.json``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import exitcodes, graph
from seeknal_k8s.attempt import AttemptSpec, write_record
from seeknal_k8s.errors import ProjectRefused
from seeknal_k8s.logs import redact
from seeknal_k8s.quiet import QUIET_THREADS
from seeknal_k8s.subreaper import adopt_orphans
from seeknal_k8s.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seeknal_k8s.attempt import Ending
    from seeknal_k8s.engine.project import Project

_COPY_EVERY = 0.25
"""Seconds between two looks at what the worker has printed."""

_TERMINATION_LOG = Path("/dev/termination-log")
_TERMINATION_BYTES = 2000
"""Kubernetes keeps 4096 bytes of a termination message; two are enough for a sentence."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the coordinator asks a pod to do; JSON-able.

    ``pins`` and ``overrides`` are how the project was read when it was planned, ``digest`` is the
    graph's, ``home`` the folder with the published ``target/``.
    """

    spec: AttemptSpec
    home: str
    digest: str
    pins: Mapping[str, str]
    overrides: Mapping[str, Any]
    profile: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the order as JSON-able data."""
        return {
            "spec": self.spec.to_dict(),
            "home": self.home,
            "digest": self.digest,
            "pins": dict(self.pins),
            "overrides": dict(self.overrides),
            "profile": self.profile,
        }

    @classmethod
    def read(cls, file: Path) -> Order:
        """Read an order.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not an order.
        """
        raw = json.loads(file.read_text(encoding="utf-8"))
        try:
            return cls(**{**raw, "spec": AttemptSpec.from_dict(raw["spec"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is not an order: {error!r}") from error


def main(arguments: list[str]) -> int:
    """Carry out one order and return the exit code of the attempt."""
    if len(arguments) != 1:
        print("usage: python -m seeknal_k8s.pod ORDER", file=sys.stderr)  # noqa: T201
        return exitcodes.USAGE
    # The first process of a container has no default: until the worker runs, it would not hear.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(exitcodes.TERMINATED))
    try:
        order = Order.read(Path(arguments[0]))
    except OSError as error:
        return _leave(exitcodes.UNAVAILABLE, f"the store cannot be read: {error}")
    except ValueError as error:
        return _leave(exitcodes.CONFIGURATION, str(error))
    environ = dict(os.environ)
    os.environ.update(QUIET_THREADS)
    adopt_orphans()
    project, fault = _read_project(order)
    if project is None:
        code, why = fault
        with contextlib.suppress(OSError):
            write_record(order.spec, outcome={"exit_code": code, "error": why})
        return _leave(code, why)
    ending = _run(order, project, environ)
    return _leave(ending.exit_code, ending.error, quiet=True)


def _read_project(order: Order) -> tuple[Project | None, tuple[int, str]]:
    """Read the project and check that it is the planned one; else say what is wrong."""
    from seeknal_k8s.engine.project import (  # noqa: PLC0415 - takes a second
        Pins,
        Request,
        describe,
        open_project,
    )

    root = Path(order.spec.project)
    if not root.is_dir():
        why = f"there is no project at {root} in this image, or on its volume"
        return None, (exitcodes.CONFIGURATION, why)
    project = open_project(
        Request(
            root=root,
            home=Path(order.home),
            pins=Pins(**order.pins),
            overrides=order.overrides,
            profile=Path(order.profile) if order.profile else None,
        )
    )
    try:
        digest = graph.build(describe(project))[0].digest
    except ProjectRefused as refused:
        return None, (exitcodes.CONFIGURATION, str(refused))
    if digest != order.digest:
        why = (
            "the project in this pod is not the one that was planned: build and name the image anew"
        )
        return None, (exitcodes.CONFIGURATION, why)
    return project, (exitcodes.OK, "")


def _run(order: Order, project: Project, environ: Mapping[str, str]) -> Ending:
    """Fork the worker and see it to its end."""
    from seeknal_k8s import pieces  # noqa: PLC0415 - the executors
    from seeknal_k8s.engine.project import warm  # noqa: PLC0415 - the executors
    from seeknal_k8s.supervisor import Supervisor  # noqa: PLC0415 - as above

    piece = order.spec.piece
    warm(project, [link.node_id for link in piece.chain] if piece else [order.spec.node_id])
    wakeup = Wakeup(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

    def in_child() -> None:
        wakeup.close()
        for name in QUIET_THREADS:
            os.environ.pop(name, None)
        os.environ.update({name: environ[name] for name in QUIET_THREADS if name in environ})

    supervisor = Supervisor(in_child, pieces.work)
    endings: list[Ending] = []
    copies = [_Copy(Path(order.spec.folder) / name, number) for number, name in _STREAMS]
    pid = supervisor.attempt(order.spec, project, endings.append)

    def copy_on() -> None:
        for copy in copies:
            copy.go_on()

    why = "its pod was told to end"
    supervisor.see_through(pid, wakeup, every=_COPY_EVERY, tick=copy_on, why=why)
    supervisor.end_orphans()
    return endings[0]


_STREAMS = ((1, "stdout"), (2, "stderr"))


class _Copy:
    """Copies a growing file to one of our own streams."""

    def __init__(self, file: Path, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor
        self._at = 0

    def go_on(self) -> None:
        """Copy what has come since the last time."""
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as stream:
            stream.seek(self._at)
            while chunk := stream.read(1 << 16):
                self._at += len(chunk)
                while chunk:
                    chunk = chunk[os.write(self._descriptor, chunk) :]


def _leave(code: int, why: str, *, quiet: bool = False) -> int:
    """Tell Kubernetes why, and return the code."""
    if why and not quiet:
        print(why, file=sys.stderr)  # noqa: T201 - the container's log
    with contextlib.suppress(OSError):
        _TERMINATION_LOG.write_text(redact(why)[:_TERMINATION_BYTES], encoding="utf-8")
    return code


if __name__ == "__main__":
    leaving = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(leaving)
