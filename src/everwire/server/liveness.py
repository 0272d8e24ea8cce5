"""What is due for a connection, and when: the deadlines that the node's wheel asks about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..codes import CloseCode
from ..protocol import messages as m
from ..protocol.states import ConnectionState

if TYPE_CHECKING:
    from ..net.transport import Handshake, Transport
    from ..protocol.dialects import Wire
    from .node import Node
    from .rules import Identity

PROGRESS = 1024  # bytes of an unfinished message that count as a sign of life
ALIVE = (ConnectionState.AUTHENTICATING, ConnectionState.READY)


class Pings:
    """The heartbeat of a moment, encoded once for all connections of a wire."""

    def __init__(self) -> None:
        self._at = 0.0
        self._frames: dict[Wire, bytes] = {}

    def frame(self, wire: Wire, now: float, wall: Callable[[], float]) -> bytes:
        """The finished ping of the moment ``now``, by the loop's time."""
        if self._at != now:
            self._frames.clear()
            self._at = now
        found = self._frames.get(wire)
        if found is None:
            found = self._frames[wire] = wire.frame(wire.dialect.encode(m.Ping(int(wall() * 1000))))
        return found


class Liveness:
    """The part of a connection that knows whether it is alive.

    Alive is whoever sends anything, also a part of a message, or takes what is sent. A
    reader that does not take what is sent has thirty seconds; so has silence, which is
    given one probe more if it may have been our own doing.
    """

    __slots__ = ("_bytes_in", "_last_in", "_ping_due", "_stall_size", "_suspect", "_taken",
                 "paused_at")  # fmt: skip

    node: Node
    transport: Transport
    wire: Wire
    identity: Identity
    auth_in_flight: bool
    handshake: Handshake | None
    paused: bool
    held_reading: int
    state: ConnectionState

    def __init__(self, now: float, first_ping: float) -> None:
        self._last_in = now
        self._ping_due = now + first_ping
        self._suspect = False
        self._stall_size = 0
        self._bytes_in = 0
        self._taken = 0
        self.paused_at = 0.0

    if TYPE_CHECKING:  # what the connection brings

        def queue(self, frames: bytes) -> None: ...

        def close(self, code: int, reason: str = "") -> None: ...

    def tick(self, now: float) -> float:
        """Do what is due: see :class:`everwire.net.heartbeat.Ticked`."""
        state, limits = self.state, self.node.limits
        if (
            state is ConnectionState.READY
            and now < self._ping_due
            and now - self._last_in < limits.ping_interval
            and not (self.paused or self.identity.expires)
        ):
            # What nearly every look finds: it answered. A message that does not end is
            # looked for when the next ping is due.
            # Without min() and max(): they are a tenth of what an idle connection costs.
            due = self._last_in + limits.ping_interval + limits.ping_grace - now
            if self._ping_due - now < due:
                due = self._ping_due - now
            if due > 0.5:
                return due
            return 0.5
        if state in ALIVE:
            if self.identity.expires is not None and self._has_expired():
                self._expire()
                return self.node.limits.close_timeout
            return self._tick_paused(now) if self.paused else self._tick_open(now)
        if state is ConnectionState.CONNECTING:
            seconds = self.node.limits.auth_timeout
            self.close(CloseCode.AUTH_DEADLINE, f"no auth within {seconds:g} s")
            return self.node.limits.close_timeout
        if state is ConnectionState.CLOSING:
            self.transport.abort()
        return 0

    def _has_expired(self) -> bool:
        """Whether the token ended; while a fresh one is looked at, it has a second more."""
        expires = self.identity.expires
        if expires is None:
            return False
        return self.node.wall() >= expires + (1.0 if self.auth_in_flight else 0.0)

    def _expire(self) -> None:
        """What says who it is holds no longer; whoever said it is asked again."""
        if self.handshake is None:
            self.close(CloseCode.TOKEN_REFUSED, "the token has expired")
        else:  # kept for the host that handed the user over: no token is of use
            self.close(CloseCode.TRY_AGAIN_LATER, "the sign-in has expired; connect again")

    def _tick_open(self, now: float) -> float:
        limits = self.node.limits
        if self.held_reading:
            self._last_in = now
        since = self.transport.unfinished_since()
        if since is not None and now - since > limits.message_timeout:
            self.close(CloseCode.HEARTBEAT, "a message was not finished in time")
            return limits.close_timeout
        silent = now - self._last_in
        if silent >= limits.ping_interval + limits.ping_grace:
            return self._silent(now)
        self._suspect = False
        if now >= self._ping_due:
            self._ping_due = now + limits.ping_interval
            self.ping()
        due = self._last_in + limits.ping_interval + limits.ping_grace - now
        if self._ping_due - now < due:
            due = self._ping_due - now
        if self.identity.expires is not None:
            due = min(due, self.identity.expires - self.node.wall())
        if due > 0.5:
            return due
        return 0.5

    def ping(self) -> None:
        """Ask for a sign of life, and give one."""
        if self.wire.dialect.needs_auth:
            node = self.node
            self.queue(node.pings.frame(self.wire, node.wheel.now, node.wall))
        else:
            self.transport.ping()

    def _silent(self, now: float) -> float:
        """Nothing came for too long: was it us?"""
        limits = self.node.limits
        before, self._stall_size = self._stall_size, self.transport.write_buffer_size()
        age, size = self.transport.inbound()
        came, self._bytes_in = size - self._bytes_in, size
        # A large message that comes slowly, or ours that are slowly read: alive. While more
        # is written than read, what waits grows all the same: ask what the peer took.
        reads = self._stall_size < before
        if self._stall_size:
            taken, self._taken = self._taken, self.transport.taken()
            reads = reads or (self._suspect and self._taken > taken)
        if reads or (age < limits.ping_interval and came > PROGRESS):
            self._last_in = now
            return limits.probe
        lagged = self.node.wheel.lagged_at >= self._last_in
        if (lagged or self._stall_size) and not self._suspect:
            self._suspect = True
            self.ping()
            return limits.probe
        self.node.count("heartbeat_losses")
        self.close(CloseCode.HEARTBEAT, "no sign of life")
        self.transport.abort()
        return 0

    def _tick_paused(self, now: float) -> float:
        size = self.transport.write_buffer_size()
        if size < self._stall_size:
            self.paused_at = now
        self._stall_size = size
        if now - self.paused_at >= self.node.limits.stall:
            self.node.count("slow_consumers")
            self.close(CloseCode.SLOW_CONSUMER, "no progress in reading")
            return self.node.limits.close_timeout
        return 1.0
