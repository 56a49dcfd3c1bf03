"""Put the rows of many files together in one."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def combine(files: Sequence[str], into: Sequence[Path]) -> None:
    """Write all rows of ``files``, in order, to each of ``into``, which are replaced at once.

    Raises:
        OSError, duckdb.Error: a file could not be read or written.
    """
    first, *others = into
    first.parent.mkdir(parents=True, exist_ok=True)
    beside = first.with_name(f".{first.name}.{os.getpid()}.tmp")
    with duckdb.connect(":memory:") as connection:
        rows = connection.read_parquet(list(files), union_by_name=True, hive_partitioning=False)
        rows.write_parquet(str(beside))
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        copy = other.with_name(f".{other.name}.{os.getpid()}.tmp")
        shutil.copy2(beside, copy)
        copy.replace(other)
    beside.replace(first)
