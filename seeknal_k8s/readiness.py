"""``python -m seeknal_k8s.readiness``: is the Prefect worker of this pod ready?

It is when the Prefect API has it as ONLINE in its pool, and Kubernetes lets it create Jobs. The
worker's own ``/health`` says neither. A probe runs every few seconds: nothing is imported but the
standard library, which takes 0.1 s.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod has its token and the certificate of its API server."""

_PATIENCE = 4.0
"""Seconds for each of the two questions."""

_PAGE = 200


class NotReady(Exception):
    """The worker is not ready; the message says why."""


def main(environ: Mapping[str, str] | None = None, account: Path = ACCOUNT) -> int:
    """Return 0 if the worker is ready; else say why not and return 1."""
    given = os.environ if environ is None else environ
    try:
        require_online(given)
        require_jobs(given, account)
    except (NotReady, OSError, ValueError, KeyError, http.client.HTTPException) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - an event of the pod
        return 1
    return 0


def require_online(environ: Mapping[str, str]) -> None:
    """Do nothing if Prefect has the worker as ONLINE in its pool.

    Raises:
        NotReady: it does not.
        OSError, HTTPException, ValueError: the API does not answer, or not as one.
        KeyError: a variable is missing.
    """
    pool, name = environ["SEEKNAL_K8S_WORK_POOL"], environ["POD_NAME"]
    url = (
        f"{environ['PREFECT_API_URL'].rstrip('/')}/work_pools/{quote(pool, safe='')}/workers/filter"
    )
    offset = 0
    while True:
        found = _post(url, {"limit": _PAGE, "offset": offset}, _login(environ))
        for worker in found:
            if worker["name"] == name:
                if worker["status"] != "ONLINE":
                    raise NotReady(
                        f"Prefect has worker {name} of pool {pool} as {worker['status']}"
                    )
                return
        if len(found) < _PAGE:
            raise NotReady(f"Prefect does not know worker {name} of pool {pool}")
        offset += _PAGE


def require_jobs(environ: Mapping[str, str], account: Path) -> None:
    """Do nothing if Kubernetes lets the worker create Jobs where flows run.

    Raises:
        NotReady: it does not.
        OSError, HTTPException, ValueError: the API server does not answer, or not as one.
        KeyError: a variable is missing.
    """
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
    namespace = environ["SEEKNAL_K8S_NAMESPACE"]
    what = {"group": "batch", "resource": "jobs", "verb": "create", "namespace": namespace}
    host = f"[{host}]" if ":" in host else host
    review = _post(
        f"https://{host}:{port}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what},
        },
        {"Authorization": f"Bearer {(account / 'token').read_text(encoding='ascii').strip()}"},
        authority=account / "ca.crt",
    )
    if not review["status"]["allowed"]:
        raise NotReady(f"Kubernetes does not let the worker create Jobs in namespace {namespace}")


def _login(environ: Mapping[str, str]) -> dict[str, str]:
    if key := environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if text := environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}
    return {}


def _post(url: str, body: Any, headers: Mapping[str, str], *, authority: Path | None = None) -> Any:
    """Send JSON and return the JSON that is answered."""
    where = urlsplit(url)
    if where.scheme == "https":
        tls = ssl.create_default_context(cafile=authority)
        link: http.client.HTTPConnection = http.client.HTTPSConnection(
            where.netloc, timeout=_PATIENCE, context=tls
        )
    else:
        link = http.client.HTTPConnection(where.netloc, timeout=_PATIENCE)
    try:
        sent = {"Content-Type": "application/json", **headers}
        link.request("POST", where.path, json.dumps(body), sent)
        answer = link.getresponse()
        text = answer.read()
    finally:
        link.close()
    if answer.status >= 300:  # noqa: PLR2004 - neither of the two redirects
        raise NotReady(f"{where.netloc} answered {answer.status} to {where.path}")
    return json.loads(text)


if __name__ == "__main__":
    sys.exit(main())
