"""What a client does with channels: subscribe, read history, see who is present."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, overload

from ..errors import ConfigError
from ..protocol.messages import Position
from ..protocol.positions import Snapshot
from ..protocol.states import SubscriptionState
from .any_core import AnyCore
from .builtin import ChannelPresence, messages_of, presence_of, state_of
from .callbacks import Callbacks
from .items import Gap, Message
from .options import Options
from .subscription import StatefulSubscription, Subscription
from .tokens import TokenSource


class Channels:
    """A part of :class:`~.client.Client`."""

    _core: AnyCore

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
        get_state: Callable[[], Awaitable[Any]] | Literal[True],
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
        get_state: Callable[[], Awaitable[Any]] | Literal[True] | None = None,
        state_first: bool = False,
        on_message: Callable[[Message], object] | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        on_snapshot: Callable[[Snapshot], object] | None = None,
        on_state: Callable[[SubscriptionState], object] | None = None,
        stop_on_error: bool = False,
    ) -> Subscription | StatefulSubscription:
        """Subscribe: ``async with client.subscribe("chat:lobby") as room: async for item in room``.

        Or with functions: ``room = await client.subscribe("chat:lobby", on_message=show)``.
        They are called one after the other, in a task of the client; each may be a coroutine
        function, and may call whatever the client has. The position moves on when the call
        has returned.

        One client has one subscription to a channel: on a connection the server sends a
        channel once, from one position, and readers that fall behind each at their own pace
        would have it sent again for all of them. Who wants several readers hands the items
        on to them, or connects a second client.

        Args:
            channel: its name; or, where the server allows it, ``chat:*`` for all that begin so.
                Then messages say which ``channel`` they are of, and have no position: what is
                published while there is no connection is lost, which a gap says.
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
                call: what is published meanwhile may be in it and still follow. True: the
                server has the state, see :meth:`snapshot`.
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
        self._core.check()
        if get_state is True:
            get_state = partial(self.snapshot, channel)
        if on_message is None and (on_gap or on_snapshot or stop_on_error):
            raise ConfigError("on_gap, on_snapshot and stop_on_error go with on_message")
        if get_state is None and (on_snapshot or state_first):
            raise ConfigError("on_snapshot and state_first go with get_state")
        if get_state is not None and on_message is not None and on_snapshot is None:
            raise ConfigError("with on_message and get_state, on_snapshot is needed as well")
        if state_first and since is not None:
            raise ConfigError("begin with the state, or since a position: not both")
        if since is not None and not isinstance(since, Position):
            raise ConfigError(f"since is a Position, as item.position, not {since!r}")
        for function in (on_message, on_gap, on_snapshot, get_state):
            if function is not None and not callable(function):
                raise ConfigError(f"a function is needed, not {type(function).__name__}")
        callbacks = None
        if on_message is not None:
            callbacks = Callbacks(
                on_message=on_message,
                on_gap=on_gap,
                on_snapshot=on_snapshot,
                stop_on_error=stop_on_error,
            )
        options = Options(
            since=since,
            presence=presence,
            priority=priority,
            token=token,
            get_state=get_state,
            state_first=state_first,
            on_state=on_state,
        )
        kind = Subscription if get_state is None else StatefulSubscription
        return kind(
            channel,
            options,
            callbacks,
            reconciler=self._core.subscriptions,
            close_timeout=self._core.limits.close_timeout,
        )

    async def history(
        self,
        channel: str,
        *,
        limit: int = 100,
        timeout: float | None = None,  # noqa: ASYNC109  # as for query
    ) -> list[Message]:
        """Return the last ``limit`` messages of a channel, the oldest first.

        ``messages[-1].position`` is what to give to ``subscribe(since=...)``. Cancelling and
        errors are those of :meth:`query`.
        """
        payload = {"channel": channel, "limit": limit}
        return messages_of(channel, await self._ask("everwire.history", payload, timeout))

    async def snapshot(
        self,
        channel: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as for query
    ) -> Snapshot:
        """Return what the messages of a channel have come to, where the server can say it.

        ``subscribe(..., since=snapshot.position)`` goes on from there, as far as history
        reaches; ``subscribe(..., get_state=True)`` from wherever it must. Cancelling and
        errors are those of :meth:`query`.
        """
        return state_of(channel, await self._ask("everwire.state", {"channel": channel}, timeout))

    async def presence(
        self,
        channel: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as for query
    ) -> ChannelPresence:
        """Return who is present in a channel. Cancelling and errors are those of :meth:`query`."""
        return presence_of(await self._ask("everwire.presence", {"channel": channel}, timeout))

    async def _ask(self, name: str, payload: Any, seconds: float | None) -> Any:
        self._core.check()
        return await self._core.calls.run("query", name, payload, timeout=seconds)
