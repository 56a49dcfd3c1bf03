"""What the API server answers when it does not do as asked → one of our errors, with a remedy.

A pure function over the status, the body and what was asked. Nothing of a body is shown that is
not a ``Status`` of Kubernetes: a proxy's page may hold anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from seeknal_k8s.errors import (
    AdmissionRefused,
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    QuotaExceeded,
    ServerError,
    TooManyRequests,
    Unauthorized,
)

if TYPE_CHECKING:
    from seeknal_k8s.errors import ApiCall

_NOBODY = "system:anonymous"
# What every authorizer of the API server says, RBAC or not; all other 403s come from admission.
_RBAC = re.compile(r'User "(?P<account>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)"')
_QUOTA = ("exceeded quota", "status unknown for quota")
_ACCOUNT = re.compile(r'serviceaccount "([^"]+)" not found')
_MESSAGE = 1000
"""Characters of the server's message that are kept: a refused pod template repeats itself."""


class _Details(msgspec.Struct, frozen=True):
    kind: str = ""
    retry_after: int | None = msgspec.field(default=None, name="retryAfterSeconds")


class Status(msgspec.Struct, frozen=True):
    """The body of every refusal, and of the ERROR line of a watch."""

    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


_STATUS = msgspec.json.Decoder(Status)


def error_of(
    call: ApiCall, status: int, body: bytes, *, retry_after: str | None = None
) -> ClusterError:
    """Return the error for an answer that is no success.

    ``retry_after`` is the header as it came, in whole seconds.
    """
    said = _read(body)
    kind, text, remedy = _classify(call, status or said.code, said)
    error = kind(
        "\n".join([text, *(f"  → {line}" for line in remedy)]),
        call=call,
        status=status or said.code,
        retry_after=_seconds(retry_after, said),
    )
    if isinstance(error, Forbidden):
        error.account = _account(said)
    return error


def _read(body: bytes) -> Status:
    try:
        said = _STATUS.decode(body)
    except msgspec.MsgspecError:
        return Status()
    return said if said.kind == "Status" else Status()


def _seconds(header: str | None, said: Status) -> float | None:
    if header and header.isascii() and header.isdigit():
        return float(header)
    asked = said.details.retry_after if said.details else None
    return None if asked is None else float(asked)


def _classify(
    call: ApiCall, status: int, said: Status
) -> tuple[type[ClusterError], str, tuple[str, ...]]:
    """Return the class of the error, its sentence, and the lines of its remedy."""
    kind = _kind(status, said)
    reason = said.message[:_MESSAGE] or f"it answered {status} and said nothing of its own"
    head = {
        Unauthorized: f"The API server does not know who asks it to {call}",
        Forbidden: f"The API server does not let {_account(said) or 'us'} {call}",
        AdmissionRefused: f"The cluster's rules do not allow to {call}",
        QuotaExceeded: f"There is no room to {call}",
        Invalid: f"The API server cannot make sense of it: {call}",
    }.get(kind, f"The API server could not {call}")
    return kind, f"{head}: {reason}", _remedy(kind, call, said)


_BY_STATUS: dict[int, type[ClusterError]] = {
    400: Invalid,
    401: Unauthorized,
    404: NotFound,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def _kind(status: int, said: Status) -> type[ClusterError]:
    if status == 403:  # noqa: PLR2004 - three quite different refusals share it
        return _forbidden(said)
    if status == 409:  # noqa: PLR2004 - "Conflict" is also a quota that two creates counted at once
        return AlreadyExists if said.reason in {"AlreadyExists", ""} else Conflict
    if status >= 500:  # noqa: PLR2004
        return ServerError
    return _BY_STATUS.get(status, ClusterError)


def _forbidden(said: Status) -> type[ClusterError]:
    if any(sign in said.message for sign in _QUOTA):
        return QuotaExceeded
    # Without a word of explanation it came from something in front of the API server.
    return Forbidden if _RBAC.search(said.message) or not said.message else AdmissionRefused


def _account(said: Status) -> str:
    found = _RBAC.search(said.message)
    return found["account"] if found else ""


def _remedy(kind: type[ClusterError], call: ApiCall, said: Status) -> tuple[str, ...]:
    where = f" --namespace {call.namespace}" if call.namespace else ""
    if kind is Forbidden:
        return _rule(call, _account(said), where)
    if kind is NotFound and said.details and said.details.kind == "namespaces":
        return (f"create it: kubectl create namespace {call.namespace}",)
    if kind is AdmissionRefused and (missing := _ACCOUNT.search(said.message)):
        return (f"create it: kubectl create serviceaccount {missing[1].split('/')[-1]}{where}",)
    return {
        Unauthorized: ("see whether kubectl is let in: kubectl auth whoami",),
        AdmissionRefused: (f"see what applies: kubectl describe quota,limitrange{where}",),
        QuotaExceeded: (f"see what is used: kubectl describe quota{where}",),
    }.get(kind, ())


def _rule(call: ApiCall, account: str, where: str) -> tuple[str, ...]:
    """Return the rule that the account's Role lacks, and how to ask whether it has it."""
    if account == _NOBODY:
        return ("no credentials were sent; see whether kubectl is let in: kubectl auth whoami",)
    rule = (
        f'{{apiGroups: ["{call.group}"], resources: ["{call.resource}"], verbs: ["{call.verb}"]}}'
    )
    resource, _, subresource = call.resource.partition("/")
    what = f"{resource}.{call.group}" if call.group else resource
    ask = f"kubectl auth can-i {call.verb} {what}"
    ask += f" --subresource {subresource}" if subresource else ""
    ask += where + (f" --as {account}" if account else "")
    return f"add to its Role: {rule}", f"then check: {ask}"
