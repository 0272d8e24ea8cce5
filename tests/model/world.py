"""What the machine drives: a real node, its broker and the network, in virtual time.

Everything that happens is noted for the model: each message on each link, whatever the
broker is given and answers. The spies change nothing; the broker fails when it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from functools import partial
from itertools import count
from typing import Any, TypeVar

import msgspec

from everwire import Connection, Everwire, Forbidden, Grant, Identity, Unauthorized
from everwire.brokers.base import (
    Completion,
    Publication,
    Published,
    PublishOutcome,
)
from everwire.brokers.memory import MemoryBroker
from everwire.errors import BrokerUnavailable, RequestError
from everwire.limits import Limits
from everwire.net.transport import Handshake, Receiver, Transport
from everwire.protocol import messages as m
from everwire.protocol.data import unpack_data
from everwire.protocol.dialects import negotiate
from everwire.server.node import Node
from everwire.testing import Direction, Link, Listener, Network, VirtualLoop
from everwire.testing.clock import EPOCH

from ..server.nodes import Severable
from . import checks_calls
from .contract import Model
from .log import Kept, Position

T = TypeVar("T")
URL = "ws://node/ws"
LIMITS = Limits(
    message=8 * 1024,
    inflight=8,
    write_high=8 * 1024,
    write_low=1024,
    page=3,
    dedupe_window=120.0,
    dedupe_max=40,
    ping_interval=5.0,
    ping_grace=5.0,
    probe=2.0,
    overflow_messages=5,
)
CHANNELS: dict[str, tuple[int, float, int, str | None]] = {
    # history, its seconds, its bytes, and what becomes of it for a slow reader
    "log": (1000, 300.0, 1_000_000, None),
    "short": (4, 60.0, 1_000_000, None),
    "brief": (1000, 5.0, 1_000_000, None),
    "narrow": (1000, 300.0, 2_000, None),
    "guarded": (1000, 300.0, 1_000_000, None),
    "none": (0, 60.0, 1_000_000, None),
    "newest": (0, 60.0, 1_000_000, "drop_newest"),
    "latest": (0, 60.0, 1_000_000, "conflate"),
    "strict": (0, 60.0, 1_000_000, "disconnect"),
}
MOST_UNSENT = 8 * 1024 + 64 * 1024  # the write limit, and what one turn of the loop may bring


def position_of(position: m.Position | None) -> Position | None:
    return None if position is None else (position.epoch, position.offset, position.id)


class Weather:
    """How the broker is.

    Attributes:
        faults: what becomes of the next publishes: ``refused`` (not stored), ``lost``
            (perhaps stored: it is not) or ``unknown`` (perhaps stored: it is).
        down: nothing is answered but that it cannot be reached.
        stalled: what came while the broker was stalled, None while it is not.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.down = False
        self.stalled: list[tuple[SpiedBroker, Publication, Completion]] | None = None

    def release(self, stored: int, told: int) -> None:
        """Go on after a stall: of what came, some were stored, and some of these are told so."""
        waiting, self.stalled = self.stalled or [], None
        for n, (broker, publication, done) in enumerate(waiting):
            outcome = broker.store(publication) if n < stored else None
            if broker.severed:
                continue
            if outcome is None or n >= told:
                outcome = broker.fail(publication, "unknown")
            done(outcome)


class SpiedBroker(Severable):
    """The memory broker: it notes what it is given, and fails as the weather is."""

    def __init__(self, world: World, life: int, beside: SpiedBroker | None) -> None:
        epochs = count(1)
        super().__init__(
            LIMITS,
            wall=world.loop.wall,
            new_epoch=lambda: f"{life}.{next(epochs)}",
            beside=beside,
        )
        self._world = world
        self._life = life

    def publish(  # type: ignore[override]
        self, publication: Publication, done: Completion
    ) -> PublishOutcome | None:
        weather = self._world.weather
        self._note("offered", publication)
        if weather.down or self.severed:
            return self.fail(publication, "none")
        if weather.stalled is not None:
            weather.stalled.append((self, publication, done))
            return None
        if not weather.faults:
            return self.store(publication)
        fault = weather.faults.pop(0)
        if fault == "unknown":
            self.store(publication)
        return self.fail(publication, "none" if fault == "refused" else "unknown")

    def store(self, publication: Publication) -> PublishOutcome:
        outcome = MemoryBroker.publish(self, publication, lambda _: None)
        if isinstance(outcome, Published):
            at, duplicate = position_of(outcome.position), outcome.duplicate
            self._note("stored", publication, position=at, duplicate=duplicate, refused=0)
        elif isinstance(outcome, RequestError):
            self._note("stored", publication, refused=outcome.code)
            self._note("failed", publication)
        return outcome

    def fail(self, publication: Publication, outcome: Any) -> BrokerUnavailable:
        self._note("failed", publication)
        return BrokerUnavailable("as the test says", outcome=outcome)

    def _note(self, kind: str, publication: Publication, **about: Any) -> None:
        about.setdefault("id", publication.id or (about.get("position") or ("", 0, ""))[2])
        self._world.note(
            kind,
            channel=publication.channel,
            data=unpack_data(publication.payload),
            size=len(publication.payload),
            life=self._life,
            **about,
        )

    async def _through(self, call: Awaitable[T]) -> T:
        if not (self._world.weather.down or self.severed):
            return await call
        assert isinstance(call, Coroutine)
        call.close()
        await asyncio.sleep(0)
        raise BrokerUnavailable("as the test says")


class World:
    """Nodes behind one address; new connections reach the last that was started.

    Attributes:
        welcome: who may use the channel ``guarded``.
        retiring: nodes that are sending their clients away.
    """

    def __init__(self, loop: VirtualLoop, users: dict[str, str]) -> None:
        self.loop = loop
        kept = {
            name: Kept(most, ttl, size, LIMITS.dedupe_window, LIMITS.dedupe_max)
            for name, (most, ttl, size, _) in CHANNELS.items()
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
            checks_calls.check_memory_is_bounded(
                link.id, link.server.write_buffer_size(), MOST_UNSENT
            )

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
        most, ttl, size, overflow = CHANNELS[name]
        return {
            "history": most,
            "history_ttl": ttl,
            "history_bytes": size,
            "on_overflow": overflow,
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
