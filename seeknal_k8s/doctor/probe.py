"""Two pods that meet in the store: the image can be pulled, and the volume written from both.

The one thing here that creates something: one Job, which is deleted before anything is said, and
which Kubernetes itself ends and removes should this process be killed meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import diagnosis, manifest
from seeknal_k8s.doctor import handshake
from seeknal_k8s.doctor.findings import Judgement, bad, from_error, good
from seeknal_k8s.errors import ClusterUnavailable, NotFound, SeeknalK8sError
from seeknal_k8s.graph import Node
from seeknal_k8s.options import NodeOptions, Resolved
from seeknal_k8s.views import EVENTS, JOBS, PODS

if TYPE_CHECKING:
    from seeknal_k8s.cluster import Cluster
    from seeknal_k8s.settings import Settings
    from seeknal_k8s.views import JobView, PodView

PATIENCE = 240
"""Seconds after which the Job is given up, by us and by Kubernetes."""

_TTL = 60
_LOOK_EVERY = 0.5
_TAIL = 2000
_ENDED = ("Succeeded", "Failed")
_PODS = 2


def build(name: str, settings: Settings) -> dict[str, Any]:
    """Return the Job: two pods like a node's, with a few lines of Python to run.

    Raises:
        UsageError: the settings make no valid Job.
    """
    options = NodeOptions(cpu="100m", memory="128Mi", ephemeral_storage="128Mi")
    probe = manifest.Draft(
        Node("doctor", "doctor", "doctor", ""),
        Resolved(options, dict.fromkeys(NodeOptions.model_fields, "")),
    )
    owner = manifest.Owner(name, settings.project_path, "", "")
    job = manifest.build(probe, owner, settings, order="/none")
    labels = {"app.kubernetes.io/component": "doctor", "app.kubernetes.io/name": "seeknal-k8s"}
    template = job["spec"]["template"]
    template["metadata"] = {"labels": {**settings.labels, **labels}}
    container = next(one for one in template["spec"]["containers"] if one["name"] == manifest.NODE)
    text = Path(handshake.__file__).read_text(encoding="utf-8")
    folder = f"{settings.store_path}/.{name}"
    container["command"] = ["python", "-c", manifest.literal(text), folder]
    job["metadata"] = {
        "name": name,
        "namespace": settings.namespace,
        "labels": {**job["metadata"]["labels"], **labels},
    }
    for ours in [label for label in job["metadata"]["labels"] if label.startswith("seeknal.io/")]:
        del job["metadata"]["labels"][ours]  # it belongs to no run
    job["spec"] |= {
        "activeDeadlineSeconds": PATIENCE,
        "completionMode": "Indexed",
        "completions": _PODS,
        "parallelism": _PODS,
        "ttlSecondsAfterFinished": _TTL,
    }
    return job


async def judge(cluster: Cluster, settings: Settings, *, patience: float = PATIENCE) -> Judgement:
    """Run the two pods and judge by how they end. The Job is gone when this returns."""
    name = f"doctor-{secrets.token_hex(4)}"
    try:
        job = build(name, settings)
        await cluster.create(JOBS, job)
    except SeeknalK8sError as error:
        return from_error(error)
    try:
        return await _ended(cluster, name, settings, time.monotonic() + patience)
    except SeeknalK8sError as error:
        return from_error(error)
    finally:
        await asyncio.shield(cluster.delete(JOBS, name))


async def _ended(cluster: Cluster, name: str, settings: Settings, until: float) -> Judgement:
    image = settings.image
    last = ""
    while time.monotonic() < until:
        job = await cluster.get(JOBS, name)
        pods = (await cluster.list(PODS, labels=f"batch.kubernetes.io/job-name={name}")).items
        if job.condition("Complete"):
            hosts = sorted({pod.spec.node_name for pod in pods})
            where = f"on {', '.join(hosts)}" if hosts else ""
            return good(f"two pods of {image} wrote and read {settings.store_path} {where}".strip())
        if failed := job.condition("Failed"):
            logs = [await _last_words(cluster, pod) for pod in pods]
            said = next(filter(None, logs), "")
            if last and (not said or TimeoutError.__name__ in said):
                return bad(f"one of two pods did not start: {last}", "kubectl describe nodes")
            return bad(said or failed.message, _volume(settings))
        wait = await _waiting(cluster, job, pods)
        last = "" if wait.clock is diagnosis.Clock.RUN else wait.message or last
        if wait.hopeless or wait.reason in {"ImagePullBackOff", "ErrImagePull", "ImagePull"}:
            return bad(last, f"see whether {image} is right, and SEEKNAL_K8S_IMAGE_PULL_SECRETS")
        await asyncio.sleep(_LOOK_EVERY)
    return bad(last or "the two pods have not ended in time", _volume(settings))


async def _waiting(cluster: Cluster, job: JobView, pods: tuple[PodView, ...]) -> diagnosis.Wait:
    """Return what holds up a pod that does not run yet; the clock is RUN if none is held up."""
    for pod in (*pods, *[None] * (_PODS - len(pods))):
        wait = diagnosis.waiting(job, pod)
        if wait.clock is diagnosis.Clock.RUN or (pod and pod.status.phase in _ENDED):
            continue
        if wait.reason or wait.hopeless:
            return wait
        about = ("Job", job.name) if pod is None else ("Pod", pod.name)
        fields = f"involvedObject.kind={about[0]},involvedObject.name={about[1]}"
        return diagnosis.waiting(job, pod, (await cluster.list(EVENTS, fields=fields)).items)
    return diagnosis.Wait(diagnosis.Clock.RUN)


async def _last_words(cluster: Cluster, pod: PodView) -> str:
    try:
        log = await cluster.log_tail(pod.name, manifest.NODE, _TAIL)
    except (ClusterUnavailable, NotFound):
        return ""
    return log.decode(errors="replace").strip()


def _volume(settings: Settings) -> str:
    what = settings.store_claim or settings.store_host_path
    return (
        f"see that user {manifest.USER} may write {what}: kubectl describe pvc "
        f"{settings.store_claim or ''}".strip()
    )
