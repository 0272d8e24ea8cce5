"""Chores: what needs the broker's answer, in order, and nobody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import BrokerUnavailable
from ..instrumentation import LimitedLog
from ..net.tasks import TaskOwner

Work = Callable[[], Coroutine[Any, Any, None]]

AGAIN = 0.5  # seconds between tries while the broker does not answer
MAX_CHORES = 200_000


class Chores:
    """Does one thing after the other, in one task that exists while there is anything to do.

    What the broker did not answer is done again until it does: so a chore must be one that
    may be done twice.
    """

    def __init__(self, tasks: TaskOwner, log: LimitedLog) -> None:
        self._tasks = tasks
        self._log = log
        self._waiting: deque[Work] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, work: Work) -> None:
        """Do ``work`` after what was added before."""
        if len(self._waiting) >= MAX_CHORES:
            self._waiting.popleft()
            self._log.log(logging.ERROR, "too many chores", "a chore is left undone: too many")
        self._waiting.append(work)
        if self._task is None:
            self._task = self._tasks.start(self._run(), "chores")

    async def finish(self, seconds: float) -> None:
        """Wait until all is done, at most ``seconds``. Safe to cancel."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._do(self._waiting.popleft())
        finally:
            self._task = None

    async def _do(self, work: Work) -> None:
        while True:
            try:
                await work()
            except BrokerUnavailable as error:
                self._log.log(logging.WARNING, "chores", "put off: %s", error)
                await asyncio.sleep(AGAIN)
            except Exception as error:
                self._log.log(logging.ERROR, "chore", "a defect in a chore", exc_info=error)
                return
            else:
                return
