"""The commands for Kubernetes on a real cluster: render, submit, why, cancel, reap, and plain kubectl."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s.store import Store
from tests.cluster.harness import REPOSITORY, until
from tests.faithful import EXAMPLE, copy_project
from tests.on_kubernetes import LONG, Volume, volume
from tests.running import new_project, python
from tests.small import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.harness import Namespace

RBAC = REPOSITORY / "manifests" / "runner-rbac.yaml"
PAGE = REPOSITORY / "docs" / "kubectl.md"


@pytest.fixture
def store(namespace: Namespace, image: str) -> Iterator[Volume]:
    with volume(namespace, image) as ours:
        yield ours


def program(store: Volume, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=store.environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def said(store: Volume, *arguments: str, **settings: str) -> str:
    done = program(store, *arguments, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def asked(store: Volume, *arguments: str, **settings: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(store, *arguments, "--json", **settings))
    return found


def waiting(store: Volume, *names: str) -> None:
    """Make a project of nodes that run until the test says so."""
    project = new_project(store.path)
    for name in names:
        python(
            project,
            name,
            f"""
            open({str(store.marks / name)!r}, "w").close()
            print("{name} runs", flush=True)
            while not os.path.exists({str(store.marks / "go")!r}):
                time.sleep(0.05)
            """,
        )


@contextlib.contextmanager
def running(store: Volume) -> Iterator[subprocess.Popen[str]]:
    """Run the project outside of the cluster; a test that fails does not wait for it."""
    with store.start("--run-id", "r1") as run:
        try:
            yield run
        finally:
            run.kill()


def runner(store: Volume, run: str) -> list[dict[str, Any]]:
    """Return the pods of a submitted run's coordinator."""
    labels = f"seeknal.io/run={run},app.kubernetes.io/component=runner"
    return list(store.namespace.get("pods", "-l", labels)["items"])


def test_the_server_takes_what_render_prints(store: Volume) -> None:
    copy_project(EXAMPLE, store.path / "project")
    text = said(store, "render", "-C", str(store.path / "project"))
    taken = store.namespace.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
    assert taken.count("created (server dry run)") == 26
    assert store.jobs() == []


def test_a_living_run_is_told_about_spared_and_cancelled(store: Volume) -> None:
    waiting(store, "one", "two")
    with running(store) as run:
        for name in ("one", "two"):
            store.wait_for_mark(name)
        told = until(
            lambda: (found := asked(store, "why", "one"))["state"] == "running" and found,
            "why sees that it runs",
        )
        assert set(told["clocks"]) == {"queued", "scheduling", "starting", "running"}
        steps = [step["what"] for step in told["timeline"]]
        assert [s for s in steps if s in {"Job created", "scheduled", "started"}] == [
            "Job created",
            "scheduled",
            "started",
        ]
        assert told["limits"]["memory"] == "2Gi"
        (listed,) = asked(store, "reap", "--older-than", "1s", "--yes")["runs"]
        assert (listed["run_id"], listed["due"]) == ("r1", False)
        assert listed["why"] == "its coordinator holds the store's lock"
        assert len(store.pods()) == 2
        cancelled = asked(store, "cancel", "latest")
        assert cancelled == {
            "run_id": "r1",
            "namespace": store.namespace.name,
            "ended": 2,
            "left": 0,
        }
        assert (store.jobs(), store.pods()) == ([], [])
        assert run.wait(timeout=LONG) == 1
        assert run.stdout
        assert "JobDeleted" in run.stdout.read()
    assert "there was no Job to end" in said(store, "cancel", "r1")


