"""A client, and what it talks to: a real node, or a server that does as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from everwire import ClientLimits, Connection, Everwire, Grant, connect
from everwire.brokers.base import Completion, Publication, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.client import Client, Gap, Message, Subscription
from everwire.limits import Limits
from everwire.net.transport import Transport
from everwire.protocol import messages as m
from everwire.protocol.dialects import dialect
from everwire.server.node import Node
from everwire.testing import Handshake, Network, VirtualLoop, run

URL = "ws://node/ws"
M = TypeVar("M", bound=m.Message)


def play(scenario: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a scenario in virtual time."""
    run(scenario, **options)


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


def client_to(network: Network, *, url: str = URL, **options: Any) -> Client:
    """A client of the virtual world, with chance and time from its loop."""
    options.setdefault("random", loop().random)
    options.setdefault("wall", loop().wall)
    return connect(url, network=network, **options)


class Broker(MemoryBroker):
    """Answers as a test says: ``outcomes`` are taken, one a publish, before it is asked."""

    def __init__(self, limits: Limits | None = None, *, wall: Callable[[], float]) -> None:
        super().__init__(limits, wall=wall)
        self.outcomes: list[PublishOutcome | None] = []
        self.published: list[str] = []
        self.waiting: list[tuple[Publication, Completion]] = []

    def publish(  # type: ignore[override]
        self, publication: Publication, done: Completion
    ) -> PublishOutcome | None:
        self.published.append(publication.id)
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if outcome is None:
                self.waiting.append((publication, done))
            return outcome
        return super().publish(publication, done)

    def end_waiting(self, outcome: PublishOutcome) -> None:
        waiting, self.waiting = self.waiting, []
        for _, done in waiting:
            done(outcome)


class World:
    """A node on a network."""

    def __init__(self, network: Network, wire: Everwire, node: Node, broker: Broker) -> None:
        self.network = network
        self.wire = wire
        self.node = node
        self.broker = broker

    def client(self, **options: Any) -> Client:
        return client_to(self.network, **options)

    def connection(self, index: int = -1) -> Connection:
        return list(self.node.connections.values())[index]


def application(**options: Any) -> Everwire:
    """An application that is open to all."""
    wire = Everwire(**options)
    open_to_all(wire)
    return wire


def open_to_all(wire: Everwire) -> None:
    """Everybody may do everything, in every channel."""
    wire.channel("none:{name}", history=0, grant=Grant(publish=True))
    wire.channel("{name:path}", presence=True, grant=Grant(publish=True))


@asynccontextmanager
async def node_world(
    declare: Callable[[Everwire], None] | None = None,
    *,
    limits: Limits | None = None,
    latency: float = 0.01,
    **network: Any,
) -> AsyncIterator[World]:
    """Serve an application on an in-memory network, for as long as the block lasts."""
    broker = Broker(limits, wall=loop().wall)
    wire = Everwire(broker, limits=limits, wall=loop().wall)
    if declare is not None:
        declare(wire)
    open_to_all(wire)
    net = Network(latency=latency, **network)
    node = await wire.start()
    node.random = loop().random
    listener = net.listen(URL, node.accept)
    try:
        yield World(net, wire, node, broker)
        assert node.counters["defects"] == 0
        assert node.counters["violations"] == 0
    finally:
        listener.close()
        await wire.stop()


async def take(room: Subscription, count: int, within: float = 60.0) -> list[Message | Gap]:
    """The next ``count`` items."""
    async with asyncio.timeout(within):
        return [await anext(room) for _ in range(count)]


