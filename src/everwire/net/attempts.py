"""How often a process may try what has just failed: a budget for each endpoint.

Backoff keeps one client from hammering a server; it cannot know of the other clients of
its process. They share this: of attempts that follow a failure, an endpoint sees at most
:data:`~everwire.limits.MAX_ATTEMPTS` in any minute from all of them together, as long as
none of their links holds. What follows no failure costs nothing: a first connection, the
loss of a link that had held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from urllib.parse import urlsplit

from ..limits import MAX_ATTEMPTS

MINUTE = 60.0
MAX_ENDPOINTS = 1_024  # budgets that a process remembers; those that are whole go first
_PORTS = {"ws": 80, "wss": 443}


class Attempts:
    """The budgets of a network's endpoints, shared by everything that connects over it.

    Half of a minute's attempts may be made at once, the others come one by one over the
    minute: so no minute sees more, and after a burst nobody waits for a whole one.

    Args:
        minute: attempts in any minute, at least 2; None sets no bound.
        clock: seconds that only grow.
    """

    def __init__(
        self, minute: int | None = MAX_ATTEMPTS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = 0 if minute is None else minute // 2
        self._interval = 0.0 if minute is None else MINUTE / (minute - self._burst)
        self._clock = clock
        self._whole_at: dict[str, float] = {}  # when an endpoint's budget will be whole again

    def wait(self, endpoint: str) -> float:
        """Seconds until there is something left for ``endpoint``; 0.0 if there is."""
        spent = self._whole_at.get(endpoint, 0.0) - self._clock()
        return max(0.0, spent - (self._burst - 1) * self._interval)

    def spend(self, endpoint: str) -> bool:
        """Take one attempt from the budget. False if nothing is left of it."""
        if self.wait(endpoint) > 0.0:
            return False
        now = self._clock()
        if endpoint not in self._whole_at and len(self._whole_at) >= MAX_ENDPOINTS:
            self._forget(now)
        self._whole_at[endpoint] = max(now, self._whole_at.get(endpoint, now)) + self._interval
        return True

    def restore(self, endpoint: str) -> None:
        """Make a budget whole: a link to the endpoint has held, so the failures are over."""
        self._whole_at.pop(endpoint, None)

    async def take(self, endpoint: str, random: Random) -> float:
        """Wait until an attempt can be taken from the budget; return for how long, in seconds.

        Whoever waits looks again at a moment of its own, so that they do not come
        together. Cancelling takes nothing.
        """
        began = self._clock()
        while not self.spend(endpoint):
            jitter = random.uniform(0.0, self._interval / 4)
            await asyncio.sleep(self.wait(endpoint) + jitter)
        return self._clock() - began

    def _forget(self, now: float) -> None:
        self._whole_at = {key: at for key, at in self._whole_at.items() if at > now}
        while len(self._whole_at) >= MAX_ENDPOINTS:
            del self._whole_at[min(self._whole_at, key=self._whole_at.__getitem__)]

    def __repr__(self) -> str:
        return f"<Attempts endpoints={len(self._whole_at)}>"


def endpoint_of(url: str) -> str:
    """Scheme, host and port of a URL: whom an attempt concerns, and nothing secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _PORTS.get(parts.scheme, 0)}"
