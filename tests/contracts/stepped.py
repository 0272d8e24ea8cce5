"""A broker whose every answer takes a moment, so that anything can happen in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from everwire.brokers.base import (
    BrokerEvents,
    Completion,
    Page,
    PresenceChange,
    Publication,
    PublishOutcome,
    Record,
)
from everwire.brokers.memory import MemoryBroker
from everwire.protocol.messages import Position

STEP = 0.01


class SteppedBroker(MemoryBroker):
    """The memory broker, at the far end of a slow wire: each verb takes two steps."""

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


class _Wire:
    """What stands between a broker and its node."""

    def __init__(self, broker: LateBroker, node: BrokerEvents) -> None:
        self.id = node.id
        self._broker = broker
        self._node = node

    def on_record(self, channel: str, record: Record) -> None:
        self._broker.tell(self._node, channel, record)

    def on_presence(self, channel: str, change: PresenceChange) -> None:
        self._node.on_presence(channel, change)

    def on_signal(self, payload: bytes) -> None:
        self._node.on_signal(payload)

    def on_degraded(self) -> None:
        self._node.on_degraded()

    def on_restored(self) -> None:
        self._node.on_restored()


class LateBroker(SteppedBroker):
    """Subscribers are told two steps after history has a message."""

    told = 0

    async def start(self, events: BrokerEvents) -> None:
        await super().start(_Wire(self, events))

    def tell(self, node: BrokerEvents, channel: str, record: Record) -> None:
        self.told += 1  # timers of one moment have no order among each other
        delay = 2 * STEP + self.told * 1e-7
        asyncio.get_running_loop().call_later(delay, node.on_record, channel, record)


class LossyBroker(LateBroker):
    """Every second message is told to nobody, and every fourth twice."""

    def tell(self, node: BrokerEvents, channel: str, record: Record) -> None:
        if record.offset % 4 == 3:
            super().tell(node, channel, record)
        if record.offset % 2:
            super().tell(node, channel, record)
