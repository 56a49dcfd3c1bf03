"""Attempt + Settings → the ``batch/v1`` Job, as the plain dict that the API server is sent.

Keys stand in the order in which ``kubectl explain`` prints them. What each field is for:
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/. Pods pass Pod
Security *restricted* unless the store or the project is a ``hostPath`` or a patch says otherwise.

A patch to the pod is merged last, by the one rule of ``patch.merge``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from seeknal_k8s import patch
from seeknal_k8s.errors import Problem, ProjectRefused, UsageError
from seeknal_k8s.names import anchor_name, job_name, label_value
from seeknal_k8s.settings import PREFIX, TMP, WORK
from seeknal_k8s.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seeknal_k8s.graph import Node
    from seeknal_k8s.options import NodeOptions, Resolved
    from seeknal_k8s.settings import Settings

_Value = TypeVar("_Value")

NODE = "node"
"""The name of the container in which a node runs."""

GRACE = 30
"""Seconds between SIGTERM and SIGKILL, for a node's process to say how it ended."""

USER = 10001
"""User and group of a node's process. A number, or ``runAsNonRoot`` cannot be checked; above
10,000, or it may be somebody on the machine."""

_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


class Attempt(Protocol):
    """What a manifest needs to know of an attempt; ``backends.Attempt`` is one."""

    @property
    def node(self) -> Node:
        """The node to run."""

    @property
    def number(self) -> int:
        """Which attempt at it this is, from 1."""

    @property
    def timeout(self) -> float | None:
        """The longest it may take, in seconds; None without a limit."""

    @property
    def interval(self) -> str:
        """The interval, or the intervals, that it runs for, as text; empty if it runs for none."""

    @property
    def options(self) -> Resolved:
        """How to run it: this attempt's own options, after any growth of its memory."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An attempt that nobody has made, to see what its Job would be."""

    node: Node
    options: Resolved
    number: int = 1
    interval: str = ""

    @property
    def timeout(self) -> float | None:
        """The longest it may take, in seconds; None without a limit."""
        return self.options.timeout_seconds


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a Job belongs to: a run of a project, and the ConfigMap that owns the run's Jobs.

    ``anchor`` is the ConfigMap's name, ``anchor_uid`` the uid the API server gave it.
    """

    run_id: str
    project: str
    anchor: str
    anchor_uid: str


def anchor(
    run_id: str, project: str, settings: Settings, *, started_by: str = ""
) -> dict[str, Any]:
    """Return the run's ConfigMap. It owns all Jobs of the run, so deleting it cancels everything.

    Its ``data`` tells apart two runs that have one id by chance: they differ in project or store.
    ``started_by`` is for people, such as the coordinator's host name.
    """
    return {
        "apiVersion": "v1",
        "data": {
            "project": project,
            "run": run_id,
            "started-by": started_by,
            "store": settings.store_claim or settings.store_host_path or "",
            "store-path": settings.store_path,
        },
        "kind": "ConfigMap",
        "metadata": {
            "annotations": _ordered({**settings.annotations, "seeknal.io/run-id": run_id}),
            "labels": _ordered({**settings.labels, **_run_labels(run_id, project, "run")}),
            "name": anchor_name(run_id),
            "namespace": settings.namespace,
        },
    }


def build(attempt: Attempt, owner: Owner, settings: Settings, *, order: str) -> dict[str, Any]:
    """Return the Job of one attempt. The same arguments always give the same Job.

    ``order`` is the absolute path, inside the pod, of the file that says what to run.

    Raises:
        UsageError: the settings have no image or no store, or their patch breaks what we rely on.
        ProjectRefused: the node's ``pod_template`` does.

    """
    settings.ensure_runnable()
    options = attempt.options.options
    queue = options.queue or settings.queue
    labels = _labels(attempt, owner, settings)
    annotations = _annotations(attempt, owner, settings)
    template = {
        "metadata": {"annotations": annotations, "labels": labels},
        "spec": _pod(options, settings, order),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "annotations": dict(annotations),
            "labels": _ordered({**labels, **({_QUEUE_LABEL: queue} if queue else {})}),
            "name": job_name(
                owner.run_id,
                attempt.node.id,
                interval=attempt.interval,
                attempt=attempt.number,
            ),
            "namespace": settings.namespace,
            "ownerReferences": [_owner_reference(owner)],
        },
        "spec": _job(attempt, settings, _patched(template, attempt, settings), queue),
    }


def literal(text: str) -> str:
    """Return ``text`` so that Kubernetes passes it on as it is.

    In commands, arguments and environment variables it takes ``$(NAME)`` for a reference and
    ``$$`` for one dollar sign, so each dollar sign is doubled:
    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """
    return text.replace("$", "$$")


def _run_labels(run_id: str, project: str, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "seeknal-k8s",
        "app.kubernetes.io/name": "seeknal-k8s",
        "app.kubernetes.io/part-of": label_value(project),
        "app.kubernetes.io/version": label_value(__version__),
        "seeknal.io/project": label_value(project),
        "seeknal.io/run": label_value(run_id),
    }


def _labels(attempt: Attempt, owner: Owner, settings: Settings) -> dict[str, str]:
    """Return labels for Job and pod. What `kubectl get -L` is to show has to be one."""
    options = attempt.options.options
    ours = {
        "seeknal.io/attempt": str(attempt.number),
        "seeknal.io/cpu": options.cpu,
        "seeknal.io/interval": label_value(attempt.interval) if attempt.interval else None,
        "seeknal.io/memory": options.memory,
        "seeknal.io/node": label_value(attempt.node.id),
    }
    run = _run_labels(owner.run_id, owner.project, "node")
    return _ordered({**settings.labels, **run, **_given(ours)})


def _annotations(attempt: Attempt, owner: Owner, settings: Settings) -> dict[str, str]:
    """Return annotations for Job and pod: what labels are too short for, in full, for people."""
    limits = _limits(attempt.options.options)
    ours = {
        "seeknal.io/attempt": str(attempt.number),
        "seeknal.io/interval": attempt.interval or None,
        "seeknal.io/kind": attempt.node.kind,
        "seeknal.io/limits": " ".join(f"{name}={amount}" for name, amount in limits.items()),
        "seeknal.io/node-id": attempt.node.id,
        "seeknal.io/project": owner.project,
        "seeknal.io/run-id": owner.run_id,
    }
    return _ordered({**settings.annotations, **_given(ours)})


def _owner_reference(owner: Owner) -> dict[str, Any]:
    # Neither `controller` (a ConfigMap manages nothing) nor `blockOwnerDeletion`, for which some
    # clusters want the right to update the owner's finalizers.
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner.anchor,
        "uid": owner.anchor_uid,
    }


def _job(
    attempt: Attempt, settings: Settings, template: dict[str, Any], queue: str | None
) -> dict[str, Any]:
    return _given(
        {
            "activeDeadlineSeconds": _deadline(attempt.timeout, settings),
            "backoffLimit": 0,  # attempts are ours to count, each with limits of its own
            "podFailurePolicy": _failure_policy(),
            "podReplacementPolicy": "Failed",
            "suspend": True if queue else None,  # Kueue starts it
            "template": template,
            "ttlSecondsAfterFinished": settings.ttl,
        }
    )


def _deadline(timeout: float | None, settings: Settings) -> int | None:
    """Return the backstop, in seconds from the Job's start; None where a node may run for ever.

    Kubernetes counts waiting for quota, a machine and the image, and when it ends a Job it deletes
    the pod with its log. So this is more than everything that our own clocks allow together: it
    is for when the coordinator is gone and the pod does not keep its own time.
    """
    if timeout is None:
        return None
    waiting = settings.queue_timeout + settings.schedule_timeout + settings.start_timeout
    return waiting + math.ceil(timeout) + GRACE + settings.deadline_margin


def _failure_policy() -> dict[str, Any]:
    """Return rules that only label: the Job's own condition then says how its pod failed (KEP-3329).

    The order matters: a disrupted pod also has an exit code, which is not the node's doing.
    """
    return {
        "rules": [
            {
                "action": "FailJob",
                "onPodConditions": [{"status": "True", "type": "DisruptionTarget"}],
            },
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": NODE, "operator": "NotIn", "values": [0]},
            },
        ]
    }


def _pod(options: NodeOptions, settings: Settings, order: str) -> dict[str, Any]:
    tolerations = [
        _ordered(toleration.model_dump(by_alias=True, exclude_none=True))
        for toleration in options.tolerations
    ]
    return _given(
        {
            "automountServiceAccountToken": False,
            "containers": [_container(options, settings, order)],
            "enableServiceLinks": False,  # else hundreds of variables in a busy namespace
            "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets] or None,
            "nodeSelector": _ordered(options.node_selector) or None,
            "priorityClassName": options.priority_class or settings.priority_class,
            "restartPolicy": "Never",
            "securityContext": {
                "fsGroup": USER,
                # Else every pod start walks through all files of the store.
                "fsGroupChangePolicy": "OnRootMismatch",
                "runAsGroup": USER,
                "runAsNonRoot": True,
                "runAsUser": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "serviceAccountName": options.service_account or settings.node_service_account,
            "terminationGracePeriodSeconds": GRACE,
            "tolerations": tolerations or None,
            "volumes": _volumes(options, settings),
        }
    )


def _container(options: NodeOptions, settings: Settings, order: str) -> dict[str, Any]:
    mounts = {"work": WORK, "tmp": TMP, "store": settings.store_path}
    if settings.project_claim or settings.project_host_path:
        mounts["project"] = settings.project_path
    return _given(
        {
            "command": ["python", "-m", "seeknal_k8s.pod", literal(order)],
            "env": _environment(options),
            "envFrom": [{"secretRef": {"name": name}} for name in options.env_from] or None,
            "image": options.image or settings.image,
            "imagePullPolicy": settings.image_pull_policy,
            "name": NODE,
            # Limits and requests are the same: what a node is promised is what it may use, and of
            # all pods those with this are evicted last (QoS class Guaranteed).
            "resources": {"limits": _limits(options), "requests": _limits(options)},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                _given({"mountPath": path, "name": name, "readOnly": name == "project" or None})
                for name, path in mounts.items()
            ],
        }
    )


def _environment(options: NodeOptions) -> list[dict[str, str]]:
    """Return the node's variables over ours: Seeknal and uv write below folders named by these."""
    ours = {
        "HOME": WORK,
        "SEEKNAL_BASE_CONFIG_PATH": f"{WORK}/.seeknal",
        "TMPDIR": TMP,
        "UV_CACHE_DIR": f"{WORK}/.cache/uv",
    }
    variables = _ordered({**ours, **options.env})
    return [{"name": name, "value": literal(value)} for name, value in variables.items()]


