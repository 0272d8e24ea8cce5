"""What is being worked on for a connection, and when nothing more is read from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..protocol import messages as m
from ..protocol.states import ConnectionState
from .liveness import Liveness

if TYPE_CHECKING:
    from .streams import Stream


class Inflow(Liveness):
    """The part of a connection that knows what is in flight, and holds its client back."""

    __slots__ = ("_serial", "held_reading", "inflight", "streams", "uncancellable")

    inflight: dict[m.RequestId, asyncio.Task[None] | None]
    uncancellable: dict[m.RequestId, None]
    streams: dict[m.RequestId, Stream]
    _serial: int

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


_ENDED = (ConnectionState.CLOSING, ConnectionState.CLOSED)
