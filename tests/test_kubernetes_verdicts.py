"""Everything that can become of a node's Job, provoked on a real cluster, most of it in one run."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from seeknal_k8s.events import NodeRetrying
from tests.cluster.harness import until
from tests.on_kubernetes import LONG, Volume, evict, volume
from tests.projects import transform
from tests.running import log, new_project, python

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seeknal_k8s.results import PrefectRunResult
    from tests.cluster.harness import Cluster

# The patch lets any number of nodes run at once, whatever else the machine has promised.
OPTIONS = """
    defaults:
      backoff: 1s
      memory: 1Gi
      pod_template:
        spec: {containers: [{name: node, resources: {requests: {cpu: 0, memory: 0}}}]}
    nodes:
      transform.fails: {retries: 1}
      transform.heals: {memory: 640Mi, memory_max: 1200Mi}
      transform.never_has_enough: {memory: 512Mi, memory_max: 600Mi}
      transform.ends_well_all_the_same: {memory: 640Mi}
      transform.too_much_sql: {memory: 1500Mi}
      transform.fills_its_disk: {ephemeral_storage: 50Mi}
      transform.takes_too_long: {timeout: 45s}
      transform.overdue: {timeout: 1h}
      transform.no_image: {image: "localhost:1/nobody/nothing:1"}
      transform.odd_image: {image: "UPPER/case:1:2"}
      transform.no_secret: {env_from: [nowhere]}
      transform.no_config_map:
        pod_template:
          spec:
            volumes: [{name: extra, configMap: {name: nowhere}}]
            containers: [{name: node, volumeMounts: [{name: extra, mountPath: /extra}]}]
      transform.no_claim:
        pod_template:
          spec: {volumes: [{name: extra, persistentVolumeClaim: {claimName: nowhere}}]}
      transform.too_big:
        cpu: 1000
        pod_template:
          spec: {containers: [{name: node, resources: {requests: {cpu: 1000}}}]}
      transform.over_quota: {gpu: 1, retries: 3}
      transform.not_restricted:
        pod_template:
          spec: {containers: [{name: node, securityContext: {allowPrivilegeEscalation: true}}]}
      transform.no_account: {service_account: nobody}
      transform.in_a_queue: {queue: nobody}
      transform.preempted:
        memory: MOST
        priority_class: LOW
        pod_template:
          spec: {containers: [{name: node, resources: {requests: {cpu: 0, memory: MOST}}}]}
      transform.lost:
        node_selector: {"test/LOST": "yes"}
        tolerations: [{operator: Exists}]
      transform.silent:
        node_selector: {"test/SILENT": "yes"}
        tolerations:
          - {key: test/lost, operator: Exists}
          - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute}
          - key: node.kubernetes.io/unreachable
            operator: Exists
            effect: NoExecute
            tolerationSeconds: 1
