"""What attempts of a backfill have made goes into the ledger, whole intervals at a time."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from seeknal_k8s import verdict
from seeknal_k8s.attempt import Ending
from seeknal_k8s.backfill.ledger import Record
from seeknal_k8s.endings import result_of
from seeknal_k8s.store import utc_now

if TYPE_CHECKING:
    from pathlib import Path

    from seeknal_k8s.backends import Attempt
    from seeknal_k8s.backfill.ledger import Ledger
    from seeknal_k8s.backfill.planning import BackfillPlan
    from seeknal_k8s.backfill.request import BackfillRequest
    from seeknal_k8s.plan import NodeRun
    from seeknal_k8s.results import PrefectRunResult


class Keeping:
    """The keeper of one backfill's run.

    ``results`` are of the intervals that are done, ``failures`` of those that their last attempt
    has told about itself.
    """

    def __init__(
        self, ledger: Ledger, plan: BackfillPlan, request: BackfillRequest, run_id: str
    ) -> None:
        self._ledger = ledger
        self._plan = plan
        self._request = request
        self._run_id = run_id
        self._by_key = {interval.key: interval for interval in plan.todo}
        self._superseded = list(plan.superseded)
        self.results: dict[str, PrefectRunResult] = {}
        self.failures: dict[str, PrefectRunResult] = {}

    def accept(self, attempt: Attempt, ending: Ending) -> None:
        """Keep all intervals of an attempt that has succeeded."""
        del ending
        self.take(attempt.folder, attempt.number)

    def salvage(self, run: NodeRun, attempt: Attempt) -> NodeRun:
        """Keep what an attempt had finished before it failed; return what is left to run."""
        if run.piece is None:
            return run
        for span in run.piece.spans:
            self.failures.pop(span.key, None)
        self.take(attempt.folder, attempt.number)
        left = tuple(span for span in run.piece.spans if span.key not in self.results)
        return replace(run, piece=replace(run.piece, spans=left))

    def take(self, folder: Path, number: int, *, over: bool = True) -> None:
        """Publish every interval that an attempt's folder has whole, and note those that failed.

        The rest of the folder is cleared away, unless the attempt is not ``over``: its pod may be at
        work there.

        Raises:
            StoreUnavailable: it could not be written.
        """
        places = sorted((folder / "intervals").glob("*/result.json"))
        for place in places:
            ending = Ending.read(place)
            key = str(ending.metadata.get("interval")) if ending else ""
            if ending is None or key not in self._by_key or key in self.results:
                continue
            found = verdict.read(ending)
            result = result_of(folder, ending, found, attempts=number)
            if len(places) > 1:  # the log is of all of them
                result.stdout = result.stderr = ""
            if found.success:
                self._land(key, place.parent / "home", ending)
                self.results[key] = result
            else:
                self.failures[key] = result
                self._ledger.note_failure(self._record(key, ending, error=result.message))
        if over:
            shutil.rmtree(folder / "intervals", ignore_errors=True)

    def failed(self, keys: list[str], result: PrefectRunResult) -> dict[str, PrefectRunResult]:
        """Return how the intervals of an attempt ended that failed, those that are not done.

        What an attempt could not say itself, because it was killed, is noted now.
        """
        left = [key for key in keys if key not in self.results]
        for key in left:
            if key not in self.failures and result.attempts:
                ending = Ending(result.exit_code, seconds=result.duration_seconds)
                record = self._record(key, ending, error=result.message or result.reason)
                self._ledger.note_failure(record)
        return {key: self.failures.get(key, result) for key in left}

    def _land(self, key: str, home: Path, ending: Ending) -> None:
        record = self._record(key, ending)
        for other in [one for one in self._superseded if one.interval.overlaps(record.interval)]:
            with contextlib.suppress(OSError):
                self._ledger.forget(other, self._plan.scope.wanted)
            self._superseded.remove(other)
        self._ledger.land(record, home, ending.outputs, self._plan.scope.wanted)

    def _record(self, key: str, ending: Ending, *, error: str = "") -> Record:
        return Record(
            key=key,
            timezone=self._request.timezone,
            logic=self._plan.scope.logic,
            run=self._run_id,
            when=utc_now(),
            rows=ending.rows,
            seconds=ending.seconds,
            partial=self._by_key[key].partial and not self._request.accept_partial,
            error=error,
        )
