"""``run_seeknal_node``: one node as a task of somebody's own flow."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence  # noqa: TC003 - Prefect reads the annotations
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State  # noqa: TC002 - as above
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run
from prefect.states import Failed

from seeknal_k8s import coordinator
from seeknal_k8s.flows.aloof import Aloof
from seeknal_k8s.flows.asked import LOCK_PATIENCE, On, exactly, request
from seeknal_k8s.logs import redact
from seeknal_k8s.names import digest
from seeknal_k8s.results import PrefectRunResult  # noqa: TC001 - as above
from seeknal_k8s.store import Store

if TYPE_CHECKING:
    from seeknal_k8s.results import RunResults

_CALLS: dict[tuple[str, int, str], list[str]] = {}
"""The task runs of calls that are alike, in order; by their flow run, its try, and what they ask for."""

_LOCK = threading.Lock()
"""Tasks run in threads."""


@task(
    name="run-seeknal-node", task_run_name="{node_id}", persist_result=False, cache_policy=NO_CACHE
)
def run_seeknal_node(
    node_id: str,
    project_path: str = ".",
    *,
    options: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    on: On | None = None,
    store: str | None = None,
) -> PrefectRunResult | State[Any]:
    """Run exactly one node, and return its ``PrefectRunResult``.

    A node that fails fails the task, so that Prefect's own retries count; its state says why and
    has the result. A flow run that is started again, because its pod was killed or for a retry, goes on
    with what the same call has begun, and gets the result of what has succeeded: nothing runs twice.

    Tasks on one project wait for each other: the store has one coordinator at a time. To run many
    nodes at once, use ``seeknal_run_flow(node_ids=[…])``.
    """
    asked = request(
        project_path,
        on=on,
        store=store,
        options=options,
        params=params,
        select=exactly([node_id]),
        wait=LOCK_PATIENCE,
    )
    alike = json.dumps([node_id, str(project_path), list(options), params, on], default=str)
    if run_id := _run_id(Store.of(asked.project, asked.store_root), alike):
        asked = replace(asked, run_id=run_id, resume_if_started=True)

    async def work() -> RunResults:
        return await coordinator.run(asked, lambda _: None)

    results = Aloof(work).run()
    (result,) = [found for found in results.values() if found.reason != "Cached"]
    log = get_run_logger()
    for line in [*result.stdout.splitlines(), *result.stderr.splitlines()]:
        log.info("%s", line)
    if result.success:
        return result
    return Failed(message=redact(f"{result.reason}: {result.message}"), data=result)


def _run_id(store: Store, alike: str) -> str | None:
    """Return an id that the same call has in every try of its flow run; None outside of flow runs.

    Prefect's own ids and keys of task runs are others each time. A run that has failed is over: when
    Prefect tries the task again, that is the next one.
    """
    if not flow_run.id:
        return None
    with _LOCK:
        calls = _CALLS.setdefault((flow_run.id, flow_run.run_count, alike), [])
        if task_run.id not in calls:
            calls.append(task_run.id)
        number = calls.index(task_run.id)
    tries = (f"{flow_run.id}-{digest(alike, str(number), str(tried))}" for tried in count())
    return next(one for one in tries if store.folder(one).about().get("status") != "failed")
