"""A broker whose every answer takes a moment, so that anything can happen in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from everwire.brokers.base import Completion, Page, Publication, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.protocol.messages import Position

STEP = 0.01


class SteppedBroker(MemoryBroker):
    """The memory broker, at the far end of a slow wire: each verb takes two steps."""

    subscriptions = 0

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome | None:  # type: ignore[override]
        answer = super().publish(publication, done)
        asyncio.get_running_loop().call_later(STEP, done, answer)
        return None

    async def subscribe(self, channels: Sequence[str]) -> None:
        await asyncio.sleep(STEP)
        await super().subscribe(channels)
        await asyncio.sleep(STEP)

    async def read(self, channel: str, since: Position | None, **options: Any) -> Page:
        await asyncio.sleep(STEP)
        page = await super().read(channel, since, **options)
        await asyncio.sleep(STEP)
        return page
