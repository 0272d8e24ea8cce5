"""What the machine drives: a real node, its broker and the network, in virtual time.

Everything that happens is noted for the model: each message on each link, whatever the
broker is given and answers. The spies change nothing; the broker fails when it is told to.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import msgspec

from everwire import Connection, Everwire, Forbidden, Grant, Identity, Unauthorized
from everwire.brokers.base import (
    Completion,
    Page,
    Publication,
    Published,
    PublishOutcome,
)
from everwire.brokers.memory import MemoryBroker
from everwire.errors import BrokerUnavailable, RequestError
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.protocol.data import unpack_data
from everwire.protocol.dialects import negotiate
from everwire.server.node import Node
from everwire.testing import Direction, Link, Network, VirtualLoop

from .contract import Model
from .log import Kept, Position

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
)
CHANNELS = {  # history, its seconds, its bytes
    "log": (1000, 300.0, 1_000_000),
    "short": (4, 60.0, 1_000_000),
    "brief": (1000, 5.0, 1_000_000),
    "narrow": (1000, 300.0, 2_000),
    "none": (0, 60.0, 1_000_000),
    "guarded": (1000, 300.0, 1_000_000),
}


def position_of(position: m.Position | None) -> Position | None:
    return None if position is None else (position.epoch, position.offset, position.id)


class SpiedBroker(MemoryBroker):
    """The memory broker: it notes what it is given, and fails as it is told.

    Attributes:
        faults: what becomes of the next publishes: ``refused`` (not stored), ``lost``
            (perhaps stored: it is not) or ``unknown`` (perhaps stored: it is).
        down: nothing is answered but that it cannot be reached.
        stalled: what came while the broker was stalled, None while it is not.
    """

    def __init__(self, world: World, life: int) -> None:
        self._epochs = count(1)
        self._life = life
        super().__init__(LIMITS, wall=world.loop.wall, new_epoch=self._name_epoch)
        self._world = world
        self.faults: list[str] = []
        self.down = False
        self.stalled: list[tuple[Publication, Completion]] | None = None

    def _name_epoch(self) -> str:
        return f"{self._life}.{next(self._epochs)}"

    def publish(  # type: ignore[override]
        self, publication: Publication, done: Completion
    ) -> PublishOutcome | None:
        self._note("offered", publication)
        if self.down:
            return self._fail(publication, "none")
        if self.stalled is not None:
            self.stalled.append((publication, done))
            return None
        if not self.faults:
            return self._store(publication)
        fault = self.faults.pop(0)
        if fault == "unknown":
            self._store(publication)
        return self._fail(publication, "none" if fault == "refused" else "unknown")

    def release(self, stored: int, told: int) -> None:
        """Go on after a stall: of what came, some were stored, and some of these are told so."""
        waiting, self.stalled = self.stalled or [], None
        for n, (publication, done) in enumerate(waiting):
            outcome = self._store(publication) if n < stored else None
            if outcome is None or n >= told:
                outcome = self._fail(publication, "unknown")
            done(outcome)

    def _store(self, publication: Publication) -> PublishOutcome:
        outcome = super().publish(publication, lambda _: None)
        if isinstance(outcome, Published):
            at, duplicate = position_of(outcome.position), outcome.duplicate
            self._note("stored", publication, position=at, duplicate=duplicate, refused=0)
        elif isinstance(outcome, RequestError):
            self._note("stored", publication, refused=outcome.code)
            self._note("failed", publication)
        return outcome

    def _fail(self, publication: Publication, outcome: Any) -> BrokerUnavailable:
        self._note("failed", publication)
        return BrokerUnavailable("as the test says", outcome=outcome)

    def _note(self, kind: str, publication: Publication, **about: Any) -> None:
        about.setdefault("id", publication.id or (about.get("position") or ("", 0, ""))[2])
        self._world.note(
            kind,
            channel=publication.channel,
            data=unpack_data(publication.payload),
            size=len(publication.payload),
            **about,
        )

    async def subscribe(self, channels: Any) -> None:
        self._check_up()
        await super().subscribe(channels)

    async def read(self, channel: str, since: m.Position | None, **options: Any) -> Page:
        self._check_up()
        return await super().read(channel, since, **options)

    async def latest(self, channel: str, **options: Any) -> Page:
        self._check_up()
        return await super().latest(channel, **options)

    def _check_up(self) -> None:
        if self.down:
            raise BrokerUnavailable("as the test says")


class World:
    """A node, replaced now and then, behind one address.

    Attributes:
        welcome: who may use the channel ``guarded``.
        ran: how often the command ``run`` ran, by its payload.
    """

    def __init__(self, loop: VirtualLoop, users: dict[str, str]) -> None:
        self.loop = loop
        kept = {
            name: Kept(most, ttl, size, LIMITS.dedupe_window, LIMITS.dedupe_max)
            for name, (most, ttl, size) in CHANNELS.items()
        }
        self.model = Model(kept, users)
        self.network = Network(latency=0.01, window=2 * 1024, trace_limit=0)
        self.network.on_message = self._on_message
        self.welcome = set(users.values())
        self.ran: list[tuple[str, int, int]] = []
        self._life = 0
        self.broker = SpiedBroker(self, 0)
        self.wire: Everwire

    def note(self, kind: str, **about: Any) -> None:
        self.model.note(self.loop.time(), kind, **about)

    # ---- the node ---------------------------------------------------------------------

    async def start(self) -> None:
        """Start a node; from now on it is the one that new connections reach."""
        self.wire = wire = Everwire(
            self.broker, limits=LIMITS, wall=self.loop.wall, allow_anonymous=True
        )
        declare(wire, self)
        node = await wire.start()
        node.random = self.loop.random
        self._listener = self.network.listen(URL, node.accept)

    async def restart(self, *, forget: bool, window: float | None) -> None:
        """Replace the node: at once, or draining it for ``window`` seconds in the background.

        With ``forget`` the new one has a broker that knows nothing of the old one's.
        """
        self._listener.close()
        old, node = self.wire, self.wire.node
        if window is None:
            self.network.cut()
        else:
            await node.drain(window)
        await old.stop()
        self.check_node(node)
        if forget:
            self._life += 1
            self.broker = SpiedBroker(self, self._life)
        self.note("restarted", forgotten=forget)
        await self.start()

    async def stop(self) -> None:
        self._listener.close()
        self.check_node(self.wire.node)
        await self.wire.stop()

    def check_node(self, node: Node) -> None:
        assert node.counters["defects"] == 0
        assert node.counters["violations"] == 0

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


def declare(wire: Everwire, world: World) -> None:
    """The application that is served."""

    @wire.authenticate
    async def who(token: str) -> Identity:
        user, _, expires = token.partition("@")
        if expires and float(expires) <= world.loop.wall():
            raise Unauthorized("too old")
        return Identity(user, expires=float(expires) if expires else None)

    def options(name: str) -> dict[str, Any]:
        most, ttl, size = CHANNELS[name]
        return {"history": most, "history_ttl": ttl, "history_bytes": size, "presence": True}

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
    async def run(conn: Connection, job: str, n: int, seconds: float) -> int:
        world.ran.append((conn.user + job, n, len(world.ran)))
        await asyncio.sleep(seconds)
        return len(world.ran)

    @wire.query
    async def echo(conn: Connection, value: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return value
