"""An Indexed Job as one Job for each of its indexes: pure functions over what the API server shows.

An index is spoken of as ``<job>/<index>``. It has ended when the Job's status counts it among its
completed or failed ones (https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from seeknal_k8s.views import Condition

if TYPE_CHECKING:
    from seeknal_k8s.views import JobView

LABEL = "batch.kubernetes.io/job-completion-index"
"""The label of a pod that says which index it is for (KEP-4017)."""

_STOPPED = Condition(
    "Failed", "True", "MaxFailedIndexes", "the Job was stopped because too many others had failed"
)


def key(job: str, index: int | str) -> str:
    """Return what an index is called."""
    return f"{job}/{index}"


def split(name: str) -> tuple[str, str]:
    """Return the Job and the index of a name; the index is empty where it is a Job's own."""
    job, _, index = name.partition("/")
    return job, index


@lru_cache(maxsize=64)
def parse(ranges: str) -> frozenset[int]:
    """Return the indexes in a text like ``1,3-5``, as Kubernetes writes them."""
    found: set[int] = set()
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def left(job: JobView | None, count: int) -> set[int]:
    """Return which of so many indexes have not ended; of a Job that is not there yet none has."""
    if job is None:
        return set(range(count))
    if job.ended:
        return set()
    completed, failed = job.status.completed_indexes, job.status.failed_indexes
    return set(range(count)) - parse(completed or "") - parse(failed or "")


def of(job: JobView, index: int) -> JobView:
    """Return how the Job would look if it had only this index."""
    status = job.status
    if index in parse(status.completed_indexes or ""):
        conditions = [Condition("Complete", "True")]
    elif index in parse(status.failed_indexes or ""):
        conditions = [Condition("Failed", "True", "PodFailurePolicy", f"index {index} failed")]
    else:
        failed = job.condition("Failed")
        stopped = failed is not None and failed.reason == "MaxFailedIndexesExceeded"
        conditions = [_STOPPED] if stopped else list(status.conditions or ())
    return msgspec.structs.replace(
        job, status=msgspec.structs.replace(status, conditions=conditions)
    )
