"""Written by scripts/sync-facade from everwire.client.channels: change that, not this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, overload

from ..client.builtin import ChannelPresence
from ..client.channels import Channels as AsyncChannels
from ..client.items import Gap, Message
from ..client.subscription import Subscription as AsyncSubscription
from ..client.tokens import TokenSource
from ..protocol.messages import Position
from ..protocol.positions import Snapshot
from ..protocol.states import SubscriptionState
from .background import in_thread
from .facade import Facade
from .subscription import StatefulSubscription, Subscription


class Channels(Facade):
    """A part of :class:`~.client.Client`."""

    _inside: AsyncChannels

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
        get_state: Callable[[], Any | Awaitable[Any]] | Literal[True],
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
        get_state: Callable[[], Any | Awaitable[Any]] | Literal[True] | None = None,
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

    def snapshot(self, channel: str, *, timeout: float | None = None) -> Snapshot:
        """Return what the messages of a channel have come to, where the server can say it.

        ``subscribe(..., since=snapshot.position)`` goes on from there, as far as history
        reaches; ``subscribe(..., get_state=True)`` from wherever it must. Interrupting and
        errors are those of :meth:`query`.
        """
        return self._wait(lambda: self._inside.snapshot(channel, timeout=timeout))

    def presence(self, channel: str, *, timeout: float | None = None) -> ChannelPresence:
        """Return who is present in a channel. Interrupting and errors are those of :meth:`query`."""
        return self._wait(lambda: self._inside.presence(channel, timeout=timeout))
