"""One attempt from the inside: make the workspace, run the node, verify, collect, say how it went.

Runs in a process of its own, a session of its own, with its own stdout and stderr. It adopts every
process that the node leaves behind and ends them, so that nothing outlives an attempt.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from seeknal_k8s import exitcodes, workspace
from seeknal_k8s.attempt import write_record
from seeknal_k8s.engine.execute import Limits, Outcome, Task, run_node
from seeknal_k8s.engine.project import export_path
from seeknal_k8s.engine.script import own_randomness
from seeknal_k8s.subreaper import adopt_orphans, die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

    from seeknal_k8s.attempt import AttemptSpec
    from seeknal_k8s.engine.project import Project


_SLACK = 60.0
"""Seconds after the timeout, which is the supervisor's to keep, when Seeknal's executor gives up."""


_OF_THE_STORE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EACCES,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.EFBIG,
    }
)
"""What an operating system says of a store that is full, gone or not for us: worth another try."""


def prepare() -> None:
    """Do what does not depend on the attempt: a session, orphans and dice of its own."""
    os.setsid()
    adopt_orphans()
    die_with_parent()
    own_randomness()


def work(spec: AttemptSpec, project: Project, finished: Callable[[], None]) -> int:
    """Run one attempt to its end, leave ``result.json``, and return the exit code.

    ``finished`` is called when the result is there; what follows is clearing up.
    """
    try:
        return _work(spec, project, finished)
    except OSError:  # of the attempt's own folder: where it would have told of it
        return exitcodes.UNAVAILABLE


def _work(spec: AttemptSpec, project: Project, finished: Callable[[], None]) -> int:
    started = time.time()
    if os.getsid(0) != os.getpid():
        prepare()
    take_over_streams(Path(spec.folder))
    os.environ.update(dict(spec.env))
    outcome = _guarded(lambda: _run(spec, project))
    end_descendants()
    files = _collect(spec, outcome)
    _flush(outcome.error)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak = max(used.ru_maxrss for used in usage) * 1024
    write_record(spec, outcome=asdict(outcome), outputs=files, started=started, peak_memory=peak)
    finished()
    workspace.remove(spec.workspace)
    workspace.remove(spec.scratch_folder)
    return outcome.exit_code


def _run(spec: AttemptSpec, project: Project) -> Outcome:
    workspace.build(
        spec.workspace,
        Path(spec.project),
        Path(spec.target),
        node_id=spec.node_id,
        inputs=spec.inputs,
        made=export_path(project.node(spec.node_id)),
    )
    gone = [file for file in spec.required if not (Path(spec.target).parent / file).exists()]
    if gone:
        return Outcome(exitcodes.INPUT_MISSING, error=f"an input is gone: {', '.join(gone)}")
    spec.scratch_folder.mkdir(parents=True, exist_ok=True)
    before = workspace.inputs_of(spec.workspace)
    outcome = run_node(project, _task(spec))
    after = workspace.inputs_of(spec.workspace)
    changed = sorted(name for name, about in before.items() if after.get(name) != about)
    if changed and outcome.exit_code == exitcodes.OK:
        outcome.exit_code = exitcodes.UNVERIFIED
    if changed:
        outcome.error = f"it has changed what it only reads: {', '.join(changed)}. {outcome.error}"
    return outcome


def _guarded(run: Callable[[], Outcome]) -> Outcome:
    """Turn what goes wrong around the node into an outcome: a worker always says how it ended."""
    try:
        return run()
    except OSError as error:
        return Outcome(_of_os_error(error), error=f"{type(error).__name__}: {error}")
    except SystemExit as leaving:
        return Outcome(exitcodes.NODE_FAILED, error=f"the node left with exit({leaving.code!r})")


def _task(spec: AttemptSpec) -> Task:
    return Task(
        node_id=spec.node_id,
        workspace=spec.workspace,
        inputs=spec.inputs,
        undeclared=spec.undeclared,
        limits=Limits(memory=spec.memory, threads=spec.threads, spill=spec.spill),
        scratch=spec.scratch_folder,
        script_timeout=spec.timeout and spec.timeout + _SLACK,
        environments=Path(spec.environments) if spec.environments else None,
        allow_failed_materialization=spec.allow_failed_materialization,
        full=spec.full,
    )


def _collect(spec: AttemptSpec, outcome: Outcome) -> list[str]:
    """Move what a successful node made to ``out/``; a failure to do so is the attempt's failure."""
    if outcome.exit_code != exitcodes.OK:
        return []
    try:
        return workspace.collect(spec.workspace, spec.out)
    except OSError as error:
        outcome.exit_code, outcome.error = _of_os_error(error), f"outputs were not kept: {error}"
        return []


def _of_os_error(error: OSError) -> int:
    return exitcodes.UNAVAILABLE if error.errno in _OF_THE_STORE else exitcodes.SOFTWARE


def take_over_streams(folder: Path) -> None:
    """Send stdout and stderr, also of subprocesses, to the attempt's files, whole and apart."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / name, flags, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def _flush(last: str) -> None:
    """End the node's log with why it failed; on a full disk the result may still say so."""
    with contextlib.suppress(OSError):
        if last:
            print(last, file=sys.stderr)  # noqa: T201 - the node's own log
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def end_descendants() -> None:
    """Kill and reap every process below this one, also those that made themselves daemons."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
