"""What the Kubernetes backend is for, once, as a whole: the example, submitted, under a quota, disturbed."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

from seeknal_k8s.store import Store
from tests.cluster.harness import REPOSITORY, until
from tests.faithful import EXAMPLE, copy_project, differences, states
from tests.on_kubernetes import LONG, Volume, evict, volume
from tests.projects import write
from tests.running import run
from tests.test_kubernetes_commands import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.harness import Namespace

QUOTA = {"pods": "12", "requests.memory": "8Gi", "limits.memory": "12Gi", "count/jobs.batch": "60"}
TIGHT, TAKEN = "transform.basket_pairs", "transform.customer_segments"
FREE = {"containers": [{"name": "node", "resources": {"requests": {"cpu": 0}}}]}
"""A patch by which pods do not wait for the two cores of a small machine."""


def let_wait(project: Path, store: Volume) -> None:
    """Have a node of the example wait for as long as there is a file; its hash stays as it is."""
    file = project / "seeknal" / "transforms" / "customer_segments.py"
    hold, began = (str(store.marks / name) for name in ("hold", "began"))
    waiting = f"""    import os, time
    while os.path.exists({hold!r}):
        open({began!r}, "w").close()
        time.sleep(0.05)
"""
    text, times = file.read_text(encoding="utf-8"), file.stat()
    head, found, body = text.partition('"""Return every customer\'s')
    assert found, "the node's function has another docstring"
    file.write_text(f"{head.rstrip(' ')}{waiting}    {found}{body}", encoding="utf-8")
    os.utime(file, (times.st_atime, times.st_mtime))


def test_the_example_is_submitted_disturbed_and_right(
    namespace: Namespace, image: str, tmp_path: Path
) -> None:
    with volume(namespace, image) as store:
        here = copy_project(EXAMPLE, tmp_path / "project")
        there = copy_project(EXAMPLE, store.path / "project")
        for project in (here, there):
            let_wait(project, store)
        assert run(here).results.success
        store.mark("hold")
        options = json.dumps({TIGHT: {"memory": "90Mi", "memory_max": "1Gi", "retries": 0}})
        own = (store.path / "project" / "seeknal-k8s.yml").read_text(encoding="utf-8")
        assert "nodes:" not in own or TIGHT in own
        write(store.path / "project", "seeknal-k8s.yml", f"nodes: {options}\n")
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "data"}}
        namespace.apply({**quota, "spec": {"hard": QUOTA}})
        rbac = REPOSITORY / "manifests" / "runner-rbac.yaml"
        namespace.kubectl("apply", "-f", str(rbac))

        def disturb() -> None:
            """Evict a node's pod while the node runs, and let the next one run through."""
            until((store.marks / "began").exists, f"a pod of {TAKEN}", seconds=4 * LONG)
            evict(store.namespace, store.pod(TAKEN))
            (store.marks / "hold").unlink()

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        settings = {"node_pod_template": json.dumps({"spec": FREE})}
        done = program(store, "submit", "--run-id", "r1", "--set", f"{TAKEN}:retries=0", **settings)
        disturbing.join()
        assert done.returncode == 0, done.stdout + done.stderr

        assert differences(here, store.path) == []
        assert states(store.path) == states(here)
        results = Store.of(store.path, store.path).run("r1").results()
        assert results is not None
        assert results.success
        assert results[TIGHT].attempts > 1  # out of memory, each time with more
        assert results[TAKEN].attempts == 2  # evicted, although it has no retries of its own
        others = {node: r.attempts for node, r in results.items() if node not in {TIGHT, TAKEN}}
        assert set(others.values()) == {1}
        assert set(done.stdout.split()) >= set(results)  # the table that was followed

        jobs = namespace.get("jobs")["items"]
        assert len(jobs) == 1 + sum(result.attempts for result in results.values())
        for job in jobs:
            assert job["spec"]["ttlSecondsAfterFinished"] == 86_400
            ended = {c["type"] for c in job["status"]["conditions"] if c["status"] == "True"}
            assert ended & {"Complete", "Failed"}
        running = [p for p in namespace.get("pods")["items"] if p["status"]["phase"] == "Running"]
        assert running == []
