"""A channel over all links: what comes next, what is missing, where to go on.

Rule 1: between two items that are read nothing is missing, unless a ``Gap`` or a
``Snapshot`` stands between them. Nothing is read twice.
Rule 2: ``position`` is that of the last item handed over. What is queued behind it is
recovered from its tail: the last message that was queued.
Rule 3: with ``get_state`` a gap is followed by a snapshot: the channel is subscribed to
anew without a position, which tells the last one, P; then the state is asked for; it is
handed over, and after it what came after P, or after the state's own position.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..codes import ErrorCode
from ..errors import ClosedOK, ConfigError, RequestError, request_error
from ..protocol import messages as m
from ..protocol.messages import Position
from ..protocol.positions import Place, place
from ..protocol.states import SUBSCRIPTION, Machine, SubscriptionState as State
from .channel_token import ChannelToken
from .hooks import call_hook
from .inbox import Inbox
from .items import Gap, Item, Message, message_at
from .loading import Loading
from .options import Options, retries
from .roster import Roster

if TYPE_CHECKING:
    from .home import Home

logger = logging.getLogger("everwire.client")


class Feed:
    """One subscription, seen from the links.

    Attributes:
        channel: the channel's name.
        options: what it is to be like.
        token: what it shows to the server.
        inbox: what was queued.
        position: of the last item that the application was handed.
        tail: of the last item that was queued: where to recover from.
        active_at: when something came last; counts all that came.
        roster: who is present.
        over: it ended; if not by our own wish, because of ``error``.
        resync: this link must subscribe anew.
        retry_at: the loop's time before which to do nothing.
    """

    def __init__(self, channel: str, options: Options, reconciler: Home) -> None:
        self.channel = channel
        self.options = options
        self.position = options.since
        self.tail = options.since
        self.active_at = 0
        self.roster = Roster()
        self.over = False
        self.error: Exception | None = None
        self.resync = False
        self.retry_at = 0.0
        self._shared = shared = reconciler.shared
        self.inbox: Inbox[Item] = shared.inbox()
        self._taken = options.since  # of the last item that was taken out of the inbox
        self._reconciler = reconciler
        self._budget, self._turns, self._counters = shared.budget, shared.turns, shared.counters
        self._machine = Machine(State.UNSUBSCRIBED, SUBSCRIPTION)
        self._entered: asyncio.Future[None] | None = None
        self._start: Position | None = None  # where an unrecovered link starts: a gap is due
        self._reason = ""
        self._positions = shared.positions  # not with a pattern, whatever the dialect
        self._seen = False  # subscribed at least once
        self._taking = False  # what comes is queued
        self._backoff = retries(shared.random)
        self._subscribed_at: float | None = None
        self.token = ChannelToken(
            options.token, channel, shared.tasks, retries(shared.random),
            lambda: reconciler.resync(self, 0.0),
        )  # fmt: skip
        get_state = options.get_state
        self._loading = Loading(self, get_state, shared) if get_state else None

    @property
    def state(self) -> State:
        """Whether messages come."""
        return self._machine.state

    def _to(self, state: State) -> None:
        if state is self._machine.state:
            return
        self._machine.to(state)
        call_hook(self.options.on_state, state)

    # ---- for who reads it --------------------------------------------------------

    async def enter(self) -> None:
        """Subscribe, and wait until the server confirms. Cancelling unsubscribes."""
        if self._machine.state is not State.UNSUBSCRIBED or self.over or self._entered is not None:
            raise ConfigError("a subscription is entered once; make another")
        self.active_at = next(self._turns)
        if self.options.state_first:
            self.inbox.keep_place()
        self._reconciler.want(self)
        self._entered = asyncio.get_running_loop().create_future()
        self.token.fetch()
        try:
            await self._entered
        except BaseException:
            self.finish(None)
            raise

    async def next(self) -> Item | None:
        """Take the next item; None at the end. Cancelling loses nothing.

        Raises:
            RequestError: the server ended the subscription for good.
            ConnectionClosed: the client ended for good.
        """
        while not self.inbox:
            if self.over:
                if self.error is None:
                    return None
                raise self.error.with_traceback(None)
            if self._entered is None:
                raise ConfigError('enter the subscription first: "async with"')
            self._refill()
            await self.inbox.wait()
        return self.take()

    def take(self) -> Item:
        """Take the next item out of an inbox that is not empty."""
        item = self.inbox.take()
        self._taken = item.position
        if self.inbox.full:
            self._refill()
        return item

    def _refill(self) -> None:
        """Once an inbox that was full has been read empty, go on from the tail."""
        if not self.over and self.inbox.reopen():
            self._resync(0.0)

    def handed(self, item: Item) -> None:
        """The application was handed an item.

        A gap with a snapshot to come does not count: who comes back in between is told of
        it again.
        """
        if self._loading is None or type(item) is not Gap:
            self.position = item.position

    # ---- for the reconciler ------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether to subscribe now: what comes can be taken, and the token is there."""
        if self.token.fetching:
            return False
        return not self.inbox.full or (self.tail is None and self.inbox.keeping)

    def request(self, *, beside: bool = False) -> m.ChannelRequest:
        """What to ask the server for; ``beside`` the link that delivers until it is answered."""
        if not beside or self.state is State.UNSUBSCRIBED:
            self.resync = False
            self._to(State.SUBSCRIBING)
        return m.ChannelRequest(self.channel, self.tail, self.token.value, self.options.presence)

    def confirmed(self, result: m.ChannelResult, now: float) -> None:
        """The server subscribed us: take messages from here on."""
        if not result.epoch:  # a pattern: what comes has no position here
            self._positions, self.tail = False, None
            self.confirmed_plain(now)
            return
        start = Position(result.epoch, result.offset, result.id)
        tail, first = self.tail, not self._seen
        self._start = None
        self._live(now)
        if tail is None:
            self.tail = start
            if self.inbox.keeping:
                assert self._loading is not None
                self._loading.begin(start)
            elif first:
                self.position = self._taken = start
        elif not result.recovered or result.epoch != tail.epoch:
            # The server says so with a gap. Until it does the tail stays, so that a link
            # that is lost before it cannot make us forget.
            self._start = start
            self._reason = "epoch" if result.epoch != tail.epoch else "expired"
            if self._loading is not None:
                self._missed()

    def confirmed_plain(self, now: float) -> None:
        """Subscribed, without positions: what came before is lost."""
        missed = self._seen and not self._taking
        self._live(now)
        if missed:
            self._gap("dropped", None, None)
        elif self.inbox.keeping and self._loading is not None:
            self._loading.begin(None)

    def _live(self, now: float) -> None:
        self._subscribed_at = now
        self._seen = self._taking = True
        self.token.accepted()
        self._to(State.SUBSCRIBED)
        if self._entered is not None and not self._entered.done():
            self._entered.set_result(None)

    def message(self, message: m.ChannelMessage, size: int) -> None:
        """A message came on the current link."""
        if not self._positions:
            self.message_plain(message, size)
            return
        self._counters.received += 1
        if self._start is not None and self._taking:
            self._missed()
        if not self._taking:
            return
        tail = self.tail
        assert tail is not None
        where = place(tail.offset, message.offset, message.prev)
        if where is Place.NEXT:
            position = Position(tail.epoch, message.offset, message.id)
            if self._fits(size):
                self.tail = position
                self._put(message_at(position, self.channel, message), size)
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
        """A message came, without a position."""
        self._counters.received += 1
        if self._taking and self._fits(size):
            self._put(message_at(None, message.channel or self.channel, message), size)

    def gap(self, notice: m.GapNotice) -> None:
        """The server cannot deliver what is missing."""
        if not self._taking:
            return
        at = Position(notice.epoch, notice.offset, notice.id) if self._positions else None
        self._gap(notice.reason, at, notice.from_)

    def _missed(self) -> None:
        """This link began behind the tail, and the server has not said so."""
        assert self._start is not None
        from_ = self.tail.offset if self.tail and self._reason == "expired" else None
        self._gap(self._reason, self._start, from_)

    def _gap(self, reason: str, position: Position | None, from_: int | None) -> None:
        self._start = None
        if not self.inbox.keeping:
            if not self._fits(0):
                return  # it is told again when there is room
            self.tail = position
            self._put(Gap(self.channel, reason, position, from_), 0)
        if self._loading is not None:
            self.load_anew(self._loading.delay())

    def refused(self, error: m.ErrorBody | m.Unsubscribed, now: float) -> float | None:
        """The server did not subscribe us, or ended it.

        Returns:
            Seconds after which to try again; None if it is for good, or if the
            reconciler will be told.
        """
        name = getattr(error, "message", "")
        failure = request_error(error.code, name, temporary=error.temporary)
        self._taking = False
        if self.token.refused(error.code):
            logger.info("%r: %s; asking for a fresh token", self.channel, failure)
            self._to(State.SUBSCRIBING)
            return None
        if not error.temporary or error.code == ErrorCode.TOKEN_EXPIRED:  # and there is no other
            self.finish(failure)
            return None
        self._to(State.SUBSCRIBING)
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
        self.roster.clear()
        if self._machine.state is not State.UNSUBSCRIBED:
            self._to(State.SUBSCRIBING)

    def shed(self) -> None:
        """Give up memory: forget of what is queued what can be had again."""
        logger.info("%r: the client holds too much; going on from its position", self.channel)
        if self.tail is None or not self._positions:
            self.inbox.full = True  # what is queued cannot be had again
        else:
            keeping = self.inbox.keeping
            last = self.inbox.shed(lambda item: type(item) is Message)
            if keeping:
                assert self._loading is not None
                self.tail = self._loading.at
            else:
                self.tail = self._taken if last is None else last.position
        self._overflowed()

    # ---- states ------------------------------------------------------------------

    def load_anew(self, delay: float) -> None:
        """Read the channel's last position again, then the state."""
        assert self._loading is not None
        self._loading.stop()
        self.inbox.keep_place()
        if self._positions:
            self.tail = None
            self._resync(delay)
        else:
            self._loading.begin(None, delay)

    def go_on_from(self, position: Position | None, delay: float) -> None:
        """Have sent what follows ``position``."""
        self.tail = position
        self._resync(delay)

    # ---- inside ------------------------------------------------------------------

    def _held(self) -> float | None:
        """For how long messages came until now, to tell one misfortune from a series."""
        since, self._subscribed_at = self._subscribed_at, None
        return None if since is None else asyncio.get_running_loop().time() - since

    def _fits(self, size: int) -> bool:
        """Whether there is room for one more; if not, nothing is taken until all is read."""
        budget = self._budget
        if budget.used + size > budget.limit:
            self._shared.make_room(self, size)
        if self.inbox.fits(size):
            return True
        if self._taking:
            logger.debug("%r: the queue is full; going on from %s later", self.channel, self.tail)
            self._overflowed()
        return False

    def _overflowed(self) -> None:
        self._taking = False
        if self._machine.state is State.SUBSCRIBED:
            self._to(State.RECOVERING)

    def _put(self, item: Item, size: int) -> None:
        self.active_at = next(self._turns)
        if type(item) is Gap:
            self._counters.gap(item)
        self.inbox.put(item, size)

    def _resync(self, delay: float) -> None:
        """Have this link subscribe anew, from the tail."""
        self._overflowed()
        self.resync = True
        self._reconciler.resync(self, delay)

    def finish(self, error: Exception | None, *, drop: bool = False) -> asyncio.Future[None] | None:
        """End, once: with None by our own wish, otherwise for the reason given.

        With a reason what is queued is handed over first, unless it is to be dropped.
        """
        if self.over:
            return None
        self.over = True
        self._taking = False
        if self._loading is not None:
            self._loading.stop()
        self.token.cancel()
        confirmed = self._reconciler.leave(self)
        self.error = None if isinstance(error, ClosedOK) else error
        if error is None or drop:
            self.inbox.clear()
        self.inbox.leave()
        if self._machine.state is not State.UNSUBSCRIBED:
            failed = drop or isinstance(error, RequestError)
            self._to(State.FAILED if failed else State.UNSUBSCRIBED)
        if self._entered is not None and not self._entered.done():
            self._entered.set_exception(
                error or RequestError("unsubscribed meanwhile", code=ErrorCode.CANCELLED)
            )
        self.inbox.wake()
        return confirmed
