"""What a pool of clients does with publishes, requests and subscriptions: it finds a member.

Each of these does for all members what its namesake in a client does for one connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Literal

from ..errors import ConfigError, DeliveryUnknown, NotSent, PoolTimeout
from ..limits import ClientLimits
from .core import Core
from .entry import Ack, Entry
from .feed import Feed
from .pool_members import Member, Members, Route
from .publisher import Publisher
from .shared import Shared
from .stats import Counters
from .undelivered import Undelivered


class PoolPublisher:
    """Lets what has the same key go out over the same member.

    Args:
        members: of the pool.
        key: of what is published; None: the name of the channel is the key.
    """

    def __init__(self, members: Members[Core], key: str | None = None) -> None:
        self.durability = None  # a file has one outbox
        self._members = members
        self._key = key

    async def publish(self, channel: str, data: Any, **options: Any) -> Ack:
        """See :meth:`.client.Client.publish`."""
        route = self._route(channel)
        try:
            publisher = route.member.connection.publisher
            return await publisher.publish(channel, data, tally=route, **options)
        finally:
            route.settle()

    def publish_nowait(self, channel: str, data: Any, **options: Any) -> asyncio.Future[Ack]:
        """See :meth:`.client.Client.publish_nowait`."""
        route = self._route(channel)
        try:
            publisher = route.member.connection.publisher
            return publisher.publish_nowait(channel, data, tally=route, **options)
        finally:
            route.settle()

    def drain_queued(self) -> list[Undelivered]:
        """See :meth:`.client.Client.drain_queued`; member by member."""
        return [each for one in self._publishers() for each in one.drain_queued()]

    def _publishers(self) -> Iterator[Publisher]:
        return (member.connection.publisher for member in self._members)

    @property
    def on_drop(self) -> Callable[[Undelivered], None] | None:
        """That of every member."""
        return next(self._publishers()).on_drop

    @on_drop.setter
    def on_drop(self, function: Callable[[Undelivered], None] | None) -> None:
        for publisher in self._publishers():
            publisher.on_drop = function

    @property
    def on_undelivered(self) -> Callable[[Undelivered], None] | None:
        """That of every member."""
        return next(self._publishers()).on_undelivered

    @on_undelivered.setter
    def on_undelivered(self, function: Callable[[Undelivered], None] | None) -> None:
        for publisher in self._publishers():
            publisher.on_undelivered = function

    def _route(self, channel: str) -> Route[Core]:
        return self._members.route(channel if self._key is None else self._key)

    @staticmethod
    def move(member: Member[Core]) -> None:
        """Give what a member holds to the members that its keys belong to now, in order."""
        parts: dict[Member[Core], list[Entry]] = {}
        for entry in member.connection.publisher.outbox.hand_over():
            assert isinstance(entry.tally, Route)
            parts.setdefault(entry.tally.member, []).append(entry)
        for heir, entries in parts.items():
            heir.connection.publisher.outbox.adopt(entries)


class PoolCalls:
    """Lets requests go out over a member that is ready, and has room for one more."""

    def __init__(
        self, members: Members[Core], limits: ClientLimits, key: str | None = None
    ) -> None:
        self._members = members
        self._limits = limits
        self._key = key

    def new_key(self) -> str:
        """An idempotency key that nobody else has."""
        return next(iter(self._members)).connection.calls.new_key()

    async def run(
        self,
        kind: Literal["query", "command"],
        name: str,
        payload: Any,
        *,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
    ) -> Any:
        """Send and wait for the answer's payload.

        If the member ends for good meanwhile, another is asked: where nothing was sent, or
        where asking twice does no harm. Cancelling cancels the request on the server.
        """
        now = asyncio.get_running_loop().time
        seconds = self._limits.request_timeout if timeout is None else timeout
        deadline = now() + seconds
        unknown: DeliveryUnknown | None = None
        while True:
            try:
                member = await self._members.acquire(self._key, deadline - now())
            except PoolTimeout:
                if unknown is not None:
                    raise unknown from None
                raise
            try:
                calls = member.connection.calls
                left = deadline - now()
                return await calls.run(kind, name, payload, key=key, timeout=left)
            except Exception as error:
                if member.ended is None or not self._members.alive:
                    raise
                if isinstance(error, DeliveryUnknown):
                    unknown = error
                if not (kind == "query" or key is not None or isinstance(error, NotSent)):
                    raise
            finally:
                self._members.release(member)


class PoolSubscriptions:
    """Lets each subscription live on one member, and move when that is of no use any more.

    Attributes:
        shared: what they share, wherever they live.
    """

    def __init__(
        self,
        members: Members[Core],
        limits: ClientLimits,
        counters: Counters,
        *,
        positions: bool,
        random: Random,
    ) -> None:
        self._members = members
        self._homes: dict[Feed, Member[Core]] = {}
        self._wanted: dict[str, Feed] = {}
        self.shared = Shared(self._wanted, limits, counters, positions=positions, random=random)

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[Feed]:
        return iter(list(self._wanted.values()))

    def want(self, feed: Feed) -> None:
        """See :class:`.home.Home`."""
        if feed.channel in self._wanted:
            raise ConfigError(
                f"this pool is subscribed to {feed.channel!r} already; share that subscription"
            )
        member = self._members.choose(feed.channel)
        member.connection.subscriptions.want(feed)
        self._homes[feed] = member
        self._wanted[feed.channel] = feed

    def leave(self, feed: Feed) -> asyncio.Future[None] | None:
        """See :class:`.home.Home`."""
        member = self._homes.pop(feed, None)
        if member is None:
            return None
        del self._wanted[feed.channel]
        return member.connection.subscriptions.leave(feed)

    def resync(self, feed: Feed, delay: float) -> None:
        """See :class:`.home.Home`."""
        if (member := self._homes.get(feed)) is not None:
            member.connection.subscriptions.resync(feed, delay)

    def move(self, member: Member[Core]) -> None:
        """Let the subscriptions of a member, which has no link, go on elsewhere."""
        for feed, home in list(self._homes.items()):
            if home is member:
                home.connection.subscriptions.leave(feed)
                heir = self._homes[feed] = self._members.choose(feed.channel)
                heir.connection.subscriptions.want(feed)
