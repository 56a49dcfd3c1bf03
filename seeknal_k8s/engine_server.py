"""The process that has Seeknal loaded: reads projects, and forks one child per attempt.

Importing Seeknal, pandas and DuckDB costs 0.5-3 s and 200 MB. This process pays it once, opens no
connection and starts no thread, so that its forks are safe and cost milliseconds. It speaks JSON,
one object a line, over the socket it is started with, and ends all its children when that closes.

Requests, each with ``id`` and ``call``; every one is answered by ``{"id", "ok"|"error"}``:
``open`` reads the project, ``run`` starts an attempt (answered when it has ended), ``stop`` ends
one, ``publish`` writes state and manifest, ``warm`` prepares for kinds of nodes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import exitcodes
from seeknal_k8s.attempt import AttemptSpec
from seeknal_k8s.subreaper import adopt_orphans
from seeknal_k8s.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from seeknal_k8s.engine.project import Project

QUIET_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""What keeps the libraries from starting threads at import, which no fork would survive."""

_SHUTDOWN = 5.0
"""Seconds that attempts get to end after SIGTERM when the coordinator has gone."""


@dataclass(slots=True)
class _Child:
    """A running child: for which request, how to answer, and what to do first."""

    request: int
    answer: Callable[[int, int], dict[str, Any]]


