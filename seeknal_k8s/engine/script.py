"""Run the scripts of Python nodes as ``uv run`` would, without paying for it per node.

Seeknal runs a Python node as ``uv run target/_runner_<name>.py``: 0.1 s of uv, then an interpreter
that imports pandas, DuckDB and Seeknal all over again. What ``uv run`` decides depends only on the
script's PEP 723 header and the project, so one *probe* per header and run asks it: which
interpreter, which ``sys.path``, which environment. Where the interpreter is the same version as
ours, the script runs in a fork of this process, which has those imports; the runner puts our
``site-packages`` in front of its path anyway, so it would import the very same files. In every
other case ``uv run`` does it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from seeknal_k8s.subreaper import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PROBE = """
import json, os, sys, sysconfig
json.dump({"version": sys.version, "path": sys.path[1:], "prefix": sys.prefix,
           "exec_prefix": sys.exec_prefix, "executable": sys.executable,
           "environ": dict(os.environ)}, sys.stdout)
"""

_PATIENCE = 120.0
"""Seconds to wait for a probe: uv may have to install what a header asks for."""

_KEPT = 1 << 20
"""How many bytes of what a script prints Seeknal gets to see: it keeps the last 10,000."""

_HEADER = re.compile(r"^# /// script\s*$.*?^# ///\s*$", re.MULTILINE | re.DOTALL)


def header_of(source: str) -> str:
    """Return the script's PEP 723 header as Seeknal's runner keeps it: without ``seeknal``."""
    found = _HEADER.search(source)
    header = found.group() if found else ""
    return header.replace('#     "seeknal",\n', "").replace('#     "seeknal"', "")


def environment_file(folder: Path, header: str) -> Path:
    """Return the file in which the probe for this header leaves what it saw."""
    return folder / f"{sha256(header.encode()).hexdigest()[:16]}.json"


def start_probe(folder: Path, header: str, env: Mapping[str, str], told: Mapping[str, str]) -> int:
    """Ask ``uv run`` what it would run a script with this header in; return the process id.

    ``told`` is what it finds in its environment besides ``env``. The working directory has to be
    the project. ``seen`` reads the answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = _probe_file(folder, header, told)
    probe.write_text(f"{header}\n{_PROBE}", encoding="utf-8")
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(probe.with_suffix(".tmp")), write, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    command = ["uv", "run", str(probe)]
    return os.posix_spawnp("uv", command, {**env, **told}, file_actions=streams)


def _probe_file(folder: Path, header: str, told: Mapping[str, str]) -> Path:
    # Each has a name of its own: by that uv finds the environment it has made for a script.
    return environment_file(folder, header).with_suffix(".ours.py" if told else ".py")


