"""An event loop whose time is virtual: hours pass in milliseconds, the same way each time."""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

EPOCH = 1_704_067_200.0  # 2024-01-01T00:00:00Z, what `wall()` says at virtual time 0
TURN_LIMIT = 1_000_000  # turns of the loop without a step of its clock
THREAD_LIMIT = 30.0  # real seconds that the loop waits for a thread


class DeadlockError(RuntimeError):
    """Nothing can happen any more: nothing is ready and no timer is set.

    The text names the tasks that wait, and where they do.
    """


class TimeLimitError(DeadlockError):
    """The virtual clock went past its limit; the text names the tasks that wait."""


class _Selector(selectors.DefaultSelector):
    """Asks the loop what to do instead of sleeping."""

    def __init__(self, turn: Callable[[float | None, Callable[[float], Any]], Any]) -> None:
        super().__init__()
        self._turn = turn

    def select(self, timeout: float | None = None) -> Any:
        return self._turn(timeout, super().select)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that jumps to the next timer instead of sleeping.

    It does no I/O of its own: use :class:`everwire.testing.Network`. File descriptors
    that somebody watches are polled before each jump, never waited for. Threads work:
    while something runs in an executor (``run_in_executor``, ``asyncio.to_thread``) the
    clock stands still and the loop really waits.

    Args:
        start: virtual seconds at which :meth:`time` begins.
        seed: of :attr:`random`.
        limit: virtual seconds which the clock may not pass (:exc:`TimeLimitError`).

    Attributes:
        random: a ``random.Random(seed)`` for whatever in a test is left to chance.
        limit: may be changed while the loop runs.
    """

    def __init__(self, start: float = 0.0, *, seed: int = 0, limit: float = math.inf) -> None:
        self._now = start  # the base class may ask for the time
        self.limit = limit
        self.random = random.Random(seed)  # noqa: S311  # it must be the same each time
        self._turns = 0
        self._held = 0
        self._settling: list[asyncio.Future[None]] = []
        self._pool: Executor | None = None
        super().__init__(_Selector(self._turn))
        self._set(start)

    def time(self) -> float:
        """Virtual seconds: what ``call_at``, ``asyncio.sleep`` and timeouts go by."""
        return self._now

    def wall(self) -> float:
        """Seconds since 1970 by the virtual clock, for code that is given a ``time.time``."""
        return EPOCH + self._now

    async def settle(self) -> None:
        """Wait until nothing is ready: all that can happen without time passing has happened.

        Cancelling it changes nothing else.
        """
        waiter: asyncio.Future[None] = self.create_future()
        self._settling.append(waiter)
        await waiter

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the clock standing while a thread that the loop cannot know of is at work.

        The loop then waits really, until something comes by ``call_soon_threadsafe``.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    # ---- the clock -----------------------------------------------------------

    def _turn(self, timeout: float | None, poll: Callable[[float], Any]) -> Any:
        """Stand in for ``select``: wait for a thread, or move the clock; never sleep."""
        events = poll(0)
        if events or timeout == 0:
            self._turns += 1
            if self._turns > TURN_LIMIT:
                self._turns = 0
                raise DeadlockError(
                    self._stuck(f"the clock stood still for {TURN_LIMIT:,} turns: a busy loop")
                )
            return events
        if self._held:
            events = poll(THREAD_LIMIT)
            if not events:
                raise DeadlockError(
                    self._stuck(f"no sign of a thread within {THREAD_LIMIT:g} real seconds")
                )
            return events
        if self._settling:
            settling, self._settling = self._settling, []
            for waiter in settling:
                if not waiter.done():
                    waiter.set_result(None)
            return events
        if timeout is None:
            raise DeadlockError(self._stuck("nothing is ready and no timer is set"))
        self._jump(timeout)
        return events

    def _jump(self, delay: float) -> None:
        if self._now + delay > self.limit:
            self._set(max(self._now, self.limit))
            raise TimeLimitError(self._stuck(f"the time limit of {self.limit:g} s is reached"))
        self._set(self._now + delay)

    def _set(self, now: float) -> None:
        self._now = now
        self._turns = 0
        # asyncio runs the timers before now + resolution: with a float's grain above it,
        # one that is due right now would never run.
        self._clock_resolution = max(1e-9, 4 * math.ulp(now))

    def _stuck(self, why: str) -> str:
        tasks = asyncio.all_tasks(self)
        waiting = "these tasks wait" if tasks else "no task waits"
        return f"at {self._now:g} s of virtual time {why}; {waiting}{describe_tasks(tasks)}"

    # ---- threads -------------------------------------------------------------

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Run ``func`` in a thread; the virtual clock stands still until it has ended.

        Cancelling the future does not stop a function that runs already, and the clock
        waits for it all the same.
        """
        if executor is None:
            if self._pool is None:
                self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="virtual"))
            executor = self._pool
            assert executor is not None
        inner = executor.submit(func, *args)
        outer = asyncio.wrap_future(inner, loop=self)
        self._held += 1
        # Both must have ended: the thread is done before the loop is told of its result,
        # and a cancelled future is done before its thread is.
        outer.add_done_callback(
            lambda _: inner.add_done_callback(lambda _: self._from_thread(self._release))
        )
        return outer

    def set_default_executor(self, executor: Executor) -> None:
        self._pool = executor
        super().set_default_executor(executor)  # type: ignore[arg-type]

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # as asyncio has it
    ) -> None:
        """Wait (really) until the threads of the default executor have ended.

        Cancelling does not end them.
        """
        with self.hold():
            await super().shutdown_default_executor()

    def _from_thread(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop was closed before the thread ended
            self.call_soon_threadsafe(callback)

    def _release(self) -> None:
        self._held -= 1


def describe_tasks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """List tasks, a line each: the name, and from the coroutine down to what it awaits."""
    return "".join(f"\n  {line}" for line in sorted(map(_describe, tasks)))


def _describe(task: asyncio.Task[Any]) -> str:
    steps: list[str] = []
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        where = f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}"
        steps.append(f"{awaited.__qualname__} ({where})")
        awaited = awaited.cr_await
    return f"{task.get_name()}: {' > '.join(steps) or task.get_coro()!r}"
