"""The client: what an application calls. See :func:`everwire.connect`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import TYPE_CHECKING, Any, Self

from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol.messages import Position
from ..protocol.states import ConnectionState
from .any_core import AnyCore
from .calling import Caller
from .channels import Channels
from .core import Core
from .handlers import Handlers
from .observations import Record
from .overflow import Overflow
from .publishing import Publishing
from .records import SqliteOutbox
from .stats import Stats
from .target import Target

if TYPE_CHECKING:
    from types import TracebackType


class Client(Caller, Channels, Publishing):
    """A connection that stays; made by :func:`everwire.connect`."""

    def __init__(
        self,
        target: Target,
        limits: ClientLimits,
        *,
        network: Network,
        random: Random,
        wall: Callable[[], float],
        timeout: float | None,
        overflow: Overflow | None,
        outbox: SqliteOutbox | None,
        handlers: Handlers | None,
    ) -> None:
        self._core: AnyCore = Core(
            self,
            target,
            limits,
            network=network,
            random=random,
            wall=wall,
            timeout=timeout,
            overflow=overflow,
            outbox=outbox,
            handlers=handlers or Handlers(),
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
        """Is called with the name and the data of each event of the server.

        For events of a name there are handlers, too: ``connect(handlers=…)``.
        """
        return self._core.on_event

    @on_event.setter
    def on_event(self, function: Callable[[str, Any], None] | None) -> None:
        self._core.on_event = function

    @property
    def on_subscribed(self) -> Callable[[str, Position], None] | None:
        """Is called with a channel to which the server subscribed us, and where that begins.

        Set at any time: it is called at once for what the server gave before, on this
        connection, and the application has not subscribed to.
        Its messages are ignored until the application subscribes; with ``since=`` that
        position none is missing. On each connection the server may do so again.
        """
        return self._core.assigned.function

    @on_subscribed.setter
    def on_subscribed(self, function: Callable[[str, Position], None] | None) -> None:
        self._core.assigned.function = function

    @property
    def on_record(self) -> Callable[[Record], None] | None:
        """Is called with each event in the client's own life; see :mod:`.observations`."""
        return self._core.counters.on_record

    @on_record.setter
    def on_record(self, function: Callable[[Record], None] | None) -> None:
        self._core.counters.on_record = function

    def drop(self) -> None:
        """Drop the current connection, as a broken network would; the client reconnects."""
        self._core.drop()

    # ---- what it is like ---------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """Of the connection; ``connecting`` whenever there is none, ``closed`` at the end."""
        return self._core.state

    @property
    def stats(self) -> Stats:
        """What was counted so far; a snapshot."""
        return self._core.stats

    def __repr__(self) -> str:
        return f"<Client {self._core}>"
