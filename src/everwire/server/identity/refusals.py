"""Who sends one bad token after the other: counted by address, and not listened to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from weakref import WeakValueDictionary

from ...errors import Unavailable

WINDOW = 60.0  # seconds
MOST = 100_000  # addresses remembered; beyond, all of them are forgotten early


class Refusals:
    """Counts the refused auths of each address, a minute at a time.

    An IPv6 address counts as its network of 64 bits: that is what one customer has. What
    comes over a Unix socket has no address, and is not counted.

    Args:
        limit: refused auths a minute; then the address is not listened to.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self._since = 0.0
        self._trying: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def attempt(self, remote: str, seconds: float) -> Attempt:
        """Let as many of an address be looked at together as may be refused; others wait.

        Otherwise all that come at the same moment would be, before the first one is refused.
        ``async with`` waits for the turn, at most ``seconds``. Cancelling gives the place up.
        """
        found = address(remote)
        if not found:
            return Attempt(None, seconds)
        places = self._trying.get(found)
        if places is None:
            places = self._trying[found] = asyncio.Semaphore(max(1, self._limit))
        return Attempt(places, seconds)

    def blocked(self, remote: str, now: float) -> bool:
        """Whether an address had its chances; ``now`` in seconds of any clock."""
        if not self._counts:
            return False
        if now - self._since >= WINDOW:
            self._counts.clear()
            return False
        return self._counts[address(remote)] >= self._limit

    def add(self, remote: str, now: float) -> bool:
        """Count one; return whether it was the last one that is listened to."""
        found = address(remote)
        if not found:
            return False
        if now - self._since >= WINDOW or len(self._counts) >= MOST:
            self._counts.clear()
        if not self._counts:
            self._since = now
        self._counts[found] += 1
        return self._counts[found] == self._limit


class Attempt:
    """An auth that waits for its turn among those of its address; see :meth:`Refusals.attempt`."""

    __slots__ = ("_places", "_seconds")

    def __init__(self, places: asyncio.Semaphore | None, seconds: float) -> None:
        self._places = places
        self._seconds = seconds

    async def __aenter__(self) -> None:
        """Raise :exc:`Unavailable` if its turn does not come in time."""
        if self._places is None:
            return
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("too many authenticate from your address; try again") from None

    async def __aexit__(self, *_: object) -> None:
        if self._places is not None:
            self._places.release()


def address(remote: str) -> str:
    """What an ``address:port`` is counted as; "" for what is none."""
    host = remote.rpartition(":")[0].strip("[]")
    try:
        if ":" not in host:
            socket.inet_pton(socket.AF_INET, host)  # a tenth of what ipaddress takes
            return host
        found = ipaddress.IPv6Address(host)
    except (OSError, ValueError):
        return ""
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
