"""One process: hub, broker and connections."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from random import Random
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from ..brokers import Broker
from ..brokers.base import PresenceChange, Record
from ..codes import CloseCode, ErrorCode
from ..errors import RequestError
from ..hub.hub import Hub
from ..hub.registry import Subscription
from ..instrumentation import LimitedLog
from ..net.heartbeat import Wheel
from ..net.tasks import TaskOwner
from ..net.transport import Handshake, Receiver, Transport
from ..protocol import messages as m
from ..protocol.dialects import dialect
from ..protocol.states import ConnectionState
from . import auth, recovering, requests
from .access import Access
from .chores import Chores
from .commands import CommandLog
from .connection import Connection
from .identity.refusals import Refusals
from .identity.revocations import Revocations
from .liveness import Pings
from .open_channels import OpenChannels
from .others import Others
from .presence import Presence
from .rates import PerAddress, PerUser, slow_down
from .rules import Identity
from .stats import Tally
from .upkeep import Upkeep
from .users import Users
from .visits import Farewells
from .working import Slots

if TYPE_CHECKING:
    from .app import Everwire

logger = logging.getLogger("everwire.server")

_READY = ConnectionState.READY
TIME_TO_MOVE = 5.0  # seconds that a drain leaves to the client that is told to go last


class Node:
    """Runs an :class:`~everwire.Everwire` in this process; see :meth:`Everwire.start`.

    Attributes:
        id: random, new at each start.
        connections: by their secret.
        counters: what happened how often, by name; see ``docs/metrics.md``.
        tally: what is counted of every message and connection.
    """

    def __init__(self, app: Everwire, broker: Broker, *, random: Random | None = None) -> None:
        self.app = app
        self.broker = broker
        self.limits = app.limits
        self.wall: Callable[[], float] = app.wall
        self.random = random or Random()  # noqa: S311  # it spreads moments, no more
        self.id = token_hex(8)
        self.anonymous = Identity()
        self.connections: dict[str, Connection] = {}
        self.users = Users(self.connections)
        self.others = Others(self)
        handlers = app.handlers
        self.greets = bool(handlers.on_connect or handlers.on_disconnect or handlers.own)
        self.farewells = Farewells(self)
        self.presence = Presence(self)
        self.upkeep = Upkeep(self)
        self.counters: Counter[str] = Counter()
        self.tally = Tally()
        self.started_at = 0.0
        self._addresses = PerAddress(app.limits.connections)
        self.per_user = PerUser(self)
        self.most_messages = int(app.limits.messages * app.limits.burst)
        self.most_bytes = int(app.limits.bytes * app.limits.burst)
        self.harmless = min(app.limits.message, app.limits.elements)
        """bytes of a message in which nothing can be too much"""
        self.refusals = Refusals(app.limits.refused_auths)
        self.revocations = Revocations(app.limits.revocations)
        self.draining = False
        self.access = Access(app.handlers.rules, app.handlers.filters)
        self.tasks = TaskOwner(f"node {self.id}")
        self.working = TaskOwner(f"node {self.id}")
        """on requests of clients; see :mod:`.working`"""
        self.slots = Slots()
        self.open_channels = OpenChannels(self)
        self._emptied = asyncio.Event()
        self.pings = Pings()
        function = app.handlers.authenticate
        self.lets_anonymous_in = function is None or app.allow_anonymous
        takes = inspect.signature(function).parameters if function is not None else {}
        self.authenticate_takes = frozenset(takes)
        self.takes_ambient = not auth.AMBIENT.isdisjoint(takes)
        self.authenticate_needs = frozenset(
            name
            for name, parameter in takes.items()
            if parameter.default is inspect.Parameter.empty
        )
        self.announced = self.limits.announced()
        # Both dispatch on a message's own class: each dialect decodes into its own.
        self.handlers: dict[type[m.Message], Callable[[Any, Any, Any], None] | None] = {}
        self.chores: Chores
        self.log: LimitedLog
        self.wheel: Wheel
        self.hub: Hub
        self.on_record: Callable[[str, Record], None]
        """is told by the broker of a message: the hub's own"""
        self.commands: CommandLog

    # ---- life -----------------------------------------------------------------

    async def start(self) -> None:
        """Start the broker, then everything that depends on it.

        Cancelling leaves it to be started again.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """
        loop = asyncio.get_running_loop()
        self.log = LimitedLog(logger, loop.time)
        self.chores = Chores(self.tasks, self.log)
        told = (self._recover, self.presence.on_change, self._overflow)
        self.hub = Hub(loop, *told, self.limits, self.upkeep.on_lost)
        self.on_record = self.hub.on_record
        self.wheel = Wheel(loop)
        self.started_at = self.wheel.now
        self.commands = CommandLog(self)
        await self.broker.start(self)
        try:
            await self.upkeep.begin()
        except BaseException:
            await self.broker.stop()
            raise
        self.wheel.start()
        self.wheel.add(self.open_channels, 1.0)
        self.wheel.add(self.upkeep, 1.0)

    async def drain(self, window: float, hasten: asyncio.Event | None = None) -> None:
        """Send the clients away, each at its own moment within ``window`` seconds.

        The last of them is left time to move before the window ends; what is being done
        for those that stay till then is given half as long again. Returns when all are
        gone, or were closed. Cancelling stops waiting.
        """
        self.draining = True
        close_in = int(window * 1000)
        spread = window - min(window / 2, TIME_TO_MOVE)
        for connection in list(self.connections.values()):
            reconnect_in = int(self.random.uniform(0, spread) * 1000)
            connection.send(m.Drain(reconnect_in, close_in))
        await self._wait_empty(window, hasten)
        if hasten is None or not hasten.is_set():
            await self._finish_requests(window / 2)
        self._close_all(CloseCode.DRAINING, "the node is draining")
        await self._wait_empty(self.limits.close_timeout, hasten)

    async def _finish_requests(self, seconds: float) -> None:
        """Begin no more requests, and wait for those that were begun, at most ``seconds``.

        Who is closed without the answer to a command sends it again, to a node that may
        not know that it ran.
        """
        begun = []
        for connection in self.connections.values():
            connection.hold_reading()
            begun += [task for task in connection.inflight.values() if task is not None]
        if begun:
            await asyncio.wait(begun, timeout=seconds)

    async def stop(self) -> None:
        """Close what is left, stop the tasks, then the broker. Twice is once."""
        self.draining = True
        self._close_all(CloseCode.DRAINING, "the node is stopping")
        await self._wait_empty(min(1.0, self.limits.close_timeout))
        for connection in list(self.connections.values()):
            connection.transport.abort()
            connection.closed(CloseCode.ABNORMAL, "")
        self.wheel.stop()
        await self.commands.stop()
        await self.farewells.finish(self.limits.close_timeout)
        await self.chores.finish(1.0)
        await self.finish(self.working)  # all are cancelled; a "finally" may take its time
        self.working.cancel_all()
        self.tasks.cancel_all()
        await self.finish(self.working)
        await self.finish(self.tasks)
        if left := len(self.working) + len(self.tasks):
            logger.warning("%d tasks go on although they were cancelled", left)
        await self.broker.stop()

    async def finish(self, tasks: TaskOwner) -> None:
        """Wait for tasks that were cancelled, not for ever: a handler may not care."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.close_timeout):
                await tasks.wait_closed()

    def _close_all(self, code: CloseCode, reason: str) -> None:
        for connection in list(self.connections.values()):
            self._send_away(connection, code, reason)

    @staticmethod
    def _send_away(connection: Connection, code: CloseCode, reason: str) -> None:
        """Close with a code of ours, or with the standard one where ours are not known."""
        known = connection.dialect.needs_auth
        connection.close(code if known else CloseCode.SERVICE_RESTART, reason)

    async def _wait_empty(self, seconds: float, hasten: asyncio.Event | None = None) -> None:
        """Wait until there are no connections, at most ``seconds``, and not if hastened."""
        if not self.connections:
            return
        self._emptied.clear()
        waiting = [self.tasks.start(self._emptied.wait(), "drain")]
        if hasten is not None:
            waiting.append(self.tasks.start(hasten.wait(), "hasten"))
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def accept(self, transport: Transport, handshake: Handshake) -> Receiver:
        """Take over a WebSocket that was just opened."""
        chosen = dialect(transport.subprotocol or "plain")
        connection = Connection(self, transport, handshake, chosen)
        self.connections[connection.secret] = connection
        self.counters["connections"] += 1
        self.tally.dialects[chosen.name] += 1
        if not self._addresses.admit(connection):
            return connection
        self.users.expect(connection)
        connection.opened()
        if self.draining:
            connection.send(m.Drain(0, 0))
            self._send_away(connection, CloseCode.DRAINING, "the node is draining")
        return connection

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        if self.connections.pop(connection.secret, None) is not None:
            self._addresses.left(connection)
            self.tally.dialects[connection.dialect.name] -= 1
        if not self.connections:
            self._emptied.set()

    def left(
        self,
        connection: Connection,
        subscriptions: Sequence[Subscription],
        *,
        stays: bool = False,
    ) -> None:
        """A connection left channels; with ``stays`` its client may come back."""
        for subscription in subscriptions:
            channel = subscription.channel
            rule = self.access.place(channel.name).rule
            if rule is not None and rule.presence:
                self.presence.disappear(connection, channel.key, stays=stays)

    # ---- messages ----------------------------------------------------------------

    def dispatch(self, connection: Connection, message: m.Message) -> None:
        """Do what a client's message asks for."""
        kind = type(message)
        if kind not in self.handlers:
            self.handlers[kind] = next(
                (known for base, known in requests.HANDLERS.items() if issubclass(kind, base)),
                None,
            )
        handler = self.handlers[kind]
        if connection.state is not _READY and not isinstance(message, requests.BEFORE_AUTH):
            self._before_auth(connection, message)
            return
        if connection.came > self.most_messages and kind is not m.Pong:
            slow_down(connection, message)
        elif handler is None:
            self.count("unexpected_messages")
            error = RequestError("a server does not take this", code=ErrorCode.UNKNOWN_TYPE)
            if not connection.dialect.acknowledges:
                connection.refuse(None, error)
        else:
            handler(self, connection, message)

    def _before_auth(self, connection: Connection, message: m.Message) -> None:
        if connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        if connection.dialect.needs_auth:
            self.violation(connection, "a request before auth")
            return
        channel = getattr(message, "channel", None)
        error = RequestError(code=ErrorCode.UNAUTHENTICATED)
        connection.refuse(getattr(message, "id", None) or None, error, channel)

    def violation(self, connection: Connection, text: str) -> None:
        """The client breaks the protocol."""
        self.count("violations")
        connection.close(CloseCode.VIOLATION, text)

    # ---- channels ------------------------------------------------------------------

    def on_presence(self, channel: str, change: PresenceChange) -> None:
        self.hub.on_presence(channel, change)

    def on_signal(self, payload: bytes) -> None:
        self.others.on_signal(payload)

    def on_degraded(self) -> None:
        self.upkeep.on_degraded()

    def on_restored(self) -> None:
        self.upkeep.on_restored()

    def _recover(self, subscriptions: Iterable[Subscription]) -> None:
        for subscription in subscriptions:
            reader = subscription.reader
            assert isinstance(reader, Connection)
            recovering.recover(self, reader, subscription)

    def _overflow(self, subscription: Subscription) -> None:
        """A message of a channel without history found no room for a slow reader."""
        reader = subscription.reader
        assert isinstance(reader, Connection)
        if subscription.channel.options.on_overflow == "disconnect":
            # Not in the middle of a publish, which may be the reader's own.
            asyncio.get_running_loop().call_soon(self._cut_off, reader)
        else:
            self.count("dropped")

    def _cut_off(self, reader: Connection) -> None:
        if reader.state is _READY:
            self.count("slow_consumers")
            reader.close(CloseCode.SLOW_CONSUMER, "too slow for a channel without history")

    # ---- small things --------------------------------------------------------------------

    def hello(self, secret: str) -> m.Hello:
        """What a new connection is greeted with."""
        interval = int(self.limits.ping_interval * 1000)
        return m.Hello(1, self.id, secret, self.now_ms(), auth.FEATURES, interval, self.announced)

    def now_ms(self) -> int:
        """The time, in milliseconds since 1970."""
        return int(self.wall() * 1000)

    def first_ping(self) -> float:
        """When a new connection is pinged first: spread, so that a storm is not repeated."""
        return self.random.uniform(1.0, self.limits.ping_interval)

    def new_secret(self) -> str:
        """A connection's secret: 128 random bits."""
        return token_hex(16)

    def count(self, what: str) -> None:
        """Count something that happened."""
        self.counters[what] += 1

    def broker_failed(self) -> None:
        """The broker did not answer."""
        self.count("broker_failures")
        self.tally.broker_failed_at = self.wheel.now
        self.upkeep.doubt()

    def log_defect(self, where: str, kind: str = "") -> None:
        """Log the exception being handled: it is nobody's answer.

        ``kind`` is what lines are counted by, where ``where`` is another each time.
        """
        self.count("defects")
        error = sys.exception()
        key = f"{type(error)} {kind or where}"
        self.log.log(logging.ERROR, key, "a defect in %s", where, exc_info=error)
