"""From a thread back to the event loop, for handlers that are plain functions.

A handler without ``async`` runs in a thread of its own, where it may block, and where
nothing can be awaited. What is a coroutine elsewhere is run from there like this::

    @wire.command
    def say(conn: Connection, room: str, text: str) -> Position:
        check_with_a_blocking_library(text)
        return from_thread.run(wire.publish, f"chat:{room}", text)

The same holds in ``asyncio.to_thread``, where an async handler calls that.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_home: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("everwire_loop", default=None)


def run(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a coroutine function on the event loop; block until it has returned.

    Raises:
        RuntimeError: this is no thread in which a handler runs.
        concurrent.futures.CancelledError: the server was stopped meanwhile.
        Exception: whatever the function raises.
    """
    loop = _home.get()
    if loop is None or running_loop() is loop:
        raise RuntimeError(
            "from_thread.run() is for threads in which a handler runs; on the event loop, await; "
            "elsewhere use asyncio.run_coroutine_threadsafe()"
        )
    result: T = call_on(loop, function, *args, **kwargs)
    return result


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def remember_loop() -> asyncio.AbstractEventLoop:
    """Note the running loop for the threads that are started from here."""
    loop = asyncio.get_running_loop()
    _home.set(loop)
    return loop


def call_on(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call ``function``, a coroutine function or not, on a loop that runs in another thread."""

    async def call() -> Any:
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return wait_on(loop, call())


def wait_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of another thread; what interrupts the waiting cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # unless it is done, and this is what it raised
        raise


def awaitable_only(
    function: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have a coroutine function refuse to be called where nobody can await it.

    Called in a handler's thread it would return a coroutine, and do nothing.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        loop = _home.get()
        if loop is not None and running_loop() is not loop:
            raise_in_thread(function.__name__)
        return function(*args, **kwargs)

    return call


def raise_in_thread(name: str) -> None:
    """Say what to write instead.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        f"{name}() is a coroutine, and this handler runs in a thread because it is not async: "
        f"make it async and await, or write everwire.from_thread.run(….{name}, …)"
    )
