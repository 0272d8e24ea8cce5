"""Asks the application for a channel's state, as often as it takes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..protocol.messages import Position
from ..protocol.positions import Snapshot
from .items import Item
from .options import GetState, retries

if TYPE_CHECKING:
    from .feed import Feed
    from .shared import Shared

logger = logging.getLogger("everwire.client")

STATE_TIMEOUT = 30.0  # seconds that get_state has


class Loading:
    """Calls ``get_state`` for a feed, one call at a time.

    Attributes:
        at: the position that was read before the call under way, or the last one.
    """

    __slots__ = ("_backoff", "_feed", "_get_state", "_since", "_task", "_tasks", "at")

    def __init__(self, feed: Feed, get_state: GetState, shared: Shared) -> None:
        self.at: Position | None = None
        self._feed = feed
        self._get_state = get_state
        self._tasks = shared.tasks
        self._backoff = retries(shared.random, first=0.0)
        self._task: asyncio.Task[None] | None = None
        self._since = 0.0  # when the last call that was in need of a delay could begin

    def delay(self) -> float:
        """Seconds to wait before another call: none, unless one follows the other closely."""
        now = asyncio.get_running_loop().time()
        delay = self._backoff.delay(now - self._since)
        self._since = now + delay
        return delay

    def begin(self, at: Position | None, delay: float = 0.0) -> None:
        """Call it; ``at`` is what was read before."""
        self.at = at
        self._task = self._tasks.start(self._load(at, delay), f"state {self._feed.channel!r}")

    def stop(self) -> None:
        """Cancel a call that is under way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _load(self, at: Position | None, delay: float) -> None:
        await asyncio.sleep(delay)
        channel = self._feed.channel
        try:
            async with asyncio.timeout(STATE_TIMEOUT):
                state = await self._get_state()
        except Exception:
            self._task = None
            again = self.delay()
            logger.exception("%r: get_state failed; again in %.2f s", channel, again)
            self._feed.load_anew(again)
            return
        self._task = None
        if not isinstance(state, Snapshot):
            state = Snapshot(state)
        self._hand_over(Snapshot(state.data, state.position or at, channel), at)

    def _hand_over(self, snapshot: Snapshot, at: Position | None) -> None:
        """Hand a state over, and then what follows it."""
        feed, position = self._feed, snapshot.position
        if position is None or at is None or feed.tail is None:
            feed.inbox.fill_place(snapshot, lambda _: True)
        elif position.epoch == at.epoch and position.offset >= at.offset:
            last = position.offset
            feed.inbox.fill_place(snapshot, lambda item: _offset(item) > last)
            if last > feed.tail.offset:
                feed.tail = position
        else:  # older than what was read before: there is something in between
            feed.inbox.fill_place(snapshot, lambda _: False)
            feed.go_on_from(position, self.delay())


def _offset(item: Item) -> int:
    assert item.position is not None
    return item.position.offset
