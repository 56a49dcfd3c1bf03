"""Doctor in namespaces of a real cluster that are well, and that are not."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from seeknal_k8s.cluster import Cluster
from seeknal_k8s.doctor import probe
from seeknal_k8s.doctor.findings import State
from seeknal_k8s.settings import Settings
from tests import on_kubernetes
from tests.cluster.harness import REPOSITORY, until
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seeknal_k8s.doctor.findings import Judgement
    from tests.cluster.harness import Namespace
    from tests.on_kubernetes import Volume

SHOP = REPOSITORY / "examples/shop"


@pytest.fixture
def volume(namespace: Namespace, image: str) -> Iterator[Volume]:
    with on_kubernetes.volume(namespace, image) as made:
        yield made


def with_accounts(namespace: Namespace) -> None:
    """Give the namespace the runner's account and its rights."""
    namespace.kubectl("apply", "-f", str(REPOSITORY / "manifests/runner-rbac.yaml"))


def environment(where: Namespace, **settings: str) -> dict[str, str]:
    given = {
        "namespace": where.name,
        "image": "local/none:1",
        "store_claim": "store",
        **settings,
    }
    ours = {f"SEEKNAL_K8S_{name.upper()}": value for name, value in given.items() if value}
    kept = {
        name: value
        for name, value in where.cluster.env.items()
        if not name.startswith(("PREFECT_", "SEEKNAL_K8S_"))
    }
    return {**kept, **ours}


