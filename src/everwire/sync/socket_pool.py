"""Written by scripts/sync-facade from everwire.client.socket_pool: change that, not this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from random import Random
from types import TracebackType
from typing import Any, Self, Unpack

from ..client.pool_members import PoolMember
from ..client.pool_strategies import Strategy
from ..client.socket import Socket as AsyncSocket
from ..client.socket_hooks import SocketStats
from ..client.socket_pool import SocketOptions, SocketPool as AsyncSocketPool
from ..codes import CloseCode
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol.states import ConnectionState as State
from .background import background
from .facade import Iterating


class SocketPool(Iterating[str | bytes]):
    """Several sockets to a server of any kind: ``with SocketPool(url) as pool``.

    Each is a :class:`~everwire.Socket`. What is sent goes over one that is connected, in turn;
    what has the same ``key`` goes over the same socket, in order, as long as any
    of it waits there. What comes on any of them is received in one stream. What waits on a
    socket that cannot connect goes out over another.

    Args:
        url: ``ws://host:port/path`` or ``wss://…``; several are taken in turn.
        size: sockets, 1 to 16.
        min_ready: sockets that must be connected before entering returns.
        strategy: who sends what has no key; see :data:`~.pool_strategies.Strategy`. What has
            one goes by ``keyed``, except with ``failover`` or a function.
        limits: of each socket.
        network: where WebSockets come from; the default is the real network.
        random: where chance comes from.
        timeout: seconds for which entering waits; None for no end, 0 does not wait.
        on_open: is called with a socket that has just connected, before anything else is sent
            on it: the place to subscribe anew.
        on_drop: is called with a message that will not be sent, and why.
        on_state: is called with each new state of the pool.
        options: more of :class:`everwire.Socket`.

    Raises:
        ConfigError: one of these cannot be used.
    """

    _inside: AsyncSocketPool

    def __init__(
        self,
        url: str | Sequence[str],
        size: int = 3,
        *,
        min_ready: int = 1,
        strategy: Strategy
        | Callable[[Sequence[PoolMember], str | None], PoolMember] = "round_robin",
        limits: ClientLimits | None = None,
        network: Network | None = None,
        random: Random | None = None,
        timeout: float | None = 30.0,
        on_open: Callable[[AsyncSocket], None] | None = None,
        on_drop: Callable[[str | bytes, Exception], None] | None = None,
        on_state: Callable[[State], None] | None = None,
        **options: Unpack[SocketOptions],
    ) -> None:
        home = background()
        super().__init__(
            home,
            home.do(
                lambda: AsyncSocketPool(
                    url,
                    size,
                    min_ready=min_ready,
                    strategy=strategy,
                    limits=limits,
                    network=network,
                    random=random,
                    timeout=timeout,
                    on_open=on_open,
                    on_drop=on_drop,
                    on_state=on_state,
                    **options,
                )
            ),
        )

    def __enter__(self) -> Self:
        """Connect, and wait until ``min_ready`` sockets are. Interrupting ends the pool.

        Raises:
            EverwireError: too many were refused for good; or not connected in time, for the
                last reason there was.
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

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close all sockets, each as :meth:`.socket.Socket.close` does, at the same time.

        A second call waits for the first. What came and was not read can still be read.

        Args:
            code: what the server is told (RFC 6455 section 7.4).
            reason: the same in words.

        Interrupting drops the connections at once.
        """
        self._close(lambda: self._inside.close(code, reason))

    @property
    def on_state(self) -> Callable[[State], None] | None:
        """Is called with each new state of the pool. Set it to a function, or None."""
        return self._do(lambda: self._inside.on_state)

    @on_state.setter
    def on_state(self, function: Callable[[State], None] | None) -> None:
        def assign() -> None:
            self._inside.on_state = function

        self._do(assign)

    def send(self, data: str | bytes, *, ttl: float | None = None, key: str | None = None) -> None:
        """Send text or bytes over one of the sockets; wait until all of it has left.

        Where no socket is connected it waits on one, for ``ttl`` seconds at most, and goes out
        over the first that can take it. Nothing tells whether it arrives: see
        :meth:`.socket.Socket.send`.

        Args:
            data: text, or bytes.
            ttl: seconds for which it waits for a connection; the default is the pool's.
            key: what has the same key goes over the same socket, in order, as long as any of
                it waits to leave; with ``overflow="coalesce"``, one that waits is replaced.

        Interrupting takes the message back, unless a part of it has left already.

        Raises:
            NotSent: there was no connection in time, or the pool ended first.
            OutboxFull: there was no room, as ``overflow`` says.
            Dropped: it made room for another; or :exc:`Superseded` by one with its key.
            ConnectionClosed: the pool had ended; or what else it ended with.
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
            ConnectionClosed: the pool had ended; or what else it ended with.
            TypeError: the data is neither text nor bytes.
        """
        return self._future(lambda: self._inside.send_nowait(data, ttl=ttl, key=key))

    def recv(self) -> str | bytes:
        """Return the next message of any socket: text, or bytes. Interrupting loses none.

        Messages of one socket come in order. Several tasks may wait; each message goes to one.

        Raises:
            ConnectionClosed: the pool ended, and all that came has been read; or what else it
                ended with.
        """
        return self._wait(lambda: self._inside.recv())

    def recv_from(self) -> tuple[int, str | bytes]:
        """The same, with the number of the socket: ``pool.sockets[number]``.

        Interrupting and errors are those of :meth:`recv`.
        """
        return self._wait(lambda: self._inside.recv_from())

    @property
    def state(self) -> State:
        """``ready`` while any socket is connected, ``closed`` at the end."""
        return self._do(lambda: self._inside.state)

    @property
    def members(self) -> list[PoolMember]:
        """The sockets as they are now; a snapshot."""
        return self._do(lambda: list(self._inside.members))

    @property
    def stats(self) -> SocketStats:
        """What was counted so far, over all sockets; a snapshot."""
        return self._do(lambda: self._inside.stats)
