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
AT_ONCE = 32  # chores with different keys that are done at a time
MAX_CHORES = 200_000


class Chores:
    """Does one thing after the other for each key, in tasks that exist while there is anything to do.

    What the broker did not answer is done again until it does: so a chore must be one that
    may be done twice.
    """

    def __init__(self, tasks: TaskOwner, log: LimitedLog) -> None:
        self._tasks = tasks
        self._log = log
        self._waiting: dict[str, deque[Work]] = {}
        self._ready: deque[str] = deque()
        """keys that nobody works on"""
        self._count = 0
        self._workers: set[asyncio.Task[None]] = set()

    def add(self, key: str, work: Work) -> None:
        """Do ``work`` after what was added before it with the same key."""
        if self._count >= MAX_CHORES:
            self._log.log(logging.ERROR, "too many chores", "a chore is left undone: too many")
            return
        self._count += 1
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(work)
            return
        self._waiting[key] = deque([work])
        self._ready.append(key)
        if len(self._workers) < AT_ONCE:
            worker = self._tasks.start(self._work(), "chores")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def finish(self, seconds: float) -> None:
        """Wait until all is done, at most ``seconds``. Safe to cancel."""
        if self._workers:
            await asyncio.wait(set(self._workers), timeout=seconds)

    async def _work(self) -> None:
        me = asyncio.current_task()
        try:
            while self._ready:
                key = self._ready.popleft()
                waiting = self._waiting[key]
                while waiting:
                    await self._do(waiting[0])
                    waiting.popleft()
                    self._count -= 1
                del self._waiting[key]
        finally:  # at once: what is added from now on needs another worker
            self._workers.discard(me)

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
