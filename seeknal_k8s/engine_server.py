"""The process that has Seeknal loaded: reads projects, and forks one child per attempt.

Importing Seeknal, pandas and DuckDB costs 0.5-3 s and 200 MB. This process pays it once and runs
no threads, so that its forks are safe and cost milliseconds. It speaks JSON, one object a line,
over the socket it is started with, and ends all its children when that closes.

Requests, each with ``id`` and ``call``; every one is answered by ``{"id", "ok"|"error"}``:
``open`` reads the project, ``warm`` prepares for kinds of nodes, ``run`` starts an attempt
(answered when it has ended), ``stop`` ends one, ``publish`` writes state and manifest.
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
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import exitcodes
from seeknal_k8s.attempt import AttemptSpec, Ending
from seeknal_k8s.engine import preload
from seeknal_k8s.quiet import QUIET_THREADS
from seeknal_k8s.subreaper import adopt_orphans
from seeknal_k8s.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from seeknal_k8s.engine.project import Project
    from seeknal_k8s.supervisor import Supervisor

_PATIENCE = 5.0
"""Seconds that attempts get to end when the coordinator has gone."""


class Server:
    """The loop and what it knows: the socket, the project, the running attempts by request."""

    def __init__(self, channel: socket.socket, environ: dict[str, str]) -> None:
        self._channel = channel
        self._environ = environ
        self._buffer = bytearray()
        self._wakeup = Wakeup(signal.SIGCHLD, signal.SIGTERM)
        self._attempts: dict[int, int] = {}
        self._warm = 0
        self._closing = False
        self._exit_code = exitcodes.OK
        self._poll = select.poll()
        self._project: Project | None = None
        self._supervisor: Supervisor | None = None

    def serve(self) -> None:
        """Answer requests until the coordinator closes its end; then end every child."""
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._wakeup.pipe, select.POLLIN)
        try:
            while signal.SIGTERM not in self._wakeup.seen:
                ready = {descriptor for descriptor, _ in self._poll.poll(self._milliseconds())}
                if self._supervisor is not None:
                    self._look_after(self._supervisor, ready)
                if self._channel.fileno() in ready and not self._receive():
                    return
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception:
            traceback.print_exc()  # the coordinator shows it: our last words
            self._exit_code = exitcodes.SOFTWARE
            raise
        finally:
            self._end()

    def _look_after(self, supervisor: Supervisor, ready: set[int]) -> None:
        if supervisor.finished in ready:
            supervisor.note_finished()  # first: what is over is not out of time
        supervisor.enforce()
        if self._wakeup.pipe in ready:
            self._wakeup.drain()
            supervisor.reap()
        elif not ready and self._warm:
            try:
                supervisor.keep_spares(self._opened(), self._warm)
            except OSError:  # no room for another process now: attempts are forked as they come
                self._warm = 0

    def _milliseconds(self) -> float | None:
        """Return how long to wait for something to happen, None for as long as it takes."""
        if self._supervisor is None:
            return None
        if self._supervisor.spares < self._warm:
            return 0.0  # nothing else to do: time to fork one ahead
        seconds = self._supervisor.next_deadline() - time.monotonic()
        return None if seconds == float("inf") else max(0.0, seconds * 1000)

    def _receive(self) -> bool:
        chunk = self._channel.recv(1 << 16)
        if not chunk:
            return False
        self._buffer += chunk
        while (end := self._buffer.find(b"\n")) >= 0:
            request = json.loads(self._buffer[:end])
            del self._buffer[: end + 1]
            self._handle(request)
        return True

    def _handle(self, request: dict[str, Any]) -> None:
        try:
            answer = getattr(self, f"_call_{request['call']}")(request)
        except Exception as error:  # noqa: BLE001 - the coordinator is told, and decides
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        if answer is not None:
            self._send(request["id"], answer)

    def _send(self, request: int, answer: dict[str, Any]) -> None:
        if self._closing:
            return
        line = json.dumps({"id": request, **answer}, default=str) + "\n"
        self._channel.sendall(line.encode())

    def _call_open(self, request: dict[str, Any]) -> dict[str, Any]:
        from seeknal_k8s.engine.project import (  # noqa: PLC0415 - Seeknal, in its working directory
            Pins,
            Request,
            describe,
            open_project,
        )

        self._project = open_project(
            Request(
                root=Path(request["root"]),
                home=Path(request["home"]),
                pins=Pins(**request["pins"]),
                overrides=request["overrides"],
                profile=Path(request["profile"]) if request["profile"] else None,
            )
        )
        return {"ok": describe(self._project)}

    def _call_definitions(self, _: dict[str, Any]) -> dict[str, Any]:
        from seeknal_k8s.engine.definitions import definitions  # noqa: PLC0415

        return {"ok": definitions(self._opened())}

    def _call_warm(self, request: dict[str, Any]) -> dict[str, Any]:
        """Import what these nodes need, before the first fork, and ask uv about their scripts."""
        from seeknal_k8s.engine import execute, governance, project  # noqa: PLC0415

        refused = governance.refusals(self._opened(), request["nodes"])
        if refused:
            return {"ok": {"refused": refused}}
        project.warm(self._opened(), request["nodes"])
        self._probe(request)
        execute.keep_spare_connection()
        gc.collect()
        gc.freeze()  # children share these pages for good: no collection will touch them
        self._warm = request["spares"]
        return {"ok": {"refused": {}}}

    def _probe(self, request: dict[str, Any]) -> None:
        from seeknal_k8s.engine import script  # noqa: PLC0415

        project, folder = self._opened(), Path(request["environments"])
        env = {**os.environ, **self._environ, "SEEKNAL_PROJECT_PATH": str(project.request.root)}
        files = {project.node(node).file_path for node in request["nodes"]}
        scripts = [file for file in files if file.endswith(".py")]
        for header in {script.header_of(Path(file).read_text("utf-8")) for file in scripts}:
            self._ask_uv(folder, header, env)

    def _ask_uv(
        self, folder: Path, header: str, env: dict[str, str], first: dict[str, Any] | None = None
    ) -> None:
        """Ask what ``uv run`` does, and once more with our own Python where its choice cannot work.

        ``first`` is what it said the first time, which stands where the second helps nobody.
        """
        from seeknal_k8s.engine import script  # noqa: PLC0415
        from seeknal_k8s.supervisor import Child  # noqa: PLC0415

        ours = script.with_ours(env, header)
        told = ours if first else {}

        def answered(status: int) -> None:
            seen = script.seen(folder, header, told) if status == 0 else None
            if first and (seen is None or script.is_foreign(seen)):
                seen = first
            elif seen and ours and script.is_foreign(seen):
                with contextlib.suppress(OSError):  # no room for another process now
                    self._ask_uv(folder, header, env, seen)
                    return
            script.publish_answer(folder, header, seen)

        probe = script.start_probe(folder, header, env, told)
        self._supervise().children[probe] = Child(answered)

    def _call_run(self, request: dict[str, Any]) -> None:
        spec, number = AttemptSpec.from_dict(request["spec"]), request["id"]

        def ended(ending: Ending) -> None:
            del self._attempts[number]
            self._send(number, {"ok": asdict(ending)})

        try:
            self._attempts[number] = self._supervise().attempt(spec, self._opened(), ended)
        except OSError as error:  # no room for another process now
            refused = Ending(exit_code=exitcodes.UNAVAILABLE, error=f"it was not started: {error}")
            self._send(number, {"ok": asdict(refused)})

    def _call_stop(self, request: dict[str, Any]) -> dict[str, Any]:
        pid = self._attempts.get(request["of"])
        if pid is not None:
            self._supervise().stop(pid, exitcodes.TERMINATED, "it was cancelled")
        return {"ok": None}

    def _call_forget(self, request: dict[str, Any]) -> None:
        from seeknal_k8s.engine.publish import forget  # noqa: PLC0415

        project = self._opened()
        project.outdate(request["outdated"])

        def work() -> int:
            forget(project, request["nodes"])
            return exitcodes.OK

        self._write_state(request["id"], work, lambda: None)

    def _write_state(self, number: int, work: Callable[[], int], read: Callable[[], Any]) -> None:
        """Have a child write, so that this process stays free of threads; answer what was read."""
        from seeknal_k8s.supervisor import Child  # noqa: PLC0415

        def ended(status: int) -> None:
            answer: dict[str, Any] = {"error": "the state of the run could not be written"}
            self._send(number, {"ok": read()} if status == 0 else answer)

        self._supervise().fork(work, Child(ended))

    def _call_publish(self, request: dict[str, Any]) -> None:
        from seeknal_k8s.engine.publish import publish  # noqa: PLC0415

        project, reply = self._opened(), Path(request["reply"])

        def work() -> int:
            reply.write_text(json.dumps(publish(project, request["record"])), encoding="utf-8")
            return exitcodes.OK

        self._write_state(request["id"], work, lambda: json.loads(reply.read_text("utf-8")))

    def _call_combine(self, request: dict[str, Any]) -> None:
        from seeknal_k8s.engine.combine import combine  # noqa: PLC0415

        files, into = request["files"], [Path(file) for file in request["into"]]

        def work() -> int:
            combine(files, into)
            return exitcodes.OK

        self._write_state(request["id"], work, lambda: None)

    def _opened(self) -> Project:
        if self._project is None:
            raise RuntimeError("no project is open")
        return self._project

    def _supervise(self) -> Supervisor:
        from seeknal_k8s import pieces  # noqa: PLC0415 - imports the executors
        from seeknal_k8s.supervisor import Supervisor  # noqa: PLC0415 - as above

        if self._supervisor is None:
            self._supervisor = Supervisor(self._in_child, pieces.work)
            self._poll.register(self._supervisor.finished, select.POLLIN)
        return self._supervisor

    def _in_child(self) -> None:
        """Let a node see the environment as it was, and what the project's ``.env`` has added."""
        self._wakeup.close()
        self._channel.close()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for name in QUIET_THREADS:
            if name in self._environ:
                os.environ[name] = self._environ[name]
            else:
                os.environ.pop(name, None)

    def _end(self) -> None:
        self._closing = True
        try:
            if self._supervisor is not None:
                self._supervisor.end_all("its coordinator has gone", _PATIENCE)
        finally:
            # At once: an interpreter with Seeknal in it takes 0.1 s to clean up.
            os._exit(self._exit_code)


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
    adopt_orphans()
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preload()
    Server(channel, environ).serve()


if __name__ == "__main__":
    main()
