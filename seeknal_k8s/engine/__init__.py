"""Seeknal's door: the only part of this package that imports seeknal, duckdb and pyarrow.

``project`` reads a project, ``execute`` runs one node of it faithfully, ``script`` runs the Python
scripts that Seeknal would start with ``uv run``, ``publish`` writes what Seeknal keeps of a run.
Import these from a process whose working directory is the project: Seeknal loads ``.env`` from
there, once, at import.
"""
