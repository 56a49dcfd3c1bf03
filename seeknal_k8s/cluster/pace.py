"""How fast we may ask: pauses between attempts, and a rate of creation that follows the server.

Both take their clock as an argument and know nothing of what they pace.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW = 64
_ENOUGH = 16
"""How many of the last turns are looked at, at most and at least, to know the real rate."""


class Backoff:
    """Pauses that double from ``first`` to ``most`` seconds, each drawn from its upper half.

    The jitter keeps the coordinators apart that lost the same API server in the same moment.
    """

    def __init__(self, *, first: float = 0.25, most: float = 10.0) -> None:
        self.first = first
        self.most = most
        self._next = first

    def reset(self) -> None:
        """Begin again with the shortest pause: something has succeeded."""
        self._next = self.first

    def pause(self, at_least: float | None = None) -> float:
        """Return the seconds to wait now: at least what the server asked for, plus the jitter."""
        jittered = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        self._next = min(self._next * 2, self.most)
        return jittered if at_least is None else at_least + jittered


class Rate:
    """A rate that halves when the server says "too many" and recovers slowly, as TCP does.

    ``most`` and ``least`` are turns per second. Halved is what was really reached, not what would
    have been allowed; it is halved once for all the refusals of one volley. After a second without
    a refusal a twentieth of ``most`` comes back: from the bottom to the top in 20 seconds.
    """

    def __init__(
        self,
        most: float = 500.0,
        *,
        least: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = most
        self.least = least
        self.per_second = most
        self._clock = clock
        self._slot = self._changed = clock()
        self._cut = float("-inf")
        self._queue = asyncio.Lock()
        self._taken: deque[float] = deque(maxlen=_WINDOW)

    async def turn(self) -> float:
        """Wait for a turn; return the moment it began, for ``refused``."""
        async with self._queue:  # first come, first served, and only one is woken at a time
            while (wait := self.reserve()) > 0:  # noqa: ASYNC110 - time itself is awaited
                await asyncio.sleep(wait)
        return self._clock()

    def reserve(self) -> float:
        """Take the turn and return 0, or return the seconds after which to ask again."""
        now = self._clock()
        self._recover(now)
        if self._slot > now:
            return self._slot - now
        # What a late caller did not use is not saved up, except for the grain of the clock.
        self._slot = max(self._slot, now - 0.01) + 1 / self.per_second
        self._taken.append(now)
        return 0.0

    def refused(self, began: float, retry_after: float | None = None) -> None:
        """Halve the rate, unless the call that was refused began before it was last halved.

        For ``retry_after`` seconds nobody gets a turn.
        """
        now = self._clock()
        self._slot = max(self._slot, now + (retry_after or 0.0))
        if began <= self._cut:
            return
        self._cut = self._changed = now
        self.per_second = max(self.least, min(self.per_second, self._reached()) / 2)
        self._taken.clear()  # so that the pause that follows does not count as slowness

    def _recover(self, now: float) -> None:
        if (quiet := now - self._changed) >= 1.0:
            self.per_second = min(self.most, self.per_second + int(quiet) * self.most / 20)
            self._changed += int(quiet)

    def _reached(self) -> float:
        """Return the turns per second that were taken since the last cut, if there were enough."""
        if len(self._taken) < _ENOUGH:
            return self.per_second
        return (len(self._taken) - 1) / max(self._taken[-1] - self._taken[0], 1e-3)
