"""Settings: where each value comes from, what is refused and how, and their page in the docs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from seeknal_k8s import settings
from seeknal_k8s.errors import UsageError
from seeknal_k8s.settings import PREFIX, Settings, load

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("field", "written", "value"),
    [
        pytest.param("namespace", "data", "data", id="a text"),
        pytest.param("max_jobs", "7", 7, id="a number"),
        pytest.param("ttl", "2h", 7200, id="a duration"),
        pytest.param("ttl", "90", 90, id="a duration in seconds"),
        pytest.param("queue_timeout", "1.5", 2, id="a part of a second, rounded up"),
        pytest.param("image_pull_secrets", "one, two", ("one", "two"), id="a list"),
        pytest.param("image_pull_secrets", "one", ("one",), id="a list of one"),
        pytest.param("labels", '{"team": "data"}', {"team": "data"}, id="a map"),
        pytest.param(
            "node_pod_template", '{"spec": {"a": [1]}}', {"spec": {"a": [1]}}, id="a patch"
        ),
        pytest.param("queue", "", None, id="an empty variable is none"),
        pytest.param("labels", "", {}, id="also for a map"),
    ],
)
def test_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, field: str, written: str, value: object
) -> None:
    monkeypatch.setenv(PREFIX + field.upper(), written)
    assert getattr(load(), field) == value


def test_an_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEKNAL_K8S_NAMESPACE", "from-environment")
    assert load(namespace="given").namespace == "given"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().namespace = "other"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"namespace": "Data"}, "NAMESPACE: 'Data' is not a name of l", id="case"),
        pytest.param({"namespace": "a.b"}, "NAMESPACE: 'a.b' is not", id="a dot in a namespace"),
        pytest.param({"namespace": "a\n"}, r"NAMESPACE: 'a\\n' is not", id="a line break"),
        pytest.param({"namespace": "a" * 64}, "up to 63 characters", id="too long"),
        pytest.param({"image": "a b"}, "IMAGE: 'a b' is not the name of an image", id="image"),
        pytest.param({"image_pull_policy": "always"}, "should be 'Always', 'If", id="a policy"),
        pytest.param({"image_pull_secrets": "a,B"}, "SECRETS.1: 'B' is not", id="one of a list"),
        pytest.param({"context": ""}, "CONTEXT: '' should have at least 1", id="no context"),
        pytest.param({"max_jobs": 0}, "MAX_JOBS: 0 should be greater than or eq", id="too few"),
        pytest.param({"max_jobs": 10_001}, "should be less than or equal", id="too many"),
        pytest.param({"ttl": "59s"}, "TTL: '59s' is not between 1m and", id="a short TTL"),
        pytest.param({"ttl": "1d"}, "TTL: '1d' is not a duration; write", id="days"),
        pytest.param({"start_timeout": "721h"}, "START_TIMEOUT: '721h' is not", id="a month"),
        pytest.param({"store_path": "store"}, "STORE_PATH: 'store' is not an abs", id="relative"),
        pytest.param({"store_path": "/a/../b"}, "STORE_PATH: '/a/../b' is not", id="roundabout"),
        pytest.param({"store_path": "//a"}, "STORE_PATH: '//a' is not an abs", id="two slashes"),
        pytest.param({"store_path": "/"}, "STORE_PATH: '/' cannot be mounted", id="the root"),
        pytest.param({"store_path": "/a:b"}, "cannot be mounted", id="a colon"),
        pytest.param({"store_path": "/work/a"}, "STORE_PATH: /work/a is in", id="a pod's disk"),
        pytest.param({"project_path": "/tmp"}, "PROJECT_PATH: /tmp is in", id="its other one"),  # noqa: S108
        pytest.param({"project_path": "/store"}, "they are the same", id="one path for both"),
        pytest.param(
            {"store_claim": "a", "store_host_path": "/b"},
            "STORE_CLAIM and SEEKNAL_K8S_STORE_HOST_PATH: set only one",
            id="two stores",
        ),
        pytest.param(
            {"project_claim": "a", "project_host_path": "/b"},
            "PROJECT_CLAIM and SEEKNAL_K8S_PROJECT_HOST_PATH: set only one",
            id="two projects",
        ),
        pytest.param(
            {"project_claim": "a", "store_claim": "a"},
            "leave this out and set SEEKNAL_K8S_PROJECT_PATH to .* below /store",
            id="one volume for both",
        ),
        pytest.param({"labels": "team=data"}, "LABELS: it is not JSON; write a map", id="no map"),
        pytest.param({"labels": "[]"}, "LABELS: should be a valid dictionary", id="a list"),
        pytest.param({"labels": {"a b": "c"}}, "LABELS.a b: 'a b' is not a key", id="a key"),
        pytest.param({"labels": {"a": "b c"}}, "LABELS.a: 'b c' is not a label", id="a value"),
        pytest.param({"labels": {"seeknal.io/run": "a"}}, "`seeknal.io/run` is not for", id="run"),
        pytest.param(
            {"labels": {"prefect.io/flow-run-id": "a"}},
            "`prefect.io/flow-run-id` is not for you to set",
            id="a label with which Prefect would take over",
        ),
        pytest.param(
            {"node_pod_template": {"speck": {}}}, "TEMPLATE.speck: should be", id="a typing error"
        ),
        pytest.param({"colour": "red"}, "there is no setting `colour`", id="an unknown one"),
    ],
)
def test_what_is_wrong_is_told_with_the_name_of_the_variable(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load(**given)


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError) as wrong:
        load(namespace="A", max_jobs=0)
    assert [line.partition(":")[0] for line in str(wrong.value).splitlines()] == [
        "SEEKNAL_K8S_NAMESPACE",
        "SEEKNAL_K8S_MAX_JOBS",
    ]


def test_values_inside_a_patch_are_not_repeated() -> None:
    with pytest.raises(UsageError) as wrong:
        load(node_pod_template={"password": "hunter2"})
    assert "hunter2" not in str(wrong.value)


def test_a_misspelt_variable_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEKNAL_K8S_NAMESPCE", "data")
    with pytest.raises(UsageError, match=r"_NAMESPCE: there is no .* did you mean .*_NAMESPACE"):
        load()


def test_variables_that_kubernetes_sets_for_a_service_of_our_name_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(PREFIX + name, "10.0.0.1")
    assert load() == Settings()


def test_jobs_need_an_image_and_one_volume_for_the_store() -> None:
    with pytest.raises(UsageError) as missing:
        load().ensure_runnable()
    assert [line.partition(" ")[0] for line in str(missing.value).splitlines()] == [
        "SEEKNAL_K8S_IMAGE",
        "SEEKNAL_K8S_STORE_CLAIM",
    ]
    load(image="a", store_claim="b").ensure_runnable()
    load(image="a", store_host_path="/b").ensure_runnable()


def test_every_setting_has_a_sentence() -> None:
    assert [row.env for row in settings.documented() if not row.description.endswith(".")] == []


def test_the_page_is_the_one_of_the_code() -> None:
    command = [sys.executable, "-m", "seeknal_k8s.settings"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert PAGE.read_text(encoding="utf-8") == printed, (
        "write it anew: python -m seeknal_k8s.settings > docs/settings.md"
    )


@pytest.mark.parametrize("row", settings.documented(), ids=lambda row: row.env)
def test_a_documented_default_is_what_one_gets_by_writing_it(
    row: settings.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(row.env, row.default.strip("`").replace("none", ""))
    assert load() == Settings()
