"""Seeknal's door: the only part of this package that imports seeknal, duckdb and pyarrow.

``project`` reads a project, ``execute`` runs one node of it faithfully, ``script`` runs the Python
scripts that Seeknal would start with ``uv run``, ``publish`` writes what Seeknal keeps of a run.
Import these from a process whose working directory is the project: Seeknal loads ``.env`` from
there, once, at import.
"""

from __future__ import annotations


def preload() -> None:
    """Import the part of Seeknal that does not look at the working directory: most of the time.

    The rest waits until the project is known.
    """
    import seeknal.workflow.dag
    import seeknal.workflow.state  # noqa: F401
