"""The flows: a run as Prefect sees it, and a single node as a task.

asked      a flow's parameters → what the coordinator is asked
aloof      the coordinator on a loop and a thread of its own, whoever calls
shown      a run's events → task runs, their states and logs
nodelog    what a node prints → the lines that Prefect gets
artifacts  the progress bar, the table and the summary of a run
run        ``seeknal_run_flow``
backfill   ``seeknal_backfill_flow``
node       ``run_seeknal_node``

Prefect is a view: what ran and how it ended is known from the store, and a Prefect server that
cannot be reached fails no run.
"""

from __future__ import annotations

from seeknal_k8s.flows.backfill import seeknal_backfill_flow
from seeknal_k8s.flows.node import run_seeknal_node
from seeknal_k8s.flows.run import seeknal_run_flow

__all__ = ["run_seeknal_node", "seeknal_backfill_flow", "seeknal_run_flow"]
