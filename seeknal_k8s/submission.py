"""A run as a Job inside the cluster: its manifest, its log while it lasts, and how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from seeknal_k8s import diagnosis, exitcodes, manifest
from seeknal_k8s.cleaning import RUNNER
from seeknal_k8s.diagnosis import Clock
from seeknal_k8s.errors import (
    AlreadyExists,
    ClusterUnavailable,
    NotFound,
    StoreLocked,
    TimedOut,
    UsageError,
)
from seeknal_k8s.graph import Node
from seeknal_k8s.names import digest, label_value, slug
from seeknal_k8s.options import NodeOptions, Resolved
from seeknal_k8s.results import NO_EXIT_CODE
from seeknal_k8s.settings import PREFIX
from seeknal_k8s.views import EVENTS, JOBS, PODS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seeknal_k8s.cluster import Cluster
    from seeknal_k8s.settings import Settings
    from seeknal_k8s.views import JobView, PodView

_RESTARTS = 6
"""How often a coordinator is started again that the platform, and not the run, has ended."""

_FINAL = (1, UsageError.exit_code, StoreLocked.exit_code, exitcodes.CONFIGURATION)
"""Exit codes of a run that a restart would only repeat: a node failed, or somebody has to act.

130 is not among them: a coordinator whose pod is deleted stops its run, and is to go on with it.
"""

_LOOK_EVERY = 1.0
"""Seconds between two looks at a runner that has no log to follow."""

_GONE_PATIENCE = 60.0
"""Seconds for a deleted Job, and its pod, to be gone."""

_SILENCE = 60.0
"""Seconds without a byte after which a log is asked for anew: a run may be silent for hours."""


def runner_name(run_id: str) -> str:
    """Return the name of the Job in which a run is coordinated, at most 57 characters."""
    return f"runner-{slug(run_id)}-{digest(run_id)}"


def environment(settings: Settings) -> dict[str, str]:
    """Return the settings as the variables that give them again, without those nobody has set.

    The context is left out: inside the cluster the service account counts.
    """
    changed = settings.model_dump(exclude_defaults=True, exclude={"context"})
    given = {**changed, "namespace": settings.namespace}
    return {PREFIX + name.upper(): _as_text(value) for name, value in sorted(given.items())}


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(value) if isinstance(value, tuple | list) else str(value)


def build(
    run_id: str, arguments: Sequence[str], settings: Settings, *, cpu: str, memory: str
) -> dict[str, Any]:
    """Return the Job that coordinates a run: a node's pod, but for its command and its rights.

    It is started again when the platform ends it, and not when the run has ended, well or not.

    Raises:
        UsageError: the settings make no valid Job.
    """
    options = _sized(cpu, memory)
    node = Node(RUNNER, RUNNER, RUNNER, "")
    origins = dict.fromkeys(NodeOptions.model_fields, "")
    owner = manifest.Owner(run_id, settings.project_path, "", "")
    job = manifest.build(
        manifest.Draft(node, Resolved(options, origins)), owner, settings, order="/none"
    )
    labels = {
        key: value
        for key, value in job["spec"]["template"]["metadata"]["labels"].items()
        if key not in {"seeknal.io/attempt", "seeknal.io/node", "seeknal.io/project"}
    }
    labels |= {
        "app.kubernetes.io/component": RUNNER,
        "app.kubernetes.io/part-of": "seeknal-k8s",
        "seeknal.io/run": label_value(run_id),
    }
    annotations = {**settings.annotations, "seeknal.io/run-id": run_id}
    template = job["spec"]["template"]
    template["metadata"] |= {"annotations": annotations, "labels": labels}
    _adapt(template["spec"], arguments, settings)
    job["metadata"] = {
        "annotations": dict(annotations),
        "labels": dict(labels),
        "name": runner_name(run_id),
        "namespace": settings.namespace,
    }
    job["spec"] = {
        "backoffLimit": _RESTARTS,
        "podFailurePolicy": {"rules": _rules()},
        "podReplacementPolicy": "Failed",  # two coordinators of one run would wait for each other
        "template": template,
        "ttlSecondsAfterFinished": settings.ttl,
    }
    return job


def _sized(cpu: str, memory: str) -> NodeOptions:
    try:
        return NodeOptions.model_validate({"cpu": cpu, "memory": memory})
    except ValidationError as error:
        said = [
            f"--runner-{one['loc'][0]}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False)
        ]
        raise UsageError("\n".join(said)) from None


def _adapt(pod: dict[str, Any], arguments: Sequence[str], settings: Settings) -> None:
    """Make a node's pod a coordinator's: it may speak to the API server, and knows the settings."""
    pod["automountServiceAccountToken"] = True
    pod["serviceAccountName"] = settings.runner_service_account
    container = next(one for one in pod["containers"] if one["name"] == manifest.NODE)
    container["command"] = ["seeknal-k8s", *map(manifest.literal, arguments)]
    given = environment(settings)
    container["env"] += [
        {"name": name, "value": manifest.literal(value)} for name, value in given.items()
    ]


def _rules() -> list[dict[str, Any]]:
    """Return what ends the Job for good, and what costs it none of its restarts."""
    final = {"containerName": manifest.NODE, "operator": "In", "values": list(_FINAL)}
    return [
        {"action": "Ignore", "onPodConditions": [{"status": "True", "type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": final},
    ]


async def submit(cluster: Cluster, job: dict[str, Any]) -> None:
    """Create the Job.

    Raises:
        UsageError: the run has been submitted before.
        ClusterError: the API server refused, or could not be reached.
    """
    try:
        await cluster.create(JOBS, job)
    except AlreadyExists as error:
        run_id = job["metadata"]["annotations"]["seeknal.io/run-id"]
        raise UsageError(
            f"run '{run_id}' has been submitted already\n"
            f"  → follow it: seeknal-k8s submit --attach {run_id}"
        ) from error


async def make_way(cluster: Cluster, run_id: str) -> None:
    """Remove the Job in which a run was coordinated that has ended, so that it can be again.

    Raises:
        UsageError: it has not ended.
        TimedOut: it does not go.
        ClusterError: the API server refused, or could not be reached.
    """
    name = runner_name(run_id)
    until = time.monotonic() + _GONE_PATIENCE
    while time.monotonic() < until:
        try:
            job = await cluster.get(JOBS, name)
        except NotFound:
            return
        if not job.ended:
            raise UsageError(
                f"run '{run_id}' has not ended\n  → follow it: seeknal-k8s submit --attach {run_id}"
            )
        if job.metadata.deletion_timestamp is None:
            await cluster.delete(JOBS, name, propagation="Foreground")
        await asyncio.sleep(_LOOK_EVERY)
    raise TimedOut(f"Job {name} is still there\n  → see what holds it: kubectl describe job {name}")


async def follow(
    cluster: Cluster, run_id: str, write: Callable[[bytes], None], tell: Callable[[str], None]
) -> int:
    """Write what the run says until it has ended, and return its exit code.

    ``tell`` is given what to know about the Job itself, such as why it does not start.

    Raises:
        UsageError: there is no such run in the cluster, or somebody has deleted it.
        ClusterError: the API server refused, or could not be reached for long.
    """
    name, written, told = runner_name(run_id), _Written(), ""
    while True:
        job = await _job(cluster, name, run_id)
        pods = (await cluster.list(PODS, labels=f"batch.kubernetes.io/job-name={name}")).items
        pods = tuple(sorted(pods, key=lambda pod: str(pod.metadata.creation_timestamp)))
        for pod in pods:
            if _has_log(pod):
                await _copy(cluster, pod, written, write)
        if job.ended:
            return _exit_code(job, pods)
        news = await _waits(cluster, job, pods[-1] if pods else None)
        if news not in {"", told}:
            tell(news)
            told = news
        await asyncio.sleep(_LOOK_EVERY)


async def _job(cluster: Cluster, name: str, run_id: str) -> JobView:
    try:
        return await cluster.get(JOBS, name)
    except NotFound as error:
        raise UsageError(
            f"there is no Job of a submitted run '{run_id}' in namespace {cluster.namespace}: it "
            "was never submitted, was cancelled, or its time is up\n  → what there is: "
            "kubectl get jobs -l app.kubernetes.io/component=runner"
        ) from error


def _has_log(pod: PodView) -> bool:
    container = pod.container(manifest.NODE)
    return container is not None and bool(container.state.running or container.state.terminated)


class _Written(dict[str, int]):
    """How many bytes of each pod's log have been written: a log is always sent from its start."""

    def __missing__(self, uid: str) -> int:
        return 0


