"""A flow where a worker can import it, which tells in a file that it has run."""

from __future__ import annotations

from pathlib import Path

from prefect import flow


@flow(name="seeknal-run-pipeline")
def seeknal_run_flow(
    project_path: str = ".",
    parallel: bool = True,  # noqa: FBT001, FBT002 - a parameter of the real flow
    node_ids: list[str] | None = None,
) -> None:
    """Run the whole pipeline."""
    Path(project_path, "ran").write_text(f"{parallel} {node_ids}", encoding="utf-8")
