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

    __slots__ = ("_channels", "_connection", "_done", "_earlier")

    def __init__(self, connection: Connection, channels: Iterable[str]) -> None:
        self._connection = connection
        self._channels = tuple(channels)
        self._earlier: set[asyncio.Future[None]] = set()
        self._done: asyncio.Future[None] | None = None
        if self._channels:
            operations = connection.operations = connection.operations or {}
            self._earlier = {operations[one] for one in self._channels if one in operations}
            self._done = asyncio.get_running_loop().create_future()
            operations.update(dict.fromkeys(self._channels, self._done))

    async def __aenter__(self) -> None:
        try:
            if self._earlier:
                await asyncio.wait(self._earlier)
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
        if self._done is None or self._done.done():
            return
        self._done.set_result(None)
        operations = self._connection.operations
        for channel in self._channels:
            if operations.get(channel) is self._done:
                del operations[channel]