async def _copy(
    cluster: Cluster, pod: PodView, written: _Written, write: Callable[[bytes], None]
) -> None:
    """Write what of a pod's log has not been written, as it comes, until it ends or breaks off."""
    container = pod.container(manifest.NODE)
    if container is not None and container.state.terminated and written.get(f"{pod.uid} whole"):
        return
    at = 0
    try:
        async for piece in cluster.logs(pod.name, manifest.NODE, follow=True, silence=_SILENCE):
            new = piece[max(0, written[pod.uid] - at) :]
            at += len(piece)
            if new:
                write(new)
                written[pod.uid] = at
    except (ClusterUnavailable, NotFound):
        return  # the next look shows whether it has ended
    if container is not None and container.state.terminated:
        written[f"{pod.uid} whole"] = 1


async def _waits(cluster: Cluster, job: JobView, pod: PodView | None) -> str:
    """Return why the run does not run yet, in a line; empty if it does."""
    wait = diagnosis.waiting(job, pod)
    if wait.clock is Clock.RUN:
        return ""
    if not wait.reason:
        about = ("Job", job.name) if pod is None else ("Pod", pod.name)
        fields = f"involvedObject.kind={about[0]},involvedObject.name={about[1]}"
        wait = diagnosis.waiting(job, pod, (await cluster.list(EVENTS, fields=fields)).items)
    return f"{wait.clock}: {wait.message}" if wait.message else ""


def _exit_code(job: JobView, pods: Sequence[PodView]) -> int:
    """Return the run's exit code, by the last pod, or by the Job's condition; 70 if nobody knows."""
    if job.condition("Complete"):
        return os.EX_OK
    ending = diagnosis.ending(job, pods[-1] if pods else None, None)
    known = ending is not None and ending.exit_code not in {NO_EXIT_CODE, exitcodes.OK}
    return ending.exit_code if ending is not None and known else os.EX_SOFTWARE
