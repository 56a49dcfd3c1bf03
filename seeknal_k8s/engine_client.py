"""The coordinator's end of the engine process: ask it, and end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from itertools import count
from typing import Any, Self

from seeknal_k8s.engine_process import EngineProcess
from seeknal_k8s.errors import EngineFailed

_LINE = 1 << 28
"""Longest answer in bytes: 3,000 nodes are about 3 MiB."""


class EngineClient:
    """Requests to an engine process, many at a time. An async context manager."""

    def __init__(self, process: EngineProcess | None = None) -> None:
        self._process = process or EngineProcess()
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._has_children = False

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_connection(
            sock=self._process.channel, limit=_LINE
        )
        self._reader_task = asyncio.create_task(self._read(reader))
        return self

    def hang_up(self) -> None:
        """Close the channel, which ends the process and its children; do not wait for that."""
        if self._writer is not None:
            self._writer.close()

    async def __aexit__(self, *_: object) -> None:
        if not self._has_children:
            self._process.process.kill()  # it may be importing, deaf for a second, and has no children
        self.hang_up()
        if self._reader_task is not None:
            self._reader_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader_task
        await asyncio.to_thread(self._process.close)

    @property
    def pid(self) -> int:
        """The engine process's id."""
        return self._process.process.pid

    async def call(self, name: str, **arguments: Any) -> Any:
        """Ask, and return the answer.

        Raises:
            EngineFailed: the call failed, or the process has died.
        """
        _, future = self.start(name, **arguments)
        return await future

    def start(self, name: str, **arguments: Any) -> tuple[int, asyncio.Future[Any]]:
        """Ask without waiting; return the request's id and the future with its answer."""
        if self._writer is None or self._reader_task is None or self._reader_task.done():
            raise self._dead()
        self._has_children = self._has_children or name in {
            "run",
            "publish",
            "warm",
            "forget",
            "combine",
        }
        request = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[request] = future
        line = json.dumps({"id": request, "call": name, **arguments}) + "\n"
        self._writer.write(line.encode())
        return request, future

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._answer(json.loads(line))
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._dead())
        self._waiting.clear()

    def _answer(self, answer: dict[str, Any]) -> None:
        future = self._waiting.pop(answer["id"])
        if future.done():
            return
        if "error" in answer:
            future.set_exception(EngineFailed(f"{answer['error']}\n{self._process.tail()}".strip()))
        else:
            future.set_result(answer["ok"])

    def _dead(self) -> EngineFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.process.wait(timeout=1)
        code = self._process.process.returncode
        said = self._process.tail()
        why = f"; its last words:\n{said}" if said else ""
        return EngineFailed(f"the engine process has died (exit code {code}){why}")
