"""The manifests of a plan: what ``run --on kubernetes`` would create, made without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal_k8s import manifest
from seeknal_k8s.names import anchor_name
from seeknal_k8s.store import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seeknal_k8s.settings import Settings

RUN_ID = "preview"
"""The run's id where none is given: always the same, so that two renderings can be compared."""

_NO_UID = "00000000-0000-0000-0000-000000000000"
"""The anchor's uid, which only the API server gives.

Jobs that are created with it belong to nobody, and the garbage collector removes them.
"""


def objects(
    drafts: Iterable[manifest.Draft], *, project: str, run_id: str, settings: Settings
) -> list[dict[str, Any]]:
    """Return the run's anchor and the first Job of each node, as they would be created.

    Raises:
        UsageError, ProjectRefused: the settings, or a node's options, make no valid Job.
    """
    settings.ensure_runnable()
    folder = RunFolder(Path(settings.store_path) / "runs" / run_id)
    owner = manifest.Owner(run_id, project, anchor_name(run_id), _NO_UID)
    found = [manifest.anchor(run_id, project, settings)]
    for draft in drafts:
        order = folder.bundle(draft.node.id) / str(draft.number) / "order.json"
        found.append(manifest.build(draft, owner, settings, order=str(order)))
    return found