def _limits(options: NodeOptions) -> dict[str, str]:
    limits = {
        "cpu": options.cpu,
        "ephemeral-storage": options.ephemeral_storage,
        "memory": options.memory,
    }
    if options.gpu:
        limits[options.gpu.resource] = str(options.gpu.count)
    return _ordered(limits)


def _volumes(options: NodeOptions, settings: Settings) -> list[dict[str, Any]]:
    # Each may fill the whole allowance; what both together may use, the container's limit says.
    sources = {
        "work": {"emptyDir": {"sizeLimit": options.ephemeral_storage}},
        "tmp": {"emptyDir": {"sizeLimit": options.ephemeral_storage}},
        "store": _source(settings.store_claim, settings.store_host_path),
        "project": _source(settings.project_claim, settings.project_host_path),
    }
    return [_ordered({**source, "name": name}) for name, source in sources.items() if source]


def _source(claim: str | None, host_path: str | None) -> dict[str, Any]:
    if claim:
        return {"persistentVolumeClaim": {"claimName": claim}}
    # Not DirectoryOrCreate: the folder that makes belongs to root, and nodes could not write it.
    return {"hostPath": {"path": host_path, "type": "Directory"}} if host_path else {}


def _patched(template: dict[str, Any], attempt: Attempt, settings: Settings) -> dict[str, Any]:
    for_all = patch.merge(template, settings.node_pod_template)
    if changes := patch.changes(template, for_all):
        lines = [
            f"{PREFIX}NODE_POD_TEMPLATE: it changes {place}\n  → {fix}" for place, fix in changes
        ]
        raise UsageError("\n".join(lines))
    own: dict[str, Any] = patch.merge(for_all, attempt.options.options.pod_template)
    if changes := patch.changes(for_all, own):
        node, origin = attempt.node.id, attempt.options.origins["pod_template"]
        raise ProjectRefused(
            [
                Problem(f"the patch changes {place}", fix, origin, node, "pod_template")
                for place, fix in changes
            ]
        )
    return own


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields without those that are None: left to Kubernetes' own defaults."""
    return {name: value for name, value in fields.items() if value is not None}


def _ordered(fields: Mapping[str, _Value]) -> dict[str, _Value]:
    return dict(sorted(fields.items()))
