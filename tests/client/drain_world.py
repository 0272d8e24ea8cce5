"""Several nodes behind one address, which come and go; they share a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from everwire import Everwire
from everwire.brokers.memory import MemoryBroker
from everwire.client import Client
from everwire.limits import Limits
from everwire.server.node import Node
from everwire.testing import Network
from everwire.testing.network import Listener

from .world import URL, client_to, loop, open_to_all


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
        self.broker = MemoryBroker(limits, wall=loop().wall)
        self.wires: list[Everwire] = []
        self._listener: Listener | None = None

    @property
    def nodes(self) -> list[Node]:
        return [wire.node for wire in self.wires]

    async def start(self) -> Node:
        """Start another node; from now on it is the one that new connections reach."""
        wire = Everwire(MemoryBroker(beside=self.broker), limits=self.limits, wall=loop().wall)
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
