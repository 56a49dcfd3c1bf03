"""A pool's base job template: the Kubernetes worker's current one, with our defaults in it.

A flow's pod is the pod in which ``submit`` coordinates a run, but that Prefect says what it does:
the same volumes, rights, limits and settings. What may differ for a deployment stays a variable.
"""

from __future__ import annotations

import copy
import difflib
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from prefect_kubernetes import KubernetesWorker

from seeknal_k8s import manifest, submission
from seeknal_k8s.names import label_value
from seeknal_k8s.settings import PREFIX, WORK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seeknal_k8s.settings import Settings

CONTAINER = "prefect-job"
"""What Prefect's worker wants the flow's container to be called; it has to be the first."""

MARK = "seeknal.io/template"
"""An annotation of flows' pods: the digest of the template, by which an edit by hand is noticed."""

GRACE = 60
"""Seconds between SIGTERM and SIGKILL: enough to tell Prefect, and to end the run's Jobs."""

CPU, MEMORY = "500m", "1Gi"
"""What a flow's pod may use where nobody says otherwise; it coordinates, the nodes work elsewhere."""

_SIZES = ("cpu_request", "cpu_limit", "memory_request", "memory_limit")
_PLACEHOLDERS = ("args", "env", "image", "imagePullPolicy", "resources")
_MARKS = 12


def default() -> dict[str, Any]:
    """Return what the installed worker has for a template."""
    found: dict[str, Any] = KubernetesWorker.get_default_base_job_template()
    return found


def build(
    settings: Settings,
    pool: str,
    *,
    cpu: str = CPU,
    memory: str = MEMORY,
    env_from: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the template of our pool, with its mark.

    ``cpu`` and ``memory`` are what a flow's pod may use; ``env_from`` names Secrets whose keys
    become its environment.

    Raises:
        UsageError: the settings make no pod.
    """
    settings = settings.model_copy(update={"work_pool": pool})
    template = default()
    runner = submission.build("flow", [], settings, cpu=cpu, memory=memory)
    job = template["job_configuration"]["job_manifest"]
    spec = job["spec"]["template"]["spec"]
    job["spec"]["template"] = {
        "metadata": _metadata(settings, pool),
        "spec": _pod(runner["spec"]["template"]["spec"], spec, env_from),
    }
    limits = _container(runner)["resources"]["limits"]
    _set_defaults(
        template["variables"]["properties"],
        {
            "namespace": settings.namespace,
            "image": settings.image,
            "image_pull_policy": settings.image_pull_policy or _pull_policy(settings.image or ""),
            "service_account_name": settings.runner_service_account,
            "finished_job_ttl": settings.ttl,
            "cpu_request": limits["cpu"],
            "cpu_limit": limits["cpu"],
            "memory_request": limits["memory"],
            "memory_limit": limits["memory"],
            "env": _environment(runner),
        },
    )
    return marked(template)


def _pod(runner: dict[str, Any], worker: dict[str, Any], secrets: Sequence[str]) -> dict[str, Any]:
    """Return the runner's pod with the worker's placeholders in it.

    All else that the worker has in its pod stays: it refuses to run what lacks any of it, even
    ``completions``, which mean nothing in a pod.
    """
    pod = copy.deepcopy({**worker, **runner})
    pod["serviceAccountName"] = worker["serviceAccountName"]
    pod["terminationGracePeriodSeconds"] = GRACE
    ours = next(one for one in pod["containers"] if one["name"] == manifest.NODE)
    others = [one for one in pod["containers"] if one is not ours]
    theirs = worker["containers"][0]
    disk = ours["resources"]["limits"].get("ephemeral-storage")
    del ours["command"]
    ours |= {"name": CONTAINER, **{name: theirs[name] for name in _PLACEHOLDERS}}
    if disk:
        ours["resources"] = {
            kind: {**amounts, "ephemeral-storage": disk}
            for kind, amounts in theirs["resources"].items()
        }
    if secrets:
        ours["envFrom"] = [{"secretRef": {"name": name}} for name in secrets]
    pod["containers"] = [ours, *others]
    return pod


def _metadata(settings: Settings, pool: str) -> dict[str, Any]:
    labels = {
        **settings.labels,
        "app.kubernetes.io/component": "flow",
        "seeknal.io/pool": label_value(pool),
    }
    return {"annotations": dict(settings.annotations), "labels": labels}


def _container(runner: dict[str, Any]) -> dict[str, Any]:
    pod = runner["spec"]["template"]["spec"]
    return next(one for one in pod["containers"] if one["name"] == manifest.NODE)


def _environment(runner: dict[str, Any]) -> dict[str, str]:
    """Return the runner's variables, as a map so that a deployment's own are merged with them."""
    env = {one["name"]: one["value"] for one in _container(runner)["env"] if "value" in one}
    ours = {f"{PREFIX}ON": "kubernetes", "PREFECT_HOME": f"{WORK}/.prefect"}
    return dict(sorted({**env, **ours}.items()))


def _set_defaults(properties: dict[str, Any], defaults: dict[str, Any]) -> None:
    for name, value in defaults.items():
        properties[name]["default"] = value


def _pull_policy(image: str) -> str:
    """Return what Kubernetes would take where nothing is said; the worker always says something."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in {"", "latest"} else "IfNotPresent"


def marked(template: dict[str, Any]) -> dict[str, Any]:
    """Return a template with the digest of all else in it."""
    made = copy.deepcopy(template)
    _annotations(made)[MARK] = _digest(made)
    return made


def edited(template: dict[str, Any]) -> bool:
    """Whether somebody has changed a template by hand: one of ours, or the worker's default."""
    mark = _annotations(copy.deepcopy(template)).get(MARK)
    if mark is None:
        return bool(template) and template != default()
    return bool(mark != _digest(template))


def _digest(template: dict[str, Any]) -> str:
    bare = copy.deepcopy(template)
    _annotations(bare).pop(MARK, None)
    return sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:_MARKS]


def _annotations(template: dict[str, Any]) -> dict[str, Any]:
    """Return the annotations of the template's pod, to be read or changed."""
    place: Any = template
    for key in ("job_configuration", "job_manifest", "spec", "template", "metadata", "annotations"):
        if not isinstance(place, dict):
            return {}
        place = place.setdefault(key, {})
    return place if isinstance(place, dict) else {}


def sizes_apart(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether one of ours differs from what is wanted in the CPU, memory and Secrets of the pod only.

    Those are given to ``pool apply`` and are in no setting.
    """
    if edited(found):
        return False
    bare, other = _without_sizes(found), _without_sizes(wanted)
    return bare == other


def _without_sizes(template: dict[str, Any]) -> dict[str, Any]:
    bare = copy.deepcopy(template)
    _annotations(bare).pop(MARK, None)
    for name in _SIZES:
        bare.get("variables", {}).get("properties", {}).get(name, {}).pop("default", None)
    spec = bare.get("job_configuration", {}).get("job_manifest", {}).get("spec", {})
    for container in spec.get("template", {}).get("spec", {}).get("containers", []):
        container.pop("envFrom", None)
    return bare


def drift(found: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, ...]:
    """Return the difference between two templates, as lines of a unified diff; empty if none."""
    return tuple(
        difflib.unified_diff(
            _lines(found), _lines(wanted), "in Prefect", "wanted", lineterm="", n=2
        )
    )


def _lines(template: dict[str, Any]) -> list[str]:
    return json.dumps(template, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
