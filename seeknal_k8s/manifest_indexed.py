"""Many pieces of a backfill → one Indexed Job: what ``manifest`` builds, with an index for each piece.

Every index is tried once. What is to be done about one that fails, such as giving it more memory, is
the coordinator's to decide, in a Job of its own, as for any other attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seeknal_k8s import manifest
from seeknal_k8s.names import job_name

if TYPE_CHECKING:
    from seeknal_k8s.manifest import Draft, Owner
    from seeknal_k8s.settings import Settings


@dataclass(frozen=True, slots=True)
class Indexes:
    """How many indexes there are, and how many pods run at once.

    ``generation`` tells apart the Jobs of one run, ``timeout`` (seconds; None without a limit) is
    the longest one index may take, ``max_failures`` after how many failed ones the Job stops by itself:
    only where a failed index is one for good.
    """

    count: int
    at_once: int
    generation: int = 1
    timeout: float | None = None
    max_failures: int | None = None


def build(
    draft: Draft, owner: Owner, settings: Settings, *, orders: str, indexes: Indexes
) -> dict[str, Any]:
    """Return the Job. ``draft`` is of the node and the whole range; the rest is as in ``manifest.build``.

    ``orders`` is the absolute path, inside the pod, of the folder with a file for each index. With
    ``backoffLimitPerIndex`` one index that fails does not end the others (KEP-3850).

    Raises:
        UsageError, ProjectRefused: see ``manifest.build``.
    """
    job = manifest.build(draft, owner, settings, order=orders)
    interval = f"{draft.interval} indexed {indexes.generation}"
    job["metadata"]["name"] = job_name(owner.run_id, draft.node.id, interval=interval, attempt=1)
    most = None if indexes.max_failures is None else min(indexes.max_failures - 1, indexes.count)
    spec = job["spec"]
    job["spec"] = {
        "backoffLimitPerIndex": 0,
        "completionMode": "Indexed",
        "completions": indexes.count,
        **({} if most is None else {"maxFailedIndexes": most}),
        "parallelism": min(indexes.at_once, indexes.count),
        "podReplacementPolicy": spec["podReplacementPolicy"],
        **({"suspend": True} if spec.get("suspend") else {}),
        "template": _template(spec["template"], orders, indexes.timeout, settings),
        "ttlSecondsAfterFinished": spec["ttlSecondsAfterFinished"],
    }
    return job


def _template(
    template: dict[str, Any], orders: str, timeout: float | None, settings: Settings
) -> dict[str, Any]:
    pod = dict(template["spec"])
    for container in pod["containers"]:
        if container["name"] == manifest.NODE:
            # Kubernetes puts the index in place of this: the Job controller sets the variable.
            order = f"{manifest.literal(orders)}/$(JOB_COMPLETION_INDEX).json"
            container["command"] = [*container["command"][:-1], order]
    if timeout is not None:  # the backstop: a Job's own would be for all indexes together
        # A pod's own counts from before its image is pulled.
        own = math.ceil(timeout) + manifest.GRACE + settings.deadline_margin
        seconds = math.ceil(settings.start_timeout) + own
        pod = {"activeDeadlineSeconds": seconds, **pod}
    return {**template, "spec": pod}
