"""The verbs, for one namespace of one cluster. Objects go in as plain dicts and come out as views."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

import msgspec

from seeknal_k8s.cluster.pace import Rate
from seeknal_k8s.cluster.transport import Patience, Query, Request, Transport, decoded
from seeknal_k8s.errors import ApiCall, Conflict, Gone, NotFound, UsageError
from seeknal_k8s.views import JOBS, PODS, Kind, View

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from aiohttp import ClientResponse

Propagation = Literal["Background", "Foreground", "Orphan"]

PAGE = 500
"""Objects per page of a list, as kubectl asks for: 3.4 MB of pods, read in 3 ms."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[View]):
    """What there was at one moment, and the version that a watch goes on from."""

    version: str
    items: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether we may do something, and why (not), where the server says."""

    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Server:
    """The API server's version (``v1.36.3``), and how far its clock is ahead of ours.

    ``skew`` is in seconds and good to one second, the grain of an HTTP date.
    """

    version: str
    clock: datetime
    skew: float


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    git_version: str


class _Review(msgspec.Struct, frozen=True):
    class Status(msgspec.Struct, frozen=True):
        allowed: bool = False
        reason: str = ""

    status: Status


_VERSION = msgspec.json.Decoder(_Version)
_REVIEW = msgspec.json.Decoder(_Review)
_ANYTHING: msgspec.json.Decoder[msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw)


class Cluster:
    """One namespace of one cluster, as an async context manager.

    ``namespace`` and ``context`` are those of the kubeconfig, or the pod's own, where not given;
    ``kubeconfig`` is a path, or several as in ``KUBECONFIG``. Inside a pod without a kubeconfig it
    is the service account that counts.

    Raises:
        NoCluster: there is no usable kubeconfig, and no service account.
    """

    def __init__(
        self,
        namespace: str = "",
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        patience: Patience | None = None,
        rate: Rate | None = None,
    ) -> None:
        self.namespace = namespace
        self._transport = Transport(kubeconfig, context, patience or Patience(), rate or Rate())

    @property
    def requests(self) -> int:
        """Return how many requests were sent so far, refused and broken ones included."""
        return self._transport.sent

    async def __aenter__(self) -> Self:
        home = await self._transport.open()
        self.namespace = self.namespace or home
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._transport.close()

    async def create(
        self, kind: Kind[View], manifest: Mapping[str, Any], *, dry_run: bool = False
    ) -> View:
        """Create an object; return what the server made of it.

        A call whose answer was lost is made again and then meets ``AlreadyExists``, with the name
        in ``.call.name``: it is for the caller to look whose it is.
        """
        name = str(manifest["metadata"]["name"])
        query = (("dryRun", "All"),) if dry_run else ()
        call = self._call("create", kind, name)
        request = Request(call, "POST", kind.path, query, manifest, paced=True)
        return await self._transport.ask(request, kind.one)

    async def patch(self, kind: Kind[View], name: str, changes: Mapping[str, Any]) -> View:
        """Merge changes into an object (RFC 7386); return what it is then."""
        call = self._call("patch", kind, name)
        request = Request(call, "PATCH", kind.path + "/{name}", body=changes)
        return await self._transport.ask(request, kind.one)

    async def get(self, kind: Kind[View], name: str) -> View:
        """Return one object by its name, or raise ``NotFound``."""
        call = self._call("get", kind, name)
        return await self._transport.ask(Request(call, "GET", kind.path + "/{name}"), kind.one)

    async def list(self, kind: Kind[View], *, labels: str = "", fields: str = "") -> Listing[View]:
        """Return all objects that both selectors let through, read page by page.

        The events of a Job: ``fields="involvedObject.kind=Job,involvedObject.name=<name>"``.
        """
        query: Query = (("labelSelector", labels), ("fieldSelector", fields))
        try:
            return await self._pages(kind, (*query, ("limit", str(PAGE))))
        except Gone:  # the pages took longer than the server keeps versions: all in one, then
            return await self._pages(kind, query)

    async def _pages(self, kind: Kind[View], query: Query) -> Listing[View]:
        items: tuple[View, ...] = ()
        after = ""
        while True:
            request = Request(
                self._call("list", kind), "GET", kind.path, (*query, ("continue", after))
            )
            page = await self._transport.ask(request, kind.page)
            items += tuple(page.items or ())
            after = page.metadata.next_page
            if not after:
                return Listing(page.metadata.version, items)

    async def watch(
        self, kind: Kind[View], *, labels: str, version: str, seconds: int, silence: float
    ) -> AsyncGenerator[bytes]:
        """Stream what happens after ``version``, one JSON document per line, bookmarks included.

        The server ends it after ``seconds``; without a line for ``silence`` seconds it is
        ``TimedOut``. Not tried again: what to do then depends on what was seen.
        """
        query = (
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("labelSelector", labels),
            ("resourceVersion", version),
            ("timeoutSeconds", str(seconds)),
        )
        request = Request(self._call("watch", kind), "GET", kind.path, query)
        rest = b""
        async with self._transport.stream(request, silence) as response:
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line

    async def logs(
        self, pod: str, container: str, *, follow: bool = False, silence: float | None = None
    ) -> AsyncGenerator[bytes]:
        """Stream a container's log as it comes, in pieces of any size.

        Not tried again. ``silence`` is how many seconds without a byte are taken for a broken
        connection; None is for ever.
        """
        request = self._log(pod, container, (("follow", "true" if follow else "false"),))
        async with self._transport.stream(request, silence) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    async def log_tail(self, pod: str, container: str, size: int) -> bytes:
        """Return the last ``size`` bytes of a container's log."""
        # The API's own limitBytes counts from the beginning. As each line has at least one byte,
        # the last `size` bytes are within the last `size` lines.
        request = self._log(pod, container, (("tailLines", str(size)),))

        async def read(response: ClientResponse) -> bytes:
            kept = b""
            async for chunk in response.content.iter_any():
                kept = (kept + chunk)[-size:]
            return kept

        return await self._transport.fetch(request, read)

    def _log(self, pod: str, container: str, query: Query) -> Request:
        call = ApiCall("get", "pods/log", "", self.namespace, pod)
        return Request(call, "GET", PODS.path + "/{name}/log", (("container", container), *query))

    async def delete(
        self,
        kind: Kind[View],
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
    ) -> bool:
        """Delete one object; return whether it was there. With ``uid``, only that very one."""
        body: dict[str, Any] = {"propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        call = self._call("delete", kind, name)
        request = Request(call, "DELETE", kind.path + "/{name}", body=body)
        try:
            await self._transport.ask(request, _ANYTHING)
        except (NotFound, Conflict):  # a conflict is a precondition that does not hold
            return False
        return True

    async def delete_jobs(self, labels: str, *, propagation: Propagation = "Background") -> None:
        """Delete all Jobs that the selector lets through; an empty one is refused."""
        if not labels.strip():
            raise UsageError("An empty selector would delete every Job of the namespace.")
        body = {"propagationPolicy": propagation}
        call = self._call("deletecollection", JOBS)
        request = Request(call, "DELETE", JOBS.path, (("labelSelector", labels),), body)
        await self._transport.ask(request, _ANYTHING)

    async def may(
        self, verb: str, resource: str, group: str = "", *, account: str = ""
    ) -> Permission:
        """Ask whether we may do this in our namespace; ``resource`` may be ``pods/log``.

        ``account`` is a service account of the namespace about which to ask instead of ourselves,
        which takes the right to create ``subjectaccessreviews``.
        """
        main, _, sub = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": main, "subresource": sub}
        spec: dict[str, Any] = {
            "resourceAttributes": {**attributes, "namespace": self.namespace},
        }
        reviews = "selfsubjectaccessreviews"
        if account:
            reviews = "subjectaccessreviews"
            everybody = "system:serviceaccounts"
            spec["user"] = f"system:serviceaccount:{self.namespace}:{account}"
            spec["groups"] = [everybody, f"{everybody}:{self.namespace}", "system:authenticated"]
        answer = await self._transport.ask(
            Request(
                ApiCall("create", reviews, "authorization.k8s.io"),
                "POST",
                f"/apis/authorization.k8s.io/v1/{reviews}",
                body={"spec": spec},
            ),
            _REVIEW,
        )
        return Permission(answer.status.allowed, answer.status.reason)

    async def server(self) -> Server:
        """Return the API server's version and clock."""
        request = Request(ApiCall("get", "/version"), "GET", "/version")

        async def read(response: ClientResponse) -> Server:
            body, now = await response.read(), datetime.now(UTC)
            # The server cuts the fraction off, so on average it is half a second further.
            said = parsedate_to_datetime(response.headers.get("Date") or format_datetime(now))
            clock = said + timedelta(seconds=0.5)
            version = decoded(request.call, _VERSION, body).git_version
            return Server(version, clock, (clock - now).total_seconds())

        return await self._transport.fetch(request, read)

    def _call(self, verb: str, kind: Kind[Any], name: str = "") -> ApiCall:
        where = self.namespace if kind.namespaced else ""
        return ApiCall(verb, kind.resource, kind.group, where, name)
