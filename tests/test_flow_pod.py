"""A deployment in a pool with our template, run by a real worker in a real cluster."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from seeknal_k8s.deployments import deploy, listed, pool, template
from seeknal_k8s.settings import Settings
from tests import on_kubernetes, prefect_server
from tests.cluster.harness import REPOSITORY, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.harness import Namespace
    from tests.on_kubernetes import Volume

GATEWAY = "10.89.0.1"
"""This machine, as the pods of our own cluster see it."""

POOL = "pods"
NODE = "source.orders"


@pytest.fixture
def volume(namespace: Namespace, image: str) -> Iterator[Volume]:
    with on_kubernetes.volume(namespace, image) as made:
        yield made


def settings_of(volume: Volume) -> Settings:
    env = volume.environment(project_path="/project")
    ours = {
        name.removeprefix("SEEKNAL_K8S_").lower(): value
        for name, value in env.items()
        if name.startswith("SEEKNAL_K8S_")
    }
    return Settings.model_validate(ours)


def test_a_flows_pod_is_let_in_and_runs_a_node_as_a_job(volume: Volume, tmp_path: Path) -> None:
    namespace = volume.namespace
    namespace.kubectl("apply", "-f", str(REPOSITORY / "manifests/runner-rbac.yaml"))
    with (
        prefect_server.running(tmp_path, GATEWAY) as server,
        temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: server.home}),
    ):
        made = template.build(settings_of(volume), POOL, cpu="500m", memory="512Mi")
        asyncio.run(pool.apply(POOL, made))
        done = asyncio.run(deploy.apply(asked()))
        server.prefect("deployment", "run", done.name)
        work(server, namespace)
        until(lambda: state("daily") in ENDED, "the end of the flow run", seconds=240)
        pods = namespace.get("pods", "-l", "app.kubernetes.io/component=flow")["items"]
        told = namespace.kubectl("logs", pods[0]["metadata"]["name"]) if pods else "no pod"
        assert state("daily") == "Completed", told
    (pod,) = pods
    assert pod["metadata"]["annotations"][template.MARK]
    assert pod["spec"]["serviceAccountName"] == "seeknal-runner"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "512Mi"
    (flow,) = namespace.get("jobs", "-l", "prefect.io/flow-run-id")["items"]
    assert flow["spec"]["ttlSecondsAfterFinished"] == 86_400
    assert [job["metadata"]["labels"]["seeknal.io/node"] for job in volume.jobs()] == [NODE]
    assert list((volume.path / "target").rglob("*orders.parquet"))


ENDED = {"Completed", "Failed", "Crashed"}


def state(name: str) -> str:
    """Return the state of the deployment's last run."""
    (row,) = [row for row in asyncio.run(listed()) if row.name.endswith(f"/{name}")]
    return row.last_state


def asked() -> Any:
    return deploy.checked(
        "nightly",
        "daily",
        "/project",
        schedule=None,
        timezone="UTC",
        tags=(),
        image=None,
        work_pool=POOL,
        parameters={"node_ids": [NODE], "options": ["cpu=100m", "memory=512Mi"]},
        job_variables={},
        concurrency_limit=1,
        overlap="skip",
        paused=False,
    )


def work(server: prefect_server.PrefectServer, namespace: Namespace) -> None:
    """Have a worker submit what is due."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    env = {
        **server.env,
        "KUBECONFIG": str(namespace.cluster.kubeconfig),
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": namespace.name,
    }
    done = subprocess.run(
        [*command, "--type", "kubernetes", "--run-once"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
