"""What an application reads: a subscription yields messages and gaps, over all links.

The application iterates, or has functions called; :mod:`.feed` is where the items come from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ..errors import ConfigError
from ..protocol.messages import Member, Position
from ..protocol.states import SubscriptionState as State
from .callbacks import Callbacks
from .feed import Feed
from .forks import Origin
from .items import Gap, Item, Message
from .options import Options

if TYPE_CHECKING:
    from .home import Home

T = TypeVar("T")


class Reading(Generic[T]):
    """What all subscriptions have in common."""

    def __init__(
        self,
        channel: str,
        options: Options,
        callbacks: Callbacks | None,
        *,
        reconciler: Home,
        close_timeout: float,
    ) -> None:
        self._feed = Feed(channel, options, reconciler)
        self._origin = Origin("subscription")
        self._callbacks = callbacks
        self._tasks = reconciler.shared.tasks
        self._calling: asyncio.Task[None] | None = None
        self._close_timeout = close_timeout

    @property
    def channel(self) -> str:
        """The channel's name."""
        return self._feed.channel

    @property
    def members(self) -> dict[str, Member]:
        """Who is present, by connection; kept up to date with ``presence=True``."""
        return self._feed.roster.members

    @property
    def member_count(self) -> int:
        """How many are present; ``members`` holds no more than the server lists."""
        return self._feed.roster.count

    @property
    def state(self) -> State:
        """Whether messages come: ``subscribed``, or on the way there, or why not."""
        return self._feed.state

    @property
    def position(self) -> Position | None:
        """The position of the last item handed over; ``since=`` takes it up again.

        An item is handed over when iteration returned it, or when the function that it was
        given to has returned. Before the first: where the subscription began. With
        ``get_state`` a gap does not count, but the snapshot after it: whoever stores the
        position with the state is told of the gap again, if there was a crash in between.
        """
        return self._feed.position

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        """Subscribe, and wait until the server confirms: over drops, as long as it takes.

        Cancelling unsubscribes.

        Raises:
            Forbidden: or another :exc:`RequestError`: refused for good.
            ConfigError: the client has a subscription to this channel already.
            ConnectionClosed: the client ended.
        """
        await self._feed.enter()
        if self._callbacks is not None:
            self._calling = self._tasks.start(
                self._callbacks.run(self._feed), f"callbacks {self.channel!r}"
            )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            await self.unsubscribe()
        else:
            self._feed.finish(None)

    async def unsubscribe(self) -> None:
        """End the subscription; iteration stops at once, what is queued is dropped.

        Waits until the server has confirmed, at most ``close_timeout`` seconds. A callback
        that is running is not interrupted; none follows it. Cancelling only ends the
        waiting. A second call does nothing.
        """
        confirmed = self._feed.finish(None)
        if confirmed is not None:
            await asyncio.wait([confirmed], timeout=self._close_timeout)

    async def wait_ended(self) -> None:
        """With ``on_message``: wait until it ended, and the last callback has returned.

        Cancelling only ends the waiting.

        Raises:
            RequestError: the server ended the subscription for good.
            ConnectionClosed: the client ended for good.
            Exception: what a callback raised, with ``stop_on_error``.
            ConfigError: there is no callback, or it was not entered.
        """
        if self._calling is None:
            raise ConfigError("only a subscription with on_message that was entered has an end")
        await asyncio.wait([self._calling])
        if self._feed.error is not None:
            raise self._feed.error.with_traceback(None)

    @property
    def queued(self) -> int:
        """Items that have come and were not handed over yet."""
        return len(self._feed.inbox)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item. Cancelling loses nothing.

        Raises:
            StopAsyncIteration: unsubscribed, or the client was closed.
            RequestError: the server ended the subscription for good.
            ConnectionClosed: the client ended for good.
        """
        self._origin.check()
        if self._callbacks is not None:
            raise ConfigError("its items go to on_message; iterate a subscription without")
        feed = self._feed
        item = feed.take() if feed.inbox else await feed.next()
        if item is None:
            raise StopAsyncIteration
        feed.handed(item)
        return item  # type: ignore[return-value]  # who has no get_state gets no snapshots

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.channel!r} {self.state} "
            f"queued={len(self._feed.inbox)} position={self.position}>"
        )


class Subscription(Reading[Message | Gap]):
    """A channel's messages: ``async with client.subscribe(...) as room: async for item in room``.

    Iterating goes on over drops and reconnections. It ends when the subscription does
    (:meth:`unsubscribe`, or the client's ``close()``), and raises if the server ended it.
    Who wants neither to iterate nor to leave a block awaits it: ``room = await
    client.subscribe("chat:lobby", on_message=show)``.
    """


class StatefulSubscription(Reading[Item]):
    """A subscription with ``get_state``: it yields snapshots as well."""
