"""The cluster that other tests rely on: it is real, it enforces, it runs our image, it can be asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import seeknal_k8s
from tests.cluster import harness
from tests.cluster.harness import PROJECT, REPOSITORY, CommandFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.harness import Cluster, Namespace

MAX_IMAGE = 1600
"""MB on disk, on a base of 200 MB: 1,461 in November 2026, of which 282 are bytecode."""

SMALL = 4_000_000
"""Bytes of a layer that nobody notices being built, pushed or pulled."""

PROBE = """
    import importlib.metadata, json, os, pathlib, shutil, subprocess, sys
    import seeknal_k8s

    def said(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()

    def refuses(path):
        try:
            pathlib.Path(path).write_text("")
        except OSError as error:
            return error.strerror
        return "nothing"

    script = pathlib.Path("/tmp/script.py")
    script.write_text("import seeknal, sys; print('Seeknal from', sys.prefix)")
    print(json.dumps({
        "ids": [os.getuid(), os.getgid()],
        "folder": os.getcwd(),
        "project": sorted(p.name for p in pathlib.Path("/project").iterdir()),
        "ours": seeknal_k8s.__file__.startswith("/opt/venv/"),
        "writing": {path: refuses(path) for path in ("/x", "/project/x", "/opt/venv/x", "/tmp/x")},
        "version": said("seeknal-k8s", "--version").split(" (")[0],
        "uv": said("uv", "--version").split()[1] == importlib.metadata.version("uv"),
        "uv run": said("uv", "run", "--offline", str(script)),
        "left over": [name for name in ("gcc", "cc", "make", "git") if shutil.which(name)],
    }))
"""


def job(name: str, image: str, *command: str) -> dict[str, Any]:
    """Return a Job that Pod Security *restricted* admits, its root file system read-only."""
    container = {
        "name": "main",
        "image": image,
        "command": command,
        "resources": {"limits": {"memory": "3Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the image's one writable folder
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def probe(cluster: Cluster, image: str) -> Iterator[dict[str, Any]]:
    """Return what a process in our image sees."""
    with cluster.namespace("probe") as namespace:
        namespace.apply(job("probe", image, "python", "-c", textwrap.dedent(PROBE)))
        assert namespace.ended("probe") == "Complete", namespace.kubectl("logs", "job/probe")
        yield json.loads(namespace.kubectl("logs", "job/probe"))


def test_the_cluster_is_a_kubernetes_that_we_support(cluster: Cluster) -> None:
    version = json.loads(cluster.kubectl("version", "--output", "json"))["serverVersion"]
    assert (int(version["major"]), int(version["minor"].rstrip("+"))) >= (1, 31)


def test_a_namespace_of_a_test_refuses_a_pod_that_is_not_restricted(namespace: Namespace) -> None:
    pod = {"containers": [{"name": "main", "image": "none"}]}
    careless = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "careless"}, "spec": pod}
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted'):
        namespace.apply(careless)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        pytest.param("ids", [10001, 10001], id="its user has a number and is not root"),
        pytest.param("folder", "/project", id="it starts in the project"),
        pytest.param("ours", True, id="it imports the installed package"),
        pytest.param("version", f"seeknal-k8s {seeknal_k8s.__version__}", id="our program runs"),
        pytest.param("uv", True, id="uv is the one that is locked"),
        pytest.param("uv run", "Seeknal from /opt/venv", id="uv runs a script with what is there"),
        pytest.param("left over", [], id="there is no compiler"),
    ],
)
def test_in_our_image(what: str, expected: object, probe: dict[str, Any]) -> None:
    assert probe[what] == expected


def test_in_our_image_only_tmp_can_be_written(probe: dict[str, Any]) -> None:
    writing = probe["writing"]
    assert writing.pop("/tmp/x") == "nothing"  # noqa: S108 - the image's one writable folder
    assert set(writing.values()) == {"Read-only file system"}


def test_in_our_image_the_project_has_nothing_that_runs_have_left(probe: dict[str, Any]) -> None:
    project = REPOSITORY / PROJECT
    files = [file.relative_to(project) for file in harness.sources() if project in file.parents]
    assert probe["project"] == sorted({file.parts[0] for file in files})


def test_the_example_runs_in_our_image_as_anybody(namespace: Namespace, image: str) -> None:
    run = "cp -r /project /tmp/shop && cd /tmp/shop && exec seeknal-k8s run --full"
    namespace.apply(job("run", image, "sh", "-c", run))
    how = namespace.ended("run", seconds=240)
    assert how == "Complete", namespace.kubectl("logs", "job/run")


def test_the_image_is_no_larger_than_it_has_to_be(
    cluster: Cluster, image: str, record_property: Callable[[str, object], None]
) -> None:
    if cluster.audit is None:
        pytest.skip("only our own node's images can be measured")
    sizes = [layer.size / 1e6 for layer in harness.layers(image)]
    told = " + ".join(f"{size:.1f}" for size in sizes)
    record_property("measured", f"the image has {sum(sizes):.0f} MB: {told}")
    assert sum(sizes) <= MAX_IMAGE


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return a copy of what makes the image, to change something in it."""
    for file in harness.sources():
        copy = tmp_path / file.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "layer"),
    [
        pytest.param(f"{PROJECT}/seeknal_project.yml", -1, id="of the project"),
        pytest.param("seeknal_k8s/names.py", -2, id="of our code"),
        pytest.param("pyproject.toml", -2, id="of a linter's settings"),
    ],
)
def test_only_one_small_layer_of_the_image_is_new_after_a_change(
    file: str, layer: int, cluster: Cluster, copied: Path
) -> None:
    if cluster.audit is None:
        pytest.skip("only our own node's images can be looked into")
    before = harness.layers(harness.build_image(copied))
    with (copied / file).open("a", encoding="utf-8") as opened:
        opened.write("# changed\n")
    after = harness.layers(harness.build_image(copied))
    assert before[layer].size < SMALL
    before[layer] = after[layer] = harness.Layer(0, "the one that may differ")
    assert before == after


