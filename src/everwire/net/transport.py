"""What everything above asks of a WebSocket, whichever it is.

A :class:`Transport` is one open WebSocket seen from one side; what happens on it is
told to a :class:`Receiver`. Implementations: :mod:`everwire.net.websocket` (picows),
:mod:`everwire.server.asgi`, :mod:`everwire.testing.network` (in memory).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from .attempts import Attempts


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client asked for when it opened its WebSocket.

    Attributes:
        path: of the URL, without the query.
        headers: names in lower case.
        subprotocols: what the client offers, in its order.
        remote: the client's address.
        query: of the URL, without the question mark; a server does not read it.
        origins: pages that may connect, where the listener has a list.
        secure: it came over TLS.
        identity: who it is, where a host has found that out already.
    """

    path: str
    headers: Mapping[str, str] = field(repr=False)  # with cookies
    subprotocols: tuple[str, ...] = field(repr=False)  # perhaps with a token
    remote: str
    query: str = field(default="", repr=False)
    origins: frozenset[str] | None = None
    secure: bool = False
    identity: object | None = None


class Receiver(Protocol):
    """Is told what happens on a transport, from the event loop, never after ``closed``."""

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        """A whole message came (text: valid UTF-8). ``payload`` is valid during the call only."""

    def heard(self) -> None:
        """A sign of life that is no message: a ping, a pong, part of a message."""

    def closed(self, code: int, reason: str) -> None:
        """The WebSocket is gone; called once. 1006 if no close frame came."""

    def pause_writing(self) -> None:
        """More is waiting to be written than the high-water mark. May come inside a write."""

    def resume_writing(self) -> None:
        """What was waiting has shrunk to the low-water mark."""


class Transport(Protocol):
    """One open WebSocket, from one side."""

    subprotocol: str | None
    """what was agreed upon in the handshake"""
    remote: str
    """the peer's address, for logs"""
    compressed: bool
    """permessage-deflate was agreed upon: finished frames may be compressed"""
    write: Callable[[bytes], None]
    """Write finished frames (:func:`everwire.protocol.frames.frame`), several joined if you
    like. The server's side only: a client's frames are masked, each in its own way."""

    def send(self, opcode: int, payload: bytes) -> None:
        """Frame and write one message. Nothing happens after ``close``."""

    def ping(self) -> None:
        """Send an empty WebSocket ping."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake: nothing is sent after it, ``closed`` follows.

        The owner calls :meth:`abort` when the peer does not answer in time.
        """

    def abort(self) -> None:
        """Drop the link at once; what was not written is lost. ``closed`` follows."""

    def pause_reading(self) -> None:
        """Stop reading: the peer will feel it as back-pressure."""

    def resume_reading(self) -> None:
        """Read on."""

    def write_buffer_size(self) -> int:
        """Bytes that were written and are not yet with the kernel."""

    def set_write_limits(self, high: int, low: int) -> None:
        """Set the marks, in bytes, at which the receiver is told to pause and to resume writing.

        With 0 and 0 it is told the moment in which all has left, and that something has not;
        under TLS only up to what the TLS layer holds itself.
        """

    def limit(self, size: int) -> None:
        """Close with 1009 when more than ``size`` bytes of a message have come."""

    def unfinished_since(self) -> float | None:
        """The loop's time at which a message began that is still coming in pieces."""

    def inbound(self) -> tuple[float, int]:
        """Seconds since a byte came in, and bytes so far, also of unfinished frames.

        Endless seconds and no bytes where it is unknown.
        """

    def taken(self) -> int:
        """Bytes of ours that the peer's side has taken so far; 0 where it is unknown."""


class ClientTransport(Transport, Protocol):
    """One open WebSocket, from the client's side."""

    def send_many(self, opcode: int, payloads: Sequence[bytes]) -> None:
        """Send messages as :meth:`send` does each, in one write if that is of use."""


class Network(Protocol):
    """Where a client gets its WebSockets from."""

    attempts: Attempts
    """what all who connect over it share of attempts after failures"""

    async def connect(
        self,
        url: str,
        receiver: Receiver,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        max_message: int,
        ssl: Any = None,
        proxy: str | None = None,
    ) -> ClientTransport:
        """Open a WebSocket; ``receiver`` may be told of messages before this returns.

        ``proxy`` is the URL of an HTTP or SOCKS proxy to go through. Cancelling drops the
        attempt.

        Raises:
            HandshakeRefused: an HTTP answer other than 101.
            OSError: no connection.
        """


def public_url(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def not_a_url(url: str) -> str:
    """Say what is wrong with an address, and what may have been meant."""
    shown = public_url(url)
    meant = {"http": "ws", "https": "wss"}.get(urlsplit(url).scheme)
    hint = f"; did you mean {urlsplit(shown)._replace(scheme=meant).geturl()}?" if meant else ""
    return f"{shown!r} is not a WebSocket URL: ws://host:port/path{hint}"
