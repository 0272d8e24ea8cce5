"""What the subscriptions of one client share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from ..limits import ClientLimits
from ..net.tasks import TaskOwner
from .inbox import Budget, Inbox
from .items import Item
from .stats import Counters

if TYPE_CHECKING:
    from .feed import Feed

logger = logging.getLogger("everwire.client")


class Shared:
    """Chance, tasks, counters and memory.

    Attributes:
        positions: the dialect has them.
        counters: what the client counts.
        random: where chance comes from.
        tasks: the subscriptions' own: callbacks, tokens, states.
        budget: what all inboxes hold together.
        turns: counts what comes, for all of them: who was active last.
    """

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        limits: ClientLimits,
        counters: Counters,
        *,
        positions: bool,
        random: Random,
    ) -> None:
        self.positions = positions
        self.counters = counters
        self.random = random
        self.tasks = TaskOwner("everwire subscriptions")
        self.budget = Budget(limits.queued_bytes)
        self.turns = count()
        self._feeds = feeds
        self._limits = limits

    def inbox(self) -> Inbox[Item]:
        """Make an inbox."""
        limits = self._limits
        return Inbox(items=limits.queue_messages, size=limits.queue_bytes, budget=self.budget)

    def make_room(self, asking: Feed, size: int) -> None:
        """All of them hold too much: the one that holds most gives up, or else who asks.

        One message each can always have.
        """
        largest = max(self._feeds.values(), key=lambda feed: feed.inbox.size, default=asking)
        if largest is not asking:
            largest.shed()
        if asking.inbox.size and self.budget.used + size > self.budget.limit:
            asking.inbox.full = True

    async def end(self, seconds: float) -> None:
        """Let callbacks be given what was queued; after so many seconds they are cancelled.

        Cancelling only ends the waiting.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.tasks.wait_closed()
        except TimeoutError:
            logger.warning("callbacks still run %g s after the end: cancelled", seconds)
            self.tasks.cancel_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.tasks.wait_closed()
