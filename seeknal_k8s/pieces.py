"""A piece of a backfill from the inside: some intervals, and for each a chain of nodes, in order.

The process of the attempt reads the project once for each interval, with that interval's dates,
and forks a worker for each node of the chain. Every interval has a ``target/`` of its own, in which
what the intervals share is linked; what a chain has made there is the coordinator's to publish. So
an interval that is done counts, whatever becomes of those after it.

    <attempt>/intervals/<number>/result.json   how it ended; its key is in the metadata
    <attempt>/intervals/<number>/home/target/  what it has made
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import exitcodes, worker, workspace
from seeknal_k8s.attempt import Ending, write_record, write_whole
from seeknal_k8s.engine.definitions import definitions, reopened
from seeknal_k8s.engine.execute import Outcome
from seeknal_k8s.engine.project import declared_inputs
from seeknal_k8s.names import file_id
from seeknal_k8s.supervisor import Supervisor
from seeknal_k8s.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from seeknal_k8s.attempt import AttemptSpec, Link, Piece, Span
    from seeknal_k8s.engine.project import Project

_LOOK_EVERY = 1.0
"""Seconds between two looks at a node that runs, if nothing happens."""

_ENDS_ALL = frozenset({exitcodes.TERMINATED, exitcodes.KILLED, exitcodes.UNAVAILABLE})
"""After these the next interval would end the same way."""


def folder_of(attempt: Path, number: int) -> Path:
    """Return the folder of an interval of an attempt, by its place in the piece."""
    return attempt / "intervals" / str(number)


def work(spec: AttemptSpec, project: Project, finished: Callable[[], None]) -> int:
    """Run one attempt, be it a node or a piece of a backfill; return its exit code."""
    if spec.piece is None:
        return worker.work(spec, project, finished)
    try:
        return _Intervals(spec, spec.piece, project).run(finished)
    except OSError:  # of the attempt's own folder: where it would have told of it
        return exitcodes.UNAVAILABLE


@dataclass(slots=True)
class _Interval:
    """How far one interval is."""

    outcome: Outcome
    outputs: list[str]
    peak: int = 0


class _Intervals:
    """The intervals of one attempt, one after the other."""

    def __init__(self, spec: AttemptSpec, piece: Piece, project: Project) -> None:
        self._spec = spec
        self._piece = piece
        self._project = project
        if os.getsid(0) != os.getpid():
            worker.prepare()
        worker.take_over_streams(Path(spec.folder))
        self._wakeup = Wakeup(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        self._supervisor = Supervisor(self._wakeup.close)
        self._shared = self._shared_definitions(project)

    def run(self, finished: Callable[[], None]) -> int:
        started, total = time.time(), Outcome(rows=0)
        peak = 0
        for number, span in enumerate(self._piece.spans):
            one = self._interval(number, span)
            peak = max(peak, one.peak)
            total.rows = (total.rows or 0) + (one.outcome.rows or 0)
            if one.outcome.exit_code != exitcodes.OK and total.exit_code == exitcodes.OK:
                total.exit_code = one.outcome.exit_code
                total.error = f"{span.key}: {one.outcome.error}"
            if one.outcome.exit_code in _ENDS_ALL:
                break
        total.seconds = round(time.time() - started, 3)
        sys.stdout.flush()
        write_record(self._spec, outcome=asdict(total), started=started, peak_memory=peak)
        finished()
        return total.exit_code

    def _shared_definitions(self, project: Project) -> dict[str, Any]:
        """Return what the intervals share: how everything is defined that the chain reads."""
        found, read = definitions(project), {}
        left = list(self._piece.inputs)
        while left:
            node_id = left.pop()
            if node_id in found and node_id not in read:
                read[node_id] = found[node_id]
                left += declared_inputs(project.node(node_id).yaml_data)
        return read

    def _interval(self, number: int, span: Span) -> _Interval:
        """Run the chain for one interval, and keep how it ended beside what it made."""
        folder = folder_of(Path(self._spec.folder), number)
        home = folder / "home"
        # Of an attempt of the same number that a crash has cut short. The result goes first: it says
        # that the rest is there.
        (folder / "result.json").unlink(missing_ok=True)
        workspace.remove(folder)
        (home / "target").mkdir(parents=True)
        one = _Interval(Outcome(), [])
        began = time.time()
        try:
            self._chain_of(span, folder, one)
        except OSError as error:
            one.outcome = Outcome(exitcodes.UNAVAILABLE, error=str(error))
        record = {
            **asdict(one.outcome),
            "outputs": one.outputs,
            "seconds": round(time.time() - began, 3),
            "started": began,
            "peak_memory": one.peak,
            "metadata": {"interval": span.key},
        }
        if one.outcome.exit_code != exitcodes.OK:
            workspace.remove(home)
        write_whole(folder / "result.json", record)
        return one

    def _chain_of(self, span: Span, folder: Path, one: _Interval) -> None:
        project = reopened(self._project, dict(span.overrides))
        if fault := self._fault(project):
            one.outcome = Outcome(exitcodes.CONFIGURATION, error=fault)
            return
        shared = Path(self._spec.target)
        gone = [name for name in self._spec.required if not (shared.parent / name).exists()]
        if gone:
            error = f"an input is gone: {', '.join(gone)}"
            one.outcome = Outcome(exitcodes.INPUT_MISSING, error=error)
            return
        workspace.link_outputs(folder / "home" / "target", shared, self._piece.inputs)
        for link in self._piece.chain:
            print(f"── {span.key}  {link.node_id}", flush=True)  # noqa: T201 - the attempt's log
            ending = self._node(link, folder, project)
            one.peak = max(one.peak, ending.peak_memory or 0)
            one.outcome = Outcome(ending.exit_code, ending.error, ending.rows)
            if ending.exit_code != exitcodes.OK:
                one.outcome.error = f"{link.node_id}: {ending.error}"
                return
            one.outputs += ending.outputs

    def _fault(self, project: Project) -> str:
        """Return why an interval must not run: what all intervals share is not the same here."""
        found = self._shared_definitions(project)
        unlike = sorted(
            node_id
            for node_id in found.keys() | self._shared.keys()
            if found.get(node_id) != self._shared.get(node_id)
        )
        problems = [*project.builder.get_parse_errors(), *project.failures]
        if problems:
            return f"the project cannot be read for this interval: {problems[0]}"
        if unlike:
            return f"for this interval the project is another one: {', '.join(unlike)}"
        return ""

    def _node(self, link: Link, folder: Path, project: Project) -> Ending:
        spec = replace(
            self._spec,
            node_id=link.node_id,
            folder=str(folder / file_id(link.node_id)),
            target=str(folder / "home" / "target"),
            inputs=link.inputs,
            undeclared=link.undeclared,
            required=(),
            timeout=link.timeout,
            env=link.env,
            allow_failed_materialization=link.allow_failed_materialization,
            piece=None,
        )
        endings: list[Ending] = []
        pid = self._supervisor.attempt(spec, project, endings.append)
        self._supervisor.see_through(
            pid, self._wakeup, every=_LOOK_EVERY, tick=_nothing, why="it was told to end"
        )
        ending = endings[0]
        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
            _append(Path(spec.folder) / name, stream.fileno())
        if ending.exit_code == exitcodes.OK:
            workspace.accept(spec.out, folder / "home", ending.outputs)
        workspace.remove(Path(spec.folder))
        return ending


def _append(file: Path, descriptor: int) -> None:
    """Copy a node's log to the attempt's own."""
    if file.exists():
        with file.open("rb") as log, os.fdopen(os.dup(descriptor), "ab") as own:
            shutil.copyfileobj(log, own)


def _nothing() -> None:
    """Do nothing between two looks."""