def test_what_a_killed_coordinator_left_is_reaped(store: Volume) -> None:
    waiting(store, "one", "two")
    with running(store) as run:
        store.wait_for_mark("one")
        run.kill()
    (young,) = asked(store, "reap")["runs"]
    assert (young["dead"], young["due"]) == (True, False)
    elsewhere = {"store_path": "/no/such/volume"}
    (unseen,) = asked(store, "reap", "--older-than", "1s", "--yes", **elsewhere)["runs"]
    assert (unseen["dead"], unseen["due"]) == (False, False)
    old = until(
        lambda: (found := asked(store, "reap", "--older-than", "1s"))["runs"][0]["due"] and found,
        "it is older than a second",
    )
    assert old["runs"][0]["why"] == "its coordinator has died"
    assert store.jobs()
    assert "removed" in said(store, "reap", "--older-than", "1s", "--yes")
    assert (store.jobs(), store.pods()) == ([], [])
    assert store.namespace.get("configmap", "-l", "seeknal.io/run")["items"] == []
    assert asked(store, "reap")["runs"] == []


def test_why_knows_a_failed_node_with_its_job_and_without(store: Volume) -> None:
    python(new_project(store.path), "fails", 'raise ValueError("the 7th row is odd")')
    with running(store) as run:
        assert run.wait(timeout=LONG) == 1
    told = asked(store, "why", "fails")
    assert (told["exit_code"], told["reason"], told["fault"]) == (1, "NodeFailed", "node")
    assert "the 7th row is odd" in told["message"]
    assert told["peak_memory_bytes"] > 1 << 20
    assert told["timeline"][-1]["what"] == "Job failed"
    page = said(store, "why", "fails", "--run", "r1")
    assert "NodeFailed: the node failed (exit code 1)" in page
    assert "logs transform.fails" in page
    outside = asked(store, "why", "fails", "--run", "r1", store_path="/no/such/volume")
    assert (outside["exit_code"], outside["peak_memory_bytes"]) == (1, None)
    assert "cancel" not in said(store, "cancel", "r1")
    gone = asked(store, "why", "fails")
    assert (gone["job"], gone["exit_code"], gone["reason"]) == (None, 1, "NodeFailed")
    assert [step["what"] for step in gone["timeline"]] == ["started", "process ended"]


def test_a_submitted_run_survives_us_and_its_own_pod(store: Volume) -> None:
    """It is refused without rights, restarted when its pod goes, and does only what it has to."""
    waiting(store, "one")
    store.namespace.kubectl("apply", "-f", str(RBAC))
    assert said(store, "submit", "--run-id", "r1", "--detach").startswith("run r1 is submitted")
    again = program(store, "submit", "--run-id", "r1", "--detach")
    assert (again.returncode, "submit --attach r1" in again.stderr) == (2, True)
    store.wait_for_mark("one")
    (first,) = runner(store, "r1")
    store.namespace.kubectl("delete", "pod", first["metadata"]["name"], "--wait=false")
    until(
        lambda: [
            pod for pod in runner(store, "r1") if pod["metadata"]["uid"] != first["metadata"]["uid"]
        ],
        "another coordinator",
        seconds=LONG,
    )
    (spared,) = asked(store, "reap", "--older-than", "1s", "--yes")["runs"]
    assert spared["why"] == "its coordinator runs inside the cluster"
    store.mark("go")
    followed = program(store, "submit", "--attach", "latest")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert "✓ transform.one" in followed.stdout
    assert "1 node succeeded" in followed.stdout
    assert_only_its_rights_are_used(store.namespace)


def assert_only_its_rights_are_used(namespace: Namespace) -> None:
    """By the audit log: the coordinator asked for what its Role allows, and for nearly all of it."""
    account = f"system:serviceaccount:{namespace.name}:seeknal-runner"
    used = {request.call for request in namespace.requests() if request.user == account}
    rules = namespace.get("role", "seeknal-runner")["rules"]
    allowed = {
        f"{verb} {name}" for rule in rules for name in rule["resources"] for verb in rule["verbs"]
    }
    assert used <= allowed
    sometimes = {"get pods", "get pods/log", "list events"}  # of nodes that do not get on
    sometimes |= {"delete configmaps", "deletecollection jobs"}  # of flow runs that are cancelled
    sometimes |= {"patch jobs"}  # of an Indexed Job's speed
    assert allowed - sometimes <= used