def test_the_audit_log_tells_what_was_asked_and_how_often(audited: Namespace) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "asked"}}
    audited.kubectl("create", "-f", "-", stdin=json.dumps(config_map))
    with pytest.raises(CommandFailed):
        audited.kubectl("create", "-f", "-", stdin=json.dumps(config_map))
    audited.kubectl("delete", "configmap", "asked", "--wait=false")
    path = f"/api/v1/namespaces/{audited.name}/configmaps?watch=1&timeoutSeconds=1"
    audited.cluster.kubectl("get", "--raw", path)

    asked = audited.requests(agent="kubectl/")
    assert [(request.call, request.name, request.code) for request in asked] == [
        ("create configmaps", "asked", 201),
        ("create configmaps", "asked", 409),
        ("delete configmaps", "asked", 200),
        ("watch configmaps", "", 200),
    ]
    assert {request.user for request in asked} == {"admin"}


def test_the_audit_log_of_one_test_does_not_show_another(audited: Namespace) -> None:
    with audited.cluster.namespace("another") as another:
        another.get("pods")
        assert Counter(r.call for r in another.requests(agent="kubectl/")) == {"list pods": 1}
    assert audited.requests(agent="kubectl/") == []


@pytest.fixture
def empty_machine(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a machine on which no cluster has been built."""
    kept = {key: value for key, value in os.environ.items() if key != "CI"}
    return {**kept, "CLUSTER_ROOT": str(tmp_path)}


@pytest.mark.parametrize(
    ("ci", "outcome"),
    [
        pytest.param({}, "1 skipped", id="is skipped"),
        pytest.param({"CI": "true"}, "1 error", id="fails in continuous integration"),
    ],
)
def test_without_a_cluster_a_test_that_needs_one(
    ci: dict[str, str], outcome: str, empty_machine: dict[str, str]
) -> None:
    wanted = f"{__file__}::test_the_cluster_is_a_kubernetes_that_we_support"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", wanted],
        cwd=REPOSITORY,
        env={**empty_machine, **ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f" {outcome} in " in done.stdout, done.stdout
    assert "no cluster: this needs" in done.stdout
    assert "kubelet, coredns, buildkitd, which `make cluster-build` compiles" in done.stdout


def test_down_leaves_no_process_and_no_state(cluster: Cluster, tmp_path: Path) -> None:
    """A second control plane beside the first one, which other tests are using."""
    if cluster.audit is None:
        pytest.skip("only our own cluster can be started and stopped")
    (tmp_path / "bin").symlink_to(harness.root() / "bin")
    second = {"CLUSTER_ROOT": str(tmp_path), "CLUSTER_PORT": "17443"}
    try:
        harness.program("up", "--control-plane-only", **second)
        assert _processes(tmp_path) == 4
    finally:
        harness.program("down", **second)
    assert _processes(tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["bin", "log"]
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def _processes(folder: Path) -> int:
    """Count the processes that have this folder in their arguments."""
    own = {process.pid for process in psutil.Process().parents()} | {os.getpid()}
    return sum(
        any(f"{folder}/" in argument for argument in process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in own
    )
