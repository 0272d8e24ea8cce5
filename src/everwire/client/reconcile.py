"""Makes what a link is subscribed to agree with what the application wants.

Rule 1: for a channel one request is under way at a time; its answer decides the next.
So whatever the application does in between, one live subscription is left, or none.
Rule 2: few requests are under way for all channels; what is left waits, and the most
important goes first. So a client that comes back neither floods a server, nor stops it
from answering what the application asks.
Rule 3: what a link knows dies with the link: sids, requests, answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from random import Random

from ..errors import ConfigError
from ..limits import ClientLimits
from ..protocol import messages as m
from ..protocol.dialects import Dialect
from .batches import batches, in_order
from .feed import Feed
from .known import NO_RESULT, Known, Phase, results_of
from .link import Answer, Link
from .requests import error_body
from .shared import Shared
from .stats import Counters
from .timers import Timers

logger = logging.getLogger("everwire.client")

ANSWER_FACTOR = 3  # a subscribe may wait for a busy server so many times a request's time-out
MAX_IN_FLIGHT = 2  # subscribe requests that wait for their answer


class Reconciler:
    """The subscriptions of a client, and what the current link knows of them.

    Attributes:
        shared: what they share.
    """

    def __init__(
        self, dialect: Dialect, limits: ClientLimits, counters: Counters, *, random: Random
    ) -> None:
        self._wanted: dict[str, Feed] = {}
        self.shared = Shared(
            self._wanted, limits, counters, positions=dialect.acknowledges, random=random
        )
        self._dialect = dialect
        self._first_batch = limits.subscribe_batch
        self._answer_within = ANSWER_FACTOR * limits.request_timeout
        self._ended: Exception | None = None
        self._link: Link | None = None
        self._known: dict[str, Known] = {}
        self._moving: dict[str, Known] | None = None  # asked of the link that is to be next
        self._by_sid: dict[int, Feed] = {}
        self._dirty: dict[str, None] = {}
        self._in_flight = 0
        self._flush_handle: asyncio.Handle | None = None
        self._retries = Timers(self._retry)

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[Feed]:
        return iter(list(self._wanted.values()))

    # ---- what subscriptions ask for ----------------------------------------------

    def want(self, feed: Feed) -> None:
        """Subscribe, and stay so.

        Raises:
            ConfigError: there is a subscription to the channel.
            ConnectionClosed: or what else ended the client.
        """
        if self._ended is not None:
            raise self._ended.with_traceback(None)
        if feed.channel in self._wanted:
            raise ConfigError(
                f"this client is subscribed to {feed.channel!r} already; share that "
                "subscription, or connect a second client"
            )
        self._wanted[feed.channel] = feed
        self._touch(feed.channel)

    def leave(self, feed: Feed) -> asyncio.Future[None] | None:
        """Unsubscribe. The future is done when the link knows it no more; None: it is so."""
        channel = feed.channel
        if self._wanted.get(channel) is feed:
            del self._wanted[channel]
            self._retries.cancel(channel)
            self._touch(channel)
        known = self._known.get(channel)
        if known is None or known.feed is not feed:
            return None
        if not self._dialect.acknowledges:
            return None
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        known.left.append(left)
        return left

    def resync(self, feed: Feed, delay: float) -> None:
        """Look at a feed again: now, or later; not before the server lets us."""
        delay = max(delay, feed.retry_at - self._now())
        if delay > 0:
            self._retries.start(feed.channel, delay)
        else:
            self._touch(feed.channel)

    # ---- for the session ---------------------------------------------------------

    def first_batch(self, reserved: int, *, moving: bool = False) -> list[m.ChannelRequest]:
        """The channels that go out with ``auth``, of which ``reserved`` bytes are in use.

        With ``moving`` the link that there is delivers on, until the other is ready.
        """
        asking = in_order(feed for feed in self._wanted.values() if feed.due)
        batch = next(batches(asking, self._first_batch, reserved))
        self._moving = None
        if not moving:
            return self._asking(batch)
        self._moving = {feed.channel: Known(feed, beside=True) for feed in batch}
        return [feed.request(beside=True) for feed in batch]

    def released(self) -> None:
        """The link, which was held, takes requests again."""
        self._schedule()

    def attached(self, link: Link, payload: object) -> None:
        """A link is ready; ``payload`` is what it answered to ``auth``."""
        moving, self._moving = self._moving, None
        if moving is not None:
            self._forget_all(moving)
        self._link = link
        asked = list(self._known)
        self._apply(asked, results_of(payload) if asked else {})
        for channel in self._wanted:
            if channel not in self._known:
                self._touch(channel)

    def lost(self) -> None:
        """The link is gone, and what it knew."""
        self._link = None
        self._forget_all({})

    def _forget_all(self, after: dict[str, Known]) -> None:
        """Forget what the link knew; the next one has been asked for what is in ``after``."""
        known, self._known = self._known, after
        self._by_sid = {}
        self._dirty.clear()
        self._in_flight = 0
        self._retries.clear()
        for one in known.values():
            one.tell_left()
        for channel, feed in self._wanted.items():
            if channel not in after or after[channel].feed is not feed:
                feed.lost()

    def end(self, error: Exception) -> None:
        """The client ended."""
        self._ended = error
        self.lost()
        for feed in self:
            feed.finish(error)
        if self._flush_handle is not None:
            self._flush_handle.cancel()

    # ---- what links push -----------------------------------------------------------

    def message(self, message: m.ChannelMessage, size: int) -> None:
        """Hand a message to its feed; one of a feed that ended is ignored."""
        if self._dialect.acknowledges:
            feed = self._by_sid.get(message.sid)
            if feed is not None:
                feed.message(message, size)
        else:
            known = self._known.get(message.channel or "")
            if known is not None and known.phase is not Phase.LEAVING:
                known.feed.message_plain(message, size)

    def pushed(self, message: m.Message) -> bool:
        """Take what concerns subscriptions. False for anything else."""
        match message:
            case m.GapNotice():
                feed = self._live(message.sid, message.channel)
                if feed is not None:
                    feed.gap(message)
            case m.Presence():
                feed = self._live(message.sid, message.channel)
                if feed is not None:
                    feed.roster.update(message)
            case m.Subscribed():
                return self._subscribed(message)
            case m.Unsubscribed():
                self._unsubscribed(message)
            case m.Error() if message.channel is not None:
                self._failed_plain(message, message.channel)
            case _:
                return False
        return True

    def _live(self, sid: int, channel: str | None) -> Feed | None:
        if self._dialect.acknowledges:
            return self._by_sid.get(sid)
        known = self._known.get(channel or "")
        return known.feed if known is not None else None

    def _subscribed(self, message: m.Subscribed) -> bool:
        known = self._known.get(message.channel)
        if known is None:
            # By the server itself: news, unless it is asked for already; or what we left.
            return message.channel in self._wanted or not self._dialect.acknowledges
        if self._dialect.acknowledges:
            if known.phase is Phase.LIVE:
                self._confirm(
                    known,
                    m.ChannelResult(
                        message.channel, message.sid, message.epoch, message.offset, message.id,
                        message.recovered,
                    ),
                )  # fmt: skip
        elif known.phase is Phase.ASKING:
            known.phase = Phase.LIVE
            if self._wanted.get(message.channel) is known.feed:
                known.feed.confirmed_plain(self._now())
            self._touch(message.channel)
        return True

    def _unsubscribed(self, message: m.Unsubscribed) -> None:
        feed = self._by_sid.pop(message.sid, None)
        if feed is None:
            return  # of the plain dialect, or of one that we left already
        self._forget(feed.channel)
        if self._wanted.get(feed.channel) is feed:
            self._refused(feed, message)
        else:
            self._touch(feed.channel)

    def _failed_plain(self, message: m.Error, channel: str) -> None:
        known = self._known.get(channel)
        if known is None or known.phase is not Phase.ASKING:
            logger.warning("the server on %r: %s (%d)", channel, message.message, message.code)
            return
        self._forget(channel)
        self._refused(known.feed, error_body(message))

    # ---- reconciling -----------------------------------------------------------------

    def _touch(self, channel: str) -> None:
        """Look at a channel at the end of this turn of the loop, together with others."""
        if self._link is not None:
            self._dirty[channel] = None
            self._schedule()

    def _schedule(self) -> None:
        if self._flush_handle is None and self._dirty:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        link = self._link
        if link is not None and link.held:
            return  # see released()
        dirty, self._dirty = self._dirty, {}
        if link is None:
            return
        leaving: list[str] = []
        asking: list[Feed] = []
        for channel in dirty:
            known, wanted = self._known.get(channel), self._wanted.get(channel)
            if known is None:
                if wanted is not None and wanted.due and wanted.retry_at <= self._now():
                    asking.append(wanted)
            elif known.phase is Phase.LIVE and (wanted is not known.feed or wanted.resync):
                leaving.append(channel)
        if self._dialect.acknowledges:
            self._leave(link, leaving)
            self._ask_in_order(link, asking)
        else:
            self._ask_plain(link, in_order(asking + self._leave_plain(link, leaving)))

    # ---- requests and their answers -------------------------------------------------

    def _asking(self, batch: list[Feed]) -> list[m.ChannelRequest]:
        for feed in batch:
            self._known[feed.channel] = Known(feed)
        return [feed.request() for feed in batch]

    def _ask_plain(self, link: Link, batch: list[Feed]) -> None:
        for request in self._asking(batch):
            link.send(m.Subscribe("", [request]))

    def _ask_in_order(self, link: Link, asking: list[Feed]) -> None:
        for batch in batches(in_order(asking), link.subscribe_batch):
            if self._in_flight < MAX_IN_FLIGHT:
                self._ask(link, batch)
            else:  # the next answer has them looked at again
                self._dirty.update(dict.fromkeys(feed.channel for feed in batch))

    def _ask(self, link: Link, batch: list[Feed]) -> None:
        if not batch:
            return
        self._in_flight += 1
        requests = self._asking(batch)
        channels = [request.channel for request in requests]
        request_id = link.next_id()
        encoded = link.encode(m.Subscribe(request_id, requests))
        link.ask(request_id, encoded, self._asked, channels, self._answer_within)

    def _leave(self, link: Link, channels: list[str]) -> None:
        for channel in channels:
            known = self._known[channel]
            known.phase = Phase.LEAVING
            if known.sid is not None:
                self._by_sid.pop(known.sid, None)
        size = link.subscribe_batch
        for start in range(0, len(channels), size):
            batch = channels[start : start + size]
            request_id = link.next_id()
            encoded = link.encode(m.Unsubscribe(request_id, batch))
            link.ask(request_id, encoded, self._left, batch, self._answer_within)

    def _leave_plain(self, link: Link, channels: list[str]) -> list[Feed]:
        """Nobody confirms: return those to subscribe to again at once."""
        again: list[Feed] = []
        for channel in channels:
            link.send(m.Unsubscribe("", [channel]))
            self._forget(channel)
            wanted = self._wanted.get(channel)
            if wanted is not None and wanted.due:
                again.append(wanted)
        return again

    def _asked(self, channels: list[str], answer: Answer) -> None:
        self._in_flight -= 1
        self._schedule()
        if isinstance(answer, m.Response):
            self._apply(channels, results_of(answer.payload))
            return
        body = error_body(answer)
        self._apply(channels, {one: m.ChannelResult(one, error=body) for one in channels})

    def _apply(self, channels: list[str], results: dict[str, m.ChannelResult]) -> None:
        for channel in channels:
            known = self._known[channel]
            result = results.get(channel)
            if result is None:
                result = m.ChannelResult(channel, error=NO_RESULT)
            if result.error is not None:
                self._forget(channel)
                if self._wanted.get(channel) is known.feed:
                    self._refused(known.feed, result.error)
                self._touch(channel)
            else:
                self._confirm(known, result)

    def _confirm(self, known: Known, result: m.ChannelResult) -> None:
        known.phase = Phase.LIVE
        if known.sid is not None:
            self._by_sid.pop(known.sid, None)
        known.sid = result.sid
        feed = known.feed
        if self._wanted.get(result.channel) is feed:
            if result.sid is not None:
                self._by_sid[result.sid] = feed
            known.confirm(result, self._now())
        else:
            self._touch(result.channel)

    def _left(self, channels: list[str], answer: Answer) -> None:
        if isinstance(answer, m.Error):
            logger.info("unsubscribing failed: %s", answer.message)
        for channel in channels:
            self._forget(channel)
            self._touch(channel)

    def _refused(self, feed: Feed, error: m.ErrorBody | m.Unsubscribed) -> None:
        delay = feed.refused(error, self._now())
        if delay is not None:
            self._retries.start(feed.channel, delay)

    def _forget(self, channel: str) -> None:
        known = self._known.pop(channel, None)
        if known is not None:
            if known.sid is not None:
                self._by_sid.pop(known.sid, None)
            known.tell_left()

    def _retry(self, channel: str) -> None:
        feed = self._wanted.get(channel)
        if feed is not None:
            feed.retry_at = 0.0
        self._touch(channel)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
