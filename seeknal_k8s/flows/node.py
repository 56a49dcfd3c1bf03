"""``run_seeknal_node``: one node as a task of somebody's own flow."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence  # noqa: TC003 - Prefect reads the annotations
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State  # noqa: TC002 - as above
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Failed

from seeknal_k8s import coordinator
from seeknal_k8s.flows.aloof import Aloof
from seeknal_k8s.flows.asked import LOCK_PATIENCE, On, exactly, request
from seeknal_k8s.logs import redact
from seeknal_k8s.results import PrefectRunResult  # noqa: TC001 - as above
from seeknal_k8s.store import Store

if TYPE_CHECKING:
    from seeknal_k8s.request import RunRequest
    from seeknal_k8s.results import RunResults


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
    has the result. A flow run that is started again, because its pod was killed, first ends the Jobs
    that it had left, so that no node runs twice at once.

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
    if flow_run.id:
        asked = replace(asked, run_id=f"{flow_run.id}-{secrets.token_hex(3)}")

    async def work() -> RunResults:
        await _end_what_died(asked, str(flow_run.id))
        return await coordinator.run(asked, lambda _: None)

    result = _of(node_id, Aloof(work).run())
    log = get_run_logger()
    for line in [*result.stdout.splitlines(), *result.stderr.splitlines()]:
        log.info("%s", line)
    if result.success:
        return result
    return Failed(message=redact(f"{result.reason}: {result.message}"), data=result)


def _of(node_id: str, results: RunResults) -> PrefectRunResult:
    """Return the result of the node; what it reads may have had to run before it."""
    return next(
        result
        for key, result in results.items()
        if result.reason != "Cached" and node_id in {key, key.partition(".")[2]}
    )


async def _end_what_died(asked: RunRequest, flow_run_id: str) -> None:
    """End the Jobs of this flow run's tasks whose coordinators are gone: nobody waits for them.

    Raises:
        ClusterError: the API server refused, or could not be reached.
    """
    if asked.settings is None:  # processes of this machine die with their coordinator
        return
    store = Store.of(asked.project, asked.store_root)
    mine = [run for run in store.runs() if run.id.startswith(f"{flow_run_id}-")]
    left = [run for run in mine if run.about().get("status") == "running"]
    alive = (store.holder() or {"run": ""}).get("run")  # None: nobody can tell who that is
    dead = [run for run in left if alive is not None and run.id != alive]
    if not dead:
        return
    from seeknal_k8s import cleaning  # noqa: PLC0415 - the cluster's client is not for laptops

    await cleaning.end(asked.settings, [run.id for run in dead])
    for run in dead:
        run.note(status="interrupted")
