"""What doctor makes of what it finds: values in, judgements out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from seeknal_k8s.deployments.health import Api, WorkerSeen
from seeknal_k8s.doctor import handshake, judge, on_cluster, on_prefect, probe
from seeknal_k8s.doctor.findings import Judgement, State, from_error
from seeknal_k8s.doctor.needs import Need
from seeknal_k8s.errors import PrefectRefused
from seeknal_k8s.settings import Settings
from seeknal_k8s.views import Metadata, ThingView
from tests.cluster.harness import REPOSITORY
from tests.podsecurity import violations
from tests.small import a_project

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
OK, FAILED, SKIPPED = State.OK, State.FAILED, State.SKIPPED
SMALL = Need("transform.a", {"cpu": 1.0, "memory": 1.0 * GIB}, "cpu 1, memory 1Gi")


def thing(name: str = "it", labels: dict[str, str] | None = None, **fields: Any) -> ThingView:
    return ThingView(metadata=Metadata(name=name, labels=labels or {}), **fields)


def machine(cpu: str = "4", memory: str = "8Gi", **more: Any) -> ThingView:
    status = {
        "allocatable": {"cpu": cpu, "memory": memory, **more.pop("allocatable", {})},
        "conditions": [{"type": "Ready", "status": more.pop("ready", "True")}],
    }
    labels = more.pop("labels", None)
    return thing("machine", labels, status=status, spec=more)


def need(**changed: Any) -> Need:
    amounts = {"cpu": 1.0, "memory": 1.0 * GIB, **changed.pop("amounts", {})}
    return Need("transform.a", amounts, "cpu 1, memory 1Gi", **changed)


def of(judgement: Judgement) -> tuple[State, str]:
    return judgement.state, judgement.reason


@pytest.mark.parametrize(
    ("version", "state"),
    [("v1.31.0", OK), ("v1.36.3+k3s1", OK), ("v2.0.1", OK), ("v1.30.9", FAILED), ("dev", SKIPPED)],
)
def test_an_old_kubernetes_is_told(version: str, state: State) -> None:
    assert judge.version(version).state is state


@pytest.mark.parametrize(
    ("skew", "state", "word"),
    [
        (0.4, OK, "differs"),
        (-9.0, OK, "differs"),
        (31.0, FAILED, "ahead of"),
        (-31, FAILED, "behind"),
    ],
)
def test_clocks_that_differ_are_told(skew: float, state: State, word: str) -> None:
    found, reason = of(judge.clock(skew))
    assert (found, word in reason) == (state, True)


@pytest.mark.parametrize(
    ("nodes", "machines", "state"),
    [
        pytest.param([SMALL], [machine()], OK, id="a node fits an empty machine"),
        pytest.param([SMALL], [machine(cpu="999m")], FAILED, id="too few cores"),
        pytest.param([SMALL], [machine(memory="1023Mi")], FAILED, id="too little memory"),
        pytest.param([SMALL], [machine(memory="1Mi"), machine()], OK, id="one of two will do"),
        pytest.param([SMALL], [machine(ready="False")], FAILED, id="a machine that is not ready"),
        pytest.param([SMALL], [machine(unschedulable=True)], FAILED, id="a cordoned machine"),
        pytest.param([SMALL], [], FAILED, id="no machine at all"),
        pytest.param(
            [need(selector={"disk": "ssd"})], [machine()], FAILED, id="no machine of that label"
        ),
        pytest.param(
            [need(selector={"disk": "ssd"})],
            [machine(labels={"disk": "ssd"})],
            OK,
            id="a machine of that label",
        ),
        pytest.param(
            [SMALL],
            [machine(taints=[{"key": "gpu", "effect": "NoSchedule"}])],
            FAILED,
            id="a taint that is not tolerated",
        ),
        pytest.param(
            [SMALL],
            [machine(taints=[{"key": "gpu", "effect": "PreferNoSchedule"}])],
            OK,
            id="a taint that only prefers",
        ),
        pytest.param(
            [need(tolerations=[{"key": "gpu", "operator": "Exists"}])],
            [machine(taints=[{"key": "gpu", "effect": "NoSchedule"}])],
            OK,
            id="a taint that is tolerated",
        ),
        pytest.param(
            [need(tolerations=[{"key": "gpu", "value": "a"}])],
            [machine(taints=[{"key": "gpu", "value": "b", "effect": "NoSchedule"}])],
            FAILED,
            id="a taint of another value",
        ),
        pytest.param(
            [need(amounts={"nvidia.com/gpu": 1.0})], [machine()], FAILED, id="no machine has a GPU"
        ),
        pytest.param(
            [need(amounts={"nvidia.com/gpu": 1.0})],
            [machine(allocatable={"nvidia.com/gpu": "2"})],
            OK,
            id="a machine has GPUs",
        ),
    ],
)
def test_every_node_has_to_fit_a_machine(
    nodes: list[Need], machines: list[ThingView], state: State
) -> None:
    assert judge.machines(nodes, machines).state is state


@pytest.mark.parametrize(
    ("hard", "used", "state", "word"),
    [
        ({}, {}, OK, "every node fits"),
        ({"requests.cpu": "2"}, {"requests.cpu": "500m"}, OK, "every node fits"),
        ({"limits.memory": "512Mi"}, {}, FAILED, "transform.a (cpu 1, memory 1Gi) never fits"),
        ({"cpu": "500m"}, {}, FAILED, "allows cpu 500m"),
        ({"memory": "2Gi"}, {"memory": "1536Mi"}, OK, "after a wait"),
        ({"pods": "0"}, {}, FAILED, "allows pods 0"),
        ({"count/jobs.batch": "5"}, {"count/jobs.batch": "5"}, OK, "after a wait"),
        ({"services": "0"}, {}, OK, "every node fits"),
    ],
)
def test_a_quota_that_a_node_never_fits_is_told_from_a_full_one(
    hard: dict[str, str], used: dict[str, str], state: State, word: str
) -> None:
    found, reason = of(judge.quotas([SMALL], [thing(status={"hard": hard, "used": used})]))
    assert (found, word in reason) == (state, True), reason


def test_a_quota_for_some_pods_only_says_nothing() -> None:
    quota = thing(spec={"scopes": ["BestEffort"]}, status={"hard": {"pods": "0"}})
    assert of(judge.quotas([SMALL], [quota])) == (OK, "there is none")


@pytest.mark.parametrize(
    ("limits", "state"),
    [
        ({"type": "Container", "max": {"memory": "2Gi"}}, OK),
        ({"type": "Container", "max": {"memory": "512Mi"}}, FAILED),
        ({"type": "Pod", "min": {"cpu": "2"}}, FAILED),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1"}}, OK),
    ],
)
def test_a_nodes_pod_has_to_be_within_the_namespaces_limits(
    limits: dict[str, Any], state: State
) -> None:
    assert judge.limit_ranges([SMALL], [thing(spec={"limits": [limits]})]).state is state


@pytest.mark.parametrize(
    ("phase", "mode", "machines", "state"),
    [
        ("Bound", "ReadWriteMany", 3, OK),
        ("Bound", "ReadWriteOnce", 1, OK),
        ("Bound", "ReadWriteOnce", 2, FAILED),
        ("Bound", "ReadWriteOnce", None, FAILED),
        ("Pending", "ReadWriteMany", 3, SKIPPED),
        ("Lost", "ReadWriteMany", 3, FAILED),
    ],
)
def test_the_stores_claim_is_for_many_pods(
    phase: str, mode: str, machines: int | None, state: State
) -> None:
    claim = thing(status={"phase": phase, "accessModes": [mode]})
    assert judge.claim(claim, machines).state is state


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([{"type": "Active", "status": "True"}], OK),
        ([{"type": "Active", "status": "False", "message": "no ClusterQueue"}], FAILED),
        ([], FAILED),
    ],
)
def test_a_queue_has_to_be_active(conditions: list[dict[str, str]], state: State) -> None:
    assert judge.queue(thing(status={"conditions": conditions})).state is state


@pytest.mark.parametrize(
    ("server", "client", "state"),
    [
        ("3.8.8", "3.8.8", OK),
        ("3.9.0", "3.8.8", OK),
        ("3.7.1", "3.8.8", FAILED),
        ("2.20.0", "3.8.8", FAILED),
        ("main", "3.8.8", SKIPPED),
    ],
)
def test_a_prefect_server_has_to_be_as_new_as_its_client(
    server: str, client: str, state: State
) -> None:
    assert on_prefect.versions(Api("http://here/api", server, client)).state is state


def test_a_pool_needs_a_worker_that_is_online() -> None:
    gone, there = (
        WorkerSeen("gone", online=False, last=None),
        WorkerSeen("a", online=True, last=None),
    )
    assert on_prefect.at_work("seeknal", [there, gone]).state is OK
    assert "runs stay Late" in on_prefect.at_work("seeknal", [gone]).reason
    assert "never had a worker" in on_prefect.at_work("seeknal", []).reason


def test_an_error_becomes_a_reason_and_what_to_type() -> None:
    error = PrefectRefused("it is not so\n  → do this\n  → or that")
    assert from_error(error) == Judgement(FAILED, "it is not so", "do this\nor that")


def test_the_rights_that_are_asked_about_are_those_of_the_published_role() -> None:
    text = (REPOSITORY / "manifests/runner-rbac.yaml").read_text(encoding="utf-8")
    (role,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "Role"]
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    asked = {
        (group, resource, verb)
        for group, resource, verbs in on_cluster.RUNNER_RULES
        for verb in verbs
    }
    assert asked == granted


def test_the_pods_of_the_probe_pass_pod_security_restricted() -> None:
    job = probe.build("doctor-1", Settings(image="shop:1", store_claim="store"))
    assert violations(job["spec"]["template"]) == []
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    assert not [name for name in job["metadata"]["labels"] if name.startswith("seeknal.io/")]
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["ttlSecondsAfterFinished"]) == (
        240,
        60,
    )


def test_two_that_share_a_folder_meet_and_leave_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    both = [
        threading.Thread(target=handshake.meet, args=(folder, *names))
        for names in (("0", "1"), ("1", "0"))
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(30)
    assert not [one for one in both if one.is_alive()]
    assert not folder.exists()


def test_one_alone_gives_up_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PATIENCE", 0.2)
    with pytest.raises(TimeoutError, match="does not see what this one writes"):
        handshake.meet(tmp_path / "shared", "0", "1")


def test_offline_looks_at_the_project_only(tmp_path: Path) -> None:
    done = a_project(tmp_path / "p").call("doctor", "--offline")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 nodes, the largest asks" in done.stdout
    assert "API server" not in done.stdout


def test_a_project_that_cannot_be_read_fails(tmp_path: Path) -> None:
    project = a_project(tmp_path / "p")
    project.write("seeknal/sources/a.yml", "kind: source\nname: [\n")
    done = project.call("doctor", "--offline")
    assert done.returncode == 1
    assert "✗ project" in done.stdout
    assert "a.yml" in done.stdout


def test_settings_that_are_wrong_are_all_named_and_nobody_is_asked(tmp_path: Path) -> None:
    wrong = {"SEEKNAL_K8S_MAX_JOBS": "many", "SEEKNAL_K8S_TTL": "1s"}
    done = a_project(tmp_path / "p").call("doctor", **wrong)
    assert done.returncode == 1
    assert "SEEKNAL_K8S_MAX_JOBS" in done.stdout
    assert "SEEKNAL_K8S_TTL" in done.stdout
