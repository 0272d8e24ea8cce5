"""Several nodes behind one address, which come and go; they share a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from everwire import Everwire
from everwire.brokers.base import (
    Broker,
    BrokerEvents,
    ChannelOptions,
    Completion,
    Page,
    Publication,
    PublishOutcome,
    Record,
)
from everwire.brokers.memory import MemoryBroker
from everwire.client import Client
from everwire.limits import Limits
from everwire.protocol.messages import Member, Position
from everwire.server.node import Node
from everwire.testing import Network
from everwire.testing.network import Listener

from .world import URL, client_to, loop, open_to_all


class Shared:
    """A memory broker's events, told to each node that is subscribed."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.fronts: list[Front] = []

    def on_record(self, channel: str, record: Record) -> None:
        for front in self.fronts:
            if channel in front.channels:
                front.events.on_record(channel, record)

    def on_presence(self, channel: str, joined: Sequence[Member], left: Sequence[str]) -> None:
        for front in self.fronts:
            if channel in front.channels:
                front.events.on_presence(channel, joined, left)


class Front(Broker):
    """What one node sees of a broker that it shares."""

    url = "shared://"
    events: BrokerEvents

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.broker = shared.broker
        self.channels: set[str] = set()

    async def start(self, events: BrokerEvents) -> None:
        self.events = events
        if not self.shared.fronts:
            await self.broker.start(self.shared)
        self.shared.fronts.append(self)

    async def stop(self) -> None:
        self.channels.clear()
        if self in self.shared.fronts:
            self.shared.fronts.remove(self)
            if not self.shared.fronts:
                await self.broker.stop()

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome | None:
        return self.broker.publish(publication, done)

    async def subscribe(self, channels: Sequence[str]) -> None:
        self.channels.update(channels)
        await self.broker.subscribe(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self.channels.difference_update(channels)
        others = {one for front in self.shared.fronts for one in front.channels}
        await self.broker.unsubscribe([one for one in channels if one not in others])

    async def read(
        self,
        channel: str,
        since: Position | None,
        *,
        limit: int,
        limit_bytes: int,
        options: ChannelOptions,
    ) -> Page:
        return await self.broker.read(
            channel, since, limit=limit, limit_bytes=limit_bytes, options=options
        )

    async def latest(self, channel: str, *, limit: int, options: ChannelOptions) -> Page:
        return await self.broker.latest(channel, limit=limit, options=options)

    async def presence_add(
        self, channel: str, member: Member, lease: float, instead: str | None = None
    ) -> None:
        await self.broker.presence_add(channel, member, lease, instead)

    async def presence_remove(self, channel: str, connection: str) -> None:
        await self.broker.presence_remove(channel, connection)

    async def presence(self, channel: str, limit: int) -> tuple[list[Member], int]:
        return await self.broker.presence(channel, limit)


class Cluster:
    """Nodes behind one address; the last one that was started is who answers there."""

    def __init__(
        self,
        network: Network,
        declare: Callable[[Everwire], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.network = network
        self.limits = limits
        self.declare = declare
        self.shared = Shared(MemoryBroker(limits, wall=loop().wall))
        self.wires: list[Everwire] = []
        self._listener: Listener | None = None

    @property
    def nodes(self) -> list[Node]:
        return [wire.node for wire in self.wires]

    async def start(self) -> Node:
        """Start another node; from now on it is the one that new connections reach."""
        wire = Everwire(Front(self.shared), limits=self.limits, wall=loop().wall)
        if self.declare is not None:
            self.declare(wire)
        open_to_all(wire)
        node = await wire.start()
        node.random = loop().random
        self.wires.append(wire)
        self.route(node)
        return node

    def route(self, node: Node | None) -> None:
        """Let new connections reach this node, or nobody."""
        if self._listener is not None:
            self._listener.close()
        self._listener = None if node is None else self.network.listen(URL, node.accept)

    async def retire(self, window: float) -> None:
        """Drain the oldest node, then stop it."""
        wire = self.wires[0]
        await wire.node.drain(window)
        self.wires.remove(wire)
        assert wire.node.counters["defects"] == wire.node.counters["violations"] == 0
        await wire.stop()

    async def roll(self, window: float) -> None:
        """Replace the oldest node by a new one."""
        await self.start()
        await self.retire(window)

    def client(self, **options: object) -> Client:
        return client_to(self.network, **options)


@asynccontextmanager
async def cluster(
    declare: Callable[[Everwire], None] | None = None,
    *,
    limits: Limits | None = None,
    latency: float = 0.01,
) -> AsyncIterator[Cluster]:
    """One node to begin with, for as long as the block lasts."""
    made = Cluster(Network(latency=latency), declare, limits)
    await made.start()
    try:
        yield made
        for node in made.nodes:
            assert node.counters["defects"] == node.counters["violations"] == 0
    finally:
        made.route(None)
        for wire in made.wires:
            await wire.stop()


class States(list[str]):
    """The states that an application is told of."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        client.on_state = self.append
