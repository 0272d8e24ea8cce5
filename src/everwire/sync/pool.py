"""Written by scripts/sync-facade from everwire.client.pool: change that, not this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from random import Random
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from ..client.builtin import ChannelPresence
from ..client.calling import T
from ..client.entry import Ack
from ..client.items import Gap, Message, Snapshot
from ..client.observations import Record
from ..client.overflow import Overflow
from ..client.pool import ClientOptions, Pool as AsyncPool
from ..client.pool_members import PoolMember
from ..client.pool_strategies import Strategy
from ..client.stats import Stats
from ..client.subscription import Subscription as AsyncSubscription
from ..client.tokens import Tokens, TokenSource
from ..client.undelivered import Undelivered
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol.messages import Position
from ..protocol.states import ConnectionState, SubscriptionState
from .background import background, in_thread
from .client import Client
from .facade import Facade
from .streams import Stream
from .subscription import StatefulSubscription, Subscription


class Pool(Facade[AsyncPool]):
    """Several connections behind the interface of one :class:`~everwire.Client`.

    One connection carries any number of channels and requests already. A pool helps where one
    is the bottleneck: to spread over the nodes behind a load balancer, to let a large answer
    not hold up others, to live on while one node restarts. See ``docs/pools.md``.

    What is published to a channel stays in order: all of it that is under way goes over one
    member, and when that is lost for good it goes on over another, with the same ids. A
    subscription lives on one member, and moves with its position. A request goes to any
    member that is ready.

    Args:
        url: ``ws://host:port/path`` or ``wss://…``; several are taken in turn.
        size: members, 1 to 16.
        min_ready: members that must be ready before entering returns; the others follow.
        strategy: who takes what; see :data:`~.pool_strategies.Strategy`. A function is called
            with the members to choose from (:class:`~everwire.PoolMember`) and the key, which
            may be None, and returns one of them.
        acquire_timeout: seconds that a request waits until a member is ready and free.
        max_inflight: requests that are under way on a member.
        token: as for :func:`everwire.sync.connect`; the members share what it fetches.
        limits: of each member.
        network: where WebSockets come from; the default is the real network.
        random: where chance comes from.
        connect_timeout: seconds for one attempt; one is made at a time for each host.
        timeout: seconds for which entering waits; None for no end.
        options: more of :func:`everwire.sync.connect`.

    Raises:
        ConfigError: one of these cannot be used.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        size: int = 3,
        *,
        min_ready: int = 1,
        strategy: Strategy | Callable[[Sequence[PoolMember], str | None], PoolMember] = "keyed",
        acquire_timeout: float = 5.0,
        max_inflight: int = 256,
        token: TokenSource | Tokens = None,
        limits: ClientLimits | None = None,
        network: Network | None = None,
        random: Random | None = None,
        connect_timeout: float | None = None,
        timeout: float | None = 30.0,
        **options: Unpack[ClientOptions],
    ) -> None:
        home = background()
        super().__init__(
            home,
            home.do(
                lambda: AsyncPool(
                    url,
                    size,
                    min_ready=min_ready,
                    strategy=strategy,
                    acquire_timeout=acquire_timeout,
                    max_inflight=max_inflight,
                    token=token,
                    limits=limits,
                    network=network,
                    random=random,
                    connect_timeout=connect_timeout,
                    timeout=timeout,
                    **options,
                )
            ),
        )

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

    @overload
    def stream(
        self, name: str, payload: Any = None, *, type: type[T], timeout: float | None = None
    ) -> Stream[T]: ...

    @overload
    def stream(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Stream[Any]: ...

    def stream(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Stream[Any]:
        """Ask for an answer in parts: ``for part in client.stream("ticks")``.

        The server sends no more than is taken here. A stream that is interrupted is not
        begun anew: :exc:`~everwire.StreamInterrupted` says how many parts came. A query
        that does not stream has one part, its answer (none, if that is null).

        Args:
            name: of a query whose handler yields.
            payload: its parameters.
            type: what to turn each part into: anything that msgspec understands.
            timeout: seconds that each part may take; the default is ``request_timeout``.

        Raises:
            BadData: the payload cannot be put on the wire.
            ConfigError: the dialect ``plain`` has no streams.
            ConnectionClosed: the client ended.
        """
        inside = self._do(lambda: self._inside.stream(name, payload, type=type, timeout=timeout))
        return Stream(self._background, inside)

    def event(self, name: str, data: Any = None) -> None:
        """Send an event: not answered, and lost if the connection is just being lost.

        Waits for a connection that takes more, at most ``request_timeout`` seconds. Interrupting
        before that sends nothing.

        Raises:
            NotSent: there was no connection in time, or the server does not read.
            BadData: the data cannot be put on the wire.
            RequestError: too big.
            ConnectionClosed: the client ended.
        """
        self._wait(lambda: self._inside.event(name, data))

    @overload
    def subscribe(
        self,
        channel: str,
        *,
        since: Position | None = None,
        presence: bool = False,
        priority: int = 0,
        token: TokenSource = None,
        on_message: Callable[[Message], object] | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        on_state: Callable[[SubscriptionState], object] | None = None,
        stop_on_error: bool = False,
    ) -> Subscription: ...

    @overload
    def subscribe(
        self,
        channel: str,
        *,
        get_state: Callable[[], Any | Awaitable[Any]],
        state_first: bool = False,
        since: Position | None = None,
        presence: bool = False,
        priority: int = 0,
        token: TokenSource = None,
        on_message: Callable[[Message], object] | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        on_snapshot: Callable[[Snapshot], object] | None = None,
        on_state: Callable[[SubscriptionState], object] | None = None,
        stop_on_error: bool = False,
    ) -> StatefulSubscription: ...

    def subscribe(
        self,
        channel: str,
        *,
        since: Position | None = None,
        presence: bool = False,
        priority: int = 0,
        token: TokenSource = None,
        get_state: Callable[[], Any | Awaitable[Any]] | None = None,
        state_first: bool = False,
        on_message: Callable[[Message], object] | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        on_snapshot: Callable[[Snapshot], object] | None = None,
        on_state: Callable[[SubscriptionState], object] | None = None,
        stop_on_error: bool = False,
    ) -> Subscription | StatefulSubscription:
        """Subscribe: ``with client.subscribe("chat:lobby") as room: for item in room``.

        Or with functions: ``room = client.subscribe("chat:lobby", on_message=show)``.
        They are called one after the other, in a task of the client; each may be a coroutine
        function, and may call whatever the client has. The position moves on when the call
        has returned.

        One client has one subscription to a channel: on a connection the server sends a
        channel once, from one position, and readers that fall behind each at their own pace
        would have it sent again for all of them. Who wants several readers hands the items
        on to them, or connects a second client.

        Args:
            channel: its name.
            since: deliver what came after this position, as far as history reaches; the
                default is to begin with what comes next.
            presence: keep ``members`` up to date.
            priority: after a drop, a higher one is subscribed to earlier; among equals the
                one that something came for last.
            token: for this channel, where the server wants one. A function (async or not)
                has 10 s; it is asked before the first use, and again, once, when the
                server refuses what it returned.
            get_state: returns the state that the channel's messages change. It is asked
                after each gap, and has 30 s; failures are logged, and it is asked again.
                The subscription then hands over a :class:`~everwire.Snapshot` and the
                messages that follow it. Returning ``Snapshot(data, position)``, with the
                position of the last message that is in ``data``, makes that exact. Of
                other data it is known only that it contains what was published before the
                call: what is published meanwhile may be in it and still follow.
            state_first: ask for the state at the beginning, too. Not with ``since``.
            on_message: is called with each message, instead of iterating.
            on_gap: is called with each gap; without it gaps are logged.
            on_snapshot: is called with each snapshot.
            on_state: is called, at once, with each new state of the subscription.
            stop_on_error: an exception of a callback ends the subscription, and the
                position stays before the item; otherwise it is logged, and the next item
                follows.

        Raises:
            ConfigError: the arguments do not go together.
            ConnectionClosed: the client ended.
        """
        inside = self._do(
            lambda: self._inside.subscribe(
                channel,
                since=since,
                presence=presence,
                priority=priority,
                token=token,
                get_state=in_thread(get_state),
                state_first=state_first,
                on_message=in_thread(on_message),
                on_gap=in_thread(on_gap),
                on_snapshot=in_thread(on_snapshot),
                on_state=on_state,
                stop_on_error=stop_on_error,
            )
        )
        if isinstance(inside, AsyncSubscription):
            return Subscription(self._background, inside)
        return StatefulSubscription(self._background, inside)

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

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Overflow | None = None,
        wait: Literal["acknowledged", "stored"] = "acknowledged",
    ) -> Ack:
        """Publish, and wait until the server has stored it: once, over whatever drops.

        In the dialect ``plain`` nothing is acknowledged: this returns as soon as the
        message is written to an open connection, with ``position=None``.

        Args:
            channel: its name.
            data: anything that :func:`everwire.protocol.data.plain_data` takes.
            ttl: seconds for which it is tried; the default is ``outbox_ttl``, and in a durable
                outbox, once it was sent, as long as the server remembers it.
            key: with ``overflow="coalesce"`` it takes the place of a message of the channel
                with this key that was not sent yet.
            overflow: what happens when the outbox is full (:data:`~.overflow.Overflow`); the
                default is that of :func:`everwire.sync.connect`, and ``block`` without one.
            wait: ``"stored"``: return as soon as it is in the durable outbox's file. If it is
                given up after that, ``on_undelivered`` is told.

        Interrupting ends the waiting alone: the message stays in the outbox, and is sent. If
        it waited for room in the outbox, it is not sent.

        Raises:
            BadData: the data or the channel's name cannot be put on the wire.
            RequestError: refused for good, as :exc:`Forbidden`, or too big.
            NotSent: given up before it was sent; :exc:`Dropped` by the overflow policy,
                :exc:`NotStored` because the durable outbox's file cannot be written.
            DeliveryUnknown: sent and given up before it was acknowledged; or
                :exc:`StillQueued`: the client ended, and the file keeps it.
            OutboxFull: no room within ``outbox_block`` seconds, or at once, as the policy says.
            ConfigError: there is no such policy, or no durable outbox to be stored in.
            ConnectionClosed: the client ended.
        """
        return self._wait(
            lambda: self._inside.publish(
                channel, data, ttl=ttl, key=key, overflow=overflow, wait=wait
            )
        )

    def publish_nowait(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Literal["reject", "drop_oldest", "drop_newest", "coalesce"] | None = None,
    ) -> Future[Ack]:
        """Publish without waiting; the future is given what :meth:`publish` returns or raises.

        Args:
            channel: its name.
            data: as for :meth:`publish`.
            ttl: as for :meth:`publish`.
            key: as for :meth:`publish`.
            overflow: what happens when the outbox is full; the default is that of
                :func:`everwire.sync.connect`, but ``reject`` instead of ``block``.

        Raises:
            BadData: the data or the channel's name cannot be put on the wire.
            RequestError: too big.
            OutboxFull: there is no room.
            ConfigError: there is no such policy, or it is ``block``.
            ConnectionClosed: the client ended.
        """
        return self._future(
            lambda: self._inside.publish_nowait(channel, data, ttl=ttl, key=key, overflow=overflow)
        )

    def drain_queued(self) -> list[Undelivered]:
        """Take back what was not sent yet, in order: it will not be sent any more.

        Who waits for it gets :exc:`~everwire.NotSent`. After :meth:`close`, this is what could
        not be sent in time; of a durable outbox nothing is taken back then: it stays in the file.
        """
        return self._do(lambda: list(self._inside.drain_queued()))

    def undelivered(self) -> list[Undelivered]:
        """Read what a durable outbox gave up while nobody heard of it, the oldest first.

        These are messages of former processes and those published with ``wait="stored"``, or
        by a call that was cancelled. They stay in the file, ``outbox_undelivered`` of them at
        most, until :meth:`forget_undelivered`. Interrupting changes nothing.

        Raises:
            NotStored: the file cannot be read.
            ConfigError: the outbox is not durable.
            ConnectionClosed: the client ended.
        """
        return self._wait(lambda: self._inside.undelivered())

    def forget_undelivered(self, messages: Iterable[Undelivered]) -> None:
        """Have the durable outbox's file forget messages that :meth:`undelivered` returned.

        Raises:
            ConnectionClosed: the client ended.
        """
        self._do(lambda: self._inside.forget_undelivered(messages))

    @property
    def on_drop(self) -> Callable[[Undelivered], None] | None:
        """Is called with each message that a full outbox drops, or that is superseded."""
        return self._do(lambda: self._inside.on_drop)

    @on_drop.setter
    def on_drop(self, function: Callable[[Undelivered], None] | None) -> None:
        def assign() -> None:
            self._inside.on_drop = function

        self._do(assign)

    @property
    def on_undelivered(self) -> Callable[[Undelivered], None] | None:
        """Is called with each message of :meth:`undelivered`, when it is given up.

        Set it before the client is opened, to hear of those of former processes.
        """
        return self._do(lambda: self._inside.on_undelivered)

    @on_undelivered.setter
    def on_undelivered(self, function: Callable[[Undelivered], None] | None) -> None:
        def assign() -> None:
            self._inside.on_undelivered = function

        self._do(assign)

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

    @property
    def members(self) -> list[PoolMember]:
        """The members as they are now; a snapshot."""
        return self._do(lambda: list(self._inside.members))

    def keyed(self, key: str) -> Client:
        """Return the same pool for what belongs to ``key``: ``pool.keyed(order).publish(...)``.

        What is published that way stays in order for the key rather than for the channel, and
        goes where the strategy puts the key; so do requests and events, while their member is
        ready. It has no life of its own: it is open while the pool is.
        """
        inside = self._do(lambda: self._inside.keyed(key))
        return Client(self._background, inside)
