"""One connection, as the server sees it: its life, from handshake to end.

What it does with each message is in :mod:`.requests`, :mod:`.publishing` and
:mod:`.subscribing`. There is no task, timer or closure for a connection: the node's
wheel looks after its deadlines, and the hub writes what is in :attr:`Connection.out`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ..codes import CloseCode, reconnects
from ..errors import RequestError
from ..hub.registry import Subscription
from ..net.transport import Handshake, Transport
from ..protocol import messages as m
from ..protocol.dialects import Dialect, wire_for
from ..protocol.messages import error_message
from ..protocol.states import CONNECTION, ConnectionState, check_way
from .askable import Askable
from .asking import Asked
from .assigning import Assignable, Visit
from .handlers import TOO_DEEP
from .inbound import Inbound
from .visits import greet_anonymous

if TYPE_CHECKING:
    from .access import Channelled
    from .churn import Churn
    from .node import Node
    from .publishing import Publishing
    from .rules import Identity
    from .streams import Stream
    from .turns import Turn


class _Nothing(dict[Any, Any]):
    """Stands for the empty dicts of all connections; who has something makes one."""

    def __setitem__(self, key: object, value: object) -> None:
        raise TypeError("this is nobody's dict")


NOTHING: dict[Any, Any] = _Nothing()


def public_id(secret: str) -> str:
    """What others may know a connection by; who knows the secret can work it out."""
    return blake2b(secret.encode(), digest_size=9).hexdigest()


class Connection(Inbound, Askable, Assignable):
    """A client's connection, given to handlers as their first argument.

    Attributes:
        id: its public name, as presence shows it.
        user: the user, "" if anonymous.
        identity: what the ``authenticate`` handler returned.
        remote: the peer's address.
        dialect: how it speaks.
    """

    __slots__ = (
        "_id", "_writable",
        "asked", "auth_in_flight", "backlog", "behind", "catching_up", "channels", "churn",
        "counted", "dialect", "handshake", "identity", "instance", "node",
        "opcode", "operations", "out", "paused", "presence_missed", "publishing", "remote",
        "secret", "state", "subscriptions", "transport", "visit", "wire",
        "write",
    )  # fmt: skip

    def __init__(
        self, node: Node, transport: Transport, handshake: Handshake, dialect: Dialect
    ) -> None:
        self.node = node
        self.transport = transport
        self.handshake: Handshake | None = handshake
        self.dialect = dialect
        self.wire = wire_for(dialect, transport.compressed)
        self.opcode = self.wire.opcode
        self.remote = transport.remote or handshake.remote
        self.secret = node.new_secret()
        self._id = ""
        self.identity: Identity = node.anonymous
        self.instance = ""
        self.write: Callable[[bytes], None] = transport.write
        self.out: list[bytes] | None = None
        self.paused = False
        self.held_reading = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.channels: dict[str, Channelled] = {}
        self.behind: dict[Subscription, None] = NOTHING
        self.catching_up = False
        self.operations: dict[str, Turn] = NOTHING
        """the last subscribe or unsubscribe under way, by channel"""
        self.visit: Visit | None = None
        """what the application has to do with its coming and going"""
        self.churn: Churn | None = None
        """how much it has subscribed to lately"""
        self.uncancellable: dict[m.RequestId, None] = NOTHING
        self.presence_missed: dict[Subscription, None] = NOTHING
        self.inflight: dict[m.RequestId, asyncio.Task[None] | None] = NOTHING
        self.publishing: Publishing | None = None
        """what its publishes need to know of each other, once they do"""
        self.asked: Asked | None = None
        self.streams: dict[m.RequestId, Stream] = NOTHING
        """those that are being answered; they do not count as requests in flight"""
        self.counted: tuple[str, str] | None = None
        """the tenant and user among whose connections it is counted"""
        self.auth_in_flight = False
        self.backlog: list[m.Message] | None = None
        super().__init__(node.wheel.now, node.first_ping())
        self.state = ConnectionState.CONNECTING
        self._writable: asyncio.Future[None] | None = None
        self._serial = 0

    # ---- for handlers --------------------------------------------------------

    @property
    def id(self) -> str:
        if not self._id:
            self._id = public_id(self.secret)
        return self._id

    @property
    def user(self) -> str:
        return self.identity.user

    @property
    def handed_over(self) -> Identity | None:
        """Who it is by the word of the host that we live in; that holds for good."""
        handshake = self.handshake
        return None if handshake is None else handshake.identity  # type: ignore[return-value]

    def __repr__(self) -> str:
        return (
            f"<Connection {self.id} user={self.user!r} {self.state} {self.dialect.name} "
            f"subscriptions={len(self.subscriptions)}>"
        )

    # ---- opening --------------------------------------------------------------

    def opened(self) -> None:
        """Greet, and start the clock for ``auth``."""
        node, limits = self.node, self.node.limits
        handed_over = self.handed_over
        self.identity = handed_over or self.identity
        if self.dialect.needs_auth or not (handed_over or node.lets_anonymous_in):
            self.transport.limit(limits.auth)
        if self.dialect.needs_auth:
            self.send(node.hello(self.secret))
            node.wheel.add(self, limits.auth_timeout)
        elif node.greets and (handed_over is not None or node.lets_anonymous_in):
            greet_anonymous(node, self)
        elif handed_over is not None:
            self.ready(handed_over)
        elif node.lets_anonymous_in:
            self.to(ConnectionState.READY)
            node.users.add(self)
            node.wheel.add(self, self._ping_due - node.wheel.now)
        else:
            node.wheel.add(self, limits.auth_timeout)

    def to(self, state: ConnectionState) -> None:
        """Change the state."""
        check_way(CONNECTION, self.state, state)
        self.state = state

    def ready(self, identity: Identity) -> None:
        """The user is known: serve requests, unless the user has as many as are allowed."""
        if self.node.per_user.admit(self, identity):
            self.serve(identity)

    def serve(self, identity: Identity) -> None:
        """Serve requests of a user among whose connections it is counted."""
        node = self.node
        node.users.remove(self)
        self.identity = identity
        if self.handshake is not None and self.handshake.identity is None:
            self.handshake = None
        if self.state is not _READY:
            self.to(_READY)
        node.users.add(self)
        due = self._ping_due - node.wheel.now
        if identity.expires is not None:
            left = identity.expires - node.wall()
            if left < due:
                due = left
        node.wheel.add(self, due)

    # ---- Receiver ---------------------------------------------------------------

    def closed(self, code: int, reason: str) -> None:
        if self.state is not ConnectionState.CLOSED:
            if self.state is not ConnectionState.CLOSING:
                self.node.tally.closed(code)
            self._release(code, reason, stays=code not in _GOODBYE)
            self.to(ConnectionState.CLOSED)
            self.node.users.remove(self)
            self.node.closed(self)

    def pause_writing(self) -> None:
        if self.paused:
            return
        self.paused = True
        self.paused_at = self.node.wheel.now
        self._stall_size = self.transport.write_buffer_size()
        self.hold_reading()
        self.node.hub.stuck(self, self.subscriptions.values())
        self.node.wheel.add(self, 1.0)

    def resume_writing(self) -> None:
        if not self.paused:
            return
        self.paused = False
        self._last_in = self.node.wheel.now  # we were the ones who did not listen
        self.release_reading()
        self.node.presence.show_missed(self)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # ---- writing ------------------------------------------------------------------

    def send(self, message: m.Message) -> None:
        """Queue a message for the end of the loop's turn."""
        dialect = self.dialect
        payload = dialect.encode(message, self.node.now_ms() if dialect.stamps else 0)
        if payload:
            self.send_payload(payload)

    def send_payload(self, payload: bytes) -> None:
        """Queue an encoded message for the end of the loop's turn."""
        if self.state is _READY or self.state not in _ENDED:
            self.queue(self.wire.frame(payload))

    def queue(self, frames: bytes) -> None:
        """Queue finished frames for the end of the loop's turn."""
        if self.out is None:
            self.out = [frames]
            self.node.hub.touch(self)
        else:
            self.out.append(frames)

    async def writable(self) -> None:
        """Wait until the write buffer has room, or the connection is closed. Safe to cancel."""
        while self.paused and self.state not in _ENDED:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)

    def respond(self, request_id: m.RequestId, payload: Any) -> None:
        """Answer a request."""
        self.send(m.Response(request_id, payload))

    def refuse(
        self, request_id: m.RequestId | None, error: RequestError, channel: str | None = None
    ) -> None:
        """Answer a request with an error."""
        self.node.tally.refuse(error.code)
        if error.details is TOO_DEEP:
            self.node.count("too_deep")
        self.send(error_message(request_id, error, None if self.dialect.acknowledges else channel))

    # ---- closing --------------------------------------------------------------------------

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye: everything that the connection holds is let go at once."""
        if self.state in _ENDED:
            return
        self.node.tally.closed(code)
        self.node.hub.flush()  # what was promised before goes out before
        self._release(code, reason, stays=reconnects(code) or code == CloseCode.REPLACED)
        self.to(ConnectionState.CLOSING)
        self.transport.close(code, reason)
        self.node.wheel.add(self, self.node.limits.close_timeout)

    def _release(self, code: int, reason: str, *, stays: bool) -> None:
        """Leave all channels; cancel what runs for this connection. Twice is once.

        With ``stays`` its client may be back in a moment.
        """
        node = self.node
        node.per_user.left(self)
        for subscription in list(self.subscriptions.values()):
            node.hub.remove(subscription)
        if self.subscriptions or self.channels:
            node.left(self, list(self.subscriptions.values()), stays=stays)
        self.subscriptions.clear()
        self.channels.clear()
        self.behind = NOTHING
        self.out = self.backlog = self.publishing = None
        for task in self.inflight.values():
            if task is not None:
                task.cancel()
        self.inflight = NOTHING
        for stream in self.streams.values():
            stream.cancel()
        self.streams = NOTHING
        if self.asked is not None:
            self.asked.lost()
        if self.visit is not None and self.visit.ended is None:
            self.visit.ended = (code, reason)
            node.farewells.add(self)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)


_GOODBYE = (CloseCode.NORMAL, CloseCode.NO_STATUS)
"""what a client closes with that does not mean to come back"""
_READY = ConnectionState.READY
_ENDED = (ConnectionState.CLOSING, ConnectionState.CLOSED)
