"""What is asked about a channel on a connection takes effect in the order of asking.

Subscribing waits for handlers and the broker. What came later about the same channel, by
whatever way (``subscribe``, ``unsubscribe``, ``auth``, the application itself), waits behind
it, so that in the end the connection is where the last of them wanted it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection


class Turn:
    """A place in that order, taken at once; ``async with`` waits until it is reached.

    Cancelling the waiting gives the place up. One that is never waited for must be given up
    by :meth:`end`.
    """

    __slots__ = ("_channels", "_connection", "_earlier", "_ended", "_waited")

    def __init__(self, connection: Connection, channels: Iterable[str]) -> None:
        self._connection = connection
        self._channels = tuple(channels)
        self._earlier: set[Turn] | None = None
        self._waited: asyncio.Future[None] | None = None
        """made for the first one that waits behind it"""
        self._ended = not self._channels
        if self._channels:
            operations = connection.operations = connection.operations or {}
            for channel in self._channels:
                earlier = operations.get(channel)
                operations[channel] = self
                if earlier is not None and earlier is not self:  # it may be named twice
                    self._earlier = self._earlier or set()
                    self._earlier.add(earlier)

    async def __aenter__(self) -> None:
        try:
            if self._earlier:
                await asyncio.wait({turn.over() for turn in self._earlier})
        except BaseException:
            self.end()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Let those behind go on. Twice is once."""
        if self._ended:
            return
        self._ended = True
        if self._waited is not None:
            self._waited.set_result(None)
        operations = self._connection.operations
        for channel in self._channels:
            if operations.get(channel) is self:
                del operations[channel]

    def over(self) -> asyncio.Future[None]:
        """What is done when it has ended: for those behind."""
        if self._waited is None:
            self._waited = asyncio.get_running_loop().create_future()
            if self._ended:
                self._waited.set_result(None)
        return self._waited