def doctor(env: dict[str, str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run it; return its exit code, and its checks by name."""
    done = subprocess.run(
        [*PROGRAM, "doctor", "-C", str(SHOP), "--json", *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is (done.returncode == 0)
    return done.returncode, {one["check"]: one for one in document["checks"]}


def states(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: one["state"] for name, one in found.items()}


def test_all_is_well_and_two_pods_meet_in_the_store(volume: Volume) -> None:
    with_accounts(volume.namespace)
    env = volume.environment(project_path="/project")
    code, found = doctor({**environment(volume.namespace), **env}, "--pods")
    assert code == 0, found
    told = states(found)
    assert told.pop("image and store") == "ok", found["image and store"]
    wanted = ["API server", "clock", "namespace", "accounts", "runner's rights", "nodes' rights"]
    wanted += ["admission", "quota", "limit range", "machines", "store"]
    assert {name: told[name] for name in wanted} == dict.fromkeys(wanted, "ok")
    assert volume.namespace.get("jobs")["items"] == []
    assert not [one for one in volume.path.iterdir() if one.name.startswith(".doctor")]


def test_an_image_that_is_nowhere_is_told_and_nothing_is_left(volume: Volume) -> None:
    with_accounts(volume.namespace)
    env = {**environment(volume.namespace), **volume.environment(project_path="/project")}
    env["SEEKNAL_K8S_IMAGE"] = "local/nowhere:1"
    env["SEEKNAL_K8S_IMAGE_PULL_POLICY"] = "Never"
    code, found = doctor(env, "--pods")
    assert code == 1
    assert found["image and store"]["state"] == "failed"
    assert "local/nowhere:1" in found["image and store"]["reason"] + found["image and store"]["fix"]
    assert volume.namespace.get("jobs")["items"] == []


def test_who_interrupts_it_leaves_no_pod_behind(namespace: Namespace) -> None:
    quota = {"kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    namespace.apply({"apiVersion": "v1", **quota})
    process = subprocess.Popen(
        [*PROGRAM, "doctor", "-C", str(SHOP), "--pods"],
        env=environment(namespace),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    until(lambda: namespace.get("jobs")["items"], "the Job of the probe")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    until(lambda: not namespace.get("jobs")["items"], "the end of the Job", seconds=20)


def test_pods_that_no_quota_lets_in_are_told_with_the_quota(namespace: Namespace) -> None:
    quota = {"kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    namespace.apply({"apiVersion": "v1", **quota})
    settings = Settings(namespace=namespace.name, image="local/none:1", store_claim="store")

    async def judged() -> Judgement:
        kubeconfig = str(namespace.cluster.kubeconfig)
        async with Cluster(namespace.name, kubeconfig=kubeconfig) as cluster:
            return await probe.judge(cluster, settings, patience=8)

    found = asyncio.run(judged())
    assert found.state is State.FAILED
    assert "exceeded quota: none" in found.reason
    assert namespace.get("jobs")["items"] == []


def test_a_namespace_without_anything_gets_a_remedy_for_each_thing(namespace: Namespace) -> None:
    code, found = doctor(environment(namespace))
    assert code == 1
    bad = {name for name, one in found.items() if one["state"] == "failed"}
    assert bad == {"accounts", "runner's rights", "store"}
    assert all(found[name]["fix"] for name in bad)
    assert "create jobs" in found["runner's rights"]["reason"]


def test_a_namespace_that_is_not_there_is_all_there_is_to_say(namespace: Namespace) -> None:
    code, found = doctor(environment(namespace, namespace="nowhere-at-all"))
    assert (code, found["namespace"]["state"]) == (1, "failed")
    assert found["namespace"]["fix"] == "kubectl create namespace nowhere-at-all"
    assert "store" not in found


def test_what_pod_security_refuses_is_told_with_its_reason(namespace: Namespace) -> None:
    with_accounts(namespace)
    env = environment(namespace, store_claim="", store_host_path="/var/tmp")  # noqa: S108 - a volume
    _, found = doctor(env)
    assert found["admission"]["state"] == "failed"
    assert "violates PodSecurity" in found["admission"]["reason"]


def test_limits_that_no_node_fits_are_told(namespace: Namespace) -> None:
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "small"},
            "spec": {"limits": [{"type": "Container", "max": {"memory": "128Mi"}}]},
        },
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "tiny"},
            "spec": {"hard": {"requests.memory": "100Mi"}},
        },
    )
    _, found = doctor(environment(namespace))
    assert found["limit range"]["state"] == "failed"
    assert "small allows memory 128Mi at most" in found["limit range"]["reason"]
    assert found["quota"]["state"] == "failed"
    assert "tiny allows requests.memory 100Mi" in found["quota"]["reason"]
    assert found["admission"]["state"] == "failed"


def test_a_queue_and_a_priority_that_are_not_there_are_told(namespace: Namespace) -> None:
    _, found = doctor(environment(namespace, queue="nightly", priority_class="urgent"))
    assert found["queue"]["reason"] == "there is no LocalQueue nightly, or no Kueue"
    assert found["priority class"]["reason"] == "there is no PriorityClass urgent"


def test_a_node_account_that_may_do_too_much_is_told(namespace: Namespace) -> None:
    with_accounts(namespace)
    _, found = doctor(environment(namespace, node_service_account="seeknal-runner"))
    assert found["nodes' rights"]["state"] == "failed"


def test_who_may_not_look_gets_no_false_alarm(namespace: Namespace, tmp_path: Path) -> None:
    """An account that may only see its own rights: what it cannot see is unknown, not wrong."""
    namespace.kubectl("create", "serviceaccount", "visitor")
    token = namespace.kubectl("create", "token", "visitor").strip()
    config = yaml.safe_load(namespace.cluster.kubeconfig.read_text(encoding="utf-8"))
    for user in config["users"]:
        user["user"] = {"token": token}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    code, found = doctor({**environment(namespace), "KUBECONFIG": str(file)})
    assert (code, found["API server"]["state"]) == (0, "ok"), found
    blind = ("namespace", "accounts", "runner's rights", "admission", "quota", "machines", "store")
    assert {name: states(found)[name] for name in blind} == dict.fromkeys(blind, "skipped")


def test_a_cluster_that_does_not_answer_is_the_only_thing_said_of_it(tmp_path: Path) -> None:
    cluster = {"cluster": {"server": "https://127.0.0.1:1"}, "name": "none"}
    context = {"context": {"cluster": "none", "user": "me"}, "name": "none"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{"name": "me", "user": {}}],
        "contexts": [context],
        "current-context": "none",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    done = subprocess.run(
        [*PROGRAM, "doctor", "-C", str(SHOP)],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(file),
            "SEEKNAL_K8S_IMAGE": "shop:1",
            "SEEKNAL_K8S_STORE_CLAIM": "store",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "✗ API server" in done.stdout
    assert "namespace  " not in done.stdout.split("cluster")[1]
