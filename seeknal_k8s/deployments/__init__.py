"""Prefect's work pools and deployments: what we want there, what is there, and the difference.

schedules  what people write → Prefect's schedule
known      the flows there are, and what a deployment of one may be given
wanted     the whole state of a deployment, as wanted and as found
deploy     ``create_prefect_deployment``
listing    what is deployed
file       a deployment as a ``prefect.yaml``
template   a pool's base job template, from the worker's current one and our settings
pool       create or update the pool; its drift
health     the API's version, a pool's workers
api        the API and its errors

A pool's template needs the Kubernetes worker, which takes 4 s to import: name ``pool`` and
``template`` in full.
"""

from __future__ import annotations

from seeknal_k8s.deployments.deploy import create_prefect_deployment
from seeknal_k8s.deployments.listing import listed
from seeknal_k8s.deployments.wanted import Deployed, Listed

__all__ = [
    "Deployed",
    "Listed",
    "create_prefect_deployment",
    "listed",
]
