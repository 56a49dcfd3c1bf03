from __future__ import annotations

import json
from typing import Any

import pytest

from seeknal_k8s.deployments import template
from seeknal_k8s.settings import Settings
from tests.podsecurity import violations


def settings(**given: Any) -> Settings:
    fields = {"image": "shop:1", "store_claim": "store", "namespace": "data", **given}
    return Settings.model_validate(fields)


def build(**given: Any) -> dict[str, Any]:
    return template.build(settings(**given), "seeknal", cpu="500m", memory="1Gi")


def pod(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["job_configuration"]["job_manifest"]["spec"]["template"]
    return found


def defaults(made: dict[str, Any]) -> dict[str, Any]:
    properties = made["variables"]["properties"]
    return {name: about["default"] for name, about in properties.items() if "default" in about}


def test_a_flows_pod_passes_pod_security_restricted() -> None:
    assert violations(pod(build())) == []


def test_the_flows_container_is_the_first_and_has_prefects_name() -> None:
    assert pod(build())["spec"]["containers"][0]["name"] == "prefect-job"


def test_everything_that_the_installed_worker_has_a_variable_for_is_still_one() -> None:
    ours, theirs = build(), template.default()
    assert ours["variables"]["properties"].keys() == theirs["variables"]["properties"].keys()
    used = {
        name for name in theirs["variables"]["properties"] if f"{{{{ {name} }}}}" in str(theirs)
    }
    assert {name for name in used if f"{{{{ {name} }}}}" not in str(ours)} == set()


def test_nothing_that_the_worker_asks_for_is_missing() -> None:
    ours, theirs = pod(build())["spec"], pod(template.default())["spec"]
    assert theirs.keys() <= ours.keys()
    assert theirs["containers"][0].keys() <= ours["containers"][0].keys()


def test_the_defaults_are_those_of_the_settings() -> None:
    found = defaults(build(runner_service_account="runs", ttl="1h"))
    wanted = {
        "namespace": "data",
        "image": "shop:1",
        "image_pull_policy": "IfNotPresent",
        "service_account_name": "runs",
        "finished_job_ttl": 3600,
        "cpu_limit": "500m",
        "cpu_request": "500m",
        "memory_limit": "1Gi",
        "memory_request": "1Gi",
    }
    assert {name: found[name] for name in wanted} == wanted


def test_a_flow_has_the_settings_of_whoever_applied_the_pool() -> None:
    env = defaults(build(max_jobs=7))["env"]
    assert env["SEEKNAL_K8S_MAX_JOBS"] == "7"
    assert env["SEEKNAL_K8S_STORE_CLAIM"] == "store"


def test_a_flow_in_a_pod_runs_its_nodes_as_jobs() -> None:
    assert defaults(build())["env"]["SEEKNAL_K8S_ON"] == "kubernetes"


def test_what_a_flow_writes_goes_to_disks_of_its_own() -> None:
    spec = pod(build())["spec"]
    mounts = {one["mountPath"]: one["name"] for one in spec["containers"][0]["volumeMounts"]}
    disks = {one["name"] for one in spec["volumes"] if "emptyDir" in one}
    env = defaults(build())["env"]
    assert {mounts[env["TMPDIR"]], mounts[env["HOME"]]} == disks
    assert env["PREFECT_HOME"].startswith(env["HOME"])


def test_the_store_is_mounted_where_the_settings_say() -> None:
    spec = pod(build(store_path="/elsewhere"))["spec"]
    mounts = spec["containers"][0]["volumeMounts"]
    assert {"mountPath": "/elsewhere", "name": "store"} in mounts
    assert {"name": "store", "persistentVolumeClaim": {"claimName": "store"}} in spec["volumes"]


def test_secrets_are_referred_to_by_name() -> None:
    made = template.build(settings(), "seeknal", cpu="1", memory="1Gi", env_from=["warehouse"])
    container = pod(made)["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "warehouse"}}]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("shop", "Always"),
        ("shop:latest", "Always"),
        ("host:5000/shop", "Always"),
        ("host:5000/shop:1", "IfNotPresent"),
        (f"shop@sha256:{'0' * 64}", "IfNotPresent"),
    ],
)
def test_an_image_is_pulled_when_kubernetes_would(image: str, policy: str) -> None:
    assert defaults(build(image=image))["image_pull_policy"] == policy


def test_a_pull_policy_that_is_set_counts() -> None:
    assert defaults(build(image_pull_policy="Never"))["image_pull_policy"] == "Never"


def test_the_same_settings_make_the_same_template() -> None:
    assert template.drift(build(), build()) == ()


def test_a_difference_is_shown_as_a_diff() -> None:
    lines = template.drift(build(), build(namespace="other"))
    assert [line.strip() for line in lines if line[:1] in "+-" and "namespace" not in line]
    assert any('+        "default": "other"' in line for line in lines)


def test_our_template_is_not_taken_for_one_edited_by_hand() -> None:
    assert not template.edited(json.loads(json.dumps(build())))


@pytest.mark.parametrize("untouched", [{}, template.default()], ids=["empty", "the worker's own"])
def test_a_template_that_nobody_has_touched_may_be_replaced(untouched: dict[str, Any]) -> None:
    assert not template.edited(untouched)


def test_an_edit_by_hand_is_noticed() -> None:
    made = build()
    made["variables"]["properties"]["memory_limit"]["default"] = "8Gi"
    assert template.edited(made)


def test_a_template_of_another_tool_counts_as_edited() -> None:
    made = template.default()
    made["variables"]["properties"]["namespace"]["default"] = "theirs"
    assert template.edited(made)