"""

CLOCKS = {
    "queue_timeout": "25s",
    "schedule_timeout": "60s",
    "start_timeout": "60s",
    "image_pull_grace": "3s",
    "deadline_margin": "1s",
}


def sleeps_once(mark: str) -> str:
    """Return the body of a node that, the first time, says that it runs and waits for its end."""
    return f"""
        if not os.path.exists({mark!r}):
            open({mark!r}, "w").close()
            time.sleep(1000)
    """


DISTURBED = ("overdue", "evicted", "preempted", "its_pod_is_deleted", "its_job_is_deleted")
LOST = ("lost", "silent")
WAITING = (
    *("no_image", "odd_image", "no_secret", "no_config_map", "no_claim", "too_big", "over_quota"),
    *("not_restricted", "no_account", "in_a_queue"),
)
HOG = "b'x' * (2 << 30)"


def build(volume: Volume, options: str) -> None:
    """Make the project: no node needs another."""
    project = new_project(volume.path, options)
    python(project, "succeeds", "print('this is it')")
    python(project, "fails", "print('before', file=sys.stderr); raise ValueError('on purpose')")
    spoil = 'atexit.register(os.truncate, "target/intermediate/transform_spoilt.parquet", 8)'
    python(project, "spoilt", f"import atexit; {spoil}")
    python(project, "heals", "much = b'x' * (450 << 20)")
    python(project, "never_has_enough", f"print('so far', flush=True); much = {HOG}")
    hungry = f'subprocess.run([sys.executable, "-c", "x = {HOG}"], check=False)'
    python(project, "ends_well_all_the_same", hungry)
    transform(project, "too_much_sql", "SELECT list(range) AS l FROM range(1000000000)")
    fill = """
        with open(os.path.join(os.environ["TMPDIR"], "much"), "wb") as file:
            file.write(bytes(200 << 20))
        time.sleep(1000)
    """
    python(project, "fills_its_disk", fill)
    python(project, "takes_too_long", "print('begun', flush=True); time.sleep(1000)")
    for name in (*DISTURBED, *LOST):
        python(project, name, sleeps_once(str(volume.marks / name)))
    for name in WAITING:
        python(project, name, "pass")


class Gallery:
    """The run with all of them."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.namespace = volume.namespace
        suffix = uuid.uuid4().hex[:8]
        self.low, self.high = f"low-{suffix}", f"high-{suffix}"
        self.lost = {name: f"{name}-{suffix}" for name in LOST}
        (machine,) = self.namespace.get("nodes", "-l", "type!=kwok,!test/lost")["items"]
        self.machine = machine["metadata"]["name"]
        self.most = f"{int(machine['status']['allocatable']['memory'][:-2]) * 6 // 10}Ki"
        names = {"MOST": self.most, "LOW": self.low}
        names |= {name.upper(): machine for name, machine in self.lost.items()}
        build(volume, re.sub("|".join(names), lambda found: names[found[0]], OPTIONS))
        with contextlib.ExitStack() as stack:
            self._prepare(stack)
            self.run = stack.enter_context(volume.run(settings=CLOCKS, run_id="r1"))
            self._disturb()

    def __getitem__(self, name: str) -> PrefectRunResult:
        return self.run[f"transform.{name}"]

    def retries(self, name: str) -> list[NodeRetrying]:
        return self.run.told(NodeRetrying, f"transform.{name}")

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        quota = {"hard": {"requests.nvidia.com/gpu": "0"}}
        classes = {self.low: -1000, self.high: 1000}
        # Of many machines that are silent Kubernetes thinks it is itself cut off, and does nothing.
        self.namespace.cluster.kubectl("delete", "node", "-l", "test/lost", "--wait=false")
        self.namespace.apply(
            {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": quota},
            *(
                {
                    "apiVersion": "scheduling.k8s.io/v1",
                    "kind": "PriorityClass",
                    "metadata": {"name": name},
                    "value": value,
                }
                for name, value in classes.items()
            ),
            *(
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {
                        "name": name,
                        "labels": {f"test/{name}": "yes", "test/lost": "yes"},
                    },
                    "spec": {"taints": [{"key": "test/lost", "effect": "NoSchedule"}]},
                }
                for name in self.lost.values()
            ),
        )
        kubectl, lost = self.namespace.cluster.kubectl, self.lost.values()
        stack.callback(kubectl, "delete", "priorityclass", self.low, self.high)
        stack.callback(kubectl, "delete", "node", *lost, "--ignore-not-found")
        stack.callback(kubectl, "label", "node", self.machine, *(f"test/{name}-" for name in lost))
        ready = {"type": "Ready", "status": "True", "reason": "x", "message": "x"}
        amounts = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "10"}
        status = {"conditions": [ready], "capacity": amounts, "allocatable": amounts}
        for name in lost:
            self._patch_status("node", name, status)

    def _patch_status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.namespace.kubectl(
            "patch", kind, name, "--subresource=status", "--type=merge", "-p", patch
        )

    def _disturb(self) -> None:
        """Do to the pods what happens to pods."""
        self._lose_machines()
        volume, kubectl = self.volume, self.namespace.kubectl
        for name in DISTURBED:
            volume.wait_for_mark(name)
        kubectl("delete", "job", volume.job("transform.its_job_is_deleted"), "--wait=false")
        evict(self.namespace, volume.pod("transform.evicted"))
        kubectl("delete", "pod", volume.pod("transform.its_pod_is_deleted"), "--wait=false")
        deadline = '{"spec": {"activeDeadlineSeconds": 1}}'
        job = volume.job("transform.overdue")
        kubectl("patch", "job", job, "--type=merge", "-p", deadline)
        self._preempt()

    def _lose_machines(self) -> None:
        """Have pods run on machines that are there in name only, and take one of them away."""
        running = {"name": "node", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
        state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        status = {"phase": "Running", "containerStatuses": [{**running, "state": state}]}
        kubectl = self.namespace.cluster.kubectl
        for name, machine in self.lost.items():
            until(partial(self._is_placed, name), f"a pod of {name}", seconds=LONG)
            self._patch_status("pod", self.volume.pod(f"transform.{name}"), status)
            self.volume.mark(name)  # the next one is to end well, on a real machine
            kubectl("label", "node", self.machine, f"test/{machine}=yes")
        kubectl("delete", "node", self.lost["lost"])

    def _is_placed(self, name: str) -> bool:
        pods = self.volume.pods(f"transform.{name}")
        return any(pod["spec"].get("nodeName") for pod in pods)

    def _preempt(self) -> None:
        """Want the machine's memory for something more important, and give it back at once."""
        security = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container = {
            "name": "important",
            "image": "localhost/pause:1",
            "resources": {"requests": {"memory": self.most}},
            "securityContext": security,
        }
        self.namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "important"},
                "spec": {"priorityClassName": self.high, "containers": [container]},
            }
        )
        told = self.run.told
        until(lambda: told(NodeRetrying, "transform.preempted"), "the preemption", seconds=LONG)
        self.namespace.kubectl("delete", "pod", "important", "--wait=false")


