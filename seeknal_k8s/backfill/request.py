"""What somebody wants to have backfilled."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from seeknal_k8s import intervals
from seeknal_k8s.errors import UsageError
from seeknal_k8s.request import RunRequest
from seeknal_k8s.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seeknal_k8s.intervals import Interval
    from seeknal_k8s.options import Override
    from seeknal_k8s.request import Backend
    from seeknal_k8s.settings import Settings

Upper = Literal["exclusive", "inclusive"]
"""What ``{{ end_date }}`` is: the first moment after the interval (``<``) or its last day (``<=``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """What somebody wants to have backfilled.

    ``node`` is an id or a name; with a ``+`` behind it what reads it runs, too. The range is
    ``start`` to ``end`` or the ``last`` 7d before ``now``. ``end_inclusive`` is whether an end that is a
    day belongs to it; ``upper`` what ``{{ end_date }}`` is, None for what the node's SQL seems to expect.

    ``restate`` runs finished intervals again, ``rerun_changed`` those that ran with other logic.
    ``accept_partial`` counts a last interval that the range cuts short as finished. ``anyway`` lets
    a node run that uses no interval, ``yes`` lets there be more than ``intervals.LIMIT``. ``chunk`` is how many
    intervals one attempt runs. ``combine`` puts all intervals together as the node's normal output.
    ``indexed`` is whether the first attempts are the indexes of one Job on Kubernetes; None for where they
    can be: not where the intervals run one at a time.
    The rest is as in ``RunRequest``.
    """

    project: Path
    node: str
    start: str | None = None
    end: str | None = None
    last: str | None = None
    schedule: str = "@daily"
    timezone: str = "UTC"
    end_inclusive: bool = True
    upper: Upper | None = None
    now: datetime | None = None
    restate: bool = False
    rerun_changed: bool = False
    accept_partial: bool = False
    anyway: bool = False
    yes: bool = False
    chunk: int = 1
    combine: bool = False
    max_failures: int | None = None
    indexed: bool | None = None
    store: Path | None = None
    run_id: str | None = None
    options: Sequence[Override] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    profile: Path | None = None
    on: Backend = "local"
    settings: Settings | None = None
    at_once: int | None = None
    wait: float = 0.0

    def intervals(self) -> list[Interval]:
        """Return the intervals that are asked for.

        Raises:
            UsageError: the range, the schedule or the zone makes no sense.
        """
        if self.chunk < 1:
            raise UsageError("a chunk has at least one interval")
        if self.last is not None:
            if self.start is not None or self.end is not None:
                raise UsageError("name a range by its start and end, or by the last so many days")
            now = self.now or datetime.now(UTC)
            return intervals.last(self.last, now, schedule=self.schedule, timezone=self.timezone)
        if self.start is None or self.end is None:
            raise UsageError(
                "it needs a range: --start and --end, or --last 7d (start_date and end_date, or last)"
            )
        found = intervals.between(
            self.start,
            self.end,
            schedule=self.schedule,
            timezone=self.timezone,
            end_inclusive=self.end_inclusive,
        )
        if len(found) > intervals.LIMIT and not self.yes:
            raise UsageError(
                f"the range has {len(found):,} intervals of '{self.schedule}'\n"
                "  → take a shorter one, or say that you mean it: --yes"
            )
        return found

    @property
    def place(self) -> Store:
        """The store."""
        return Store.of(self.project, self.shares.store_root)

    @property
    def shares(self) -> RunRequest:
        """The run of what all intervals read."""
        return RunRequest(
            project=self.project,
            store=self.store,
            options=self.options,
            params=self.params,
            profile=self.profile,
            on=self.on,
            settings=self.settings,
            at_once=self.at_once,
            wait=self.wait,
        )
