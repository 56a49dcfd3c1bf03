"""What runs inside a Job's pod, and in a local process: one attempt, watched over.

Two processes: the *supervisor* makes the workspace, keeps the clock, reaps and kills, collects
what was made and writes ``result.json``; the *worker*, its child, runs the node with Seeknal. The
supervisor adopts every process that the node leaves behind, so that nothing outlives an attempt.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from seeknal_k8s import exitcodes, workspace
from seeknal_k8s.engine.execute import Limits, Outcome, Task, run_node
from seeknal_k8s.engine.project import export_path
from seeknal_k8s.subreaper import adopt_orphans, die_with_parent
from seeknal_k8s.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seeknal_k8s.attempt import AttemptSpec
    from seeknal_k8s.engine.project import Project

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a node that is out of time or cancelled."""


def supervise(spec: AttemptSpec, project: Project) -> int:
    """Run one attempt to its end and leave ``result.json``; return the exit code.

    To be called in a process of its own: it takes over stdout, stderr, signals and children.
    """
    started = time.time()
    folder = Path(spec.folder)
    os.setsid()
    adopt_orphans()
    _take_over_streams(folder)
    try:
        outcome = _attempt(spec, project)
    except OSError as error:
        outcome = Outcome(_of_os_error(error), error=f"{type(error).__name__}: {error}")
    files = _collect(spec, outcome)
    workspace.remove(folder / "ws")
    record = {
        **asdict(outcome),
        "node": spec.node_id,
        "outputs": files,
        "started": started,
        "ended": time.time(),
        "peak_memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }
    _write_json(spec.result_file, record)
    return outcome.exit_code


def _attempt(spec: AttemptSpec, project: Project) -> Outcome:
    folder = Path(spec.folder)
    workspace.build(
        folder / "ws",
        Path(spec.project),
        Path(spec.target),
        node_id=spec.node_id,
        inputs=spec.inputs,
        made=export_path(project.node(spec.node_id)),
    )
    wakeup = Wakeup(signal.SIGTERM, signal.SIGCHLD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        wakeup.close()
        _work(spec, project)  # does not return
    outcome = _watch(pid, spec, wakeup)
    _end_everyone()
    return outcome


def _watch(pid: int, spec: AttemptSpec, wakeup: Wakeup) -> Outcome:
    """Wait for the worker, its time limit, or SIGTERM, whichever comes first."""
    began = time.monotonic()
    timeout = float("inf") if spec.timeout is None else spec.timeout
    while True:
        seconds = time.monotonic() - began
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return _outcome(spec, os.waitstatus_to_exitcode(status), seconds)
        if signal.SIGTERM in wakeup.seen:
            _stop(pid, wakeup)
            return Outcome(exitcodes.TERMINATED, error="it was cancelled", seconds=seconds)
        if seconds >= timeout:
            _stop(pid, wakeup)
            error = f"it ran longer than its timeout of {spec.timeout:g} s"
            return Outcome(exitcodes.TIMEOUT, error=error, seconds=seconds)
        wakeup.wait(timeout - seconds)


def _stop(pid: int, wakeup: Wakeup) -> None:
    """End the worker and what it started: first asked, then made."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + GRACE
    while not os.waitpid(pid, os.WNOHANG)[0]:
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        wakeup.wait(left)


def _outcome(spec: AttemptSpec, code: int, seconds: float) -> Outcome:
    """Read what the worker left, unless a signal ended it before it could."""
    if code < 0:
        number = -code
        name = signal.Signals(number).name
        return Outcome(
            exitcodes.of_signal(number),
            error=f"its process was ended by signal {number} ({name})",
            seconds=seconds,
        )
    try:
        raw = json.loads((Path(spec.folder) / "worker.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        error = f"its process exited with code {code} before the node had ended"
        return Outcome(code or exitcodes.SOFTWARE, error=error, seconds=seconds)
    return Outcome(**raw)


def _work(spec: AttemptSpec, project: Project) -> None:
    """Run the node and leave the process: the worker's whole life."""
    code = exitcodes.SOFTWARE
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        die_with_parent()
        os.environ.update(dict(spec.env))
        _own_randomness()
        outcome = run_node(project, _task(spec))
        _write_json(Path(spec.folder) / "worker.json", asdict(outcome))
        code = outcome.exit_code
        if outcome.error:
            print(outcome.error, file=sys.stderr)  # noqa: T201 - the node's log ends with why
    except BaseException as error:  # noqa: BLE001 - a worker must never return into its parent
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        if isinstance(error, OSError):
            code = _of_os_error(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _task(spec: AttemptSpec) -> Task:
    return Task(
        node_id=spec.node_id,
        workspace=Path(spec.folder) / "ws",
        inputs=spec.inputs,
        undeclared=spec.undeclared,
        limits=Limits(memory=spec.memory, threads=spec.threads, spill=spec.spill),
        script_timeout=spec.timeout,
        environments=Path(spec.environments) if spec.environments else None,
        allow_failed_materialization=spec.allow_failed_materialization,
        full=spec.full,
    )


def _own_randomness() -> None:
    """Seed numpy's global generator anew: a fork would repeat what its siblings draw."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _collect(spec: AttemptSpec, outcome: Outcome) -> list[str]:
    """Move what a successful node made to ``out/``; a failure to do so is the attempt's failure."""
    if outcome.exit_code != exitcodes.OK:
        return []
    try:
        return workspace.collect(Path(spec.folder) / "ws", spec.out)
    except OSError as error:
        outcome.exit_code, outcome.error = _of_os_error(error), f"outputs were not kept: {error}"
        return []


def _of_os_error(error: OSError) -> int:
    return exitcodes.UNAVAILABLE if error.errno is not None else exitcodes.SOFTWARE


def _take_over_streams(folder: Path) -> None:
    """Send stdout and stderr, also of subprocesses, to the attempt's files, whole and apart."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / name, flags, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees all of it or nothing."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(data, default=str), encoding="utf-8")
    temporary.replace(file)


def _end_everyone() -> None:
    """Kill and reap every process the node has left, also those that made themselves daemons."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                os.waitpid(-1, 0)
        except ChildProcessError:
            return
