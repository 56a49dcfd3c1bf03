"""The commands for Kubernetes as far as they need none: manifests, timelines, verdicts on leftovers, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
import yaml

from seeknal_k8s import cleaning, submission
from seeknal_k8s.cli.app import execute
from seeknal_k8s.errors import UsageError
from seeknal_k8s.options.text import documents
from seeknal_k8s.request import RunRequest, settled
from seeknal_k8s.results import RunResults
from seeknal_k8s.settings import Settings
from seeknal_k8s.store import Store
from tests import podsecurity
from tests.faithful import EXAMPLE, environment
from tests.manifests import some_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RUN = "20260102-090000-ab12"


def program(
    home: Path, *arguments: str, cwd: Path = EXAMPLE, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    given = {"image": "example.com/shop:1", "store_claim": "store", **(settings or {})}
    ours = {f"SEEKNAL_K8S_{name.upper()}": value for name, value in given.items()}
    command = [sys.executable, "-m", "seeknal_k8s", *arguments]
    env = {**environment(home), **ours, "KUBECONFIG": str(home / "nowhere")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=120
    )


@pytest.mark.parametrize("command", ["render", "submit", "why", "cancel", "reap"])
def test_every_command_has_help_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([command, "-h"]) == 0
    said = capsys.readouterr().out
    assert "Examples" in said
    assert f"seeknal-k8s {command}" in said
    assert "--json" in said


# --- render ---------------------------------------------------------------------------------------


def test_render_prints_the_anchor_and_then_a_job_for_each_node(tmp_path: Path) -> None:
    done = program(tmp_path, "render", "--set", "source.orders:memory=3Gi")
    assert done.returncode == 0, done.stderr
    anchor, *jobs = list(yaml.safe_load_all(done.stdout))
    assert anchor["kind"] == "ConfigMap"
    assert anchor["data"]["run"] == "preview"
    assert len(jobs) == 25
    for job in jobs:
        assert job["metadata"]["ownerReferences"][0]["name"] == anchor["metadata"]["name"]
        assert podsecurity.violations(job["spec"]["template"]) == []
    named = {job["metadata"]["annotations"]["seeknal.io/node-id"]: job for job in jobs}
    (container,) = named["source.orders"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "3Gi"
    assert container["command"][-1].startswith("/store/runs/preview/bundles/source-orders-")
    assert container["command"][-1].endswith("/1/order.json")


def test_render_says_the_same_again_as_yaml_and_as_json(tmp_path: Path) -> None:
    asked = ("render", "orders", "-C", str(EXAMPLE), "--run-id", "r1")
    text = program(tmp_path, *asked, cwd=tmp_path).stdout
    listed = json.loads(program(tmp_path, *asked, "--json", cwd=tmp_path).stdout)
    assert listed["kind"] == "List"
    assert listed["items"] == list(yaml.safe_load_all(text))
    anchor, job = listed["items"]
    assert anchor["data"]["run"] == "r1"
    assert job["metadata"]["labels"]["seeknal.io/node"] == "source.orders"
    assert program(tmp_path, *asked, cwd=tmp_path).stdout == text


def test_yaml_keeps_the_order_of_keys_and_writes_everything_out() -> None:
    shared = {"b": "on", "a": ["1", "0o7", "Größe"]}
    text = documents([{"z": shared, "y": shared}])
    assert text.startswith("---\nz:\n  b: 'on'\n  a:\n    - '1'\n")
    assert "&" not in text
    assert "Größe" in text
    assert yaml.safe_load(text) == {"z": shared, "y": shared}


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "message"),
    [
        pytest.param(
            ["render"], {"image": ""}, 2, "SEEKNAL_K8S_IMAGE is not set", id="without an image"
        ),
        pytest.param(
            ["render", "order"], {}, 78, "did you mean source.orders", id="a node there is not"
        ),
        pytest.param(["render", "--run-id", "a b"], {}, 2, "--run-id 'a b'", id="an odd run id"),
        pytest.param(
            ["run", "--on", "kubernetes"],
            {"store_path": "/no/such/volume"},
            69,
            "the store /no/such/volume is not there on this machine: it is a volume of the cluster "
            "(store), which only pods mount\n  → start it inside the cluster: ",
            id="a store that only pods see",
        ),
        pytest.param(
            ["run", "--on", "kubernetes", "--store", "/elsewhere"],
            {},
            2,
            "every pod has the store at /store",
            id="another store than the pods'",
        ),
        pytest.param(
            ["run", "--resume-if-started"],
            {},
            2,
            "needs the run's id",
            id="resume nobody knows what",
        ),
        pytest.param(
            ["submit", "--attach", "r1", "--full"],
            {},
            2,
            "leave the rest out",
            id="attach and more",
        ),
        pytest.param(
            ["submit", "--profile", str(EXAMPLE / "seeknal_project.yml")],
            {},
            2,
            "which pods do not see",
            id="a profile of this machine",
        ),
        pytest.param(["submit", "--date", "soon"], {}, 2, "is not a day", id="submit an odd date"),
        pytest.param(
            ["reap", "--older-than", "soon"], {}, 2, "'soon' is not a duration", id="an odd age"
        ),
        pytest.param(
            ["cancel", "r1", "--store", "nowhere"],
            {},
            2,
            "there is no store in",
            id="no store there",
        ),
        pytest.param(
            ["why", "orders"], {}, 78, "There is no kubeconfig at", id="no cluster to ask why"
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], code: int, message: str
) -> None:
    done = program(tmp_path, *arguments, settings=settings)
    assert message in done.stderr
    assert done.returncode == code
    assert done.stdout == ""


# --- submit ---------------------------------------------------------------------------------------


def test_settings_are_the_same_after_a_journey_as_environment() -> None:
    settings = some_settings(
        context="laptop",
        namespace="data",
        image_pull_secrets=("one", "two"),
        ttl="2h",
        labels={"team": "data"},
        node_pod_template={"spec": {"dnsPolicy": "Default"}},
        max_jobs=7,
    )
    given = submission.environment(settings)
    assert "SEEKNAL_K8S_CONTEXT" not in given
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        assert Settings() == settings.model_copy(update={"context": None})


def test_the_runner_is_restricted_and_has_a_token_and_is_repeated_for_the_platform_only() -> None:
    settings = some_settings(queue="team", runner_service_account="runs", annotations={"a": "b"})
    job = submission.build(RUN, ["run", "$HOME"], settings, cpu="250m", memory="1Gi")
    assert job["metadata"]["name"] == submission.runner_name(RUN)
    assert job["metadata"]["labels"]["seeknal.io/run"] == RUN
    assert job["metadata"]["labels"]["app.kubernetes.io/component"] == cleaning.RUNNER
    assert "ownerReferences" not in job["metadata"]
    assert job["spec"].keys() & {"suspend", "activeDeadlineSeconds"} == set()
    pod = job["spec"]["template"]["spec"]
    assert podsecurity.violations(job["spec"]["template"]) == []
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("runs", True)
    (container,) = pod["containers"]
    assert container["command"] == ["seeknal-k8s", "run", "$$HOME"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert variables["SEEKNAL_K8S_QUEUE"] == "team"
    assert variables["HOME"] == "/work"
    disrupted, final = job["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore"
    assert final["onExitCodes"]["values"] == [1, 2, 75, 78]


@pytest.mark.parametrize("run_id", ["a", "Läuft.Heute", "x" * 63])
def test_the_name_of_a_runner_leaves_room_for_that_of_its_pod(run_id: str) -> None:
    assert len(submission.runner_name(run_id)) <= 57


def test_a_runner_that_cannot_be_sized_is_refused() -> None:
    with pytest.raises(UsageError, match="--runner-cpu: 'many' is not a quantity"):
        submission.build(RUN, [], some_settings(), cpu="many", memory="1Gi")


def test_a_repeated_command_goes_on_where_the_first_one_stopped(tmp_path: Path) -> None:
    store = Store.of(tmp_path, tmp_path)
    asked = RunRequest(project=tmp_path, store=tmp_path, run_id="r1", resume_if_started=True)
    assert settled(asked, store).request == asked
    folder = store.new_run("r1")
    assert settled(asked, store).request == asked  # it had not begun, so it is no run
    wanted = {"select": ["a"], "exclude": [], "full": False, "params": {}, "profile": None}
    folder.note(status="running", request=wanted, pins={"today": "2024-01-01"})
    again = settled(asked, store)
    assert (again.request.resume, again.request.run_id, again.ended) == ("r1", None, None)
    assert (again.request.select, again.pins) == (("a",), {"today": "2024-01-01"})
    folder.write_results(RunResults(run_id="r1"))
    assert settled(asked, store).ended is None
    folder.note(status="failed")
    assert settled(asked, store).ended == RunResults(run_id="r1")
    again = settled(replace(asked, retry_failed=True), store)
    assert (again.request.resume, again.ended) == ("r1", None)


def test_a_run_does_not_take_the_id_of_a_backfill(tmp_path: Path) -> None:
    store = Store.of(tmp_path, tmp_path)
    store.new_run("b1").note(kind="backfill", node="transform.a", status="running")
    for again in (False, True):
        asked = RunRequest(tmp_path, store=tmp_path, run_id="b1", resume_if_started=again)
        with pytest.raises(UsageError, match="'b1' is a backfill of transform"):
            settled(asked, store)


def test_nothing_of_a_manifest_is_lost_on_the_way_through_yaml() -> None:
    job = submission.build(RUN, ["run"], some_settings(), cpu="1", memory="1Gi")
    assert msgspec.json.encode(yaml.safe_load(documents([job]))) == msgspec.json.encode(job)
