"""The API server that some tests need: which one it is, and what its administrator may do with it.

No kubelet is needed: the objects are ConfigMaps, and Jobs that are suspended.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "SEEKNAL_K8S_TEST_KUBECONFIG"


def kubeconfig(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the kubeconfig of an API server that answers; without one skip, in CI fail."""
    cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = environ.get("CLUSTER_ROOT") or Path(cache) / "seeknal-k8s-cluster"
    path = Path(environ.get(VARIABLE) or Path(root) / "kubeconfig")
    try:
        status, _ = Admin(path).request("GET", "/readyz")
        if status == http.HTTPStatus.OK:
            return path
        why = f"the API server of {path} is not ready: it answers {status}"
    except (OSError, KeyError, TypeError, ValueError) as error:
        why = f"no API server to test with: {error}; run `make cluster-up`, or set {VARIABLE}"
    if environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@dataclass(frozen=True)
class Upstream:
    """Where the API server is, and how to speak to it as the administrator."""

    host: str
    port: int
    tls: ssl.SSLContext


class Admin:
    """The administrator of the kubeconfig's current context, who has a client certificate."""

    def __init__(self, path: Path) -> None:
        raw = yaml.safe_load(path.read_text())
        named = {kind: {item["name"]: item for item in raw[kind]} for kind in _KINDS}
        context = named["contexts"][raw["current-context"]]["context"]
        cluster = named["clusters"][context["cluster"]]["cluster"]
        user = named["users"][context["user"]]["user"]
        server = urlsplit(cluster["server"])
        self.authority = _data(cluster, "certificate-authority", path)
        tls = ssl.create_default_context(cadata=self.authority.decode())
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder) / "certificate", Path(folder) / "key"
            certificate.write_bytes(_data(user, "client-certificate", path))
            key.write_bytes(_data(user, "client-key", path))
            tls.load_cert_chain(certificate, key)
        self.server = cluster["server"]
        self.upstream = Upstream(server.hostname or "", server.port or 443, tls)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request; return the status and the answer, which is text if it is not JSON."""
        there = self.upstream
        link = http.client.HTTPSConnection(there.host, there.port, timeout=30, context=there.tls)
        try:
            headers = {"Content-Type": "application/json"}
            link.request(method, path, None if body is None else json.dumps(body), headers)
            answer = link.getresponse()
            text = answer.read()
        finally:
            link.close()
        is_json = "json" in (answer.getheader("Content-Type") or "")
        return answer.status, json.loads(text) if is_json else text.decode()

    def make(self, path: str, body: Any) -> Any:
        """Create an object and return it."""
        status, answer = self.request("POST", path, body)
        assert status < 300, answer
        return answer

    def namespace(self) -> str:
        """Create a namespace of a name that nobody else has."""
        name = f"test-{uuid.uuid4().hex[:10]}"
        self.make("/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def forget(self, namespace: str) -> None:
        """Delete a namespace, without waiting for it."""
        self.request("DELETE", f"/api/v1/namespaces/{namespace}")

    def token(self, namespace: str, account: str) -> str:
        """Create a service account, and return a token for it."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.make(accounts, {"metadata": {"name": account}})
        asked = {"spec": {"expirationSeconds": 3600}}
        answer = self.make(f"{accounts}/{account}/token", asked)
        return str(answer["status"]["token"])

    def kubeconfig(self, path: Path, user: Mapping[str, Any]) -> str:
        """Write a kubeconfig that comes to the same API server as somebody else."""
        authority = base64.b64encode(self.authority).decode()
        where = {"server": self.server, "certificate-authority-data": authority}
        return write_kubeconfig(path, where, user)


def write_kubeconfig(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """Write a kubeconfig with one context, and return its path."""
    raw = {
        "current-context": "only",
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": "only"}}],
        "clusters": [{"name": "only", "cluster": dict(cluster)}],
        "users": [{"name": "only", "user": dict(user)}],
    }
    path.write_text(yaml.safe_dump(raw))
    return str(path)


_KINDS = ("contexts", "clusters", "users")


def _data(section: Mapping[str, str], key: str, path: Path) -> bytes:
    if f"{key}-data" in section:
        return base64.b64decode(section[f"{key}-data"])
    return (path.parent / section[key]).read_bytes()


def config_map(name: str, *, label: str = "mine", **data: str) -> dict[str, Any]:
    """Return the manifest of a ConfigMap."""
    return {"metadata": {"name": name, "labels": {"test": label}}, "data": data}


def job(name: str, *, label: str = "mine") -> dict[str, Any]:
    """Return the manifest of a Job that never starts."""
    container = {"name": "node", "image": "none", "command": ["true"]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {
        "metadata": {"name": name, "labels": {"test": label}},
        "spec": {"suspend": True, "backoffLimit": 0, "template": {"spec": pod}},
    }
