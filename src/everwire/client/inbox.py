"""A bounded queue between a link and a reader, which overflows without losing its place."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Budget:
    """Bytes that several inboxes hold together.

    Attributes:
        used: bytes that they hold.
        limit: how many they are to hold.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Inbox(Generic[T]):
    """Holds items until somebody reads them.

    A place in it can be kept: what is put behind it is not read until the item that
    belongs there has come.

    Args:
        items: at most so many.
        size: at most so many bytes; a larger item is taken if it is alone.
        budget: what it holds together with others.

    Attributes:
        full: an item did not fit; nothing fits any more until all have been read.
        size: bytes that are held.
    """

    __slots__ = ("_behind", "_budget", "_items", "_max_items", "_max_size", "_waiters", "full",
                 "size")  # fmt: skip

    def __init__(self, *, items: int, size: int, budget: Budget | None = None) -> None:
        self._max_items = items
        self._max_size = size
        self._budget = budget or Budget(size)
        self._items: deque[tuple[T, int]] = deque()
        self._behind: deque[tuple[T, int]] | None = None  # what is behind a place that is kept
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.full = False
        self.size = 0

    def __len__(self) -> int:
        """How many can be read."""
        return len(self._items)

    @property
    def keeping(self) -> bool:
        """Whether a place is being kept."""
        return self._behind is not None

    def fits(self, size: int) -> bool:
        """Whether there is room for an item of ``size`` bytes; if not, it is ``full``."""
        if self.full:
            return False
        count = len(self._items)
        if self._behind is not None:
            count += len(self._behind)
        if count and (count >= self._max_items or self.size + size > self._max_size):
            self.full = True
            return False
        return True

    def put(self, item: T, size: int) -> None:
        """Append an item; asks nobody whether it fits."""
        self.size += size
        self._budget.used += size
        if self._behind is not None:
            self._behind.append((item, size))
            return
        self._items.append((item, size))
        if self._waiters:
            self.wake()

    def take(self) -> T:
        """Return the first item."""
        item, size = self._items.popleft()
        self.size -= size
        self._budget.used -= size
        return item

    def reopen(self) -> bool:
        """Take items again if it was full and all have been read; return whether that was so."""
        reopened = self.full and not self._items and self._behind is None
        if reopened:
            self.full = False
        return reopened

    def keep_place(self) -> None:
        """Keep a place behind what is there; forget what is behind one that is kept already."""
        self._forget_behind()
        self._behind = deque()

    def fill_place(self, item: T, follows: Callable[[T], bool]) -> None:
        """Put ``item`` into the place that is kept.

        Args:
            item: what belongs there.
            follows: says of what was put behind it whether it is to be read; if not, it is
                forgotten.
        """
        behind, self._behind = self._behind, None
        self.put(item, 0)
        for one in behind or ():
            if follows(one[0]):
                self._items.append(one)
            else:
                self._freed(one[1])

    def shed(self, may_go: Callable[[T], bool]) -> T | None:
        """Be full, and forget the newer half, back to an item that may not go.

        The first is left in any case: else a reader who has just been woken for it would
        find nothing, again and again.

        Returns:
            The last item that is left, or None.
        """
        self.full = True
        if self._behind is not None:
            self.keep_place()
        else:
            half = self.size // 2
            while len(self._items) > 1 and self.size > half and may_go(self._items[-1][0]):
                self._freed(self._items.pop()[1])
        return self._items[-1][0] if self._items else None

    def clear(self) -> None:
        """Drop what is there."""
        self._behind = None
        self._items.clear()
        self._freed(self.size)

    def leave(self) -> None:
        """Be no part of the budget any more; what is behind a place that is kept is dropped."""
        self._forget_behind()
        self._behind = None
        self._budget.used -= self.size
        self._budget = Budget(self._budget.limit)
        self._budget.used = self.size

    def _forget_behind(self) -> None:
        for _, size in self._behind or ():
            self._freed(size)

    def _freed(self, size: int) -> None:
        self.size -= size
        self._budget.used -= size

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
