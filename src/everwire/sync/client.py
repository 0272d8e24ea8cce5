"""Written by scripts/sync-facade from everwire.client.client: change that, not this."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, Self, overload

from ..client.builtin import ChannelPresence
from ..client.client import Client as AsyncClient, T
from ..client.outbox import Ack
from ..client.stats import Stats
from ..client.subscription import Message
from ..protocol.messages import Position
from ..protocol.states import ConnectionState
from .facade import Facade
from .subscription import Subscription


class Client(Facade[AsyncClient]):
    """A connection that stays; made by :func:`everwire.sync.connect`."""

    def __enter__(self) -> Self:
        """Connect, and wait until ready. Interrupting ends the client.

        Raises:
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

    def close(self) -> None:
        """Close the client. A second call waits for the first.

        What is in the outbox is sent and its acknowledgements are awaited, for at most
        ``close_timeout`` seconds; what is left fails with :exc:`~everwire.NotSent` or
        :exc:`~everwire.DeliveryUnknown`. Then the connection is closed, which takes at
        most ``close_timeout`` seconds again. Subscriptions hand over what they hold, and end.

        Interrupting drops the connection at once.
        """
        self._close(lambda: self._inside.close())

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
        """Is called with the name and the data of each event of the server."""
        return self._do(lambda: self._inside.on_event)

    @on_event.setter
    def on_event(self, function: Callable[[str, Any], None] | None) -> None:
        def assign() -> None:
            self._inside.on_event = function

        self._do(assign)

    def drop(self) -> None:
        """Drop the current connection, as a broken network would; the client reconnects."""
        self._do(lambda: self._inside.drop())

    def publish(self, channel: str, data: Any, *, ttl: float | None = None) -> Ack:
        """Publish, and wait until the server has stored it: once, over whatever drops.

        In the dialect ``plain`` nothing is acknowledged: this returns as soon as the
        message is written to an open connection, with ``position=None``.

        Args:
            channel: its name.
            data: anything that :func:`everwire.protocol.data.plain_data` takes.
            ttl: seconds for which it is tried; the default is ``outbox_ttl``.

        Interrupting ends the waiting alone: the message stays in the outbox, and is sent. If
        it waited for room in the outbox, it is not sent.

        Raises:
            BadData: the data or the channel's name cannot be put on the wire.
            RequestError: refused for good, as :exc:`Forbidden`, or too big.
            NotSent: given up before it was sent.
            DeliveryUnknown: sent and given up before it was acknowledged.
            OutboxFull: no room within ``outbox_block`` seconds.
            ConnectionClosed: the client ended.
        """
        return self._wait(lambda: self._inside.publish(channel, data, ttl=ttl))

    def publish_nowait(self, channel: str, data: Any, *, ttl: float | None = None) -> Future[Ack]:
        """Publish without waiting; the future is given what :meth:`publish` returns or raises.

        Args:
            channel: its name.
            data: as for :meth:`publish`.
            ttl: seconds for which it is tried; the default is ``outbox_ttl``.

        Raises:
            BadData: the data or the channel's name cannot be put on the wire.
            RequestError: too big.
            OutboxFull: there is no room.
            ConnectionClosed: the client ended.
        """
        return self._future(lambda: self._inside.publish_nowait(channel, data, ttl=ttl))

    @overload
    def query(
        self, name: str, payload: Any = None, *, type: type[T], timeout: float | None = None
    ) -> T: ...

    @overload
    def query(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Any: ...

    def query(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Any:
        """Ask for something that changes nothing. Sent again once if the connection drops.

        Args:
            name: of the query.
            payload: its parameters.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.

        Interrupting cancels the handler on the server.

        Raises:
            RequestError: the server refuses, as :exc:`Forbidden`.
            RequestTimeout: no answer in time.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: two connections were lost with it, or the client ended.
        """
        return self._wait(lambda: self._inside.query(name, payload, type=type, timeout=timeout))

    @overload
    def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,
        key: str | Literal[False] | None = None,
    ) -> T: ...

    @overload
    def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,
        key: str | Literal[False] | None = None,
    ) -> Any: ...

    def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,
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

        Interrupting asks the server to cancel; the command may have run.

        Raises:
            RequestError: the server refuses; ``outcome`` says whether it may have run.
            NotSent: there was no connection in time.
            DeliveryUnknown: sent, and no answer in time: it may have run.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: the client had ended.
        """
        return self._wait(
            lambda: self._inside.command(name, payload, type=type, timeout=timeout, key=key)
        )

    def event(self, name: str, data: Any = None) -> None:
        """Send an event: not answered, and lost if the connection is just being lost.

        Waits for a connection, at most ``request_timeout`` seconds. Interrupting before that
        sends nothing.

        Raises:
            NotSent: there was no connection in time.
            BadData: the data cannot be put on the wire.
            RequestError: too big.
            ConnectionClosed: the client ended.
        """
        self._wait(lambda: self._inside.event(name, data))

    def subscribe(
        self, channel: str, *, since: Position | None = None, presence: bool = False
    ) -> Subscription:
        """Subscribe: ``with client.subscribe("chat:lobby") as room: for item in room``.

        Args:
            channel: its name.
            since: deliver what came after this position, as far as history reaches; the
                default is to begin with what comes next.
            presence: keep ``members`` up to date.
        """
        return Subscription(
            self._background,
            self._do(lambda: self._inside.subscribe(channel, since=since, presence=presence)),
        )

    def history(
        self, channel: str, *, limit: int = 100, timeout: float | None = None
    ) -> list[Message]:
        """Return the last ``limit`` messages of a channel, the oldest first.

        ``messages[-1].position`` is what to give to ``subscribe(since=...)``. Interrupting and
        errors are those of :meth:`query`.
        """
        return self._wait(lambda: self._inside.history(channel, limit=limit, timeout=timeout))

    def presence(self, channel: str, *, timeout: float | None = None) -> ChannelPresence:
        """Return who is present in a channel. Interrupting and errors are those of :meth:`query`."""
        return self._wait(lambda: self._inside.presence(channel, timeout=timeout))

    @property
    def state(self) -> ConnectionState:
        """Of the connection; ``connecting`` whenever there is none, ``closed`` at the end."""
        return self._do(lambda: self._inside.state)

    @property
    def stats(self) -> Stats:
        """What was counted so far; a snapshot."""
        return self._do(lambda: self._inside.stats)
