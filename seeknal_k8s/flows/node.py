"""``run_seeknal_node``: one node as a task of somebody's own flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - Prefect reads the annotations
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State  # noqa: TC002 - as above
from prefect.logging import get_run_logger
from prefect.states import Failed

from seeknal_k8s import coordinator
from seeknal_k8s.flows.aloof import Aloof
from seeknal_k8s.flows.asked import LOCK_PATIENCE, On, exactly, request
from seeknal_k8s.logs import redact
from seeknal_k8s.results import PrefectRunResult  # noqa: TC001 - as above

if TYPE_CHECKING:
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
    has the result. Tasks on one project wait for each other: the store has one coordinator at a
    time. To run many nodes at once, use ``seeknal_run_flow(node_ids=[…])``.
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
