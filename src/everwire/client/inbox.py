"""A bounded queue between a link and a reader, which overflows without losing its place."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Holds items until somebody reads them.

    Args:
        items: at most so many.
        size: at most so many bytes; a larger item is taken if it is alone.

    Attributes:
        full: an item did not fit; nothing fits any more until all have been read.
    """

    __slots__ = ("_items", "_max_items", "_max_size", "_size", "_waiters", "full")

    def __init__(self, *, items: int, size: int) -> None:
        self._max_items = items
        self._max_size = size
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.full = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._size

    def fits(self, size: int) -> bool:
        """Whether there is room for an item of ``size`` bytes; if not, it is ``full``."""
        items = self._items
        if self.full or (
            items and (len(items) >= self._max_items or self._size + size > self._max_size)
        ):
            self.full = True
            return False
        return True

    def put(self, item: T, size: int) -> None:
        """Append an item; asks nobody whether it fits."""
        self._items.append((item, size))
        self._size += size
        if self._waiters:
            self.wake()

    def take(self) -> tuple[T, bool]:
        """Return the first item, and whether that emptied an inbox that was full."""
        item, size = self._items.popleft()
        self._size -= size
        emptied = self.full and not self._items
        if emptied:
            self.full = False
        return item, emptied

    def clear(self) -> None:
        """Drop what is there."""
        self._items.clear()
        self._size = 0

    async def wait(self) -> None:
        """Wait for :meth:`wake` or an item. Cancelling loses nothing: it takes nothing."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
