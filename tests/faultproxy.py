"""A proxy before the real API server that does to chosen requests what networks and servers do.

It speaks plain HTTP to us and TLS with the administrator's certificate to the server, one request
per connection, and writes down every request. A request without a fault passes unharmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

    from tests.real_cluster import Upstream

_END = b"\r\n\r\n"


@dataclass
class Exchange:
    """One request of the client, and the way back to it."""

    upstream: Upstream
    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    link: asyncio.StreamWriter | None = None

    async def forward(self) -> asyncio.StreamReader:
        """Send the request to the server; return what its answer comes from."""
        there = self.upstream
        linking = asyncio.ensure_future(
            asyncio.open_connection(there.host, there.port, ssl=there.tls)
        )
        try:
            answer, link = await asyncio.shield(linking)
        except asyncio.CancelledError:  # given up in the middle of TLS, it would never be closed
            with contextlib.suppress(OSError):
                _, self.link = await linking
            raise
        self.link = link
        lines = self.head.removesuffix(_END).split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        link.write(b"\r\n".join([*kept, b"Connection: close"]) + _END + self.body)
        await link.drain()
        return answer

    async def copy(self, answer: asyncio.StreamReader, most: int | None = None) -> None:
        """Pass the head of the answer on, then its body, or the first ``most`` bytes of that."""
        self.writer.write(await answer.readuntil(_END))
        left = most
        while left is None or left > 0:
            chunk = await answer.read(65536 if left is None else min(left, 65536))
            if not chunk:
                return
            self.writer.write(chunk)
            await self.writer.drain()
            left = None if left is None else left - len(chunk)

    async def say(self, status: int, body: str, *headers: str) -> None:
        """Answer in the server's place."""
        lines = [f"HTTP/1.1 {status} Fault", "Connection: close", *headers]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        await self.writer.drain()


Fault = Callable[[Exchange], Awaitable[None]]


def answers(status: int, *headers: str, message: str = "a fault") -> Fault:
    """Answer with this status; the server never hears of the request."""

    async def act(exchange: Exchange) -> None:
        said = {"kind": "Status", "code": status, "reason": "Fault", "message": message}
        await exchange.say(status, json.dumps(said), *headers)

    return act


def says_in_the_stream(line: str) -> Fault:
    """Begin a watch that succeeds, and say this line in it."""

    async def act(exchange: Exchange) -> None:
        await exchange.say(200, line + "\n")

    return act


def breaks_off(after: int = 0) -> Fault:
    """Let the server do it, and cut the connection after so many bytes of the answer's body."""

    async def act(exchange: Exchange) -> None:
        await exchange.copy(await exchange.forward(), after)
        exchange.writer.transport.abort()

    return act


def loses_the_answer() -> Fault:
    """Let the server do it, and cut the connection before a single byte of the answer."""

    async def act(exchange: Exchange) -> None:
        await (await exchange.forward()).read()
        exchange.writer.transport.abort()

    return act


def falls_silent(after: int = 0) -> Fault:
    """Pass so many bytes of the answer's body on, and then nothing, for ever."""

    async def act(exchange: Exchange) -> None:
        await exchange.copy(await exchange.forward(), after)
        await exchange.reader.read()  # until the client has had enough

    return act


def comes_late(seconds: float) -> Fault:
    """Answer as the server does, only later."""

    async def act(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await exchange.copy(await exchange.forward())

    return act


@dataclass(frozen=True)
class Seen:
    """A request that came: its method, path and query, as ``key=value``."""

    method: str
    path: str
    query: tuple[str, ...]

    @property
    def verb(self) -> str:
        """Return the verb, as Kubernetes names it."""
        if "watch=true" in self.query:
            return "watch"
        last = self.path.rsplit("/", 1)[-1]
        reads = "list" if last in {"jobs", "pods", "configmaps", "events"} else "get"
        return {"GET": reads, "POST": "create", "DELETE": "delete"}[self.method]


def calls(action: Callable[[], None], *, answered: bool) -> Fault:
    """Call this when the request comes, or when the server has answered and we have not."""

    async def act(exchange: Exchange) -> None:
        if answered:
            await (await exchange.forward()).readuntil(_END)
        action()
        exchange.writer.transport.abort()

    return act


@dataclass
class _Rule:
    verb: str
    fault: Fault
    left: float


@dataclass
class FaultProxy:
    """The proxy; ``seen`` is every request in its order."""

    upstream: Upstream
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)
    _numbered: dict[int, Fault] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _open: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def on(self, verb: str, fault: Fault, *, times: float = 1) -> None:
        """Do this to the next ``times`` requests of this verb; after earlier orders for it."""
        self._rules.append(_Rule(verb, fault, times))

    def on_request(self, number: int, fault: Fault) -> None:
        """Do this to the request of this number, from 1."""
        self._numbered[number] = fault

    def heal(self) -> None:
        """Do no more harm."""
        self._rules.clear()
        self._numbered.clear()

    def count(self, verb: str) -> int:
        """Return how many requests of this verb have come."""
        return sum(seen.verb == verb for seen in self.seen)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Take requests, on the port it had before if it had one."""
        self._open = True
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and break those there are."""
        assert self._server is not None
        self._open = False
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:  # it came just before we closed
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = None
        try:
            # A client that goes away in the middle is nothing to report.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                exchange = await self._read(reader, writer)
                await self._fault(exchange)(exchange)
            await _hang_up(writer)
        finally:
            writer.transport.abort()
            if exchange is not None and exchange.link is not None:
                exchange.link.transport.abort()  # the server may still have something to say

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
        head = await reader.readuntil(_END)
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return Exchange(self.upstream, head, await reader.readexactly(length), reader, writer)

    def _fault(self, exchange: Exchange) -> Fault:
        method, target, _ = exchange.head.decode().split(" ", 2)
        url = urlsplit(target)
        query = tuple(f"{key}={value[0]}" for key, value in parse_qs(url.query).items())
        seen = Seen(method, url.path, query)
        self.seen.append(seen)
        if len(self.seen) in self._numbered:
            return self._numbered[len(self.seen)]
        for rule in self._rules:
            if rule.verb == seen.verb and rule.left > 0:
                rule.left -= 1
                return rule.fault
        return _passes


async def _hang_up(link: asyncio.StreamWriter) -> None:
    link.close()
    with contextlib.suppress(OSError):
        await link.wait_closed()


async def _passes(exchange: Exchange) -> None:
    await exchange.copy(await exchange.forward())
