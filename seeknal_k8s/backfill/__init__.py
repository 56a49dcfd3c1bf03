"""Run a node for every interval of a schedule between two dates, each exactly once.

``request`` is what somebody wants, ``scope`` which nodes that takes, ``ledger`` what is done,
``claims`` who is at it, ``targets`` what can be lost, ``planning`` what is left to do, ``carrying``
does it. Reading the project and running attempts are those of any run.

    <store>/intervals/<node>/ledger/<interval>.json      what is known of a finished interval
    <store>/intervals/<node>/failed/<interval>.json      how one failed that is not finished
    <store>/intervals/<node>/claims/<run>.json           who is at work on which intervals
    <store>/intervals/<node>/data/<node>/interval_start=<start>/rows.parquet
"""

from __future__ import annotations

from seeknal_k8s.backfill.carrying import plan, run
from seeknal_k8s.backfill.request import BackfillRequest, Upper
from seeknal_k8s.backfill.standing import status

__all__ = ["BackfillRequest", "Upper", "plan", "run", "status"]