def test_the_exit_code_of_a_submitted_run_is_passed_on(store: Volume) -> None:
    python(new_project(store.path), "fails", 'raise ValueError("no")')
    missing = program(store, "submit", "--run-id", "r0", "--detach")
    assert missing.returncode == 0
    because = until(
        lambda: store.namespace.get("events", "--field-selector=reason=FailedCreate")["items"],
        "the refusal of a pod without a service account",
    )
    assert "seeknal-runner" in because[0]["message"]
    said(store, "cancel", "r0")
    store.namespace.kubectl("apply", "-f", str(RBAC))
    done = program(store, "submit", "--run-id", "r1", "--set", "retries=0")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "✗ transform.fails" in done.stdout
    assert asked(store, "cancel", "r1")["ended"] == 2
    after = program(store, "submit", "--attach", "r1")
    assert (after.returncode, "was cancelled" in after.stderr) == (2, True)


def test_a_submitted_run_that_has_failed_goes_on_where_it_ended(store: Volume) -> None:
    project = new_project(store.path)
    python(project, "good", "pass")
    mended = store.marks / "mended"
    python(project, "bad", f"if not os.path.exists({str(mended)!r}): raise ValueError('not yet')")
    store.namespace.kubectl("apply", "-f", str(RBAC))
    first = program(store, "submit", "--run-id", "r1", "--set", "retries=0")
    assert first.returncode == 1, first.stdout + first.stderr
    refused = program(store, "submit", "--resume", "r1", "--full")
    assert (refused.returncode, "--full" in refused.stderr) == (2, True)
    mended.touch()
    again = program(store, "submit", "--resume", "latest")
    assert again.returncode == 0, again.stdout + again.stderr
    results = Store.of(store.path, store.path).run("r1").results()
    assert results is not None
    ended = {node: (result.reason, result.attempts) for node, result in results.items()}
    assert ended == {"transform.good": ("Succeeded", 1), "transform.bad": ("Succeeded", 2)}


def test_a_run_that_has_not_ended_is_not_submitted_a_second_time(store: Volume) -> None:
    waiting(store, "one")
    store.namespace.kubectl("apply", "-f", str(RBAC))
    said(store, "submit", "--run-id", "r1", "--detach")
    store.wait_for_mark("one")
    again = program(store, "submit", "--resume", "r1")
    assert (again.returncode, "submit --attach r1" in again.stderr) == (2, True)
    store.mark("go")


def commands() -> list[str]:
    """Return the commands of the page, in order."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("kubectl ")]


def test_every_command_of_the_page_for_kubectl_works(store: Volume, tmp_path: Path) -> None:
    waiting(store, "one")
    store.namespace.kubectl("apply", "-f", str(RBAC))
    said(store, "submit", "--run-id", "r1", "--detach")
    store.wait_for_mark("one")
    config = tmp_path / "kubeconfig"
    config.write_bytes(store.namespace.cluster.kubeconfig.read_bytes())
    env = {**store.namespace.cluster.env, "KUBECONFIG": str(config)}
    env |= {"RUN": "r1", "NODE": "transform.one"}

    def shell(command: str) -> str:
        done = subprocess.run(
            ["/bin/bash", "-euc", command], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        return done.stdout

    shell(f"kubectl config set-context --current --namespace {store.namespace.name}")
    *looks, cancel = commands()
    assert cancel.startswith("kubectl delete ")
    heard = {command: shell(command) for command in looks}
    (log,) = [text for command, text in heard.items() if "logs" in command and "NODE" in command]
    assert "one runs" in log
    (coordinator,) = [text for command, text in heard.items() if "component=runner" in command]
    assert "transform.one started" in coordinator
    table = next(text for command, text in heard.items() if "-L seeknal.io/node" in command)
    assert re.search(r"transform\.one +1 +1 +2Gi", table)
    shell(cancel)
    until(lambda: (store.jobs(), store.pods()) == ([], []), "the end of all", seconds=LONG)