async def quiet(room: Subscription, seconds: float = 5.0) -> None:
    """Nothing comes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            raise AssertionError(f"came: {await anext(room)}")


def data_of(items: list[Message | Gap]) -> list[Any]:
    """What the messages say; gaps as their reason in angle brackets."""
    return [item.data if isinstance(item, Message) else f"<{item.reason}>" for item in items]


async def until(condition: Callable[[], object], within: float = 60.0) -> None:
    """Wait until ``condition`` holds."""
    now = asyncio.get_running_loop().time
    deadline = now() + within
    while not condition():
        assert now() < deadline, "did not come about"
        await asyncio.sleep(0.01)


FAST = ClientLimits(first_retry=0.2, backoff_base=0.2, backoff_cap=1.0)


# ---- a server that does as it is told --------------------------------------------------


class Peer:
    """The server's side of one connection: a receiver that remembers."""

    def __init__(self, script: Script, transport: Transport, handshake: Handshake) -> None:
        self.script = script
        self.transport = transport
        self.handshake = handshake
        self.dialect = dialect(transport.subprotocol or "plain")
        self.messages: list[m.Message] = []
        self.raw: list[bytes] = []
        self.close_code: int | None = None

    def send(self, *messages: m.Message) -> None:
        for message in messages:
            self.transport.send(self.dialect.opcode, self.dialect.encode(message, 1))

    def respond(self, request: Any, payload: Any) -> None:
        self.send(m.Response(request.id, payload))

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    def close(self, code: int, reason: str = "") -> None:
        self.transport.close(code, reason)

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        self.raw.append(bytes(payload))
        message = self.dialect.decode(bytes(payload))
        self.messages.append(message)
        self.script.handle(self, message)

    def heard(self) -> None:
        """Nothing hangs on it."""

    def closed(self, code: int, reason: str) -> None:
        self.close_code = code

    def pause_writing(self) -> None:
        """A script writes little."""

    resume_writing = pause_writing


class Script:
    """Servers of the protocol, as far as ``handle`` goes. ``peers`` are its connections."""

    def __init__(
        self,
        network: Network,
        handle: Callable[[Peer, m.Message], None] | None = None,
        *,
        ping_interval: float = 20.0,
        limits: dict[str, int] | None = None,
        hello: bool = True,
    ) -> None:
        self.peers: list[Peer] = []
        self.ping_interval = ping_interval
        self.limits = limits or {}
        self.hello = hello
        self.on_accept: Callable[[Peer], None] | None = None
        self._handle = handle
        network.listen(URL, self._accept)

    def _accept(self, transport: Transport, handshake: Handshake) -> Peer:
        peer = Peer(self, transport, handshake)
        self.peers.append(peer)
        if self.hello and peer.dialect.needs_auth:
            peer.send(m.Hello(1, "n", "secret", 1, [], int(self.ping_interval * 1000), self.limits))
        if self.on_accept is not None:
            self.on_accept(peer)
        return peer

    def handle(self, peer: Peer, message: m.Message) -> None:
        if self._handle is not None:
            self._handle(peer, message)
        else:
            welcome(peer, message)


def results(requests: list[m.ChannelRequest], **fields: Any) -> dict[str, Any]:
    """Subscribed at the position asked for, or at 0."""
    out = []
    for request in requests:
        at = request.position or m.Position("e", 0, "")
        sid = sum(request.channel.encode())
        one = {"channel": request.channel, "sid": sid, "epoch": at.epoch, "offset": at.offset,
               "id": at.id, "recovered": request.position is not None, "recoverable": True}  # fmt: skip
        out.append({**one, **fields})
    return {"user": "", "subscriptions": out}


def welcome(peer: Peer, message: m.Message) -> None:
    """Let everybody in, and subscribe everybody to everything."""
    if isinstance(message, m.Auth):
        peer.respond(message, results(message.subscribe))
    elif isinstance(message, m.Subscribe):
        peer.respond(message, results(message.channels))
    elif isinstance(message, m.Unsubscribe):
        peer.respond(message, {})
    elif isinstance(message, m.Ping):
        peer.send(m.Pong(message.time))


def sid(channel: str) -> int:
    return sum(channel.encode())


def pushed(
    channel: str, offset: int, data: Any = None, prev: int | None = None
) -> m.ChannelMessage:
    return m.ChannelMessage(sid(channel), offset, f"i{offset}", 1000, data, prev)
