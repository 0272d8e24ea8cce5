"""What the members of a pool share on the way to a server: they come one after the other."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any
from urllib.parse import urlsplit

from ..errors import RequestTimeout
from ..limits import CONNECT_PAUSE
from ..net.transport import ClientTransport, Network, Receiver

JITTER = 0.25  # part of the pause by which it may be longer or shorter


class _Door:
    """Of one host: one at a time."""

    __slots__ = ("lock", "opens_at")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.opens_at = 0.0


class PacedNetwork:
    """Makes one attempt at a time for each host (RFC 6455 section 4.1), with pauses between.

    Args:
        network: makes the attempts.
        connect_timeout: seconds for one attempt, from the moment that it is its turn.
        random: where chance comes from.
    """

    def __init__(self, network: Network, *, connect_timeout: float, random: Random) -> None:
        self.attempts = network.attempts
        self._network = network
        self._connect_timeout = connect_timeout
        self._random = random
        self._doors: dict[str, _Door] = {}

    def patience(self, members: int) -> float:
        """Seconds within which everybody's turn has come and gone, if so many wait."""
        return (members + 1) * (self._connect_timeout + 2 * CONNECT_PAUSE)

    async def connect(self, url: str, receiver: Receiver, **options: Any) -> ClientTransport:
        """See :meth:`everwire.net.transport.Network.connect`."""
        door = self._doors.setdefault(urlsplit(url).hostname or "", _Door())
        seconds = self._connect_timeout
        async with door.lock:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, door.opens_at - loop.time()))
            deadline = asyncio.timeout(seconds)
            try:
                async with deadline:
                    return await self._network.connect(url, receiver, **options)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise RequestTimeout(f"no connection to the server within {seconds:g} s") from error
            finally:
                door.opens_at = loop.time() + CONNECT_PAUSE * self._random.uniform(
                    1 - JITTER, 1 + JITTER
                )
