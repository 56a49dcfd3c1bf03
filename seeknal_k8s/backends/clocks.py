"""How long an attempt may be where it is, and when to look at it again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seeknal_k8s.diagnosis import Clock, Wait
from seeknal_k8s.manifest import GRACE

if TYPE_CHECKING:
    from seeknal_k8s.settings import Settings

LOOK_EVERY = 1.0
"""The least seconds between two looks at an attempt of which nothing new is heard."""

_OF_WAITING = 0.25
"""The part of the time it has waited after which an attempt is looked at again."""


@dataclass(slots=True)
class Clocks:
    """Since when an attempt is where it is, on the monotonic clock, and why."""

    wait: Wait = field(default_factory=lambda: Wait(Clock.QUEUE))
    since: float = field(default_factory=time.monotonic)
    reason_since: float = field(default_factory=time.monotonic)

    @property
    def leaving(self) -> bool:
        """Whether its pod runs and was told to end, which a machine that is gone never does."""
        return self.wait.clock is Clock.RUN and self.wait.reason != ""

    def see(self, wait: Wait) -> None:
        """Take note of where the attempt stands now."""
        now = time.monotonic()
        if wait.clock is not self.wait.clock:
            self.since = now
        if wait.reason != self.wait.reason:
            self.reason_since = now
        self.wait = wait

    def left(self, settings: Settings) -> float:
        """Return the seconds for which waiting is within the limits and of use; for ever if it runs."""
        if self.wait.hopeless:
            return 0.0
        now = time.monotonic()
        if self.wait.clock is Clock.RUN:
            until = self.reason_since + GRACE + settings.deadline_margin
            return until - now if self.leaving else math.inf
        limit = {
            Clock.QUEUE: settings.queue_timeout,
            Clock.SCHEDULE: settings.schedule_timeout,
            Clock.START: settings.start_timeout,
        }[self.wait.clock]
        until = self.since + limit
        if self.wait.reason == "ImagePull":
            until = min(until, self.reason_since + settings.image_pull_grace)
        return until - now

    def look_again(self, left: float) -> float | None:
        """Return the seconds after which to look again if nothing is heard, None for never.

        ``left`` are those for which it may wait. What only events tell, no watch brings. Looks
        become rarer the longer it waits: ten thousand attempts may wait at once.
        """
        if self.wait.clock is not Clock.RUN:
            waited = time.monotonic() - self.since
            left = min(left, max(LOOK_EVERY, waited * _OF_WAITING))
        return None if left == math.inf else max(left, 0.0)