@pytest.fixture(scope="module")
def gallery(cluster: Cluster, image: str) -> Iterator[Gallery]:
    with cluster.namespace("verdicts") as namespace, volume(namespace, image) as ours:
        yield Gallery(ours)


def test_a_node_that_succeeds(gallery: Gallery) -> None:
    result = gallery["succeeds"]
    assert (result.success, result.exit_code, result.reason) == (True, 0, "Succeeded")
    assert result.stdout.startswith("this is it\n")
    assert result.attempts == 1
    assert result.rows == 1


def case(name: str, *expected: Any, id: str) -> Any:  # noqa: A002
    """Return a node's name and reason, exit code (None: any), attempts and part of its message."""
    return pytest.param(name, expected, id=id)


ENDINGS = [
    case("fails", "NodeFailed", 1, 2, "on purpose", id="a node that fails"),
    case("spoilt", "VerificationFailed", 65, 1, "cannot be read back", id="a success that is none"),
    case(
        "never_has_enough", "OOMKilled", None, 2, "more memory than its limit", id="out of memory"
    ),
    case("too_much_sql", "OutOfMemory", 77, 1, "Out of Memory", id="DuckDB out of memory"),
    case("ends_well_all_the_same", "OOMKilled", 0, 1, "ended well", id="killed and not noticed"),
    case("fills_its_disk", "EphemeralStorage", None, 1, "50Mi", id="its disk is full"),
    case("takes_too_long", "Timeout", 124, 1, "timeout of 45 s", id="out of time"),
    case("overdue", "DeadlineExceeded", None, 1, "deadline", id="the Job's own deadline"),
    case("its_job_is_deleted", "JobDeleted", -1, 1, "", id="somebody deletes its Job"),
    case("no_image", "ImagePull", -1, 1, "localhost:1/nobody/nothing", id="no such image"),
    case("odd_image", "InvalidImageName", -1, 1, "UPPER/case", id="no name of an image"),
    case("no_secret", "ContainerConfig", -1, 1, 'secret "nowhere" not found', id="no Secret"),
    case("no_config_map", "VolumeMissing", -1, 1, '"nowhere" not found', id="no ConfigMap"),
    case("no_claim", "VolumeMissing", -1, 1, '"nowhere" not found', id="no claim"),
    case("too_big", "Unschedulable", -1, 1, "Insufficient cpu", id="no machine is so big"),
    case("over_quota", "QuotaExceeded", -1, 1, "exceeded quota: q", id="over its quota"),
    case("not_restricted", "AdmissionRefused", -1, 1, "allowPrivilegeEscalation", id="not allowed"),
    case(
        "no_account", "ServiceAccountMissing", -1, 1, '"nobody" not found', id="no service account"
    ),
    case("in_a_queue", "Suspended", -1, 1, "queue", id="no queue lets it start"),
]


