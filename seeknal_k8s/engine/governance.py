"""Ask Atlas, where a company has it, whether the sources of a run may be read.

``seeknal run`` asks before it runs; its executors do not. Without this, running nodes one by one
would go around the rules.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seeknal_k8s.engine.project import Project


def refusals(project: Project, node_ids: Iterable[str]) -> dict[str, str]:
    """Return the sources among these nodes that may not be read, each with Atlas's reason.

    Nothing is asked, and nothing imported, where Atlas is not configured.
    """
    from seeknal.integrations.atlas_config import atlas_config

    if not (os.environ.get("ATLAS_API_URL", "").strip() or atlas_config().api_url):
        return {}
    from seeknal.cli.main import _source_fqtn
    from seeknal.integrations.atlas_client import AtlasContractError
    from seeknal.integrations.atlas_governance import (
        create_governance_gate_from_env,
        user_sub_from_credentials,
    )

    gate, actor = create_governance_gate_from_env(), user_sub_from_credentials()
    refused = {}
    for node_id in node_ids:
        node = project.node(node_id)
        resource = _source_fqtn(node) if node.kind.value == "source" else None
        if resource and gate is not None:
            try:
                gate.enforce_access(resource=resource, action="read", actor=actor)
            except AtlasContractError as error:
                refused[node_id] = f"{resource}: {error}"
    return refused
