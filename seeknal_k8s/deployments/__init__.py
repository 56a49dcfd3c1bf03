"""Prefect's work pools and deployments: what we want there, what is there, and the difference.

schedules  what people write → Prefect's schedule
known      the flows there are, and what a deployment of one may be given
wanted     the whole state of a deployment, as wanted and as found
deploy     ``create_prefect_deployment``, and the list of what is deployed
template   a pool's base job template, from the worker's current one and our settings
pool       create or update the pool; its drift
api        the API and its errors

A pool's template needs the Kubernetes worker, which takes 4 s to import: name ``pool`` and
``template`` in full.
"""

from __future__ import annotations

from seeknal_k8s.deployments.deploy import (
    acreate_prefect_deployment,
    create_prefect_deployment,
    listed,
)
from seeknal_k8s.deployments.wanted import Deployed, Listed

__all__ = [
    "Deployed",
    "Listed",
    "acreate_prefect_deployment",
    "create_prefect_deployment",
    "listed",
]
