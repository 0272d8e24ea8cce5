"""Written by scripts/sync-facade from everwire.client.client: change that, not this."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ..client.client import Client as AsyncClient
from ..client.observations import Record
from ..client.stats import Stats
from ..protocol.messages import Position
from ..protocol.states import ConnectionState
from .calling import Caller
from .channels import Channels
from .publishing import Publishing


class Client(Caller, Channels, Publishing):
    """A connection that stays; made by :func:`everwire.sync.connect`."""

    _inside: AsyncClient

    def __enter__(self) -> Self:
        """Connect, and wait until ready. Interrupting ends the client.

        Raises:
            ConfigError: the durable outbox's file cannot be used.
            Unauthorized: or :exc:`Forbidden`, or another :exc:`EverwireError`: refused for
                good; or not ready in time, for the last reason there was.
            OSError: not ready in time: there was no connection.
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

    def close(self, *, drain: float | None = None) -> None:
        """Close the client. A second call waits for the first.

        What is in the outbox is sent and its acknowledgements are awaited. What is left fails
        with :exc:`~everwire.NotSent` or :exc:`~everwire.DeliveryUnknown`, and
        :meth:`drain_queued` returns what was not sent; what a durable outbox holds stays in its
        file (:exc:`~everwire.StillQueued`). Then the connection is closed, which takes at most
        ``close_timeout`` seconds. Subscriptions hand over what they hold, and end.

        Args:
            drain: seconds to wait for acknowledgements; the default is ``close_timeout``.

        Interrupting drops the connection at once.
        """
        self._close(lambda: self._inside.close(drain=drain))

    @property
    def on_state(self) -> Callable[[ConnectionState], None] | None:
        """Is called with each new state of the connection. Set it to a function, or None."""
        return self._do(lambda: self._inside.on_state)

    @on_state.setter
    def on_state(self, function: Callable[[ConnectionState], None] | None) -> None:
        def assign() -> None:
            self._inside.on_state = function

        self._do(assign)

    @property
    def on_event(self) -> Callable[[str, Any], None] | None:
        """Is called with the name and the data of each event of the server.

        For events of a name there are handlers, too: ``connect(handlers=…)``.
        """
        return self._do(lambda: self._inside.on_event)

    @on_event.setter
    def on_event(self, function: Callable[[str, Any], None] | None) -> None:
        def assign() -> None:
            self._inside.on_event = function

        self._do(assign)

    @property
    def on_subscribed(self) -> Callable[[str, Position], None] | None:
        """Is called with a channel to which the server subscribed us, and where that begins.

        Set at any time: it is called at once for what the server gave before, on this
        connection, and the application has not subscribed to.
        Its messages are ignored until the application subscribes; with ``since=`` that
        position none is missing. On each connection the server may do so again.
        """
        return self._do(lambda: self._inside.on_subscribed)

    @on_subscribed.setter
    def on_subscribed(self, function: Callable[[str, Position], None] | None) -> None:
        def assign() -> None:
            self._inside.on_subscribed = function

        self._do(assign)

    @property
    def on_record(self) -> Callable[[Record], None] | None:
        """Is called with each event in the client's own life; see :mod:`.observations`."""
        return self._do(lambda: self._inside.on_record)

    @on_record.setter
    def on_record(self, function: Callable[[Record], None] | None) -> None:
        def assign() -> None:
            self._inside.on_record = function

        self._do(assign)

    def drop(self) -> None:
        """Drop the current connection, as a broken network would; the client reconnects."""
        self._do(lambda: self._inside.drop())

    @property
    def state(self) -> ConnectionState:
        """Of the connection; ``connecting`` whenever there is none, ``closed`` at the end."""
        return self._do(lambda: self._inside.state)

    @property
    def stats(self) -> Stats:
        """What was counted so far; a snapshot."""
        return self._do(lambda: self._inside.stats)
