"""What the API server says when it refuses → our error, its sentence, and what to do about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seeknal_k8s import errors
from seeknal_k8s.cluster.refusals import error_of
from seeknal_k8s.errors import ApiCall, ClusterError, ClusterUnavailable, Forbidden

CREATE = ApiCall("create", "jobs", "batch", "team-a", "orders-1")
LOGS = ApiCall("get", "pods/log", "", "team-a", "orders-1-x7k2p")
WATCH = ApiCall("watch", "pods", "", "team-a")
ACCOUNT = "system:serviceaccount:team-a:runner"


def said(code: int, message: str, reason: str = "", /, **details: Any) -> bytes:
    status = {"kind": "Status", "code": code, "message": message, "reason": reason}
    return json.dumps({**status, "details": details}).encode()


def cannot(verb: str, resource: str, account: str = ACCOUNT) -> str:
    return (
        f'jobs.batch is forbidden: User "{account}" cannot {verb} resource "{resource}" in API group'
        ' "batch" in the namespace "team-a"'
    )


# Messages as Kubernetes 1.36 writes them.
TABLE = [
    pytest.param(
        CREATE,
        403,
        said(403, cannot("create", "jobs"), "Forbidden"),
        "Forbidden",
        [
            f"The API server does not let {ACCOUNT} create jobs.batch orders-1 in namespace team-a",
            'add to its Role: {apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]}',
            f"kubectl auth can-i create jobs.batch --namespace team-a --as {ACCOUNT}",
        ],
        id="RBAC does not allow it: the rule is named",
    ),
    pytest.param(
        LOGS,
        403,
        said(403, cannot("get", "pods/log"), "Forbidden"),
        "Forbidden",
        ['resources: ["pods/log"], verbs: ["get"]', "can-i get pods --subresource log"],
        id="a subresource is written as a Role wants it, and as kubectl does",
    ),
    pytest.param(
        WATCH,
        403,
        said(403, cannot("watch", "pods", "system:anonymous"), "Forbidden"),
        "Forbidden",
        ["no credentials were sent", "kubectl auth whoami"],
        id="nobody in particular asked",
    ),
    pytest.param(
        CREATE,
        403,
        said(403, 'jobs.batch "x" is forbidden: exceeded quota: q, requested: count/jobs.batch=1'),
        "QuotaExceeded",
        ["There is no room", "kubectl describe quota --namespace team-a"],
        id="the quota is used up",
    ),
    pytest.param(
        CREATE,
        403,
        said(403, 'jobs.batch "x" is forbidden: failed quota: q: must specify limits.cpu'),
        "AdmissionRefused",
        ["rules do not allow", "must specify limits.cpu"],
        id="a quota wants limits, which waiting does not bring",
    ),
    pytest.param(
        CREATE,
        403,
        said(403, 'admission webhook "deny.example" denied the request: no'),
        "AdmissionRefused",
        ['webhook "deny.example" denied'],
        id="a webhook says no",
    ),
    pytest.param(
        CREATE,
        403,
        said(403, 'pods "x" is forbidden: error looking up: serviceaccount "runner" not found'),
        "AdmissionRefused",
        ["kubectl create serviceaccount runner --namespace team-a"],
        id="the service account is missing",
    ),
    pytest.param(
        CREATE,
        409,
        said(409, 'jobs.batch "orders-1" already exists', "AlreadyExists"),
        "AlreadyExists",
        ['"orders-1" already exists'],
        id="there is one of this name",
    ),
    pytest.param(
        CREATE,
        409,
        said(409, 'Operation cannot be fulfilled on resourcequotas "q"', "Conflict"),
        "Conflict",
        ["resourcequotas"],
        id="two creates met at one quota: nothing exists, try again",
    ),
    pytest.param(
        CREATE,
        404,
        said(404, 'namespaces "team-a" not found', "NotFound", kind="namespaces"),
        "NotFound",
        ["kubectl create namespace team-a"],
        id="the namespace is missing",
    ),
    pytest.param(
        CREATE, 422, said(422, "Job.batch is invalid", "Invalid"), "Invalid", ["invalid"], id="422"
    ),
    pytest.param(CREATE, 400, said(400, "strict decoding"), "Invalid", ["decoding"], id="400"),
    pytest.param(CREATE, 401, said(401, "Unauthorized"), "Unauthorized", ["auth whoami"], id="401"),
    pytest.param(WATCH, 410, said(410, "too old", "Expired"), "Gone", ["too old"], id="410"),
    pytest.param(
        WATCH, 0, said(410, "too old resource version", "Expired"), "Gone", [], id="410 in a stream"
    ),
    pytest.param(CREATE, 429, b"", "TooManyRequests", ["answered 429"], id="429 without a body"),
    pytest.param(CREATE, 500, said(500, "etcd timed out"), "ServerError", ["etcd"], id="500"),
    pytest.param(
        CREATE,
        502,
        b"<html>token=secret</html>",
        "ServerError",
        ["answered 502"],
        id="a proxy's page",
    ),
    pytest.param(CREATE, 418, b"", "ClusterError", ["answered 418"], id="what nobody expects"),
]


@pytest.mark.parametrize(("call", "status", "body", "name", "parts"), TABLE)
def test_a_refusal_is_an_error_that_says_what_to_do(
    call: ApiCall, status: int, body: bytes, name: str, parts: list[str]
) -> None:
    error = error_of(call, status, body)

    assert type(error) is getattr(errors, name)
    assert [part for part in parts if part not in str(error)] == []
    assert error.call == call
    assert "secret" not in str(error)


def test_forbidden_names_the_account() -> None:
    error = error_of(CREATE, 403, said(403, cannot("create", "jobs")))

    assert isinstance(error, Forbidden)
    assert error.account == ACCOUNT


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        pytest.param("7", {}, 7.0, id="the header counts"),
        pytest.param(None, {"retryAfterSeconds": 3}, 3.0, id="the body does too"),
        pytest.param("7", {"retryAfterSeconds": 3}, 7.0, id="the header first"),
        pytest.param("Fri, 31 Dec 1999 23:59:59 GMT", {}, None, id="a date is not understood"),
        pytest.param("-1", {}, None, id="nor a time that is past"),
        pytest.param(None, {}, None, id="nobody said"),
    ],
)
def test_how_long_the_server_wants_to_be_left_alone(
    header: str | None, details: dict[str, int], seconds: float | None
) -> None:
    error = error_of(CREATE, 429, said(429, "slow down", "", **details), retry_after=header)

    assert error.retry_after == seconds


def test_an_endless_message_is_cut() -> None:
    error = error_of(CREATE, 422, said(422, "x" * 100_000))

    assert len(str(error)) < 1200


def every_kind(base: type[ClusterError]) -> set[type[ClusterError]]:
    return {base}.union(*(every_kind(kind) for kind in base.__subclasses__()))


def test_what_wants_a_person_and_what_wants_time_have_different_exit_codes() -> None:
    by_code: dict[int, set[str]] = {}
    for kind in every_kind(ClusterError):
        by_code.setdefault(kind.exit_code, set()).add(kind.__name__)

    assert by_code == {
        69: {kind.__name__ for kind in every_kind(ClusterUnavailable)} | {"ClusterError"},
        70: {"AlreadyExists"},
        75: {"Gone", "QuotaExceeded"},
        78: {"AdmissionRefused", "Forbidden", "Invalid", "NoCluster", "NotFound", "Unauthorized"},
    }