@dataclass(slots=True)
class Server:
    """The loop and what it knows: the socket, the project, the children by process id."""

    channel: socket.socket
    environ: dict[str, str]
    project: Project | None = None
    children: dict[int, _Child] = field(default_factory=dict)
    buffer: bytearray = field(default_factory=bytearray)

    def serve(self) -> None:
        """Answer requests until the coordinator closes its end; then end every child."""
        wakeup = Wakeup(signal.SIGCHLD, signal.SIGTERM)
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(wakeup.pipe, select.POLLIN)
        try:
            while signal.SIGTERM not in wakeup.seen:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if wakeup.pipe in ready:
                    wakeup.drain()
                    self._reap()
                if self.channel.fileno() in ready and not self._receive(wakeup):
                    return
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self._end_children()

    def _receive(self, wakeup: Wakeup) -> bool:
        chunk = self.channel.recv(1 << 16)
        if not chunk:
            return False
        self.buffer += chunk
        while (end := self.buffer.find(b"\n")) >= 0:
            request = json.loads(self.buffer[:end])
            del self.buffer[: end + 1]
            self._handle(request, wakeup)
        return True

    def _handle(self, request: dict[str, Any], wakeup: Wakeup) -> None:
        call = getattr(self, f"_call_{request['call']}")
        try:
            answer = call(request, wakeup)
        except Exception as error:  # noqa: BLE001 - the coordinator is told, and decides
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        if answer is not None:
            self._send(request["id"], answer)

    def _send(self, request: int, answer: dict[str, Any]) -> None:
        line = json.dumps({"id": request, **answer}, default=str) + "\n"
        self.channel.sendall(line.encode())

    def _call_open(self, request: dict[str, Any], _: Wakeup) -> dict[str, Any]:
        from seeknal_k8s.engine.project import (  # noqa: PLC0415 - Seeknal, in its working directory
            Pins,
            Request,
            describe,
            open_project,
        )

        self.project = open_project(
            Request(
                root=Path(request["root"]),
                pins=Pins(**request["pins"]),
                overrides=request["overrides"],
                profile=Path(request["profile"]) if request["profile"] else None,
            )
        )
        return {"ok": describe(self.project)}

    def _call_warm(self, request: dict[str, Any], _: Wakeup) -> dict[str, Any]:
        """Import what these nodes need, before the first fork, and ask uv about their scripts."""
        from seeknal_k8s import pod  # noqa: F401, PLC0415
        from seeknal_k8s.engine.project import warm  # noqa: PLC0415

        warm(self._opened(), request["nodes"])
        self._probe(request)
        gc.collect()
        gc.freeze()  # children share these pages for good: no collection will touch them
        return {"ok": {"threads": _threads()}}

    def _probe(self, request: dict[str, Any]) -> None:
        from seeknal_k8s.engine import script  # noqa: PLC0415

        project, folder = self._opened(), Path(request["environments"])
        env = {**os.environ, **self.environ, "SEEKNAL_PROJECT_PATH": str(project.request.root)}
        files = {project.node(node).file_path for node in request["nodes"]}
        headers = {
            script.header_of(Path(file).read_text(encoding="utf-8"))
            for file in files
            if file.endswith(".py")
        }
        for header in headers:
            probe = script.start_probe(folder, header, env)

            def answered(code: int, _: int, header: str = header) -> dict[str, Any]:
                script.end_probe(folder, header, succeeded=code == 0)
                return {}

            self.children[probe] = _Child(0, answered)

    def _call_run(self, request: dict[str, Any], wakeup: Wakeup) -> None:
        from seeknal_k8s import pod  # noqa: PLC0415

        spec, project = AttemptSpec.from_dict(request["spec"]), self._opened()

        def answer(code: int, signal_number: int) -> dict[str, Any]:
            return {"ok": {"exit_code": code, "signal": signal_number}}

        self._fork(request["id"], answer, wakeup, lambda: pod.supervise(spec, project))

    def _call_stop(self, request: dict[str, Any], _: Wakeup) -> dict[str, Any]:
        for pid, child in self.children.items():
            if child.request == request["of"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        return {"ok": None}

    def _call_publish(self, request: dict[str, Any], wakeup: Wakeup) -> None:
        from seeknal_k8s.engine.publish import publish  # noqa: PLC0415

        project, reply = self._opened(), Path(request["reply"])

        def work() -> int:
            reply.write_text(json.dumps(publish(project, request["record"])), encoding="utf-8")
            return exitcodes.OK

        def answer(code: int, _: int) -> dict[str, Any]:
            if code != exitcodes.OK:
                return {"error": "the state of the run could not be written"}
            return {"ok": json.loads(reply.read_text(encoding="utf-8"))}

        self._fork(request["id"], answer, wakeup, work)

    def _opened(self) -> Project:
        if self.project is None:
            raise RuntimeError("no project is open")
        return self.project

    def _fork(
        self,
        request: int,
        answer: Callable[[int, int], dict[str, Any]],
        wakeup: Wakeup,
        work: Callable[[], int],
    ) -> None:
        pid = os.fork()
        if pid:
            self.children[pid] = _Child(request, answer)
            return
        code = exitcodes.SOFTWARE
        try:
            wakeup.close()
            self.channel.close()
            self._restore_environment()
            code = work()
        except BaseException:  # noqa: BLE001 - a child must never return into this loop
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)

    def _restore_environment(self) -> None:
        """Let a node see the environment as it was, and what the project's ``.env`` has added."""
        for name in QUIET_THREADS:
            if name in self.environ:
                os.environ[name] = self.environ[name]
            else:
                os.environ.pop(name, None)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            child = self.children.pop(pid, None)
            if child is None:
                continue
            if code < 0:
                _end_orphans(self.children)
            answer = child.answer(max(code, -1), max(-code, 0))
            if child.request:
                self._send(child.request, answer)

    def _end_children(self) -> None:
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _SHUTDOWN
        while self.children and time.monotonic() < deadline:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            self.children.pop(pid, None)
            if pid == 0:
                select.select([], [], [], 0.01)
        _end_orphans({})
        os._exit(0)


def _end_orphans(children: dict[int, _Child]) -> None:
    """Kill what a dead supervisor has left: whatever is below us and no child of ours."""
    import psutil  # noqa: PLC0415

    for process in psutil.Process().children():
        if process.pid not in children:
            with contextlib.suppress(psutil.Error):
                for below in [*process.children(recursive=True), process]:
                    below.kill()


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


def _find_uv() -> None:
    """Put the uv that is installed with us on PATH, behind any other: Python nodes need one."""
    if shutil.which("uv") is None:
        import uv  # noqa: PLC0415

        os.environ["PATH"] = os.pathsep.join(
            [os.environ.get("PATH", os.defpath), str(Path(uv.find_uv_bin()).parent)]
        )


def main() -> None:
    """Serve on the socket whose descriptor is the first argument."""
    _find_uv()
    environ = dict(os.environ)
    os.environ.update(QUIET_THREADS)
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    adopt_orphans()
    Server(channel, environ).serve()


if __name__ == "__main__":
    main()
