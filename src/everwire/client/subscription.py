"""What an application reads: a subscription yields messages and gaps, over all links.

Rule 1: between two items handed to the application nothing is missing, unless a ``Gap``
stands between them. Nothing is handed twice.
Rule 2: ``position`` is that of the last item handed over. What is queued behind it is
recovered from its tail: the last message that was queued.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..codes import ErrorCode
from ..errors import ClosedOK, ConfigError, RequestError, request_error
from ..limits import ClientLimits
from ..net.backoff import Backoff
from ..protocol import messages as m
from ..protocol.messages import Member, Position
from ..protocol.positions import Place, place
from ..protocol.states import SUBSCRIPTION, Machine, SubscriptionState as State
from .inbox import Inbox
from .stats import Counters

if TYPE_CHECKING:
    from .reconcile import Reconciler

logger = logging.getLogger("everwire.client")

RETRY = {"first": 0.5, "base": 0.5, "cap": 20.0, "floor": 0.1, "stable_after": 10.0}


class Message(msgspec.Struct, frozen=True):
    """A message of a channel.

    Attributes:
        channel: the channel's name.
        data: what was published.
        position: its place in the channel; None in a dialect without positions.
        id: the message's id, the same for every reader.
        time: when the server took it, in seconds since 1970.
        publisher: the user who published it, where the server says so.
    """

    channel: str
    data: Any
    position: Position | None
    id: str = ""
    time: float = 0.0
    publisher: str | None = None


class Gap(msgspec.Struct, frozen=True):
    """Messages are missing here, and cannot be had any more.

    Attributes:
        channel: the channel's name.
        reason: ``expired`` (older than the history), ``epoch`` (the numbering began anew),
            ``slow`` or ``dropped`` (lost on the way, without a history to make up for it).
        position: where delivery goes on; None in a dialect without positions.
        from_: the offset behind which the gap begins, where it is known.
    """

    channel: str
    reason: str
    position: Position | None
    from_: int | None = None


class Subscription:
    """A channel's messages: ``async with client.subscribe(...) as room: async for item in room``.

    Iterating goes on over drops and reconnections. It ends when the subscription does
    (:meth:`unsubscribe`, or the client's ``close()``), and raises if the server ended it.

    Attributes:
        channel: the channel's name.
        members: who is present, by connection; kept up to date with ``presence=True``.
        member_count: how many they are; ``members`` holds no more than the server lists.
    """

    def __init__(
        self,
        channel: str,
        *,
        since: Position | None,
        presence: bool,
        reconciler: Reconciler,
        limits: ClientLimits,
        counters: Counters,
        random: Random,
    ) -> None:
        self.channel = channel
        self.presence = presence
        self.members: dict[str, Member] = {}
        self.member_count = 0
        self._reconciler = reconciler
        self._close_timeout = limits.close_timeout
        self._counters = counters
        self._machine = Machine(State.UNSUBSCRIBED, SUBSCRIPTION)
        self._entered: asyncio.Future[None] | None = None
        self._inbox: Inbox[Message | Gap] = Inbox(
            items=limits.queue_messages, size=limits.queue_bytes
        )
        self._position = since
        self._tail = since
        self._start: Position | None = None  # where an unrecovered link starts: a gap is due
        self._reason = ""
        self._seen = False  # subscribed at least once
        self._taking = False  # what comes is queued
        self._error: Exception | None = None
        self._over = False
        self._backoff = Backoff(**RETRY, random=random)
        self._subscribed_at: float | None = None
        self.resync = False  # for the reconciler: this link must subscribe anew
        self.retry_at = 0.0  # for the reconciler: the loop's time before which to do nothing

    # ---- for the application -----------------------------------------------------

    @property
    def state(self) -> State:
        """Whether messages come: ``subscribed``, or on the way there, or why not."""
        return self._machine.state

    @property
    def position(self) -> Position | None:
        """The position of the last item handed over; ``since=`` takes it up again.

        Before the first item: where the subscription began.
        """
        return self._position

    async def __aenter__(self) -> Self:
        """Subscribe, and wait until the server confirms: over drops, as long as it takes.

        Cancelling unsubscribes.

        Raises:
            Forbidden: or another :exc:`RequestError`: refused for good.
            ConfigError: the client has a subscription to this channel already.
            ConnectionClosed: the client ended.
        """
        if self._machine.state is not State.UNSUBSCRIBED or self._over:
            raise ConfigError("a subscription is entered once; make another")
        self._reconciler.want(self)
        self._entered = asyncio.get_running_loop().create_future()
        try:
            await self._entered
        except BaseException:
            self.finish(None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            await self.unsubscribe()
        else:
            self.finish(None)

    async def unsubscribe(self) -> None:
        """End the subscription; iteration stops at once, what is queued is dropped.

        Waits until the server has confirmed, at most ``close_timeout`` seconds. Cancelling
        only ends the waiting. A second call does nothing.
        """
        confirmed = self.finish(None)
        if confirmed is not None:
            await asyncio.wait([confirmed], timeout=self._close_timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        """Return the next item. Cancelling loses nothing.

        Raises:
            StopAsyncIteration: unsubscribed, or the client was closed.
            RequestError: the server ended the subscription for good.
            ConnectionClosed: the client ended for good.
        """
        while not self._inbox:
            if self._over:
                if self._error is None:
                    raise StopAsyncIteration
                raise self._error.with_traceback(None)
            if self._entered is None:
                raise ConfigError('enter the subscription first: "async with"')
            await self._inbox.wait()
        item, emptied = self._inbox.take()
        self._position = item.position
        if emptied and not self._over:
            self._resync(0.0)
        return item

    def __repr__(self) -> str:
        return (
            f"<Subscription {self.channel!r} {self.state} queued={len(self._inbox)} "
            f"position={self._position}>"
        )

    # ---- for the reconciler ------------------------------------------------------

    @property
    def tail(self) -> Position | None:
        """The position of the last item that was queued: where to recover from."""
        return self._tail

    @property
    def due(self) -> bool:
        """Whether to subscribe now: there is room in the queue."""
        return not self._inbox.full

    def request(self) -> m.ChannelRequest:
        """What to ask the server for."""
        self.resync = False
        self._machine.to(State.SUBSCRIBING)
        return m.ChannelRequest(self.channel, self._tail, presence=self.presence)

    def confirmed(self, result: m.ChannelResult, now: float) -> None:
        """The server subscribed us: take messages from here on."""
        self._subscribed_at = now
        start = Position(result.epoch, result.offset, result.id)
        tail = self._tail
        self._start = None
        if tail is None:
            self._tail = start
            if not self._seen:
                self._position = start
        elif not result.recovered or result.epoch != tail.epoch:
            # The server says so with a gap. Until it does the tail stays, so that a link
            # that is lost before it cannot make us forget.
            self._start = start
            self._reason = "epoch" if result.epoch != tail.epoch else "expired"
        self._live()

    def confirmed_plain(self, now: float) -> None:
        """A server of the plain dialect subscribed us; what came before is lost."""
        self._subscribed_at = now
        if self._seen and not self._taking:
            self._put(Gap(self.channel, "dropped", None), 0)
        self._live()

    def _live(self) -> None:
        self._seen = self._taking = True
        self._machine.to(State.SUBSCRIBED)
        if self._entered is not None and not self._entered.done():
            self._entered.set_result(None)

    def message(self, message: m.ChannelMessage, size: int) -> None:
        """A message came on the current link."""
        self._counters.received += 1
        if not self._taking:
            return
        if self._start is not None:
            tail = self._tail
            self._gap(self._reason, self._start, None if tail is None else tail.offset)
        tail = self._tail
        assert tail is not None
        where = place(tail.offset, message.offset, message.prev)
        if where is Place.NEXT:
            position = Position(tail.epoch, message.offset, message.id)
            if self._fits(size):
                self._tail = position
                self._put(
                    Message(
                        self.channel, message.data, position, message.id,
                        message.time / 1000, message.publisher,
                    ),
                    size,
                )  # fmt: skip
        elif where is Place.DUPLICATE:
            self._counters.duplicates += 1
        else:
            delay = self._backoff.delay(self._held())
            logger.warning(
                "%r: a hole after offset %d, before %d; recovering in %.2f s",
                self.channel, tail.offset, message.offset, delay,
            )  # fmt: skip
            self._resync(delay)

    def message_plain(self, message: m.ChannelMessage, size: int) -> None:
        """A message came from a server of the plain dialect."""
        self._counters.received += 1
        if self._taking and self._fits(size):
            self._put(Message(self.channel, message.data, None), size)

    def gap(self, notice: m.GapNotice) -> None:
        """The server cannot deliver what is missing."""
        if not self._taking:
            return
        if self._tail is None:
            self._put(Gap(self.channel, notice.reason, None), 0)
        else:
            position = Position(notice.epoch, notice.offset, notice.id)
            self._gap(notice.reason, position, notice.from_)

    def _gap(self, reason: str, position: Position, from_: int | None) -> None:
        self._start = None
        self._tail = position
        self._put(Gap(self.channel, reason, position, from_), 0)

    def present(self, presence: m.Presence) -> None:
        """Who is present changed."""
        if presence.full:
            self.members.clear()
        for member in presence.joined:
            self.members[member.connection] = member
        for connection in presence.left:
            self.members.pop(connection, None)
        self.member_count = presence.count

    def refused(self, error: m.ErrorBody | m.Unsubscribed, now: float) -> float | None:
        """The server did not subscribe us, or ended it.

        Returns:
            Seconds after which to try again; None if it is for good.
        """
        name = getattr(error, "message", "")
        failure = request_error(error.code, name, temporary=error.temporary)
        self._taking = False
        if not error.temporary:
            self.finish(failure)
            return None
        self._machine.to(State.SUBSCRIBING)
        hint = None if error.retry_after is None else error.retry_after / 1000
        delay = self._backoff.delay(self._held(), hint)
        self.retry_at = now + delay
        logger.info("%r: %s; again in %.2f s", self.channel, failure, delay)
        return delay

    def lost(self) -> None:
        """The link is gone."""
        self._taking = self.resync = False
        self._start = None
        self._subscribed_at = None
        self.retry_at = 0.0
        self.members.clear()
        self.member_count = 0
        if self._machine.state is not State.UNSUBSCRIBED:
            self._machine.to(State.SUBSCRIBING)

    # ---- inside ------------------------------------------------------------------

    def _held(self) -> float | None:
        """For how long messages came until now, to tell one misfortune from a series."""
        since, self._subscribed_at = self._subscribed_at, None
        return None if since is None else asyncio.get_running_loop().time() - since

    def _fits(self, size: int) -> bool:
        """Whether there is room for one more; if not, nothing is taken until all is read."""
        if self._inbox.fits(size):
            return True
        logger.debug("%r: the queue is full; going on from %s later", self.channel, self._tail)
        self._taking = False
        self._machine.to(State.RECOVERING)
        return False

    def _put(self, item: Message | Gap, size: int) -> None:
        if type(item) is Gap:
            self._counters.gaps += 1
        self._inbox.put(item, size)

    def _resync(self, delay: float) -> None:
        """Have this link subscribe anew, from the tail."""
        self._taking = False
        if self._machine.state is State.SUBSCRIBED:
            self._machine.to(State.RECOVERING)
        self.resync = True
        self._reconciler.resync(self, delay)

    def finish(self, error: Exception | None) -> asyncio.Future[None] | None:
        """End, once: with None by our own wish, otherwise for the reason given.

        With a reason what is queued is handed over first.
        """
        if self._over:
            return None
        self._over = True
        self._taking = False
        confirmed = self._reconciler.leave(self)
        self._error = None if isinstance(error, ClosedOK) else error
        if error is None:
            self._inbox.clear()
        if self._machine.state is not State.UNSUBSCRIBED:
            failed = isinstance(error, RequestError)
            self._machine.to(State.FAILED if failed else State.UNSUBSCRIBED)
        if self._entered is not None and not self._entered.done():
            self._entered.set_exception(
                error or RequestError("unsubscribed meanwhile", code=ErrorCode.CANCELLED)
            )
        self._inbox.wake()
        return confirmed