def seen(folder: Path, header: str, told: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what a probe that has ended well saw, None if that is not to be understood."""
    try:
        text = _probe_file(folder, header, told).with_suffix(".tmp").read_text(encoding="utf-8")
        return {**json.loads(text), "told": dict(told)}
    except (OSError, ValueError, TypeError):  # a module of the user's that prints when it starts
        return None


def is_foreign(answer: Mapping[str, Any]) -> bool:
    """Whether a probe ran in a Python that cannot import what is installed with us."""
    version: str = answer["version"]
    return version.split(".")[:2] != sys.version.split(".")[:2]


def with_ours(env: Mapping[str, str], header: str) -> dict[str, str]:
    """Return what tells ``uv run`` to take our Python; nothing where another one was chosen.

    Untold it takes the first Python it finds, which may be of another version than the one whose
    packages Seeknal's runner puts on its path: then no script gets beyond its imports. For a script
    with a header uv makes an environment of its own and only minds a Python that is named.
    """
    chosen = {"VIRTUAL_ENV", "UV_PYTHON", "CONDA_PREFIX"} & env.keys() or Path(".venv").exists()
    if chosen or sys.prefix == sys.base_prefix:
        return {}
    return {"UV_PYTHON": sys.executable} if header else {"VIRTUAL_ENV": sys.prefix}


def publish_answer(folder: Path, header: str, answer: Mapping[str, Any] | None) -> None:
    """Publish a probe's answer, or that there is none, to the processes that wait for it."""
    file = environment_file(folder, header)
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(file)


@dataclass(frozen=True, slots=True)
class _Environment:
    """What ``uv run`` gives a script, and that we can give it too."""

    version: str
    path: Sequence[str]
    prefix: str
    exec_prefix: str
    executable: str
    environ: Mapping[str, str]
    told: Mapping[str, str]


def _environment(folder: Path | None, script: Path) -> _Environment | None:
    """Return the probe's answer for this script, None where there is none."""
    if folder is None:
        return None
    answer = environment_file(folder, header_of(script.read_text(encoding="utf-8")))
    deadline = time.monotonic() + _PATIENCE
    while not answer.exists():
        if not answer.with_suffix(".py").exists() or time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    published = json.loads(answer.read_text(encoding="utf-8"))
    return None if published is None else _Environment(**published)


def _shadowed(script: Path) -> bool:
    """Whether the project has a module that would come before one we have imported already."""
    workspace = script.parent.parent
    entries = {entry.name for entry in os.scandir(workspace)}
    for module in {name.partition(".")[0] for name in sys.modules}:
        if f"{module}.py" in entries:
            return True
        if module in entries and (workspace / module / "__init__.py").exists():
            return True
    return False


@contextlib.contextmanager
def as_uv_run(environments: Path | None, timeout: float | None) -> Iterator[None]:
    """Stand in for ``subprocess`` in Seeknal's Python executor, within this block.

    What the script prints reaches our own stdout and stderr as it comes; Seeknal gets its copy.
    ``timeout`` (seconds) replaces Seeknal's fixed 30 minutes.
    """
    from seeknal.workflow.executors import python_executor

    def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        kwargs["timeout"] = timeout or kwargs["timeout"]
        return _run(command, environments, **kwargs)

    original = python_executor.subprocess
    python_executor.subprocess = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    try:
        yield
    finally:
        python_executor.subprocess = original


def _run(
    command: list[str],
    environments: Path | None,
    *,
    cwd: str,
    timeout: float,
    env: dict[str, str],
    **_: Any,
) -> subprocess.CompletedProcess[str]:
    """Do what ``subprocess.run`` would with this ``uv run`` command, capturing text."""
    os.chdir(cwd)
    script = Path(command[-1])
    found = _environment(environments, script)
    sys.stdout.flush()
    sys.stderr.flush()
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    if found and found.version == sys.version and _single_threaded() and not _shadowed(script):
        pid = _fork_script(script, found, env, (out_end, err_end))
    else:
        env = {**env, **(found.told if found else {})}
        streams = [(os.POSIX_SPAWN_DUP2, out_end, 1), (os.POSIX_SPAWN_DUP2, err_end, 2)]
        pid = os.posix_spawnp(command[0], command, env, file_actions=streams)
    os.close(out_end)
    os.close(err_end)
    kept = _tee({out: (1, bytearray()), err: (2, bytearray())}, time.monotonic() + timeout)
    if kept is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise subprocess.TimeoutExpired(command, timeout)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    stdout, stderr = (part.decode(errors="replace") for part in kept)
    return subprocess.CompletedProcess(command, code, stdout, stderr)


def _fork_script(
    script: Path, environment: _Environment, env: dict[str, str], streams: tuple[int, int]
) -> int:
    """Start the script in a fork of this process; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    die_with_parent()  # a worker that is killed cannot end its script, and one left over still writes
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(stream, descriptor)
    os.closerange(3, 256)  # as ``subprocess`` leaves a program: with its three streams alone
    os._exit(_main(script, environment, env))


def _single_threaded() -> bool:
    tasks = Path("/proc/self/task")
    return not tasks.exists() or len(list(tasks.iterdir())) == 1


def _tee(
    pipes: dict[int, tuple[int, bytearray]], deadline: float
) -> tuple[bytearray, bytearray] | None:
    """Copy each pipe to its own descriptor and keep the end of it; None when time runs out."""
    with selectors.DefaultSelector() as selector:
        for pipe, destination in pipes.items():
            selector.register(pipe, selectors.EVENT_READ, destination)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    continue
                descriptor, kept = key.data
                kept += chunk
                if len(kept) > 2 * _KEPT:
                    del kept[:-_KEPT]
                _write_all(descriptor, chunk)
    out, err = pipes.values()
    return out[1], err[1]


def _write_all(descriptor: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def _main(script: Path, environment: _Environment, env: dict[str, str]) -> int:
    """Be the interpreter that ``uv run`` would have started; return its exit code."""
    os.environ.clear()
    os.environ.update(env | _from_uv(environment))
    sys.path[:] = [str(script.parent), *environment.path]
    sys.prefix, sys.exec_prefix = environment.prefix, environment.exec_prefix
    sys.executable, sys.argv = environment.executable, [str(script)]
    _fresh_streams()
    own_randomness()
    try:
        source = script.read_text(encoding="utf-8")
        main = type(sys)("__main__")
        main.__file__ = str(script)
        sys.modules["__main__"] = main
        exec(compile(source, str(script), "exec"), main.__dict__)  # noqa: S102 - its very purpose
    except SystemExit as leaving:
        return _exit_code(leaving)
    except BaseException as error:  # noqa: BLE001 - an interpreter prints whatever ends a script
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, trace)
        return 1
    finally:
        _leave()
    return 0


def _from_uv(environment: _Environment) -> dict[str, str]:
    """Return what ``uv run`` adds to a script's environment: its own marks, and a longer PATH."""
    names = ("VIRTUAL_ENV", "PATH", "UV", "UV_RUN_RECURSION_DEPTH")
    return {name: environment.environ[name] for name in names if name in environment.environ}


def _fresh_streams() -> None:
    """Give the script streams of its own: block-buffered as for a pipe, unused by the parent."""
    out, err = (os.fdopen(descriptor, "wb", closefd=False) for descriptor in (1, 2))
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(out, encoding="utf-8")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(  # type: ignore[misc]
        err, encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def own_randomness() -> None:
    """Seed numpy's global generator anew: a fork would repeat what its siblings draw."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    print(leaving.code, file=sys.stderr)  # noqa: T201 - as an interpreter does
    return 1


def _leave() -> None:
    """Do what an interpreter does last: join threads, run exit handlers, flush."""
    import atexit
    import threading

    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
