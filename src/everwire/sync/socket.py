"""Written by scripts/sync-facade from everwire.client.socket: change that, not this."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from random import Random
from types import TracebackType
from typing import Any, Self

from ..client.overflow import Overflow
from ..client.pings import NativePing, Ping
from ..client.reconnection import Decide
from ..client.socket import Socket as AsyncSocket
from ..client.socket_hooks import SocketStats
from ..client.socket_session import Headers, Url
from ..codes import CloseCode
from ..errors import ConnectionClosed
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol.states import ConnectionState
from .background import background
from .facade import Iterating


class Socket(Iterating[str | bytes]):
    """A WebSocket that stays: ``with Socket(url) as socket: for message in socket``.

    It reconnects by itself, until it is closed or the server turns it away for good. What
    is sent while there is no connection waits in a bounded queue; what comes waits in
    another one, and while that is full, nothing more is read from the server.

    A server of any kind acknowledges nothing: what has left for a connection that then is
    lost may or may not have arrived, and is not sent again. Where that matters, use
    :func:`everwire.sync.connect` and an everwire server.

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

    _inside: AsyncSocket

    def __init__(
        self,
        url: Url,
        *,
        subprotocols: Sequence[str] = (),
        headers: Headers = None,
        ssl: Any = None,
        proxy: str | None = None,
        heartbeat: Ping | None = NativePing(),
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
        home = background()
        super().__init__(
            home,
            home.do(
                lambda: AsyncSocket(
                    url,
                    subprotocols=subprotocols,
                    headers=headers,
                    ssl=ssl,
                    proxy=proxy,
                    heartbeat=heartbeat,
                    overflow=overflow,
                    ttl=ttl,
                    decide=decide,
                    max_attempts=max_attempts,
                    limits=limits,
                    network=network,
                    random=random,
                    wall=wall,
                    timeout=timeout,
                    on_open=on_open,
                    on_message=on_message,
                    on_close=on_close,
                    on_error=on_error,
                    on_drop=on_drop,
                    on_state=on_state,
                )
            ),
        )

    def __enter__(self) -> Self:
        """Connect, and wait until connected. Interrupting ends the socket.

        Raises:
            EverwireError: refused for good; or not connected in time, for the last reason
                there was.
            OSError: not connected in time: there was no connection.
        """
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit(kind, error, traceback)

    def open(self) -> Self:
        """Do what ``with`` does at its beginning, and return it, open."""
        return self.__enter__()

    @property
    def on_open(self) -> Callable[[], None] | None:
        """A connection is open. What it sends goes out on this connection, ahead of all that waits, or not at all: the place to subscribe anew."""
        return self._do(lambda: self._inside.on_open)

    @on_open.setter
    def on_open(self, function: Callable[[], None] | None) -> None:
        def assign() -> None:
            self._inside.on_open = function

        self._do(assign)

    @property
    def on_message(self) -> Callable[[str | bytes], None] | None:
        """A message came (text or bytes). With it, none goes to ``recv`` and iteration."""
        return self._do(lambda: self._inside.on_message)

    @on_message.setter
    def on_message(self, function: Callable[[str | bytes], None] | None) -> None:
        def assign() -> None:
            self._inside.on_message = function

        self._do(assign)

    @property
    def on_close(self) -> Callable[[ConnectionClosed], None] | None:
        """A connection was lost, with :exc:`ConnectionClosed`."""
        return self._do(lambda: self._inside.on_close)

    @on_close.setter
    def on_close(self, function: Callable[[ConnectionClosed], None] | None) -> None:
        def assign() -> None:
            self._inside.on_close = function

        self._do(assign)

    @property
    def on_error(self) -> Callable[[Exception], None] | None:
        """An attempt to connect failed, with the error."""
        return self._do(lambda: self._inside.on_error)

    @on_error.setter
    def on_error(self, function: Callable[[Exception], None] | None) -> None:
        def assign() -> None:
            self._inside.on_error = function

        self._do(assign)

    @property
    def on_drop(self) -> Callable[[str | bytes, Exception], None] | None:
        """A message will not be sent, with the error that says why."""
        return self._do(lambda: self._inside.on_drop)

    @on_drop.setter
    def on_drop(self, function: Callable[[str | bytes, Exception], None] | None) -> None:
        def assign() -> None:
            self._inside.on_drop = function

        self._do(assign)

    @property
    def on_state(self) -> Callable[[ConnectionState], None] | None:
        """The state changed."""
        return self._do(lambda: self._inside.on_state)

    @on_state.setter
    def on_state(self, function: Callable[[ConnectionState], None] | None) -> None:
        def assign() -> None:
            self._inside.on_state = function

        self._do(assign)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the socket. A second call waits for the first.

        What waits to be sent is sent, for at most ``close_timeout`` seconds; what is left
        fails with :exc:`~everwire.NotSent`. Then the connection is closed, which takes at
        most ``close_timeout`` seconds again. What came and was not read can still be read.

        Args:
            code: what the server is told (RFC 6455 section 7.4).
            reason: the same in words.

        Interrupting drops the connection at once.
        """
        self._close(lambda: self._inside.close(code, reason))

    def drop(self) -> None:
        """Drop the current connection, as a broken network would; the socket reconnects."""
        self._do(lambda: self._inside.drop())

    def hurry(self) -> None:
        """If the socket waits before its next attempt: make it within a second.

        For when something says that the network, or the user, has come back.
        """
        self._do(lambda: self._inside.hurry())

    def send(self, data: str | bytes, *, ttl: float | None = None, key: str | None = None) -> None:
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

        Interrupting takes the message back, unless a part of it has left already.

        Raises:
            NotSent: there was no connection in time, or the socket ended first.
            OutboxFull: there was no room, as ``overflow`` says.
            Dropped: it made room for another; or :exc:`Superseded` by one with its key.
            ConnectionClosed: the socket had ended; or what else it ended with.
            TypeError: the data is neither text nor bytes.
        """
        self._wait(lambda: self._inside.send(data, ttl=ttl, key=key))

    def send_json(self, value: Any, *, ttl: float | None = None, key: str | None = None) -> None:
        """Send a value as JSON text. Arguments, errors and interrupting are those of :meth:`send`.

        Raises:
            TypeError: the value cannot be written as JSON.
        """
        self._wait(lambda: self._inside.send_json(value, ttl=ttl, key=key))

    def send_nowait(
        self, data: str | bytes, *, ttl: float | None = None, key: str | None = None
    ) -> Future[None]:
        """Send text or bytes without waiting; the arguments are those of :meth:`send`.

        The future is done when the message has left, or failed as :meth:`send` does; it
        need not be looked at, since ``on_drop`` is told as well.

        Raises:
            OutboxFull: there is no room, and nothing may be dropped for it.
            ConnectionClosed: the socket had ended; or what else it ended with.
            TypeError: the data is neither text nor bytes.
        """
        return self._future(lambda: self._inside.send_nowait(data, ttl=ttl, key=key))

    def recv(self) -> str | bytes:
        """Return the next message: text, or bytes. Interrupting loses none.

        Several tasks may wait; each message goes to one of them.

        Raises:
            ConnectionClosed: the socket ended, and all that came has been read; or what
                else it ended with.
        """
        return self._wait(lambda: self._inside.recv())

    @property
    def state(self) -> ConnectionState:
        """``ready`` while there is a connection, ``connecting`` between two, ``closed`` at the end."""
        return self._do(lambda: self._inside.state)

    @property
    def subprotocol(self) -> str | None:
        """What was agreed upon with the server; None without a connection, and if nothing was."""
        return self._do(lambda: self._inside.subprotocol)

    @property
    def error(self) -> Exception | None:
        """Why the last attempt failed or the last connection ended, None before that."""
        return self._do(lambda: self._inside.error)

    @property
    def stats(self) -> SocketStats:
        """What was counted so far; a snapshot."""
        return self._do(lambda: self._inside.stats)

    @property
    def waiting(self) -> int:
        """Messages that wait to be sent."""
        return self._do(lambda: self._inside.waiting)

    @property
    def unread(self) -> int:
        """Messages that came and were not taken yet."""
        return self._do(lambda: self._inside.unread)
