"""What the blocking classes are made of. The classes themselves scripts/sync-facade writes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..codes import CloseCode
from ..errors import ClosedOK
from .background import Background

I = TypeVar("I")  # noqa: E741
T = TypeVar("T")


class Facade:
    """An object of the background loop, seen from other threads: each call blocks for it.

    Args:
        background: the loop.
        inside: the object; it is touched on the loop alone. A subclass says what it is.
    """

    _inside: Any

    def __init__(self, background: Background, inside: Any) -> None:
        self._background = background
        self._inside = inside
        self._entered = False

    def _wait(self, make: Callable[[], Awaitable[T]]) -> T:
        return self._background.wait(make)

    def _do(self, function: Callable[[], T]) -> T:
        return self._background.do(function)

    def _future(self, function: Callable[[], asyncio.Future[T]]) -> Future[T]:
        return self._background.future(function)

    def _enter(self) -> None:
        inside = self._inside
        self._wait(inside.__aenter__)
        self._entered = True
        if hasattr(inside, "close"):
            self._background.opened(inside)

    def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        inside = self._inside
        self._close(lambda: inside.__aexit__(kind, error, traceback))

    def _close(self, make: Callable[[], Awaitable[None]]) -> None:
        if self._background.gone:
            return  # a child of a fork leaves what is its parent's; at the end all is closed
        inside = self._inside
        try:
            self._wait(make)
        finally:
            self._background.closed(inside)

    def __repr__(self) -> str:
        return f"<everwire.sync {self._inside!r}>"


class Iterating(Facade, Generic[I]):
    """One that yields. Several threads may share it: each item goes to one of them."""

    def __init__(self, background: Background, inside: Any) -> None:
        super().__init__(background, inside)
        # Items pass through here, so that one is not lost with the call that was to return
        # it: an interrupt may come when it is taken already. The next call finds it.
        self._taken: deque[I] = deque()

    def get(self, *, timeout: float | None = None) -> I:
        """Return the next item.

        Interrupting loses nothing, nor does the timeout; but a stream ends with either.

        Args:
            timeout: seconds to wait for it; the default is no end.

        Raises:
            TimeoutError: none came in time; try again as you like.
            ClosedOK: it has ended, as agreed.
            Exception: whatever iterating raises.
        """
        try:
            return self._next(timeout)
        except StopIteration:
            raise ClosedOK(CloseCode.NORMAL, "there is nothing more to get") from None

    def _next(self, seconds: float | None) -> I:
        while True:
            try:
                return self._taken.popleft()
            except IndexError:
                pass
            if not self._wait(lambda: self._take(seconds)):
                raise StopIteration

    async def _take(self, seconds: float | None) -> bool:
        inside = self._inside
        try:
            async with asyncio.timeout(seconds):
                self._taken.append(await anext(inside))
        except StopAsyncIteration:
            return False
        return True

    def iterate(self, *, timeout: float | None = None) -> Generator[I, None, None]:
        """Yield items as they come, as iterating does.

        What was not entered by ``with`` is entered, and left at the end of the loop.

        Args:
            timeout: seconds to wait for each of them; the default is no end.

        Raises:
            TimeoutError: none came in time; inside ``with`` you may iterate again.
            Exception: whatever iterating raises.
        """
        inside = self._inside
        enter = not self._entered and hasattr(inside, "__aenter__")
        if enter:
            self._enter()
        try:
            while True:
                try:
                    item = self._next(timeout)
                except StopIteration:
                    return
                yield item
        finally:
            if enter:
                # Perhaps by the garbage collector, in whichever thread: it must not block.
                self._background.soon(lambda: inside.__aexit__(None, None, None))

    def __iter__(self) -> Iterator[I]:
        return self.iterate()

    def __next__(self) -> I:
        return self._next(None)
