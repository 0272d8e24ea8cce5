"""A WebSocket that stays, to a server of any kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import replace
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..codes import CloseCode
from ..errors import ConnectionClosed
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol.frames import Opcode
from ..protocol.states import ConnectionState
from .connect import connect_network
from .overflow import Overflow, checked_overflow
from .pings import NativePing, Ping, frame_of
from .proxies import checked_proxy
from .reconnection import Decide
from .settings import check_seconds, checked_limits
from .socket_core import SocketCore
from .socket_hooks import Hooks, SocketStats
from .socket_session import Headers, SocketTarget, Url, checked_url

if TYPE_CHECKING:
    from types import TracebackType


class Socket(Hooks):
    """A WebSocket that stays: ``async with Socket(url) as socket: async for message in socket``.

    It reconnects by itself, until it is closed or the server turns it away for good. What
    is sent while there is no connection waits in a bounded queue; what comes waits in
    another one, and while that is full, nothing more is read from the server.

    A server of any kind acknowledges nothing: what has left for a connection that then is
    lost may or may not have arrived, and is not sent again. Where that matters, use
    :func:`everwire.connect` and an everwire server.

    Args:
        url: ``ws://host:port/path`` or ``wss://…``; or a function (async or not) that
            returns it and is called for each attempt, for a token in the query.
        subprotocols: to offer, in order.
        headers: more headers for the handshake; or a function (async or not) that returns
            them and is called for each attempt.
        ssl: an ``ssl.SSLContext``, for ``wss``.
        proxy: ``http://``, ``https://``, ``socks4://`` or ``socks5://``, then
            ``user:password@host:port``; ``"environment"`` goes by ``ws_proxy``,
            ``wss_proxy``, ``all_proxy``, ``https_proxy``, ``http_proxy`` and ``no_proxy``.
        heartbeat: :class:`NativePing`, :class:`JsonPing` or :class:`CustomPing`; None for
            none. Whatever comes from the server counts as life.
        overflow: what becomes of a message for which there is no room: ``block`` (``send``
            waits ``outbox_block`` seconds for room, ``send_nowait`` refuses), ``reject``,
            ``drop_oldest``, ``drop_newest`` or ``coalesce``.
        ttl: seconds for which a message waits for a connection; the default is
            ``outbox_ttl``.
        decide: is asked after each failure; returns :class:`Retry`, :class:`Stop`, a delay
            in seconds, or None for what is usual.
        max_attempts: attempts in a row after a failure; None for no end. A connection that
            held for ``stable_after`` seconds begins the count anew.
        limits: sizes, counts and durations; see :class:`everwire.limits.ClientLimits`.
        network: where WebSockets come from; the default is the real network.
        random: where chance comes from: jitter.
        wall: the time in seconds since 1970.
        timeout: seconds for which entering waits for a connection, over as many attempts
            as fit; 0 does not wait.
        on_open: this hook and those that follow are explained in :class:`Hooks`.
        on_message: see there.
        on_close: see there.
        on_error: see there.
        on_drop: see there.
        on_state: see there.

    Raises:
        ConfigError: an option cannot be used.
    """

    def __init__(
        self,
        url: Url,
        *,
        subprotocols: Sequence[str] = (),
        headers: Headers = None,
        ssl: Any = None,
        proxy: str | None = None,
        heartbeat: Ping | None = NativePing(),  # noqa: B008  # it cannot change
        overflow: Overflow = "block",
        ttl: float | None = None,
        decide: Decide | None = None,
        max_attempts: int | None = None,
        limits: ClientLimits | None = None,
        network: Network | None = None,
        random: Random | None = None,
        wall: Callable[[], float] = time.time,
        timeout: float = 30.0,
        on_open: Callable[[], None] | None = None,
        on_message: Callable[[str | bytes], None] | None = None,
        on_close: Callable[[ConnectionClosed], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        on_drop: Callable[[str | bytes, Exception], None] | None = None,
        on_state: Callable[[ConnectionState], None] | None = None,
    ) -> None:
        self.on_open = on_open
        self.on_message = on_message
        self.on_close = on_close
        self.on_error = on_error
        self.on_drop = on_drop
        self.on_state = on_state
        limits = checked_limits(limits)
        check_seconds("timeout", timeout, or_none=False)
        check_seconds("ttl", ttl)
        target = SocketTarget(
            url=url if callable(url) else checked_url(url),
            subprotocols=tuple(subprotocols),
            headers=headers,
            ssl=ssl,
            proxy=checked_proxy(proxy),
            heartbeat=heartbeat,
            decide=decide,
            max_attempts=max_attempts,
        )
        self._core = SocketCore(
            target,
            limits,
            self,
            overflow=checked_overflow(overflow) or "block",
            ttl=limits.outbox_ttl if ttl is None else ttl,
            network=network or connect_network(),
            random=random or SystemRandom(),
            wall=wall,
            timeout=timeout,
        )

    # ---- life ------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Socket]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        """Connect, and wait until connected. Cancelling ends the socket.

        Raises:
            EverwireError: refused for good; or not connected in time, for the last reason
                there was.
            OSError: not connected in time: there was no connection.
        """
        await self._core.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the socket. A second call waits for the first.

        What waits to be sent is sent, for at most ``close_timeout`` seconds; what is left
        fails with :exc:`~everwire.NotSent`. Then the connection is closed, which takes at
        most ``close_timeout`` seconds again. What came and was not read can still be read.

        Args:
            code: what the server is told (RFC 6455 section 7.4).
            reason: the same in words.

        Cancelling drops the connection at once.
        """
        await self._core.close(code, reason)

    def drop(self) -> None:
        """Drop the current connection, as a broken network would; the socket reconnects."""
        self._core.origin.check()
        link = self._core.session.link
        if link is not None:
            link.abort(reason="dropped by the application")

    def hurry(self) -> None:
        """If the socket waits before its next attempt: make it within a second.

        For when something says that the network, or the user, has come back.
        """
        self._core.session.reconnection.hurry()

    # ---- messages --------------------------------------------------------------

    async def send(
        self, data: str | bytes, *, ttl: float | None = None, key: str | None = None
    ) -> None:
        """Send text or bytes, in order; wait until all of it has left for the network.

        Nothing tells whether it arrives: if the connection is lost after that, it may or
        may not have been received. What had not left when a connection was lost cannot
        have arrived whole, and is sent on the next one. (Over TLS, up to 64 KiB count as
        left while they wait in the TLS layer.)

        Args:
            data: text, or bytes.
            ttl: seconds for which it waits for a connection; the default is the socket's.
            key: with ``overflow="coalesce"``, a message that waits and has the same key is
                replaced by this one, in its place.

        Cancelling takes the message back, unless a part of it has left already.

        Raises:
            NotSent: there was no connection in time, or the socket ended first.
            OutboxFull: there was no room, as ``overflow`` says.
            Dropped: it made room for another; or :exc:`Superseded` by one with its key.
            ConnectionClosed: the socket had ended; or what else it ended with.
            TypeError: the data is neither text nor bytes.
        """
        opcode, payload = frame_of(data)
        await self._core.send(opcode, payload, ttl, key)

    async def send_json(
        self, value: Any, *, ttl: float | None = None, key: str | None = None
    ) -> None:
        """Send a value as JSON text. Arguments, errors and cancelling are those of :meth:`send`.

        Raises:
            TypeError: the value cannot be written as JSON.
        """
        await self._core.send(Opcode.TEXT, msgspec.json.encode(value), ttl, key)

    def send_nowait(
        self, data: str | bytes, *, ttl: float | None = None, key: str | None = None
    ) -> asyncio.Future[None]:
        """Send text or bytes without waiting; the arguments are those of :meth:`send`.

        The future is done when the message has left, or failed as :meth:`send` does; it
        need not be looked at, since ``on_drop`` is told as well.

        Raises:
            OutboxFull: there is no room, and nothing may be dropped for it.
            ConnectionClosed: the socket had ended; or what else it ended with.
            TypeError: the data is neither text nor bytes.
        """
        opcode, payload = frame_of(data)
        return self._core.send_nowait(opcode, payload, ttl, key)

    async def recv(self) -> str | bytes:
        """Return the next message: text, or bytes. Cancelling loses none.

        Several tasks may wait; each message goes to one of them.

        Raises:
            ConnectionClosed: the socket ended, and all that came has been read; or what
                else it ended with.
        """
        return await self._core.receive()

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the messages, over reconnections, until the socket is closed.

        If the socket ended otherwise, the reason is raised after the last message.
        """
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message. Cancelling loses none.

        Raises:
            StopAsyncIteration: the socket was closed, and all that came has been read.
            ConnectionClosed: it ended otherwise; or what else it ended with.
        """
        try:
            return await self._core.receive()
        except Exception:
            if self._core.ended_quietly():
                raise StopAsyncIteration from None
            raise

    # ---- what it is like ---------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """``ready`` while there is a connection, ``connecting`` between two, ``closed`` at the end."""
        return self._core.session.state

    @property
    def subprotocol(self) -> str | None:
        """What was agreed upon with the server; None without a connection, and if nothing was."""
        transport = self._core.session.transport
        return None if transport is None else transport.subprotocol

    @property
    def error(self) -> Exception | None:
        """Why the last attempt failed or the last connection ended, None before that."""
        return self._core.end or self._core.session.failure

    @property
    def stats(self) -> SocketStats:
        """What was counted so far; a snapshot."""
        return replace(self._core.stats, attempts=self._core.session.number)

    @property
    def waiting(self) -> int:
        """Messages that wait to be sent."""
        return len(self._core.queue)

    @property
    def unread(self) -> int:
        """Messages that came and were not taken yet."""
        return len(self._core.inbox)

    def __repr__(self) -> str:
        session = self._core.session
        return (
            f"<Socket {session.url} {session.state} queued={len(self._core.queue)} "
            f"unread={len(self._core.inbox)} attempts={session.number}>"
        )
