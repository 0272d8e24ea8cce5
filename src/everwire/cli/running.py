"""What every command needs of the process: an event loop, signals, a way to say why it ends."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import click

from .logs import escape

T = TypeVar("T")


class Failed(click.ClickException):
    """The command cannot go on: one line on stderr, exit status 1."""

    def show(self, file: object = None) -> None:
        """Write the line."""
        say(self.message)


def say(text: str) -> None:
    """Tell a person something, on stderr: stdout is for results."""
    with suppress(OSError):  # nobody may be listening; the exit status tells as well
        print(f"everwire: {escape(text)}", file=sys.stderr, flush=True)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end, on uvloop where it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


class Interrupt:
    """Ends one piece of work from outside, as a signal does. Calling it twice does no harm."""

    def __init__(self) -> None:
        self._scope = asyncio.timeout(None)
        self._running = False
        self.called = False

    def __call__(self) -> None:
        """Cancel the work, now or as soon as it begins."""
        if self._running and not self.called:
            self._scope.reschedule(asyncio.get_running_loop().time())
        self.called = True

    async def run(self, work: Awaitable[None]) -> None:
        """Wait for the work; return early if interrupted. Cancelling cancels the work."""
        try:
            async with self._scope as scope:
                self._running = True
                if self.called:
                    scope.reschedule(asyncio.get_running_loop().time())
                await work
        except TimeoutError:
            if not self._scope.expired():
                raise
        finally:
            self._running = False


@contextmanager
def signals(handler: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call ``handler`` in the running loop, each time they come."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            loop.add_signal_handler(number, handler)
    except NotImplementedError:  # Windows' loop

        def later(*_: object) -> None:
            loop.call_soon_threadsafe(handler)

        before = {number: signal.signal(number, later) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            if number in before:
                signal.signal(number, before[number])
            else:
                loop.remove_signal_handler(number)


def spare_the_collector() -> None:
    """Let full collections be rare, and leave out what is there for good.

    Connections leave no cycles, and a full collection over ten thousand of them stops the
    loop for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
