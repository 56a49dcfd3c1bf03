"""Manifests as wholes: golden files, the schemas of Kubernetes, Pod Security, and patches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]

from seeknal_k8s import __version__, manifest
from seeknal_k8s.errors import ProjectRefused, UsageError
from seeknal_k8s.names import anchor_name
from tests.manifests import (
    OWNER,
    a_job,
    an_attempt,
    an_indexed_job,
    for_interval,
    goldens,
    some_settings,
)
from tests.podsecurity import violations

if TYPE_CHECKING:
    from seeknal_k8s.backends import Attempt

FOLDER = Path(__file__).parent / "golden"
OLDEST = (1, 31)  # where podFailurePolicy became stable, KEP-3329
VERSIONS = [text for text in all_versions() if tuple(map(int, text.split(".")[:2])) >= OLDEST]
GOLDENS = goldens()
NAMES = sorted(GOLDENS)
JOBS = [name for name in NAMES if name != "anchor"]


def spec_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def node_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = (each for each in spec_of(job)["containers"] if each["name"] == "node")
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_manifest_is_the_golden_one(name: str) -> None:
    # A release changes one label everywhere; that is not what a golden file is to show.
    text = yaml.safe_dump(GOLDENS[name], sort_keys=False, allow_unicode=True, width=100)
    text = text.replace(f"version: {__version__}", "version: VERSION")
    file = FOLDER / f"{name}.yaml"
    if os.environ.get("REGENERATE_GOLDEN"):
        assert not os.environ.get("CI"), "golden files are for people to regenerate and to read"
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_there_is_no_golden_file_without_a_manifest() -> None:
    assert sorted(file.stem for file in FOLDER.iterdir()) == NAMES


# --- What Kubernetes says about them ---------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_version_of_kubernetes_knows_every_field(name: str, version: str) -> None:
    kubernetes_validate.validate(GOLDENS[name], version, strict=True)


def test_the_newest_version_is_among_those_asked() -> None:
    assert VERSIONS[0].startswith("1.31")
    assert len(VERSIONS) >= 7


@pytest.mark.parametrize("version", VERSIONS)
def test_a_field_that_kubernetes_does_not_know_would_be_noticed(version: str) -> None:
    job = a_job()
    spec_of(job)["restartPolicies"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize("name", [name for name in JOBS if name != "one-machine"])
def test_a_pod_passes_pod_security_restricted(name: str) -> None:
    assert violations(GOLDENS[name]["spec"]["template"]) == []


def test_folders_of_the_machine_are_all_that_restricted_refuses_on_one_machine() -> None:
    found = violations(GOLDENS["one-machine"]["spec"]["template"])
    assert found == ["volume store", "volume project"]


NODE = {"name": "node"}
SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize(
    ("container", "pod", "found"),
    [
        pytest.param({}, {}, [], id="nothing else"),
        pytest.param({"privileged": True}, {}, ["node: privileged"], id="privileged"),
        pytest.param({"runAsUser": 0}, {}, ["node: runAsUser"], id="root"),
        pytest.param({"runAsNonRoot": None}, {}, ["node: runAsNonRoot"], id="perhaps root"),
        pytest.param({"seccompProfile": {}}, {}, ["node: seccomp"], id="no seccomp"),
        pytest.param({"capabilities": {}}, {}, ["node: capabilities kept"], id="capabilities"),
        pytest.param(
            {"capabilities": {"drop": ["ALL"], "add": ["KILL"]}},
            {},
            ["node: capabilities added"],
            id="a capability of the baseline",
        ),
        pytest.param(
            {"allowPrivilegeEscalation": None},
            {},
            ["node: allowPrivilegeEscalation"],
            id="escalation not forbidden",
        ),
        pytest.param({"procMount": "Unmasked"}, {}, ["node: procMount"], id="proc"),
        pytest.param({}, {"hostNetwork": True}, ["hostNetwork"], id="the machine's network"),
        pytest.param(
            {}, {"volumes": [{"name": "a", "nfs": {}}]}, ["volume a"], id="a volume by hand"
        ),
        pytest.param(
            {},
            {"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}},
            ["sysctl kernel.msgmax"],
            id="an unsafe sysctl",
        ),
    ],
)
def test_the_check_for_restricted_finds(
    container: dict[str, Any], pod: dict[str, Any], found: list[str]
) -> None:
    template = {"spec": {"containers": [{**NODE, "securityContext": {**SAFE, **container}}], **pod}}
    assert violations(template) == found


# --- What holds for every Job ----------------------------------------------------------------

OBJECT = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)
LABEL = st.from_regex(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,20}[A-Za-z0-9])?", fullmatch=True)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.integers(1, 64_000).map(lambda count: f"{count}m"),
        "memory": st.integers(2**24, 2**40),
        "ephemeral_storage": st.integers(2**20, 2**40),
        "gpu": st.integers(1, 8),
        "timeout": st.floats(1, 10**6),
        "env": st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), TEXT, max_size=3),
        "env_from": st.lists(OBJECT, max_size=2),
        "image": st.just("example.com/other:1"),
        "node_selector": st.dictionaries(LABEL, LABEL, max_size=2),
        "tolerations": st.lists(
            st.fixed_dictionaries({"operator": st.just("Exists")}, optional={"key": OBJECT}),
            max_size=2,
        ),
        "priority_class": OBJECT,
        "queue": OBJECT,
        "service_account": OBJECT,
        "pod_template": st.sampled_from([{"spec": {"dnsPolicy": "Default"}}, {"metadata": {}}]),
    },
)


@examples(deadline=None)
@given(OPTIONS, TEXT, TEXT, st.integers(1, 10**5), st.sampled_from(VERSIONS))
def test_a_job_of_any_options_is_valid_restricted_and_always_the_same(
    options: dict[str, Any], node_id: str, run_id: str, number: int, version: str
) -> None:
    owner = replace(OWNER, run_id=run_id, project=node_id)
    job = a_job(an_attempt(node_id, number, **options), owner=owner)
    kubernetes_validate.validate(job, version, strict=True)
    assert violations(job["spec"]["template"]) == []
    assert job == a_job(an_attempt(node_id, number, **options), owner=owner)


def unsorted(value: Any, place: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        if list(value) != sorted(value):
            yield place
        for key, item in value.items():
            yield from unsorted(item, f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from unsorted(item, f"{place}[]")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "patched"])
def test_fields_stand_in_the_order_of_kubectl_explain(name: str) -> None:
    assert list(unsorted(GOLDENS[name])) == []


def test_jobs_share_nothing_that_a_change_to_one_would_change_in_another() -> None:
    settings = some_settings(node_pod_template={"spec": {"dnsConfig": {"searches": ["a"]}}})
    attempt = an_attempt()
    before = a_job(attempt, settings)
    spec_of(before)["dnsConfig"]["searches"].append("b")
    before["metadata"]["annotations"]["a"] = "b"
    after = a_job(attempt, settings)
    assert spec_of(after)["dnsConfig"] == {"searches": ["a"]}
    assert "a" not in after["spec"]["template"]["metadata"]["annotations"]


def test_a_backends_attempt_is_what_a_manifest_needs() -> None:
    attempt: manifest.Attempt = an_attempt()
    assert attempt.number == 1


@pytest.mark.parametrize(
    ("other", "more"),
    [
        pytest.param(an_attempt(number=2), {}, id="number"),
        pytest.param(an_attempt("transform.Orders"), {}, id="node"),
        pytest.param(for_interval(an_attempt(), "2024-01-01/2024-01-02"), {}, id="interval"),
        pytest.param(an_attempt(), {"owner": replace(OWNER, run_id="another")}, id="run"),
    ],
)
def test_jobs_have_different_names_that_differ_in(other: Attempt, more: dict[str, Any]) -> None:
    names = {job["metadata"]["name"] for job in (a_job(), a_job(other, **more))}
    assert len(names) == 2


def test_options_do_not_change_the_name_of_an_attempt() -> None:
    # A coordinator that comes back with other options must find the Job, not make a second one.
    assert a_job(an_attempt(memory="8Gi"))["metadata"]["name"] == a_job()["metadata"]["name"]


def test_job_and_pod_have_the_same_labels_but_for_the_queue() -> None:
    job = GOLDENS["kueue"]
    labels = dict(job["metadata"]["labels"])
    assert labels.pop("kueue.x-k8s.io/queue-name") == "data-team"
    assert job["spec"]["template"]["metadata"]["labels"] == labels


def test_the_owner_is_the_anchor_that_the_run_makes() -> None:
    made = manifest.anchor("r1", "shop", some_settings())
    owner = manifest.Owner("r1", "shop", made["metadata"]["name"], "uid-1")
    (reference,) = a_job(owner=owner)["metadata"]["ownerReferences"]
    assert reference["name"] == anchor_name("r1")
    assert (reference["apiVersion"], reference["kind"]) == (made["apiVersion"], made["kind"])


# --- Clocks ----------------------------------------------------------------------------------


def test_a_node_without_a_timeout_has_no_deadline() -> None:
    assert "activeDeadlineSeconds" not in a_job()["spec"]


def test_the_deadline_comes_after_everything_our_own_clocks_allow() -> None:
    settings = some_settings(
        queue_timeout=1000, schedule_timeout=200, start_timeout=30, deadline_margin=4
    )
    spec = a_job(an_attempt(timeout="7.5s"), settings)["spec"]
    grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert spec["activeDeadlineSeconds"] == 1000 + 200 + 30 + 8 + grace + 4


# --- Secrets and references ------------------------------------------------------------------


@pytest.mark.parametrize(("given", "most"), [(1, 0), (7, 6), (100, 7)])
def test_a_job_bears_no_more_failed_indexes_than_it_has(given: int, most: int) -> None:
    """The API server refuses more."""
    assert an_indexed_job(count=7, max_failures=given)["spec"]["maxFailedIndexes"] == most


def test_secrets_are_named_and_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_PASSWORD", "hunter2")
    job = a_job(an_attempt(env_from=("warehouse",)))
    assert node_of(job)["envFrom"] == [{"secretRef": {"name": "warehouse"}}]
    assert "hunter2" not in str(job)


def kubelet_reads(text: str, variables: Mapping[str, str]) -> str:
    """Return what a container gets: k8s.io/kubernetes/third_party/forked/golang/expansion."""

    def expand(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", expand, text)


@given(st.text("$()A ", max_size=12))
def test_a_container_gets_texts_as_they_were_written(text: str) -> None:
    assert kubelet_reads(manifest.literal(text), {"A": "expanded", "": "expanded"}) == text


def test_the_kubelet_would_expand_what_is_not_made_literal() -> None:
    assert kubelet_reads("$(A) $$(A) $$", {"A": "b"}) == "b $(A) $"


def test_the_order_and_the_nodes_own_variables_are_made_literal() -> None:
    job = a_job(an_attempt(env={"A": "$(HOME)"}), order="/store/$(HOME)/order.json")
    assert node_of(job)["command"][-1] == "/store/$$(HOME)/order.json"
    assert {"name": "A", "value": "$$(HOME)"} in node_of(job)["env"]


# --- What is refused -------------------------------------------------------------------------


def node(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "node", **fields}]}}


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        pytest.param({"spec": {"restartPolicy": "OnFailure"}}, "spec.restartPolicy", id="restarts"),
        pytest.param(
            {"metadata": {"labels": {"seeknal.io/run": "x"}}}, "metadata.labels", id="run"
        ),
        pytest.param({"metadata": {"labels": None}}, "metadata.labels", id="all labels gone"),
        pytest.param(
            {"metadata": {"labels": {"prefect.io/flow-run-id": "x"}}},
            "metadata.labels",
            id="a label with which Prefect would take over",
        ),
        pytest.param(node(command=["sh"]), "spec.containers[node].command", id="command"),
        pytest.param(node(args=["--more"]), "spec.containers[node].args", id="arguments"),
        pytest.param(
            node(resources={"limits": {"memory": "9Gi"}}),
            "spec.containers[node].resources.limits",
            id="memory",
        ),
        pytest.param(
            node(volumeMounts=[{"mountPath": "/store", "name": "work"}]),
            "spec.containers[node].volumeMounts",
            id="another volume in the place of the store",
        ),
        pytest.param(
            {"spec": {"volumes": [{"name": "store", "emptyDir": {}}]}}, "spec.volumes", id="store"
        ),
        pytest.param(
            {"spec": {"containers": [{"image": "x"}]}},
            "spec.containers[node].command",
            id="a container without a name",
        ),
        pytest.param({"spec": {"containers": "x"}}, "spec.containers[node].command", id="no list"),
        pytest.param({"spec": "x"}, "spec.restartPolicy", id="no map"),
    ],
)
def test_a_patch_is_refused_that_would_break_us_by(patch: dict[str, Any], place: str) -> None:
    with pytest.raises(ProjectRefused) as refused:
        a_job(an_attempt(pod_template=patch))
    places = [problem.what.removeprefix("the patch changes ") for problem in refused.value.problems]
    assert place in places
    assert {problem.where for problem in refused.value.problems} == {
        "seeknal-k8s.yml nodes · transform.orders · pod_template"
    }
    with pytest.raises(UsageError, match=rf"SEEKNAL_K8S_NODE_POD_TEMPLATE.*{re.escape(place)}"):
        a_job(settings=some_settings(node_pod_template=patch))


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(node(resources={"requests": {"cpu": "100m"}}), id="asking for less"),
        pytest.param(node(resources={"limits": {"example.com/fpga": 1}}), id="another resource"),
        pytest.param(node(image="example.com/other"), id="another image"),
        pytest.param({"metadata": {"labels": {"team": "data"}}}, id="a label of its own"),
        pytest.param(
            {"spec": {"volumes": [{"name": "work", "emptyDir": None, "ephemeral": {}}]}},
            id="a disk of another kind",
        ),
        pytest.param({"spec": {"initContainers": [{"name": "wait"}]}}, id="something before it"),
    ],
)
def test_a_patch_may(patch: dict[str, Any]) -> None:
    a_job(an_attempt(pod_template=patch), some_settings(node_pod_template=patch))


def test_a_job_needs_an_image_and_a_store() -> None:
    with pytest.raises(UsageError, match=r"SEEKNAL_K8S_IMAGE is(.|\n)*SEEKNAL_K8S_STORE_CLAIM is"):
        a_job(settings=some_settings(image=None, store_claim=None))
