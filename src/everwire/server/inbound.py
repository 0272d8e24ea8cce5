"""What comes in on a connection: how much of it is taken, and what is wrong with it.

The limits on what one connection sends are looked at here and in :meth:`.node.Node.dispatch`,
before anything is worked on. Each has an error or a close code, and a counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import CloseCode, ErrorCode
from ..errors import RequestError
from ..protocol import messages as m
from ..protocol.dialects import BadMessage
from ..protocol.states import ConnectionState
from .inflow import Inflow
from .rates import ReadOn

if TYPE_CHECKING:
    from ..protocol.dialects import Dialect

STRIKE_WINDOW = 60.0


class Inbound(Inflow):
    """The part of a connection that takes what comes.

    Attributes:
        came: messages that came, less those that a connection may send in the time since: the
            level of a bucket that runs out at the rate which is allowed.
        came_bytes: the same of their bytes.
    """

    __slots__ = ("_second", "_strikes", "_strikes_since", "came", "came_bytes")

    auth_in_flight: bool
    backlog: list[m.Message] | None
    dialect: Dialect
    opcode: int

    def __init__(self, now: float, first_ping: float) -> None:
        super().__init__(now, first_ping)
        self.came = 0
        self.came_bytes = 0
        self._second = now
        self._strikes = 0
        self._strikes_since = now

    if TYPE_CHECKING:  # what the connection brings

        def refuse(
            self, request_id: m.RequestId | None, error: RequestError, channel: str | None = None
        ) -> None: ...

    # ---- Receiver ---------------------------------------------------------------

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        node, size = self.node, len(payload)
        now = self._last_in = node.wheel.now
        if now == self._second:
            self.came += 1
            self.came_bytes += size
        else:
            self._next_second(now, size)
        tally = node.tally
        tally.messages_in += 1
        tally.bytes_in += size
        if self.came_bytes > node.most_bytes and self._too_many_bytes(size):
            return
        if (opcode != self.opcode or self.state is not _READY) and self._out_of_place(opcode, size):
            return
        if size > node.harmless and self._too_large(payload):
            return
        try:
            message = self.dialect.decode(payload)
        except BadMessage as bad:
            self.bad(bad)
            return
        if self.auth_in_flight and isinstance(message, m.Auth):
            node.violation(self, "an auth is in flight")  # type: ignore[arg-type]
        elif self.backlog is not None:
            self.backlog.append(message)
        else:
            handler = node.handlers.get(type(message))
            if handler is None or self.came > node.most_messages or self.state is not _READY:
                node.dispatch(self, message)  # type: ignore[arg-type]
            else:  # as nearly all: what dispatch() would come to
                handler(node, self, message)

    def _out_of_place(self, opcode: int, size: int) -> bool:
        """Whether a message may not come now, or not in this form; say so."""
        if self.state in _ENDED:
            return True
        if opcode != self.opcode:
            kind = "text" if self.opcode == 1 else "binary"
            self.bad(BadMessage(f"the dialect {self.dialect.name} uses {kind} messages"))
            return True
        if size > self.node.limits.auth and self.state is not _READY:
            self.close(CloseCode.TOO_BIG, "too big for a message before auth")
            return True
        return False

    def _too_large(self, payload: bytes | memoryview) -> bool:
        """Whether a message is too large, or has too much in it, to be worth decoding; say so."""
        limits = self.node.limits
        if len(payload) > limits.message:
            self.refuse(self.dialect.request_id(payload), RequestError(code=ErrorCode.TOO_BIG))
            return True
        if not self.dialect.has_more_than(payload, limits.elements):
            return False
        self.node.count("too_many_elements")
        text = f"a message may have {limits.elements} values and keys (limit elements)"
        self.bad(BadMessage(text, request_id=self.dialect.request_id(payload)))
        return True

    def heard(self) -> None:
        self._last_in = self.node.wheel.now

    # ---- rates --------------------------------------------------------------------

    def _next_second(self, now: float, size: int) -> None:
        """Take a message of another second than the one before it."""
        limits = self.node.limits
        if self.came > limits.messages or self.came_bytes > limits.bytes:
            self.run_out(now)
            self.came += 1
            self.came_bytes += size
        else:
            self._second, self.came, self.came_bytes = now, 1, size

    def run_out(self, now: float) -> None:
        """Take from the buckets what may have come since they were looked at last."""
        limits, elapsed = self.node.limits, now - self._second
        self._second = now
        self.came = max(0, self.came - int(limits.messages * elapsed))
        self.came_bytes = max(0, self.came_bytes - int(limits.bytes * elapsed))

    def _too_many_bytes(self, size: int) -> bool:
        """Read no more for a while; return whether the connection was closed instead.

        That is for whoever sends on regardless: messages that inflate to much more than
        what is read at a time.
        """
        node = self.node
        if self.came_bytes > 2 * node.most_bytes + node.limits.hard_cap:
            node.count("bytes_limited")
            self.close(CloseCode.RATE_LIMITED, "too many bytes (limit bytes)")
            return True
        if self.came_bytes - size <= node.most_bytes:
            node.count("throttled")
            self.hold_reading()
            node.wheel.add(ReadOn(self), 1.0)
        return False

    # ---- what is wrong ------------------------------------------------------------

    def bad(self, bad: BadMessage) -> None:
        """Answer what is no message; too many of them end the connection."""
        self.node.count("bad_messages")
        if bad.unknown_type and bad.request_id is None and self.dialect.acknowledges:
            return
        code = ErrorCode.UNKNOWN_TYPE if bad.unknown_type else ErrorCode.BAD_REQUEST
        self.refuse(bad.request_id, RequestError(str(bad), code=code), bad.channel)
        if bad.strike:
            self.strike()

    def strike(self) -> None:
        """Count something bad; too much of it within a minute ends the connection."""
        now = self.node.wheel.now
        if now - self._strikes_since > STRIKE_WINDOW:
            self._strikes, self._strikes_since = 0, now
        self._strikes += 1
        if self._strikes > self.node.limits.strikes:
            self.close(CloseCode.BAD_MESSAGES, "too many bad messages")


_READY = ConnectionState.READY
_ENDED = (ConnectionState.CLOSING, ConnectionState.CLOSED)