@pytest.mark.parametrize(("name", "expected"), ENDINGS)
def test_a_node_that_does_not(
    gallery: Gallery, name: str, expected: tuple[str, int | None, int, str]
) -> None:
    result = gallery[name]
    reason, code, attempts, said = expected
    assert (result.success, result.reason) == (False, reason), result
    assert code is None or result.exit_code == code, result
    assert result.attempts == attempts
    assert said in result.message


DISTURBANCES = [
    pytest.param("evicted", "Drained", id="evicted through the API"),
    pytest.param("preempted", "Preempted", id="preempted by a more important pod"),
    pytest.param("lost", "NodeLost", id="its machine is gone"),
    pytest.param("silent", "NodeLost", id="its machine is not heard of any more"),
    pytest.param("its_pod_is_deleted", "PodDeleted", id="its pod is deleted"),
]


@pytest.mark.parametrize(("name", "reason"), DISTURBANCES)
def test_what_the_platform_does_costs_a_node_none_of_its_retries(
    gallery: Gallery, name: str, reason: str
) -> None:
    assert (gallery[name].reason, gallery[name].attempts) == ("Succeeded", 2)
    (retry,) = gallery.retries(name)
    assert retry.message.startswith(f"{reason}: ")
    assert retry.delay < 2  # of a backoff of 1 s, and not of the Job controller's 10 s


def test_a_node_out_of_memory_is_tried_again_with_more_at_once(gallery: Gallery) -> None:
    assert gallery["heals"].success
    (retry,) = gallery.retries("heals")
    assert retry.message.startswith("OOMKilled: ")
    assert retry.delay == 0
    memory = {
        job["metadata"]["labels"]["seeknal.io/attempt"]: job["metadata"]["labels"][
            "seeknal.io/memory"
        ]
        for job in gallery.volume.jobs("transform.heals")
    }
    assert memory == {"1": "640Mi", "2": "960Mi"}


def test_what_a_killed_or_failed_node_had_said_is_kept(gallery: Gallery) -> None:
    assert "before\n" in gallery["fails"].stderr
    assert "ValueError: on purpose" in gallery["fails"].stderr
    assert gallery["takes_too_long"].stdout == "begun\n"
    assert log(gallery["takes_too_long"]) == b"begun\n"
    assert gallery["never_has_enough"].stdout == "so far\n"
    assert gallery["takes_too_long"].duration_seconds >= 45


def test_jobs_that_never_ran_are_gone_and_the_others_kept(gallery: Gallery) -> None:
    kept = {job["metadata"]["labels"]["seeknal.io/node"] for job in gallery.volume.jobs()}
    assert kept.isdisjoint(f"transform.{name}" for name in WAITING)
    assert {"transform.succeeds", "transform.fails", "transform.takes_too_long"} <= kept
