"""How a node runs: its CPU, memory, retries and the rest, and where each was written.

Options are layered, the later over the earlier: built-in, then ``defaults:``, ``kinds:``,
``tags:`` (in the order of the file) and ``nodes:`` of ``seeknal-k8s.yml``, then the node's own
``kubernetes:``, then ``--set`` for all nodes and ``--set`` for this one. One rule merges them:

* a scalar or a list replaces what was below it;
* the maps ``env``, ``node_selector`` and ``pod_template`` (this one at every depth) merge key by
  key; a ``null`` key of the first two takes out what was below, while one of ``pod_template`` stays
  in the patch, where it takes a key out of the pod;
* ``null`` as an option's whole value brings the built-in default back.
"""

from seeknal_k8s.options.file import OptionsFile, resolve_all
from seeknal_k8s.options.layers import Override, Resolved, parse_overrides
from seeknal_k8s.options.model import Gpu, NodeOptions, Toleration

__all__ = [
    "Gpu",
    "NodeOptions",
    "OptionsFile",
    "Override",
    "Resolved",
    "Toleration",
    "parse_overrides",
    "resolve_all",
]
