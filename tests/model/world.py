"""What the machine drives: a real node, its broker and the network, in virtual time.

Everything that happens is noted for the model: each message on each link, whatever the
broker is given and answers (:mod:`.weather`). The spies change nothing.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple

import msgspec

from everwire import Connection, Everwire, Forbidden, Grant, Identity, Unauthorized
from everwire.brokers.base import Overflow
from everwire.net.transport import Handshake, Receiver, Transport
from everwire.protocol import messages as m
from everwire.protocol.data import unpack_data
from everwire.protocol.dialects import negotiate
from everwire.server.node import Node
from everwire.testing import Direction, Link, Listener, Network, VirtualLoop
from everwire.testing.clock import EPOCH

from . import checks_calls
from .contract import Model
from .log import Kept
from .weather import LIMITS, SpiedBroker, Weather, position_of

URL = "ws://node/ws"


class Declared(NamedTuple):
    """A channel's history, its seconds and bytes; and what becomes of it for a slow reader."""

    history: int = 1000
    ttl: float = 300.0
    size: int = 1_000_000
    overflow: Overflow | None = None
    latest: bool = False


CHANNELS = {
    "log": Declared(),
    "short": Declared(history=4, ttl=60.0),
    "brief": Declared(ttl=5.0),
    "narrow": Declared(size=2_000),
    "guarded": Declared(),
    "value": Declared(history=1, ttl=60.0, latest=True),
    "none": Declared(history=0),
    "newest": Declared(history=0, overflow="drop_newest"),
    "conflated": Declared(history=0, overflow="conflate"),
    "strict": Declared(history=0, overflow="disconnect"),
}
MOST_UNSENT = 8 * 1024 + 64 * 1024  # the write limit, and what one turn of the loop may bring


class World:
    """Nodes behind one address; new connections reach the last that was started.

    Attributes:
        welcome: who may use the channel ``guarded``.
        retiring: nodes that are sending their clients away.
    """

    def __init__(self, loop: VirtualLoop, users: dict[str, str]) -> None:
        self.loop = loop
        kept = {
            name: Kept(
                one.history, one.ttl, one.size, LIMITS.dedupe_window, LIMITS.dedupe_max, one.latest
            )
            for name, one in CHANNELS.items()
        }
        self.model = Model(kept, users)
        self.network = Network(latency=0.01, window=2 * 1024, trace_limit=0)
        self.network.on_message = self._on_message
        self.weather = Weather()
        self.welcome = set(users.values())
        self.wire: Everwire
        self.broker: SpiedBroker
        self.retiring: list[asyncio.Task[None]] = []
        self._dead: list[Everwire] = []
        self._life = 0
        self._listener: Listener | None = None

    def note(self, kind: str, **about: Any) -> None:
        self.model.note(self.loop.time(), kind, **about)

    def digest(self) -> None:
        """Have the model look at what has happened.

        Raises:
            AssertionError: the contract is broken.
        """
        self.model.digest()
        self.check_links()

    def check_links(self) -> None:
        for link in self.network.links:
            unsent = link.server.write_buffer_size()
            checks_calls.check_memory_is_bounded(link.id, unsent, MOST_UNSENT)
            conn = self.model.wire.conns.get(link.id)
            if conn is not None and not link.server.is_closed:
                checks_calls.check_a_token_ends_its_connection(conn, self.loop.time())

    # ---- nodes -------------------------------------------------------------------------

    async def start(self, *, forget: bool = True) -> None:
        """Start a node; with ``forget`` its broker begins with nothing."""
        if forget:
            self.broker = SpiedBroker(self, self._life, None)
        else:
            self.broker = SpiedBroker(self, self._life, self.broker)
        wire = Everwire(self.broker, limits=LIMITS, wall=self.loop.wall, allow_anonymous=True)
        declare(wire, self, self._life)
        node = await wire.start()
        node.random = self.loop.random
        self.wire = wire
        if self._listener is not None:
            self._listener.close()
        self._listener = self.network.listen(URL, partial(accept, node))

    def allow(self, user: str, welcome: bool) -> None:
        """Say who may use the channel ``guarded``."""
        (self.welcome.add if welcome else self.welcome.discard)(user)
        self.note("allowed", user=user, welcome=welcome)

    def deafen(self, deaf: bool) -> None:
        """Lose what the broker tells of its own accord."""
        self.broker.deaf = deaf

    def forget(self) -> None:
        """The broker loses its channels, while the nodes go on."""
        self._life += 1
        self.note("restarted", forgotten=True)
        self.broker.forget(self._life)

    async def kill(self, *, forget: bool) -> None:
        """The node is no more, all at once; another takes its place."""
        self.note("gone", node=self.wire.node.id)
        self.broker.severed = True
        self._dead.append(self.wire)
        for connection in list(self.wire.node.connections.values()):
            connection.transport.abort()
        await self._replace(forget)

    async def roll(self, *, forget: bool, window: float) -> None:
        """Another node takes the place of this one, which sends its clients away."""
        old = self.wire
        await self._replace(forget)
        self.retiring.append(self.loop.create_task(self._retire(old, window), name="retire"))

    async def _replace(self, forget: bool) -> None:
        self.weather.down = False  # a node does not start without its broker
        self._life += forget
        self.note("restarted", forgotten=forget)
        await self.start(forget=forget)

    async def _retire(self, wire: Everwire, window: float) -> None:
        node = wire.node
        await node.drain(window)
        self.note("gone", node=node.id)
        await wire.stop()
        check_node(node)

    async def stop(self) -> None:
        assert self._listener is not None
        self._listener.close()
        check_node(self.wire.node)
        for wire in [*self._dead, self.wire]:
            await wire.stop()

    def calm(self) -> None:
        """Nothing fails any more."""
        self.network.partition(False)
        for link in self.network.links:
            link.thaw()
        self.deafen(False)
        self.weather.down = False
        self.weather.faults = []
        self.weather.release(1_000, 1_000)

    def live_links(self) -> list[int]:
        """The links of which neither side knows an end."""
        return [
            link.id
            for link in self.network.links
            if not link.client.is_closed and not link.server.is_closed
        ]

    async def read_history(self, channel: str) -> None:
        """Read all that is held of a channel, as the application itself."""
        if self.weather.down:
            return
        page = await self.wire.history(channel, limit=10_000)
        messages = [
            {
                "offset": one.offset,
                "id": one.id,
                "data": unpack_data(one.payload),
                "publisher": one.publisher,
            }
            for one in page.records
        ]
        asked = len(self.model.steps)
        top = position_of(page.top)
        self.note("listed", channel=channel, top=top, messages=messages, asked=asked)

    # ---- the spy ----------------------------------------------------------------------

    def _on_message(self, link: Link, direction: Direction, payload: bytes) -> None:
        to_server = direction is Direction.TO_SERVER
        dialect = negotiate([link.client.subprotocol] if link.client.subprotocol else [])
        assert dialect is not None
        message = dialect.decode(payload)
        tag = message.__struct_config__.tag
        kind = m.MESSAGES[tag] if isinstance(tag, int) else type(message)
        about: dict[str, Any] = {"type": kind.__struct_config__.tag}
        about |= {name: _plain(value) for name, value in msgspec.structs.asdict(message).items()}
        if about["type"] == "auth":
            _, _, expires = (about["token"] or "").partition("@")
            about["expires"] = float(expires) - EPOCH if expires else None
        self.note("came" if to_server else "sent", link=link.id, message=about)


