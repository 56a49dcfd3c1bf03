"""The API server, and the only door to ``kubernetes``: create, get, list, watch, logs, delete.

The official asyncio client brings configuration, credentials and connections; of its calls only the
lowest is used. The typed ones cost 0.9 s of imports and a third more of each call, and their models
13 s for a list of 10,000 pods. Whatever fails is one of the ClusterErrors of ``errors``; whatever
may succeed later is tried again, a bounded number of times.

access     kubeconfig, context, service account → the library's client
transport  one request → an answer, or an error; again where that may help
refusals   status and body of a refusal → the error, with its remedy
pace       pauses between attempts, and a rate of creation that follows the server
client     the verbs
"""

from __future__ import annotations

from seeknal_k8s.cluster.client import Cluster, Listing, Permission, Server
from seeknal_k8s.cluster.pace import Backoff, Rate
from seeknal_k8s.cluster.transport import Patience

__all__ = ["Backoff", "Cluster", "Listing", "Patience", "Permission", "Rate", "Server"]
