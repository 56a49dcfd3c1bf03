"""From helm install to results in Prefect, and all that may come between, on a real cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s.doctor.on_cluster import RUNNER_RULES
from seeknal_k8s.store import Store
from tests.cluster.harness import CommandFailed, until
from tests.on_helm import CHART, PASSWORD, PATIENCE, RELEASE, Release, installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.harness import Cluster

DAILY = "seeknal-run-pipeline/daily"
WAITING: dict[str, Any] = {
    "node_ids": ["orders", "products"],
    "options": ["queue=nobody"],
}
"""Two nodes whose Jobs are suspended, until a test lets them start."""

NODES = {
    "transform.order_lines": {"source.order_items", "source.products", "transform.booked_orders"}
}
"""What a node of the example reads."""

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def release(cluster: Cluster, image: str) -> Iterator[Release]:
    if cluster.audit is None:
        pytest.skip("only our own cluster has this machine's folders as volumes")
    with installed(cluster, image) as made:
        made.ours("deploy", "daily", "--project", "/project", "--schedule", "0 2 * * *")
        yield made


def admit(release: Release, run: str) -> None:
    """Let the Jobs of a run start, as Kueue does."""
    for job in release.jobs(run):
        name, patch = job["metadata"]["name"], '{"spec": {"suspend": false}}'
        release.namespace.kubectl("patch", "job", name, "--type=merge", "-p", patch)


def flow_pods(release: Release, run: str) -> list[dict[str, Any]]:
    return list(release.namespace.get("pods", "-l", f"prefect.io/flow-run-id={run}")["items"])


def test_a_deployed_project_runs_with_a_job_per_node(release: Release) -> None:
    listed = json.loads(release.ours("deployments", "--json"))
    (daily,) = [one for one in listed["deployments"] if one["name"] == DAILY]
    assert "0 2 * * *" in json.dumps(daily)
    run = release.start(DAILY, full=True)
    state = release.ended(run)
    assert state["type"] == "COMPLETED", state["message"]
    results = Store(release.store).run(run).results()
    assert results is not None
    assert {result.exit_code for result in results.values()} == {0}
    assert {
        job["metadata"]["annotations"]["seeknal.io/node-id"] for job in release.jobs(run)
    } == set(results)
    until(lambda: len(release.tasks(run)) == len(results), "a task run per node")
    tasks = release.tasks(run)
    assert set(tasks) == set(results)
    ids = {one["id"]: name for name, one in tasks.items()}
    inputs = tasks["transform.order_lines"]["task_inputs"]
    above = {ids[one["id"]] for several in inputs.values() for one in several}
    assert above == NODES["transform.order_lines"]


def test_a_node_that_fails_fails_the_run_and_says_why(release: Release) -> None:
    few = {"node_ids": ["orders"]}
    run = release.start(DAILY, **few, options=["memory=20Mi", "memory_max=20Mi", "retries=0"])
    state = release.ended(run)
    assert state["type"] == "FAILED"
    assert "nodes failed: source.orders (OOMKilled)" in state["message"]
    until(lambda: release.tasks(run)["source.orders"]["state"]["type"] == "FAILED", "its state")
    assert "OOMKilled, exit code 137" in release.tasks(run)["source.orders"]["state"]["message"]


def test_a_run_that_is_cancelled_in_prefect_leaves_no_job(release: Release) -> None:
    run = release.start(DAILY, **WAITING)
    until(lambda: len(release.jobs(run)) == 2, "two Jobs", seconds=PATIENCE)
    release.prefect("flow-run", "cancel", run)
    assert release.ended(run)["type"] == "CANCELLED"
    until(lambda: release.jobs(run) == [], "the end of its Jobs", seconds=PATIENCE)


def test_a_flow_pod_and_a_worker_that_are_replaced_run_nothing_twice(release: Release) -> None:
    run = release.start(DAILY, **WAITING)
    until(lambda: len(release.jobs(run)) == 2, "two Jobs", seconds=PATIENCE)
    first = {job["metadata"]["uid"] for job in release.jobs(run)}
    worker = f"deployment/{RELEASE}-seeknal-k8s-worker"
    release.namespace.kubectl("rollout", "restart", worker)
    release.namespace.kubectl("rollout", "status", worker, f"--timeout={PATIENCE:.0f}s")
    (pod,) = flow_pods(release, run)
    release.namespace.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

    def replaced() -> bool:
        names = {one["metadata"]["name"] for one in flow_pods(release, run)}
        return bool(names - {pod["metadata"]["name"]})

    until(replaced, "another flow pod", seconds=PATIENCE)

    def met_again() -> int:
        asked = release.namespace.requests(agent="seeknal-k8s/")
        return sum(r.call == "create jobs" and r.code == 409 for r in asked)

    until(lambda: met_again() >= 2, "the new coordinator at its Jobs", seconds=PATIENCE)
    admit(release, run)
    state = release.ended(run)
    assert state["type"] == "COMPLETED", state["message"]
    assert {job["metadata"]["uid"] for job in release.jobs(run)} == first


def test_a_backfill_is_a_flow_run_too(release: Release) -> None:
    release.ours(
        *("deploy", "seeknal-backfill/catch-up", "--project", "/project"),
        *("--param", "node_id=transform.category_sales"),
        *("--param", "start_date=2025-01-01", "--param", "end_date=2025-01-02"),
    )
    run = release.start("seeknal-backfill/catch-up")
    state = release.ended(run)
    assert state["type"] == "COMPLETED", state["message"]
    assert len(list((release.store / "intervals").glob("*/data/**/*.parquet"))) >= 2


def test_helm_test_passes(release: Release) -> None:
    assert "Succeeded" in release.helm("test", RELEASE, "--timeout", "5m")


def test_the_password_is_in_its_secret_and_nowhere_else(release: Release) -> None:
    run = release.start(DAILY, node_ids=["orders"])
    assert release.ended(run)["type"] == "COMPLETED"
    kinds = "configmaps,jobs,pods,deployments,statefulsets,services,events"
    secret = PASSWORD.partition(":")[2]
    assert secret not in release.namespace.kubectl("get", kinds, "--output", "json")
    for pod in release.namespace.get("pods")["items"]:
        name = pod["metadata"]["name"]
        try:
            log = release.namespace.kubectl("logs", name, "--all-containers")
        except CommandFailed:  # a pod that is only starting has no log yet
            continue
        assert secret not in log
    assert secret not in release.helm("get", "all", RELEASE)
    (pool,) = release.api("/work_pools/filter", {})
    assert secret not in json.dumps(pool)


@pytest.mark.last(1)
def test_the_accounts_may_do_what_they_ask_for(release: Release) -> None:
    """Nothing that they have asked for was refused, and the runner's Role has no more than the code asks."""
    accounts = f"system:serviceaccount:{release.namespace.name}:"
    asked = [r for r in release.namespace.requests() if r.user.startswith(accounts)]
    assert [r for r in asked if r.code == 403] == []
    rules = {(resource, verb) for _, resource, verbs in RUNNER_RULES for verb in verbs}
    by_runner = {(r.resource, r.verb) for r in asked if r.user.endswith(":seeknal-runner")}
    assert by_runner <= rules
    by_worker = {(r.resource, r.verb) for r in asked if r.user.endswith("-worker")}
    assert {("jobs", "create"), ("jobs", "watch"), ("pods", "watch")} <= by_worker


@pytest.mark.last(2)
def test_it_is_upgraded_rolled_back_and_uninstalled(release: Release) -> None:
    """The last of this file: what is left is the claim, Jobs until their time is up, and the Secret."""
    values = ("--reuse-values", "--wait", "--timeout", "6m")
    release.helm("upgrade", RELEASE, str(CHART), *values, "--set", "settings.max_jobs=7")
    settings = release.namespace.get("configmap", f"{RELEASE}-seeknal-k8s-settings")
    assert settings["data"]["SEEKNAL_K8S_MAX_JOBS"] == "7"
    release.helm("rollback", RELEASE, "1", "--wait", "--timeout", "6m")
    settings = release.namespace.get("configmap", f"{RELEASE}-seeknal-k8s-settings")
    assert "SEEKNAL_K8S_MAX_JOBS" not in settings["data"]
    release.helm("uninstall", RELEASE, "--wait", "--timeout", "6m")
    kinds = (
        "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,roles,rolebindings"
    )
    left = {
        f"{one['kind']}/{one['metadata']['name']}"
        for one in release.namespace.get(kinds)["items"]
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == RELEASE
    }
    assert left == set()
    assert release.namespace.get("pvc", "store")["status"]["phase"] == "Bound"
