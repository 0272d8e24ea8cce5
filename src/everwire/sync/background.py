"""The event loop on which the blocking API runs, in a thread of its own, one for a process."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

from ..from_thread import running_loop, wait_on
from ..handling import threads

T = TypeVar("T")

logger = logging.getLogger("everwire.sync")

END = 5.0  # seconds that the thread has to end, once everything is closed


class Closable(Protocol):
    """What is to be closed before the process ends."""

    async def close(self) -> None:
        """Close it, in bounded time. Cancelling drops it at once."""


class Background:
    """A loop that runs in a daemon thread until the process exits."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._open: dict[Closable, None] = {}
        self._stopped = False
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="everwire.sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stop.wait())

    @property
    def gone(self) -> bool:
        """Whether there is no loop here any more: nothing of it needs closing."""
        return self._stopped or self._pid != os.getpid()

    # ---- from other threads --------------------------------------------------------

    def check(self) -> None:
        """Raise unless this thread may block for the loop.

        Raises:
            RuntimeError: it may not; the text says what to do instead.
        """
        if self._pid != os.getpid():
            raise RuntimeError(
                "this was made before the process forked, and its connection belongs to the "
                "parent: connect anew in the child"
            )
        if self._stopped:
            raise RuntimeError("everwire.sync has stopped: the process is exiting")
        running = running_loop()
        if running is self._loop:
            raise RuntimeError(
                "everwire.sync would wait for itself: this is its own thread, in which hooks are "
                "called; hand the work to a thread of yours"
            )
        if running is not None and not in_notebook():
            raise RuntimeError(
                "everwire.sync would block the event loop that runs in this thread: use the async "
                'API here, "from everwire import connect" and "await"'
            )

    def wait(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await on the loop what ``make`` returns there; what interrupts us cancels it."""
        self.check()

        async def call() -> T:
            return await make()

        return wait_on(self._loop, call())

    def do(self, function: Callable[[], T]) -> T:
        """Call ``function`` on the loop; return what it returns, awaitable or not."""
        self.check()

        async def call() -> T:
            return function()

        return wait_on(self._loop, call())

    def future(self, function: Callable[[], asyncio.Future[T]]) -> Future[T]:
        """Call ``function`` on the loop, and have its future in a form that threads can wait for.

        Cancelling that form changes nothing else.
        """
        outer: Future[T] = Future()

        def settle(inner: asyncio.Future[T]) -> None:
            if inner.cancelled():
                outer.cancel()
            elif outer.set_running_or_notify_cancel():
                error = inner.exception()
                if error is None:
                    outer.set_result(inner.result())
                else:
                    outer.set_exception(error)

        self.do(lambda: function().add_done_callback(settle))
        return outer

    def soon(self, make: Callable[[], Awaitable[Any]]) -> None:
        """Await on the loop what ``make`` returns there, and wait for nothing; never raises."""

        async def call() -> None:
            try:
                await make()
            except Exception:
                logger.exception("failed in the background")

        if not self.gone:
            asyncio.run_coroutine_threadsafe(call(), self._loop)

    # ---- the end ---------------------------------------------------------------------

    def opened(self, one: Closable) -> None:
        """Close it when the process ends, if it is still open then."""
        self._open[one] = None

    def closed(self, one: Closable) -> None:
        """It needs no closing any more."""
        self._open.pop(one, None)

    def stop(self) -> None:
        """Close what is open, all at once, and end the thread."""
        if self.gone:
            return
        try:
            wait_on(self._loop, self._close_all())
        finally:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(END)

    async def _close_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for one in list(self._open):
                group.create_task(self._close(one))

    async def _close(self, one: Closable) -> None:
        self.closed(one)
        try:
            await one.close()
        except Exception:
            logger.exception("%r could not be closed", one)


def in_notebook() -> bool:
    """Whether this is a notebook, where each cell runs inside a loop, and may block it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def in_thread(function: Any) -> Any:
    """Have a plain function, which may block, run in a thread when the loop calls it.

    What is no plain function is returned as it is.
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        return function

    async def call(*args: Any) -> Any:
        return await threads.in_thread(partial(function, *args))

    return call


# ---- one for the process -------------------------------------------------------------

_lock = threading.Lock()
_current: Background | None = None


def background() -> Background:
    """The loop of this process; it is started by the first call."""
    global _current
    with _lock:
        if _current is None:
            _current = Background()
        return _current


@atexit.register
def _stop() -> None:
    if _current is not None:
        _current.stop()


def _forked() -> None:
    """In a child there is no such thread, and somebody may have held the lock."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
