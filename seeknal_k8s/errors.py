"""Everything this package raises on purpose.

SeeknalK8sError        exit code, message
├── UsageError         2   the command line, or a call, makes no sense
├── ProjectRefused     78  the project, its options or the selection is wrong; nothing has run
├── StateUnreadable    78  ``target/run_state.json`` cannot be read; it is kept, never overwritten
├── StoreUnavailable   69  the store cannot be written, or the disk is full
│   └── StoreLocked    75  another coordinator holds the store; its holder is named
├── InputsFailed       1   what all intervals of a backfill read could not be made
├── EngineFailed       70  the process that has Seeknal loaded died or spoke nonsense
├── NodesFailed        1   nodes failed, where only an exception can say so: in a Prefect flow
├── Interrupted        130 Ctrl-C or SIGTERM; what was accepted is kept
├── PrefectRefused     78  Prefect is not installed, no API is named, or it refuses; says what to set
├── PrefectUnavailable 69  the Prefect API does not answer, or answers nonsense
└── ClusterError           the API server refused, or does not answer: ``.call`` says to what
    ├── NoCluster        78  there is no usable kubeconfig and no service account
    ├── Unauthorized     78  401: it does not know who we are
    ├── Forbidden        78  403 by RBAC: the rule to add is named
    ├── AdmissionRefused 78  403 by anything else: a policy, a webhook, a limit range
    ├── Invalid          78  400 or 422: the manifest, or a name in it, is wrong
    ├── NotFound         78  404: the object, or its namespace, is not there
    ├── AlreadyExists    70  409 on create: perhaps our own, whose answer was lost
    ├── QuotaExceeded    75  403 by a quota: there may be room later
    ├── Gone             75  410: list again; never leaves ``watch``
    └── ClusterUnavailable 69  worth asking again
        ├── Conflict          409 otherwise: somebody else was faster
        ├── TooManyRequests   429: slower; ``retry_after`` may say how much
        ├── ServerError       5xx, or an answer that nobody can read
        └── Unreachable       no connection, or it broke in the middle
            └── TimedOut      no answer in time

A node that fails is not an error. It is a ``PrefectRunResult`` with ``success=False``.
The numbers follow ``sysexits.h`` where one fits: 78 wants a change by a person, 75 and 69 want time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a project: what, where, and what to do about it.

    ``file`` is relative to the project; ``node`` is a node id such as ``transform.orders``;
    ``key`` is the YAML key, dotted (``kubernetes.memory``). Each may be empty.
    """

    what: str
    fix: str = ""
    file: str = ""
    node: str = ""
    key: str = ""

    @property
    def where(self) -> str:
        """Return file, node and key as one readable place, or an empty string."""
        return " · ".join(part for part in (self.file, self.node, self.key) if part)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            lines.append(f"  → {self.fix}")
        return "\n".join(lines)


class SeeknalK8sError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(SeeknalK8sError):
    """The command line, or a call, makes no sense."""

    exit_code = 2


class ProjectRefused(SeeknalK8sError):
    """The project, its options or the selection is wrong. Nothing was started.

    ``problems`` holds every problem found, not just the first.
    """

    exit_code = 78

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''}; nothing was run"
        super().__init__("\n".join([head, *(str(problem) for problem in self.problems)]))


class StateUnreadable(SeeknalK8sError):
    """``target/run_state.json`` cannot be read. It is kept as it is."""

    exit_code = 78


class StoreUnavailable(SeeknalK8sError):
    """The store cannot be written, or the disk is full."""

    exit_code = 69


class StoreLocked(StoreUnavailable):
    """Another coordinator is at work on the same store."""

    exit_code = 75


class InputsFailed(SeeknalK8sError):
    """What all intervals of a backfill read could not be made. No interval was run."""


class EngineFailed(SeeknalK8sError):
    """The process that has Seeknal loaded died, or answered nonsense."""

    exit_code = 70


class NodesFailed(SeeknalK8sError):
    """Nodes of a run have failed, where only an exception can say so; ``results`` are the run's."""

    exit_code = 1

    def __init__(self, message: str, results: Mapping[str, object]) -> None:
        super().__init__(message)
        self.results = results


class Interrupted(SeeknalK8sError):
    """The run was stopped by Ctrl-C or SIGTERM. What was accepted is kept."""

    exit_code = 130


class PrefectRefused(SeeknalK8sError):
    """Prefect is not installed, no API is named, or the API does not do it."""

    exit_code = 78


class PrefectUnavailable(SeeknalK8sError):
    """The Prefect API does not answer, or what answers is none."""

    exit_code = 69


@dataclass(frozen=True, slots=True)
class ApiCall:
    """What was asked of the API server, in the words of RBAC.

    ``verb`` is create, get, list, watch, delete or deletecollection; ``resource`` is plural, with
    its subresource (``pods/log``); ``group`` is ``""`` for the core. ``name`` is empty for a
    collection.
    """

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """Return the resource as kubectl takes it, such as ``jobs.batch``."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    def __str__(self) -> str:
        what = f"{self.verb} {self.kind}"
        what += f" {self.name}" if self.name else ""
        return what + (f" in namespace {self.namespace}" if self.namespace else "")


class ClusterError(SeeknalK8sError):
    """The API server refused, or does not answer.

    ``call`` is what was asked, ``status`` the HTTP status, 0 without an answer. ``retry_after`` is
    in seconds, where the server named a time.
    """

    exit_code = 69

    def __init__(
        self,
        message: str,
        *,
        call: ApiCall | None = None,
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.call = call
        self.status = status
        self.retry_after = retry_after


class NoCluster(ClusterError):
    """There is no usable kubeconfig, and no service account of a pod."""

    exit_code = 78


class Unauthorized(ClusterError):
    """The API server does not know who we are: the credentials are missing, wrong or expired."""

    exit_code = 78


class Forbidden(ClusterError):
    """RBAC does not allow it. ``account`` is who asked, as the server names them; may be empty."""

    exit_code = 78
    account = ""


class AdmissionRefused(ClusterError):
    """A policy, a webhook or a limit of the namespace does not let the object in."""

    exit_code = 78


class Invalid(ClusterError):
    """The API server does not take the manifest, or a value in the request."""

    exit_code = 78


class NotFound(ClusterError):
    """The object is not there, or its namespace is not."""

    exit_code = 78


class AlreadyExists(ClusterError):
    """There is one of this name: another's, or our own, created by a call whose answer was lost.

    The name is in ``call.name``; whose it is, its labels and its uid tell.
    """

    exit_code = 70


class QuotaExceeded(ClusterError):
    """The namespace's quota has no room for it now."""

    exit_code = 75


class Gone(ClusterError):
    """The version or the page that was asked for is no longer kept: list again."""

    exit_code = 75


class ClusterUnavailable(ClusterError):
    """The API server cannot do it now; the same call may succeed later."""


class Conflict(ClusterUnavailable):
    """Somebody else changed it in the same moment, such as the quota that counts a new Job."""


class TooManyRequests(ClusterUnavailable):
    """The API server asks for fewer calls; ``retry_after`` is how long it wants to be left alone."""


class ServerError(ClusterUnavailable):
    """The API server failed, or what answered in its place cannot be understood."""


class Unreachable(ClusterUnavailable):
    """There is no connection, or it broke. Whether a create was done is not known."""


class TimedOut(Unreachable):
    """No answer came in time."""
