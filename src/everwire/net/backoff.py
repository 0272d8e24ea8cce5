"""When to try again: a policy without a clock."""

from __future__ import annotations

import math
from random import Random, SystemRandom

_GROWTH_ENDS = 1e9  # times the base: that is above any cap, and soon above any float


class Backoff:
    """Delays between attempts: exponential with a cap, and full jitter after the cap.

    Jitter that is added before the cap vanishes at it, and everybody comes at once; jitter
    over the whole range keeps clients apart however long an outage lasts. The number of
    attempts is forgotten only after a link that held: a server which accepts and then
    closes is a failing one.

    Args:
        first: the first retry after a link was lost comes within U(0, ``first``) seconds.
        base: attempt n waits U(``floor``, min(``cap``, ``base`` * ``growth`` ** n)) seconds.
        growth: by which factor the upper end grows; at least 1.
        cap: no upper end is above this, in seconds.
        floor: no wait but the first is below this, in seconds.
        stable_after: a link that was ready for so many seconds resets the attempts.
        random: where chance comes from; the default cannot be alike in two processes.

    Attributes:
        attempts: waits since the last reset, the first retry not counted.
    """

    __slots__ = ("_base", "_cap", "_first", "_first_used", "_floor", "_growth",
                 "_last_growth", "_random", "_stable_after",
                 "attempts")  # fmt: skip

    def __init__(
        self,
        *,
        first: float = 2.0,
        base: float = 1.0,
        growth: float = 2.0,
        cap: float = 20.0,
        floor: float = 0.1,
        stable_after: float = 30.0,
        random: Random | None = None,
    ) -> None:
        self._first = first
        self._base = base
        self._growth = max(1.0, growth)
        grows = self._growth > 1.0
        self._last_growth = math.log(_GROWTH_ENDS, self._growth) if grows else math.inf
        self._cap = cap
        self._floor = floor
        self._stable_after = stable_after
        self._random = random or SystemRandom()
        self._first_used = False
        self.attempts = 0

    def delay(self, held: float | None = None, hint: float | None = None) -> float:
        """Return the seconds to wait before the next attempt, and count it.

        Args:
            held: for how many seconds the link that was lost had been ready; None if
                there was none.
            hint: what the server asked for, in seconds: at least this is waited, and at
                most a little more, so that those who were told the same come apart.
        """
        if held is not None and held >= self._stable_after:
            self.reset()
        if held is not None and self.attempts == 0 and not self._first_used:
            self._first_used = True
            delay = self._random.uniform(0.0, self._first)
        else:
            delay = self._random.uniform(*self.bounds(self.attempts))
            self.attempts += 1
        if hint is not None:
            return hint + self._random.uniform(0.0, min(self._first, hint))
        return delay

    def bounds(self, attempt: int) -> tuple[float, float]:
        """Return the shortest and the longest wait of an attempt, counted from 0."""
        longest = min(self._cap, self._base * self._growth ** min(attempt, self._last_growth))
        return self._floor, max(self._floor, longest)

    def reset(self) -> None:
        """Begin anew, as after a link that held."""
        self.attempts = 0
        self._first_used = False
