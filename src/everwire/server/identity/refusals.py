"""Who sends one bad token after the other: counted by address, and not listened to."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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

    @asynccontextmanager
    async def attempt(self, remote: str, seconds: float) -> AsyncIterator[None]:
        """Let as many of an address be looked at together as may be refused; others wait.

        Otherwise all that come at the same moment would be, before the first one is refused.
        Cancelling gives the place up.

        Raises:
            Unavailable: its turn did not come within ``seconds``.
        """
        found = address(remote)
        if not found:
            yield
            return
        places = self._trying.get(found)
        if places is None:
            places = self._trying[found] = asyncio.Semaphore(max(1, self._limit))
        try:
            async with asyncio.timeout(seconds):
                await places.acquire()
        except TimeoutError:
            raise Unavailable("too many authenticate from your address; try again") from None
        try:
            yield
        finally:
            places.release()

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


def address(remote: str) -> str:
    """What an ``address:port`` is counted as; "" for what is none."""
    host = remote.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return host