def _plain(value: Any) -> Any:
    """Nested objects as tuples and dicts."""
    if isinstance(value, m.Position):
        return position_of(value)
    if isinstance(value, msgspec.Struct):
        return {k: _plain(v) for k, v in msgspec.structs.asdict(value).items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def declare(wire: Everwire, world: World, life: int) -> None:
    """The application that is served."""

    wall = world.loop.wall

    @wire.authenticate
    async def who(token: str) -> Identity:
        user, _, expires = token.partition("@")
        if expires and float(expires) <= wall():
            raise Unauthorized("too old")
        return Identity(user, expires=float(expires) if expires else None)

    def options(name: str) -> dict[str, Any]:
        one = CHANNELS[name]
        return {
            "history": None if one.latest else one.history,
            "history_ttl": one.ttl,
            "history_bytes": one.size,
            "on_overflow": one.overflow,
            "latest": one.latest,
            "presence": True,
        }

    for name in CHANNELS:
        if name != "guarded":
            wire.channel(name, grant=Grant(publish=True), **options(name))

    @wire.channel("guarded", **options("guarded"))
    async def guarded(conn: Connection) -> Grant:
        await asyncio.sleep(0.005)
        if conn.user not in world.welcome:
            raise Forbidden("not today")
        return Grant(publish=True)

    @wire.command
    async def run(conn: Connection, key: str, job: str, seconds: float) -> int:
        number = len(world.model.steps)
        about = {"user": conn.user, "key": key, "job": job, "run": number}
        world.note("ran", node=conn.node.id, life=life, **about)
        await asyncio.sleep(seconds)
        world.note("finished", run=number)
        return number

    @wire.query
    async def echo(conn: Connection, value: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return value


def accept(node: Node, transport: Transport, handshake: Handshake) -> Receiver:
    """As the listeners do: the write limits are the node's."""
    transport.set_write_limits(LIMITS.write_high, LIMITS.write_low)
    return node.accept(transport, handshake)


def check_node(node: Node) -> None:
    assert node.counters["defects"] == 0
    assert node.counters["violations"] == 0
