"""How much a connection lets in: requests at a time, and what is wrong with what comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..codes import CloseCode, ErrorCode
from ..errors import RequestError
from ..protocol import messages as m
from ..protocol.dialects import BadMessage, Dialect
from ..protocol.states import ConnectionState
from .liveness import Liveness

if TYPE_CHECKING:
    from .streams import Stream

STRIKE_WINDOW = 60.0


class Inflow(Liveness):
    """The part of a connection that holds its client back, and counts what it does wrong."""

    __slots__ = ("_serial", "_strikes", "_strikes_since", "held_reading", "inflight", "streams",
                 "uncancellable")  # fmt: skip

    dialect: Dialect
    inflight: dict[m.RequestId, asyncio.Task[None] | None]
    uncancellable: dict[m.RequestId, None]
    streams: dict[m.RequestId, Stream]
    _serial: int
    _strikes: int
    _strikes_since: float

    if TYPE_CHECKING:

        def refuse(
            self, request_id: m.RequestId | None, error: RequestError, channel: str | None = None
        ) -> None: ...

    # ---- back-pressure --------------------------------------------------------------

    def hold_reading(self) -> None:
        """Stop reading until :meth:`release_reading` was called as often."""
        self.held_reading += 1
        if self.held_reading == 1:
            self.transport.pause_reading()

    def release_reading(self) -> None:
        """Undo one :meth:`hold_reading`."""
        self.held_reading -= 1
        if self.held_reading == 0 and self.state not in _ENDED:
            self._last_in = self.node.wheel.now
            self.transport.resume_reading()

    def begin(self, request_id: m.RequestId, task: asyncio.Task[None] | None) -> None:
        """Note a request in flight; at the limit, read no more."""
        if not self.inflight:
            self.inflight = {}
        self.inflight[request_id] = task
        if len(self.inflight) == self.node.limits.inflight:
            self.node.count("inflight_full")
            self.hold_reading()

    def internal_id(self) -> int:
        """An id for a request that came without one; it is never one of the wire."""
        self._serial -= 1
        return self._serial

    def end(self, request_id: m.RequestId) -> None:
        """Note that a request is answered."""
        if request_id in self.inflight:
            if len(self.inflight) == self.node.limits.inflight:
                self.release_reading()
            del self.inflight[request_id]
            self.uncancellable.pop(request_id, None)
        elif self.streams:
            self.streams.pop(request_id, None)

    # ---- what is wrong ----------------------------------------------------------------

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


_ENDED = (ConnectionState.CLOSING, ConnectionState.CLOSED)
