"""The chart on the tests' cluster, with the bundled Prefect server and a password on it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.harness import HELM, REPOSITORY, program, until
from tests.on_kubernetes import CLAIM, claim
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.harness import Cluster, Namespace

CHART = REPOSITORY / "helm" / "seeknal-k8s"
RELEASE = "seeknal"
PASSWORD = "admin:a-password-that-nobody-may-see"  # noqa: S105 - of a server that lives for minutes
POSTGRES = "localhost/postgres:15"
PATIENCE = 400.0
"""Seconds for what takes one on two quiet cores."""


@dataclass(frozen=True)
class Release:
    """An installed chart: its namespace, the store as this machine sees it, and the Prefect API."""

    namespace: Namespace
    store: Path
    url: str
    home: Path
    values: dict[str, Any]

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a user of this release."""
        ours = ("PREFECT_", "SEEKNAL_K8S_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {
            **kept,
            "KUBECONFIG": str(self.namespace.cluster.kubeconfig),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": PASSWORD,
            "PREFECT_HOME": str(self.home),
            "SEEKNAL_K8S_NAMESPACE": self.namespace.name,
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def said(self, *command: str) -> str:
        """Run a program as that user; return what it says."""
        done = self.call(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program as that user."""
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def ours(self, *arguments: str) -> str:
        """Run seeknal-k8s."""
        return self.said(*PROGRAM, *arguments)

    def prefect(self, *arguments: str) -> str:
        """Run Prefect's command line."""
        return self.said(sys.executable, "-m", "prefect", "--no-prompt", *arguments)

    def api(self, path: str, body: Any = None) -> Any:
        """Ask the Prefect API."""
        import urllib.request  # noqa: PLC0415

        login = base64.b64encode(PASSWORD.encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - of our own making
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a run of a deployment; return its id."""
        found = self.api(f"/deployments/name/{deployment}")
        made = self.api(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def state(self, run: str) -> dict[str, Any]:
        """Return the state of a flow run."""
        found: dict[str, Any] = self.api(f"/flow_runs/{run}")["state"]
        return found

    def ended(self, run: str) -> dict[str, Any]:
        """Wait for the end of a flow run; return its state."""
        final = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}

        def state() -> dict[str, Any] | None:
            found = self.state(run)
            return found if found["type"] in final else None

        found: dict[str, Any] = until(state, f"the end of flow run {run}", seconds=PATIENCE)
        return found

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """Return the task runs of a flow run, by name."""
        asked = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
        return {one["name"]: one for one in self.api("/task_runs/filter", asked)}

    def jobs(self, run: str) -> list[dict[str, Any]]:
        """Return the Jobs of the nodes of a run."""
        labels = f"seeknal.io/run={run},app.kubernetes.io/component=node"
        return list(self.namespace.get("jobs", "-l", labels)["items"])

    def helm(self, *arguments: str) -> str:
        """Run helm in the namespace of the release."""
        return self.said(str(HELM), "--namespace", self.namespace.name, *arguments)


@contextlib.contextmanager
def installed(cluster: Cluster, image: str) -> Iterator[Release]:
    """Install the chart, and give it as a user outside of the cluster has it."""
    program("image", POSTGRES, REPOSITORY / "tests" / "cluster" / "postgres")
    repository, _, tag = image.partition(":")
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}}
    none = {"requests": {"cpu": 0, "memory": 0}}
    values = {
        "image": {"repository": repository, "tag": tag},
        "pool": {"flowCpu": "300m"},
        "settings": {
            "node_pod_template": {"spec": {"containers": [{"name": "node", "resources": none}]}}
        },
        "store": {"existingClaim": CLAIM},
        "worker": {"resources": small},
        "server": {
            "enabled": True,
            "authString": {"secretName": "prefect-auth"},
            "resources": small,
            "postgres": {
                "image": {"repository": "localhost/postgres", "tag": "15"},
                "size": "",
                "resources": small,
            },
        },
    }
    with contextlib.ExitStack() as stack:
        namespace = stack.enter_context(cluster.namespace("release"))
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp", prefix="sk8s-"))
        store = Path(folder) / "store"
        store.mkdir()
        store.chmod(0o777)
        stack.enter_context(claim(namespace, store))
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "prefect-auth"}}
        namespace.apply({**secret, "stringData": {"auth-string": PASSWORD}})
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        release = Release(namespace, store, url, Path(folder) / "prefect", values)
        file = Path(folder) / "values.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        command = ("install", RELEASE, str(CHART), "--values", str(file), "--wait")
        release.helm(*command, "--timeout", "6m")
        stack.enter_context(_forwarded(namespace, port))
        until(lambda: _answers(release), "the Prefect API through the port-forward")
        yield release


def _answers(release: Release) -> bool:
    with contextlib.suppress(OSError):
        return bool(release.api("/admin/version"))
    return False


@contextlib.contextmanager
def _forwarded(namespace: Namespace, port: int) -> Iterator[None]:
    kubectl = [namespace.cluster.kubectl_program, "--namespace", namespace.name]
    service = f"service/{RELEASE}-seeknal-k8s-server"
    process = subprocess.Popen(
        [*kubectl, "port-forward", service, f"{port}:4200"],
        env=namespace.cluster.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()
