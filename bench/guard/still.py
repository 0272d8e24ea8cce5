"""An event loop in which no time passes: so no timer comes between the work that is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from itertools import count
from typing import Any

import uvloop


class StillLoop(uvloop.Loop):
    """uvloop, but timers fire only in :meth:`advance`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._order = count()
        self._due: list[tuple[float, int, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self._now

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._due, (when, next(self._order), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what is due."""
        self._now += seconds
        while self._due and self._due[0][0] <= self._now:
            handle = heappop(self._due)[2]
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - as loops do
