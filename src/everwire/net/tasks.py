"""Tasks and who answers for them: the only place that calls ``create_task``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger("everwire.tasks")


class TaskOwner:
    """Starts tasks that nobody awaits, and answers for them.

    It holds them (the event loop itself does not), logs what they raise, and ends them
    together. A task that somebody awaits belongs into an ``asyncio.TaskGroup`` instead.

    Args:
        name: begins the names of the tasks and the lines of the log.
        on_error: is called with the task and what it raised, after it was logged.
    """

    __slots__ = ("_name", "_on_error", "_tasks")

    def __init__(
        self,
        name: str,
        *,
        on_error: Callable[[asyncio.Task[Any], BaseException], None] | None = None,
    ) -> None:
        self._name = name
        self._on_error = on_error
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        """Run ``coroutine`` in a task of its own, from the next turn of the loop on."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(coroutine, name=f"{self._name} {name}".rstrip())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        logger.error("%s failed", task.get_name(), exc_info=error)
        if self._on_error is not None:
            self._on_error(task, error)

    def cancel_all(self) -> None:
        """Cancel every task that runs but the calling one. They end in turns to come."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until no task runs, whatever they raise; the calling task is not waited for.

        Cancelling only ends the waiting.
        """
        current = asyncio.current_task()
        while running := self._tasks - {current}:
            await asyncio.wait(running)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<TaskOwner {self._name!r} tasks={len(self._tasks)}>"
