"""``python -m seeknal_k8s.doctor``: the two pods of ``doctor --pods``, and nothing else.

What ``helm test`` runs, with the rights of the coordinator and no others.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from seeknal_k8s.cluster import Cluster
from seeknal_k8s.doctor import probe
from seeknal_k8s.doctor.findings import State
from seeknal_k8s.errors import SeeknalK8sError
from seeknal_k8s.settings import load

if TYPE_CHECKING:
    from seeknal_k8s.doctor.findings import Judgement


async def _judge() -> Judgement:
    settings = load()
    settings.ensure_runnable()
    async with Cluster(namespace=settings.namespace) as cluster:
        return await probe.judge(cluster, settings)


def main() -> int:
    """Say how the two pods have ended; return 0 if well."""
    try:
        found = asyncio.run(_judge())
    except SeeknalK8sError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program of its own
        return error.exit_code
    print(found.reason)  # noqa: T201
    if found.fix:
        print(f"  → {found.fix}")  # noqa: T201
    return 0 if found.state is State.OK else 1


if __name__ == "__main__":
    sys.exit(main())
