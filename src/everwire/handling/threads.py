"""Handlers that are plain functions: they run in threads, and the event loop stays free."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from ..from_thread import call_on, raise_in_thread, running_loop


class FromThread:
    """A connection, or a client, as a handler sees it from a thread.

    Its attributes are those of that. Its methods are called on the event loop, and
    the thread waits for them; coroutines cannot be called, see :mod:`everwire.from_thread`.
    """

    __slots__ = ("_caller", "_loop")

    def __init__(self, caller: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._caller = caller
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._caller, name)
        return self._hopping(value) if inspect.ismethod(value) else value

    def _hopping(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if running_loop() is self._loop:  # it was kept, and is used by async code now
                return method(*args, **kwargs)
            if inspect.iscoroutinefunction(method):
                raise_in_thread(method.__name__)
            return call_on(self._loop, method, *args, **kwargs)

        return call

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._caller)

    def __eq__(self, other: object) -> bool:
        return self._caller is getattr(other, "_caller", other)

    def __hash__(self) -> int:
        return hash(self._caller)

    def __repr__(self) -> str:
        return repr(self._caller)


async def in_thread(function: Callable[[], Any], ended: Callable[[], None] | None = None) -> Any:
    """Call a user's function in a thread; await what it returns, if that wants to be.

    Cancelling stops waiting: the thread runs to its end, and its result is dropped. ``ended``
    is called once, on the event loop, when no thread runs it or will.
    """
    if ended is None:
        result = await asyncio.to_thread(_contained, function)
    else:
        run = _Told(function, ended)
        try:
            result = await asyncio.to_thread(run)
        except asyncio.CancelledError:
            run.give_up()
            raise
    return await result if inspect.isawaitable(result) else result


class _Told:
    """A call in a thread, at whose end somebody is told on the loop, also if it never begins."""

    def __init__(self, function: Callable[[], Any], ended: Callable[[], None]) -> None:
        self._function = function
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._taken = threading.Lock()  # by the thread, or by whoever gave up waiting for one

    def __call__(self) -> Any:
        if not self._taken.acquire(blocking=False):
            return None
        try:
            return _contained(self._function)
        finally:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._ended)

    def give_up(self) -> None:
        """Nobody waits any more: a thread that has not begun will not."""
        if self._taken.acquire(blocking=False):
            self._ended()


def _contained(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except StopIteration as error:  # no future can be given this one: it would never be done
        raise RuntimeError("the handler raised StopIteration") from error
