"""Makes what a link is subscribed to agree with what the application wants.

Rule 1: for a channel one request is under way at a time; its answer decides the next.
So whatever the application does in between, one live subscription is left, or none.
Rule 2: what a link knows dies with the link: sids, requests, answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from enum import Enum, auto

import msgspec

from ..codes import ErrorCode
from ..errors import ConfigError
from ..limits import ClientLimits
from ..protocol import messages as m
from ..protocol.dialects import Dialect
from .batches import batches
from .link import Answer, Link
from .requests import error_body
from .subscription import Subscription

logger = logging.getLogger("everwire.client")

ANSWER_FACTOR = 3  # a subscribe may wait for a busy server so many times a request's time-out


class _Phase(Enum):
    ASKING = auto()
    LIVE = auto()
    LEAVING = auto()


class _Known:
    """What the current link knows of a channel."""

    __slots__ = ("left", "phase", "sid", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.phase = _Phase.ASKING
        self.subscription = subscription
        self.sid: int | None = None
        self.left: list[asyncio.Future[None]] = []


class _Results(msgspec.Struct):
    subscriptions: list[m.ChannelResult] = []


class Reconciler:
    """The subscriptions of a client, and what the current link knows of them."""

    def __init__(self, dialect: Dialect, limits: ClientLimits) -> None:
        self._dialect = dialect
        self._first_batch = limits.subscribe_batch
        self._answer_within = ANSWER_FACTOR * limits.request_timeout
        self._wanted: dict[str, Subscription] = {}
        self._ended: Exception | None = None
        self._link: Link | None = None
        self._known: dict[str, _Known] = {}
        self._by_sid: dict[int, Subscription] = {}
        self._dirty: dict[str, None] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._retries: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._wanted.values()))

    # ---- what subscriptions ask for ----------------------------------------------

    def want(self, subscription: Subscription) -> None:
        """Subscribe, and stay so.

        Raises:
            ConfigError: there is a subscription to the channel.
            ConnectionClosed: or what else ended the client.
        """
        if self._ended is not None:
            raise self._ended.with_traceback(None)
        if subscription.channel in self._wanted:
            raise ConfigError(
                f"this client is subscribed to {subscription.channel!r} already; share that "
                "subscription, or connect a second client"
            )
        self._wanted[subscription.channel] = subscription
        self._touch(subscription.channel)

    def leave(self, subscription: Subscription) -> asyncio.Future[None] | None:
        """Unsubscribe. The future is done when the link knows it no more; None: it is so."""
        channel = subscription.channel
        if self._wanted.get(channel) is subscription:
            del self._wanted[channel]
            self._cancel_retry(channel)
            self._touch(channel)
        known = self._known.get(channel)
        if known is None or known.subscription is not subscription:
            return None
        if not self._dialect.acknowledges:
            return None
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        known.left.append(left)
        return left

    def resync(self, subscription: Subscription, delay: float) -> None:
        """Subscribe anew on this link, from the subscription's tail."""
        if delay > 0:
            self._later(subscription.channel, delay)
        else:
            self._touch(subscription.channel)

    # ---- for the session ---------------------------------------------------------

    def first_batch(self, reserved: int) -> list[m.ChannelRequest]:
        """The channels that go out with ``auth``, of which ``reserved`` bytes are in use."""
        asking = [sub for sub in self._wanted.values() if sub.due]
        batch = next(batches(asking, self._first_batch, reserved))
        return self._asking(batch)

    def attached(self, link: Link, payload: object) -> None:
        """A link is ready; ``payload`` is what it answered to ``auth``."""
        self._link = link
        asked = list(self._known)
        results = msgspec.convert(payload, _Results) if asked else _Results()
        self._apply(asked, results.subscriptions)
        for channel in self._wanted:
            if channel not in self._known:
                self._touch(channel)

    def lost(self) -> None:
        """The link is gone, and what it knew."""
        self._link = None
        known, self._known = self._known, {}
        self._by_sid = {}
        self._dirty.clear()
        for channel in list(self._retries):
            self._cancel_retry(channel)
        for one in known.values():
            _tell_left(one)
        for subscription in self._wanted.values():
            subscription.lost()

    def end(self, error: Exception) -> None:
        """The client ended."""
        self._ended = error
        self.lost()
        for subscription in self:
            subscription.finish(error)
        if self._flush_handle is not None:
            self._flush_handle.cancel()

    # ---- what links push -----------------------------------------------------------

    def message(self, message: m.ChannelMessage, size: int) -> None:
        """Hand a message to its subscription; one of a subscription that ended is ignored."""
        if self._dialect.acknowledges:
            subscription = self._by_sid.get(message.sid)
            if subscription is not None:
                subscription.message(message, size)
        else:
            known = self._known.get(message.channel or "")
            if known is not None and known.phase is not _Phase.LEAVING:
                known.subscription.message_plain(message, size)

    def pushed(self, message: m.Message) -> bool:
        """Take what concerns subscriptions. False for anything else."""
        match message:
            case m.GapNotice():
                subscription = self._live(message.sid, message.channel)
                if subscription is not None:
                    subscription.gap(message)
            case m.Presence():
                subscription = self._live(message.sid, message.channel)
                if subscription is not None:
                    subscription.present(message)
            case m.Subscribed():
                self._subscribed(message)
            case m.Unsubscribed():
                self._unsubscribed(message)
            case m.Error() if message.channel is not None:
                self._failed_plain(message, message.channel)
            case _:
                return False
        return True

    def _live(self, sid: int, channel: str | None) -> Subscription | None:
        if self._dialect.acknowledges:
            return self._by_sid.get(sid)
        known = self._known.get(channel or "")
        return known.subscription if known is not None else None

    def _subscribed(self, message: m.Subscribed) -> None:
        known = self._known.get(message.channel)
        if known is None:
            return
        if self._dialect.acknowledges:
            if known.phase is _Phase.LIVE:
                self._confirm(
                    known,
                    m.ChannelResult(
                        message.channel, message.sid, message.epoch, message.offset, message.id,
                        message.recovered,
                    ),
                )  # fmt: skip
        elif known.phase is _Phase.ASKING:
            known.phase = _Phase.LIVE
            if self._wanted.get(message.channel) is known.subscription:
                known.subscription.confirmed_plain(self._now())
            self._touch(message.channel)

    def _unsubscribed(self, message: m.Unsubscribed) -> None:
        subscription = self._by_sid.pop(message.sid, None)
        if subscription is None:
            return  # of the plain dialect, or of one that we left already
        self._forget(subscription.channel)
        if self._wanted.get(subscription.channel) is subscription:
            self._refused(subscription, message)
        else:
            self._touch(subscription.channel)

    def _failed_plain(self, message: m.Error, channel: str) -> None:
        known = self._known.get(channel)
        if known is None or known.phase is not _Phase.ASKING:
            logger.warning("the server on %r: %s (%d)", channel, message.message, message.code)
            return
        self._forget(channel)
        self._refused(known.subscription, error_body(message))

    # ---- reconciling -----------------------------------------------------------------

    def _touch(self, channel: str) -> None:
        """Look at a channel at the end of this turn of the loop, together with others."""
        if self._link is None:
            return
        self._dirty[channel] = None
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        link = self._link
        dirty, self._dirty = self._dirty, {}
        if link is None:
            return
        leaving: list[str] = []
        asking: list[Subscription] = []
        for channel in dirty:
            known, wanted = self._known.get(channel), self._wanted.get(channel)
            if known is None:
                if wanted is not None and wanted.due and wanted.retry_at <= self._now():
                    asking.append(wanted)
            elif known.phase is _Phase.LIVE and (wanted is not known.subscription or wanted.resync):
                leaving.append(channel)
        if self._dialect.acknowledges:
            self._leave(link, leaving)
            for batch in batches(asking, link.subscribe_batch):
                self._ask(link, batch)
        else:
            self._ask_plain(link, asking + self._leave_plain(link, leaving))

    # ---- requests and their answers -------------------------------------------------

    def _asking(self, batch: list[Subscription]) -> list[m.ChannelRequest]:
        for subscription in batch:
            self._known[subscription.channel] = _Known(subscription)
        return [subscription.request() for subscription in batch]

    def _ask_plain(self, link: Link, batch: list[Subscription]) -> None:
        for request in self._asking(batch):
            link.send(m.Subscribe("", [request]))

    def _ask(self, link: Link, batch: list[Subscription]) -> None:
        if not batch:
            return
        requests = self._asking(batch)
        channels = [request.channel for request in requests]
        request_id = link.next_id()
        encoded = link.encode(m.Subscribe(request_id, requests))
        link.ask(request_id, encoded, self._asked, channels, self._answer_within)

    def _leave(self, link: Link, channels: list[str]) -> None:
        for channel in channels:
            known = self._known[channel]
            known.phase = _Phase.LEAVING
            if known.sid is not None:
                self._by_sid.pop(known.sid, None)
        size = link.subscribe_batch
        for start in range(0, len(channels), size):
            batch = channels[start : start + size]
            request_id = link.next_id()
            encoded = link.encode(m.Unsubscribe(request_id, batch))
            link.ask(request_id, encoded, self._left, batch, self._answer_within)

    def _leave_plain(self, link: Link, channels: list[str]) -> list[Subscription]:
        """Nobody confirms: return those to subscribe to again at once."""
        again: list[Subscription] = []
        for channel in channels:
            link.send(m.Unsubscribe("", [channel]))
            self._forget(channel)
            wanted = self._wanted.get(channel)
            if wanted is not None and wanted.due:
                again.append(wanted)
        return again

    def _asked(self, channels: list[str], answer: Answer) -> None:
        if isinstance(answer, m.Response):
            self._apply(channels, msgspec.convert(answer.payload, _Results).subscriptions)
            return
        body = error_body(answer)
        self._apply(channels, [m.ChannelResult(channel, error=body) for channel in channels])

    def _apply(self, channels: list[str], results: list[m.ChannelResult]) -> None:
        by_channel = {result.channel: result for result in results}
        for channel in channels:
            known = self._known[channel]
            result = by_channel.get(channel)
            if result is None:
                result = m.ChannelResult(channel, error=_MISSING)
            if result.error is not None:
                self._forget(channel)
                if self._wanted.get(channel) is known.subscription:
                    self._refused(known.subscription, result.error)
                self._touch(channel)
            else:
                self._confirm(known, result)

    def _confirm(self, known: _Known, result: m.ChannelResult) -> None:
        known.phase = _Phase.LIVE
        if known.sid is not None:
            self._by_sid.pop(known.sid, None)
        known.sid = result.sid
        subscription = known.subscription
        if self._wanted.get(result.channel) is subscription:
            if result.sid is not None:
                self._by_sid[result.sid] = subscription
            subscription.confirmed(result, self._now())
        else:
            self._touch(result.channel)

    def _left(self, channels: list[str], answer: Answer) -> None:
        if isinstance(answer, m.Error):
            logger.info("unsubscribing failed: %s", answer.message)
        for channel in channels:
            self._forget(channel)
            self._touch(channel)

    def _refused(self, subscription: Subscription, error: m.ErrorBody | m.Unsubscribed) -> None:
        delay = subscription.refused(error, self._now())
        if delay is not None:
            self._later(subscription.channel, delay)

    def _forget(self, channel: str) -> None:
        known = self._known.pop(channel, None)
        if known is not None:
            if known.sid is not None:
                self._by_sid.pop(known.sid, None)
            _tell_left(known)

    def _later(self, channel: str, delay: float) -> None:
        self._cancel_retry(channel)
        loop = asyncio.get_running_loop()
        self._retries[channel] = loop.call_later(delay, self._retry, channel)

    def _retry(self, channel: str) -> None:
        self._retries.pop(channel, None)
        subscription = self._wanted.get(channel)
        if subscription is not None:
            subscription.retry_at = 0.0
        self._touch(channel)

    def _cancel_retry(self, channel: str) -> None:
        timer = self._retries.pop(channel, None)
        if timer is not None:
            timer.cancel()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


_MISSING = m.ErrorBody(
    ErrorCode.INTERNAL, "internal", "the server did not answer for this channel", temporary=True
)


def _tell_left(known: _Known) -> None:
    for left in known.left:
        if not left.done():
            left.set_result(None)
