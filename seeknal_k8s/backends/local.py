"""Run attempts as processes of this machine, each a fork of the engine process.

The rule for sharing the machine: a node that says what it needs gets that; all others divide the
cores and 80 % of the memory evenly among as many nodes as run at once. DuckDB gets 70 % of a
node's memory, for the Python around it needs some too, and one thread per core of its own, or
more while cores would be idle.
"""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from seeknal_k8s.attempt import AttemptSpec, Ending
from seeknal_k8s.backends import DUCKDB_PART, Share

if TYPE_CHECKING:
    from seeknal_k8s.backends import Attempt
    from seeknal_k8s.engine_client import EngineClient
    from seeknal_k8s.options import Resolved

MACHINE_PART = 0.8
"""The part of the machine's memory that nodes may use together."""


def cores() -> int:
    """Return how many cores this process may use, as its affinity and its cgroup say."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_number("cpu.max", "cpu/cpu.cfs_quota_us")
    period = _cgroup_number("cpu.max", "cpu/cpu.cfs_period_us", field=1)
    allowed = math.ceil(quota / period) if quota and period and quota > 0 else math.inf
    return max(1, int(min(affinity or 1, allowed)))


def memory() -> int:
    """Return how many bytes of memory this process may use: the machine's, or its cgroup's."""
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes")
    return min(psutil.virtual_memory().total, limit or (1 << 62))


def _cgroup_number(v2: str, v1: str, *, field: int = 0) -> int | None:
    """Return a number from the cgroup's files, None where there is no limit."""
    base = Path("/sys/fs/cgroup")
    for file, index in ((base / v2, field), (base / v1, 0)):
        try:
            return int(file.read_text(encoding="ascii").split()[index])
        except (OSError, ValueError, IndexError):
            continue
    return None


class LocalBackend:
    """Attempts as processes here. They die with their coordinator: there is nothing to reattach."""

    reattaches = False

    def __init__(
        self,
        engine: EngineClient,
        *,
        project: Path,
        environments: Path,
        at_once: int | None = None,
    ) -> None:
        self._engine = engine
        self._project = project
        self._environments = environments
        self._cores = cores()
        self._memory = int(memory() * MACHINE_PART)
        self._slots = max(1, min(at_once or self._cores, self._cores))

    @property
    def capacity(self) -> Share:
        """The cores, and the part of the memory that nodes may use together."""
        return Share(cpu=float(self._cores), memory=self._memory)

    def share(self, options: Resolved) -> Share:
        """Return what the node asks for, at most the machine; an even part if it does not say."""
        even = self._memory // self._slots
        asked = even if options.is_default("memory") else options.memory_bytes
        return Share(
            cpu=min(options.cpu_cores, float(self._cores)), memory=min(asked, self._memory)
        )

    async def run(self, attempt: Attempt) -> Ending:
        """Run the attempt in a fork of the engine process."""
        spec = self._spec(attempt)
        request, future = self._engine.start("run", spec=spec.to_dict())
        try:
            ended = await asyncio.shield(future)
        except asyncio.CancelledError:
            await self._engine.call("stop", of=request)
            await future
            raise
        return Ending(**{**ended, "outputs": tuple(ended["outputs"])})

    def _spec(self, attempt: Attempt) -> AttemptSpec:
        options = attempt.options.options
        node = attempt.node
        return AttemptSpec(
            node_id=node.id,
            folder=str(attempt.folder),
            project=str(self._project),
            target=str(self._project / "target"),
            inputs=attempt.inputs,
            undeclared=node.undeclared,
            required=attempt.required,
            memory=int(attempt.share.memory * DUCKDB_PART),
            threads=self._threads(attempt),
            spill=self._spill(attempt),
            timeout=attempt.timeout,
            env=tuple(sorted(options.env.items())),
            environments=str(self._environments),
            allow_failed_materialization=options.allow_failed_materialization,
            full=attempt.full,
            piece=attempt.piece,
        )

    def _threads(self, attempt: Attempt) -> int:
        if not attempt.options.is_default("cpu"):
            return min(self._cores, math.ceil(attempt.options.cpu_cores))
        return max(1, self._cores // min(attempt.crowd, self._slots))

    @staticmethod
    def _spill(attempt: Attempt) -> int | None:
        if attempt.options.is_default("ephemeral_storage"):
            return None
        return int(attempt.options.ephemeral_storage_bytes * DUCKDB_PART)
