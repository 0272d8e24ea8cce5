"""Calls the application's functions with what a subscription brings, one after the other."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import EverwireError
from ..protocol.positions import Snapshot
from .feed import Feed
from .items import Gap, Item, Message

logger = logging.getLogger("everwire.client")

AT_ONCE = 32  # calls of functions that do not wait, after which others have their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What to call; each may be a function or a coroutine function."""

    on_message: Callable[[Message], object]
    on_gap: Callable[[Gap], object] | None = None
    on_snapshot: Callable[[Snapshot], object] | None = None
    stop_on_error: bool = False

    async def run(self, feed: Feed) -> None:
        """Call them, until the subscription ends; then what is queued is handed over still.

        Cancelling leaves the position where it was before the call under way.
        """
        calls = 0
        while True:
            try:
                item = await feed.next()
            except EverwireError as error:
                logger.info("%r ended: %s", feed.channel, error)
                return
            if item is None:
                return
            try:
                result = self._call(item)
                if inspect.isawaitable(result):
                    await result
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                    raise  # we are; otherwise it is something that the callback waited for
                logger.exception("%r: a callback failed on %r", feed.channel, item.position)
                if self.stop_on_error:
                    feed.finish(_as_exception(error), drop=True)
                    return
            feed.handed(item)
            calls += 1
            if calls % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _call(self, item: Item) -> Any:
        if isinstance(item, Message):
            return self.on_message(item)
        if isinstance(item, Snapshot):
            return None if self.on_snapshot is None else self.on_snapshot(item)
        if self.on_gap is not None:
            return self.on_gap(item)
        logger.warning("%r: messages are missing (%s)", item.channel, item.reason)
        return None


def _as_exception(error: BaseException) -> Exception:
    return (
        error if isinstance(error, Exception) else RuntimeError("what it waited for was cancelled")
    )
