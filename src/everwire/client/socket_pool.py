"""Several sockets to one server behind one: see :class:`SocketPool`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import msgspec

from ..codes import CloseCode
from ..errors import ClosedOK, ConfigError
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol.frames import Opcode
from ..protocol.states import ConnectionState as State
from .connect import connect_network
from .overflow import Overflow
from .pings import Ping, frame_of
from .pool_members import PoolMember, check_size
from .pool_network import PacedNetwork
from .pool_strategies import Strategy, by_key
from .reconnection import Decide
from .settings import check_seconds, checked_limits
from .socket import Socket
from .socket_hooks import SocketStats
from .socket_pool_core import SocketPoolCore
from .socket_session import Headers

if TYPE_CHECKING:
    from types import TracebackType


class SocketOptions(TypedDict, total=False):
    """What a pool hands on to each of its sockets; see :class:`everwire.Socket`."""

    subprotocols: Sequence[str]
    headers: Headers
    ssl: Any
    proxy: str | None
    heartbeat: Ping | None
    overflow: Overflow
    ttl: float | None
    decide: Decide | None
    max_attempts: int | None
    wall: Callable[[], float]


class SocketPool:
    """Several sockets to a server of any kind: ``async with SocketPool(url) as pool``.

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
        on_open: Callable[[Socket], None] | None = None,
        on_drop: Callable[[str | bytes, Exception], None] | None = None,
        on_state: Callable[[State], None] | None = None,
        **options: Unpack[SocketOptions],
    ) -> None:
        check_size(size, min_ready)
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ConfigError("a pool needs at least one URL")
        limits = checked_limits(limits)
        check_seconds("timeout", timeout)
        random = random or SystemRandom()
        door = PacedNetwork(
            network or connect_network(), connect_timeout=limits.connect_timeout, random=random
        )
        self.sockets: tuple[Socket, ...] = tuple(
            Socket(
                urls[number % len(urls)],
                limits=replace(limits, connect_timeout=door.patience(size)),
                network=door,
                random=random,
                timeout=0,
                on_drop=on_drop,
                **options,
            )
            for number in range(size)
        )
        for socket in self.sockets:
            if on_open is not None:
                socket.on_open = partial(on_open, socket)
        self._core = SocketPoolCore(
            self.sockets,
            by_key(strategy, random),
            min_ready=min_ready,
            timeout=timeout,
        )
        self._core.on_state = on_state

    # ---- life ------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        """Connect, and wait until ``min_ready`` sockets are. Cancelling ends the pool.

        Raises:
            EverwireError: too many were refused for good; or not connected in time, for the
                last reason there was.
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
        """Close all sockets, each as :meth:`.socket.Socket.close` does, at the same time.

        A second call waits for the first. What came and was not read can still be read.

        Args:
            code: what the server is told (RFC 6455 section 7.4).
            reason: the same in words.

        Cancelling drops the connections at once.
        """
        await self._core.close(code, reason)

    @property
    def on_state(self) -> Callable[[State], None] | None:
        """Is called with each new state of the pool. Set it to a function, or None."""
        return self._core.on_state

    @on_state.setter
    def on_state(self, function: Callable[[State], None] | None) -> None:
        self._core.on_state = function

    # ---- messages --------------------------------------------------------------

    async def send(
        self, data: str | bytes, *, ttl: float | None = None, key: str | None = None
    ) -> None:
        """Send text or bytes over one of the sockets; wait until all of it has left.

        Where no socket is connected it waits on one, for ``ttl`` seconds at most, and goes out
        over the first that can take it. Nothing tells whether it arrives: see
        :meth:`.socket.Socket.send`.

        Args:
            data: text, or bytes.
            ttl: seconds for which it waits for a connection; the default is the pool's.
            key: what has the same key goes over the same socket, in order, as long as any of
                it waits to leave; with ``overflow="coalesce"``, one that waits is replaced.

        Cancelling takes the message back, unless a part of it has left already.

        Raises:
            NotSent: there was no connection in time, or the pool ended first.
            OutboxFull: there was no room, as ``overflow`` says.
            Dropped: it made room for another; or :exc:`Superseded` by one with its key.
            ConnectionClosed: the pool had ended; or what else it ended with.
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
            ConnectionClosed: the pool had ended; or what else it ended with.
            TypeError: the data is neither text nor bytes.
        """
        opcode, payload = frame_of(data)
        return self._core.send_nowait(opcode, payload, ttl, key)

    async def recv(self) -> str | bytes:
        """Return the next message of any socket: text, or bytes. Cancelling loses none.

        Messages of one socket come in order. Several tasks may wait; each message goes to one.

        Raises:
            ConnectionClosed: the pool ended, and all that came has been read; or what else it
                ended with.
        """
        return (await self._core.receive())[1]

    async def recv_from(self) -> tuple[int, str | bytes]:
        """The same, with the number of the socket: ``pool.sockets[number]``.

        Cancelling and errors are those of :meth:`recv`.
        """
        return await self._core.receive()

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the messages of all sockets, until the pool is closed.

        If the pool ended otherwise, the reason is raised after the last message.
        """
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message. Cancelling loses none."""
        try:
            return await self.recv()
        except ClosedOK:
            raise StopAsyncIteration from None

    # ---- what it is like ---------------------------------------------------------

    @property
    def state(self) -> State:
        """``ready`` while any socket is connected, ``closed`` at the end."""
        return self._core.state

    @property
    def members(self) -> list[PoolMember]:
        """The sockets as they are now; a snapshot."""
        return [member.record() for member in self._core.members]

    @property
    def stats(self) -> SocketStats:
        """What was counted so far, over all sockets; a snapshot."""
        return self._core.stats

    def __repr__(self) -> str:
        return f"<SocketPool {self._core}>"
