"""One request to the API server → an answer, or one of our errors; again where that may help."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from aiohttp import ClientConnectorCertificateError, ClientError, ClientTimeout

from seeknal_k8s.cluster.access import sign_in
from seeknal_k8s.cluster.pace import Backoff, Rate
from seeknal_k8s.cluster.refusals import error_of
from seeknal_k8s.errors import (
    ApiCall,
    ClusterUnavailable,
    Conflict,
    NoCluster,
    ServerError,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from aiohttp import ClientResponse
    from kubernetes.aio.client import ApiClient

T = TypeVar("T")
Query = tuple[tuple[str, str], ...]

_BODY = defaultdict(lambda: "application/json", PATCH="application/merge-patch+json")
"""What a request's body is, by its method."""

_RENEWAL = 10.0
"""Seconds within which credentials are not renewed again: an exec plugin may open a browser."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait, how often we ask, and how much at once.

    ``answer`` and ``connect`` are the seconds one call may take in all, and to connect. A call that
    may succeed later is made up to ``tries`` times, within ``total`` seconds. ``at_once`` is how
    many calls are under way; streams are not counted.
    """

    answer: float = 30.0
    connect: float = 10.0
    tries: int = 8
    total: float = 60.0
    at_once: int = 50


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``path`` has ``{namespace}`` and ``{name}`` where the call's own belong.

    An empty value in ``query`` is left out. ``paced`` requests wait for the rate's turn.
    """

    call: ApiCall
    method: str
    path: str
    query: Query = ()
    body: Mapping[str, Any] | None = None
    paced: bool = False


def decoded(call: ApiCall, decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return what a body holds; ``ServerError`` if it is not what an API server answers."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ServerError(
            f"What answered to {call} is not what an API server says: {error}", call=call
        ) from error


@dataclass
class Transport:
    """Sends requests, with credentials that are renewed, timeouts, and a bound on all of it.

    ``sent`` counts every request.
    """

    kubeconfig: str | None
    context: str | None
    patience: Patience
    rate: Rate
    sent: int = 0
    _clients: list[ApiClient] = field(default_factory=list)
    _renewed: float = float("-inf")
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.patience.at_once)

    async def open(self) -> str:
        """Sign in; return the namespace we are at home in."""
        client, namespace = await sign_in(self.kubeconfig, self.context)
        self._clients.append(client)
        return namespace

    async def close(self) -> None:
        """Close all connections, those of open streams included."""
        while self._clients:
            await self._clients.pop().close()  # type: ignore[no-untyped-call]

    async def ask(self, request: Request, decoder: msgspec.json.Decoder[T]) -> T:
        """Return the answer, decoded."""

        async def read(response: ClientResponse) -> T:
            return decoded(request.call, decoder, await response.read())

        return await self.fetch(request, read)

    async def fetch(self, request: Request, read: Callable[[ClientResponse], Awaitable[T]]) -> T:
        """Return what ``read`` makes of the answer; ask again where that may help."""
        backoff, began, tried = Backoff(), time.monotonic(), 0
        while True:
            tried += 1
            client = self._clients[-1]
            try:
                return await self._once(request, read)
            except Unauthorized:
                if not await self._renew(client):
                    raise
            except ClusterUnavailable as error:
                pause = backoff.pause(error.retry_after)
                spent = time.monotonic() - began
                if (
                    tried >= self.patience.tries
                    or spent + pause > self.patience.total
                    or (isinstance(error, Conflict) and request.method == "DELETE")
                ):
                    raise
                await asyncio.sleep(pause)

    async def _once(self, request: Request, read: Callable[[ClientResponse], Awaitable[T]]) -> T:
        patience = ClientTimeout(total=self.patience.answer, sock_connect=self.patience.connect)
        began = await self.rate.turn() if request.paced else 0.0
        try:
            async with self._slots, self._exchange(request, patience) as response:
                return await read(response)
        except TooManyRequests as error:
            if request.paced:
                self.rate.refused(began, error.retry_after)
            raise

    @asynccontextmanager
    async def stream(
        self, request: Request, silence: float | None
    ) -> AsyncIterator[ClientResponse]:
        """Open a stream, once. Nothing for ``silence`` seconds is ``TimedOut``."""
        patience = ClientTimeout(total=None, sock_connect=self.patience.connect, sock_read=silence)
        async with self._exchange(request, patience) as response:
            yield response

    @asynccontextmanager
    async def _exchange(
        self, request: Request, patience: ClientTimeout
    ) -> AsyncIterator[ClientResponse]:
        call = request.call
        try:
            async with await self._send(request, patience) as response, _cut_if_unread(response):
                if response.status >= 400:  # noqa: PLR2004 - where HTTP's refusals begin
                    asked = response.headers.get("Retry-After")
                    body = await response.read()
                    raise error_of(call, response.status, body, retry_after=asked)
                yield response
        except ClientConnectorCertificateError as error:
            raise NoCluster(
                f"The API server's certificate is not the one expected: {error}"
                "\n  → see certificate-authority in the kubeconfig",
                call=call,
            ) from error
        except TimeoutError as error:
            raise TimedOut(
                f"The API server did not answer in time to {call}.", call=call
            ) from error
        except (ClientError, OSError) as error:
            name = type(error).__name__
            raise Unreachable(
                f"The connection to the API server failed, to {call}: {str(error) or name}",
                call=call,
            ) from error

    async def _send(self, request: Request, patience: ClientTimeout) -> ClientResponse:
        client = self._clients[-1]
        names = {"namespace": request.call.namespace, "name": request.call.name}
        method, url, headers, _, _ = await client.param_serialize(
            request.method,
            request.path,
            path_params=names,
            query_params=[(key, value) for key, value in request.query if value],
            header_params={"Accept": "application/json", "Content-Type": _BODY[request.method]},
            auth_settings=["BearerToken"],
        )
        self.sent += 1
        answer = await client.call_api(
            method, url, headers, body=request.body, _request_timeout=patience
        )
        raw: ClientResponse = answer.response
        return raw

    async def _renew(self, refused: ApiClient) -> bool:
        """Sign in anew after a 401; return whether there are other credentials now to try.

        So an exec plugin's token is renewed when it has expired, and a token file read again.
        """
        async with self._renewing:
            if self._clients[-1] is not refused:
                return True  # another call has just done it
            if time.monotonic() - self._renewed < _RENEWAL:
                return False
            self._renewed = time.monotonic()
            await self.open()  # the older client stays until the end, for its open streams
            return True


@asynccontextmanager
async def _cut_if_unread(response: ClientResponse) -> AsyncIterator[None]:
    """Cut the connection of an answer that was not read to its end.

    Left to itself, aiohttp says goodbye by TLS, for which a server may take half a minute; a loop
    that ends earlier leaves the socket open.
    """
    try:
        yield
    finally:
        if response.connection is not None and response.connection.transport is not None:
            response.connection.transport.abort()
