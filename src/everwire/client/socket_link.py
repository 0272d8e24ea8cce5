"""One connection of a :class:`~everwire.Socket`: whole messages, and the heartbeat."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ..codes import CloseCode
from ..errors import ConnectionClosed
from ..limits import ClientLimits
from ..net.transport import Transport
from ..protocol.frames import Opcode
from .heartbeat import Heartbeat
from .pings import Ping
from .raw_link import RawLink
from .stats import Traffic

logger = logging.getLogger("everwire.socket")


class SocketLinkOwner(Protocol):
    """Is told what happens on a link."""

    def link_message(self, link: SocketLink, message: str | bytes, size: int) -> None:
        """A message came; ``size`` is in bytes."""

    def link_writable(self, link: SocketLink) -> None:
        """All that was written has left."""

    def link_suspect(self, link: SocketLink, suspect: bool) -> None:
        """The link is being probed, or has answered."""

    def link_ended(self, link: SocketLink, error: ConnectionClosed) -> None:
        """The link is gone; called once."""


class SocketLink(RawLink):
    """A WebSocket that text and bytes are carried on.

    Attributes:
        unsure: whether what was written last has left cannot be told any more: an answer
            to a ping may have been written behind it.
    """

    def __init__(
        self,
        number: int,
        owner: SocketLinkOwner,
        limits: ClientLimits,
        ping: Ping | None,
        wall: Callable[[], float],
        traffic: Traffic,
    ) -> None:
        super().__init__(number, close_timeout=limits.close_timeout, wall=wall, traffic=traffic)
        self.unsure = False
        self._owner = owner
        self._limits = limits
        self._ping = ping
        self._ping_due = False
        self._early: list[tuple[str | bytes, int]] | None = []  # came before the opening was told

    def start(self, transport: Transport) -> None:
        """It is open: watch it, and tell the moment in which what was written has left."""
        transport.set_write_limits(0, 0)
        if self._ping is not None:
            now, wall = self._loop.time(), self._wall()
            interval = self._ping.interval
            self.watch(
                Heartbeat(
                    interval + self._ping.timeout,
                    self._limits.probe,
                    now=now,
                    wall=wall,
                    ping_every=interval,
                )
            )

    def hand_over(self) -> None:
        """Pass on what has come before this was called, and from now on what comes."""
        early, self._early = self._early, None
        for message, size in early or ():
            self._owner.link_message(self, message, size)

    def write(self, opcode: int, payload: bytes) -> bool:
        """Write a message. True if all of it has left; else ``link_writable`` follows."""
        self.unsure = False
        self.send_frame(opcode, payload)
        return self.writable

    # ---- RawLink -----------------------------------------------------------------

    def probe(self) -> None:
        if self._ping is None or self.error is not None:
            return
        if not self.writable:
            self._ping_due = True  # it would be late, and its time run before it left
            return
        self._ping_due = False
        try:
            frame = self._ping.frame()
        except Exception:
            logger.exception("link %d: the application's ping failed", self.number)
            return
        if frame is None:
            super().probe()
        else:
            self.send_frame(*frame)

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        if self.error is not None:
            return
        self.note_message(payload)
        message = str(payload, "utf-8") if opcode == Opcode.TEXT else bytes(payload)
        try:
            if self._ping is not None and self._is_pong(message):
                return
            if self._early is not None:
                self._early.append((message, len(payload)))
            else:
                self._owner.link_message(self, message, len(payload))
        except Exception:
            logger.exception("link %d: a defect in handling a message", self.number)
            self.abort(CloseCode.INTERNAL_ERROR, "a defect of this client; see its log")

    def _is_pong(self, message: str | bytes) -> bool:
        assert self._ping is not None
        try:
            return self._ping.is_pong(message)
        except Exception:
            logger.exception("link %d: the application's ping failed", self.number)
            return False

    def heard(self) -> None:
        self.unsure = not self.writable
        super().heard()

    def when_suspect(self, suspect: bool) -> None:
        self._owner.link_suspect(self, suspect)

    def when_writable(self) -> None:
        if self._beat is not None:
            self.note_life()  # the peer took it
        if self._ping_due:
            self.probe()
        if self.writable and self.error is None:
            self._owner.link_writable(self)

    def when_ended(self, error: ConnectionClosed) -> None:
        self._owner.link_ended(self, error)
