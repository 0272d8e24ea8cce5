"""Several nodes on one broker, each at an address of its own; they can die, or lose the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from everwire import Everwire, Identity
from everwire.brokers.base import (
    BrokerEvents,
    ChannelOptions,
    Claim,
    Completion,
    Members,
    Page,
    PresenceChange,
    Publication,
    PublishOutcome,
    Record,
)
from everwire.brokers.memory import MemoryBroker
from everwire.errors import BrokerUnavailable
from everwire.limits import Limits
from everwire.protocol.messages import Member, Position
from everwire.server.node import Node
from everwire.testing import Network, VirtualLoop

from .peer import Peer, open_app

T = TypeVar("T")


class Severable(MemoryBroker):
    """The memory broker at the end of a wire that can be cut: nothing goes either way.

    ``deaf`` lets calls through, and nothing that the broker tells of its own accord, which
    otherwise takes ``delay``;
    ``lose_answers`` lets calls through, and not what they return.
    """

    events: BrokerEvents
    id = ""
    severed = False
    deaf = False
    lose_answers = False
    delay = 0.0

    async def start(self, events: BrokerEvents) -> None:
        self.events, self.id = events, events.id
        await super().start(self)

    def on_record(self, channel: str, record: Record) -> None:
        if self.severed or self.deaf:
            return
        if self.delay:
            loop = asyncio.get_running_loop()
            loop.call_later(self.delay, self.events.on_record, channel, record)
        else:
            self.events.on_record(channel, record)

    def on_presence(self, channel: str, change: PresenceChange) -> None:
        if not (self.severed or self.deaf):
            self.events.on_presence(channel, change)

    def on_signal(self, payload: bytes) -> None:
        if not (self.severed or self.deaf):
            self.events.on_signal(payload)

    def on_degraded(self) -> None:
        self.events.on_degraded()

    def on_restored(self) -> None:
        self.events.on_restored()

    async def _through(self, call: Awaitable[T]) -> T:
        if self.severed:
            await asyncio.sleep(0)
            close = getattr(call, "close", None)
            if close is not None:
                close()
            raise BrokerUnavailable("the wire to the broker is cut")
        answer = await call
        if self.lose_answers:
            raise BrokerUnavailable("the answer was lost", outcome="unknown")
        return answer

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome:
        if self.severed:
            return BrokerUnavailable("the wire to the broker is cut")
        return super().publish(publication, done)

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self._through(super().subscribe(channels))

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await self._through(super().unsubscribe(channels))

    async def read(self, channel: str, since: Position | None, **options: Any) -> Page:
        return await self._through(super().read(channel, since, **options))

    async def latest(self, channel: str, *, limit: int, options: ChannelOptions) -> Page:
        return await self._through(super().latest(channel, limit=limit, options=options))

    async def tops(self, channels: Sequence[str]) -> Sequence[Position]:
        return await self._through(super().tops(channels))

    async def presence_add(
        self, channel: str, member: Member, instance: str = "", instead: str | None = None
    ) -> None:
        await self._through(super().presence_add(channel, member, instance, instead))

    async def presence_remove(self, channel: str, connection: str, grace: float = 0.0) -> None:
        await self._through(super().presence_remove(channel, connection, grace))

    async def presence(self, channel: str, limit: int) -> Members:
        return await self._through(super().presence(channel, limit))

    async def presence_versions(self, channels: Sequence[str]) -> Sequence[int]:
        return await self._through(super().presence_versions(channels))

    async def renew(self, lease: float) -> bool:
        return await self._through(super().renew(lease))

    async def nodes(self) -> Sequence[str]:
        return await self._through(super().nodes())

    async def signal(self, node: str | None, payload: bytes) -> None:
        await self._through(super().signal(node, payload))

    async def claim(
        self, owner: str, key: str, digest: bytes, *, attempt: str, again: bool
    ) -> Claim:
        call = super().claim(owner, key, digest, attempt=attempt, again=again)
        return await self._through(call)

    async def finish(self, owner: str, key: str, attempt: str, answer: bytes | None) -> None:
        await self._through(super().finish(owner, key, attempt, answer))


class Placed:
    """One of the nodes: its application, its broker and its address."""

    def __init__(self, wire: Everwire, broker: Severable, node: Node, url: str) -> None:
        self.wire = wire
        self.broker = broker
        self.node = node
        self.url = url
        self.dead = False


class Nodes:
    """Some nodes; ``nodes[0]`` is the first one's application."""

    def __init__(self, network: Network, members: list[Placed]) -> None:
        self.network = network
        self.members = members

    def __getitem__(self, index: int) -> Everwire:
        return self.members[index].wire

    def node(self, index: int) -> Node:
        return self.members[index].node

    def broker(self, index: int) -> Severable:
        return self.members[index].broker

    def peer(self, index: int, dialect: str = "json") -> Peer:
        """A client of one of them, not opened."""
        return Peer(self.network, dialect, self.members[index].url)

    def kill(self, index: int) -> None:
        """A node is no more, all at once: it does nothing, and nobody is told."""
        member = self.members[index]
        member.broker.severed = member.dead = True
        for connection in list(member.node.connections.values()):
            connection.transport.abort()


async def who(token: str = "") -> Identity:
    """The token is the user; before a slash, the tenant."""
    tenant, _, user = token.rpartition("/")
    return Identity(user, tenant=tenant)


def named_app(**options: Any) -> Everwire:
    """An application that is open to all, and believes who they say they are."""
    wire = open_app(**options)
    wire.authenticate(who)
    return wire


@asynccontextmanager
async def nodes(
    count: int = 2,
    declare: Callable[[Everwire], None] | None = None,
    *,
    limits: Limits | None = None,
    latency: float = 0.01,
    make: Callable[..., Everwire] = named_app,
) -> AsyncIterator[Nodes]:
    """That many nodes, for as long as the block lasts."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    network = Network(latency=latency)
    first: Severable | None = None
    members = []
    for number in range(count):
        broker = Severable(limits, wall=loop.wall, beside=first)
        first = first or broker
        wire = make(broker=broker, limits=limits, wall=loop.wall)
        if declare is not None:
            declare(wire)
        node = await wire.start()
        node.random = loop.random
        url = f"ws://node-{number}/ws"
        network.listen(url, node.accept)
        members.append(Placed(wire, broker, node, url))
    try:
        yield Nodes(network, members)
        for member in members:
            assert member.dead or not member.node.counters["defects"]
    finally:
        for member in members:
            await member.wire.stop()
