"""The client: what an application calls. See :func:`everwire.connect`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from ..codes import ErrorCode
from ..errors import RequestError
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol import messages as m
from ..protocol.data import plain_data
from ..protocol.messages import Position
from ..protocol.states import ConnectionState
from .channels import Channels
from .core import Core
from .overflow import Overflow
from .publishing import Publishing
from .records import SqliteOutbox
from .requests import convert_result
from .session import Target
from .stats import Stats

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")


class Client(Channels, Publishing):
    """A connection that stays; made by :func:`everwire.connect`."""

    def __init__(
        self,
        target: Target,
        limits: ClientLimits,
        *,
        network: Network,
        random: Random,
        wall: Callable[[], float],
        timeout: float,
        overflow: Overflow | None,
        outbox: SqliteOutbox | None,
    ) -> None:
        self._core = Core(
            target,
            limits,
            network=network,
            random=random,
            wall=wall,
            timeout=timeout,
            overflow=overflow,
            outbox=outbox,
        )

    # ---- life ------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Client]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        """Connect, and wait until ready. Cancelling ends the client.

        Raises:
            ConfigError: the durable outbox's file cannot be used.
            Unauthorized: or :exc:`Forbidden`, or another :exc:`EverwireError`: refused for
                good; or not ready in time, for the last reason there was.
            OSError: not ready in time: there was no connection.
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

    async def close(self, *, drain: float | None = None) -> None:
        """Close the client. A second call waits for the first.

        What is in the outbox is sent and its acknowledgements are awaited. What is left fails
        with :exc:`~everwire.NotSent` or :exc:`~everwire.DeliveryUnknown`, and
        :meth:`drain_queued` returns what was not sent; what a durable outbox holds stays in its
        file (:exc:`~everwire.StillQueued`). Then the connection is closed, which takes at most
        ``close_timeout`` seconds. Subscriptions hand over what they hold, and end.

        Args:
            drain: seconds to wait for acknowledgements; the default is ``close_timeout``.

        Cancelling drops the connection at once.
        """
        await self._core.close(drain)

    @property
    def on_state(self) -> Callable[[ConnectionState], None] | None:
        """Is called with each new state of the connection. Set it to a function, or None."""
        return self._core.on_state

    @on_state.setter
    def on_state(self, function: Callable[[ConnectionState], None] | None) -> None:
        self._core.on_state = function

    @property
    def on_event(self) -> Callable[[str, Any], None] | None:
        """Is called with the name and the data of each event of the server."""
        return self._core.on_event

    @on_event.setter
    def on_event(self, function: Callable[[str, Any], None] | None) -> None:
        self._core.on_event = function

    @property
    def on_subscribed(self) -> Callable[[str, Position], None] | None:
        """Is called with a channel to which the server subscribed us, and where that begins.

        Its messages are ignored until the application subscribes; with ``since=`` that
        position none is missing. On each connection the server may do so again.
        """
        return self._core.on_subscribed

    @on_subscribed.setter
    def on_subscribed(self, function: Callable[[str, Position], None] | None) -> None:
        self._core.on_subscribed = function

    def drop(self) -> None:
        """Drop the current connection, as a broken network would; the client reconnects."""
        link = self._core.session.link
        if link is not None:
            link.abort(reason="dropped by the application")

    # ---- requests ------------------------------------------------------------------

    @overload
    async def query(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T: ...

    @overload
    async def query(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any: ...

    async def query(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,  # noqa: A002  # reads best at the call
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
    ) -> Any:
        """Ask for something that changes nothing. Sent again once if the connection drops.

        Args:
            name: of the query.
            payload: its parameters.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.

        Cancelling cancels the handler on the server.

        Raises:
            RequestError: the server refuses, as :exc:`Forbidden`.
            RequestTimeout: no answer in time.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: two connections were lost with it, or the client ended.
        """
        self._core.check()
        result = await self._core.calls.run("query", name, payload, timeout=timeout)
        return convert_result(result, type, f"query {name!r}")

    @overload
    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
        key: str | Literal[False] | None = None,
    ) -> T: ...

    @overload
    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
        key: str | Literal[False] | None = None,
    ) -> Any: ...

    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,  # noqa: A002  # reads best at the call
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
        key: str | Literal[False] | None = None,
    ) -> Any:
        """Have something done, once: a retry after a drop carries the same key.

        Args:
            name: of the command.
            payload: its parameters.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.
            key: two commands of a user with the same name and key are one; None takes a
                new key, False sends none: then it is not retried.

        Cancelling asks the server to cancel; the command may have run.

        Raises:
            RequestError: the server refuses; ``outcome`` says whether it may have run.
            NotSent: there was no connection in time.
            DeliveryUnknown: sent, and no answer in time: it may have run.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: the client had ended.
        """
        self._core.check()
        chosen = None if key is False else key or self._core.calls.new_key()
        result = await self._core.calls.run("command", name, payload, key=chosen, timeout=timeout)
        return convert_result(result, type, f"command {name!r}")

    async def event(self, name: str, data: Any = None) -> None:
        """Send an event: not answered, and lost if the connection is just being lost.

        Waits for a connection that takes more, at most ``request_timeout`` seconds. Cancelling
        before that sends nothing.

        Raises:
            NotSent: there was no connection in time, or the server does not read.
            BadData: the data cannot be put on the wire.
            RequestError: too big.
            ConnectionClosed: the client ended.
        """
        self._core.check()
        message = m.Event(name, plain_data(data))
        link = await self._core.ready_link()
        encoded = link.encode(message)
        if len(encoded) > link.message_limit:
            raise RequestError(f"event {name!r} is too big", code=ErrorCode.TOO_BIG)
        link.send_bytes(encoded)

    # ---- what it is like ---------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """Of the connection; ``connecting`` whenever there is none, ``closed`` at the end."""
        return self._core.session.state

    @property
    def stats(self) -> Stats:
        """What was counted so far; a snapshot."""
        return self._core.counters.snapshot()

    def __repr__(self) -> str:
        return (
            f"<Client {self._core.url} {self.state} links={self._core.session.number} "
            f"subscriptions={len(self._core.subscriptions)} outbox={len(self._core.publisher.outbox)} "
            f"calls={len(self._core.calls)}>"
        )
