"""``memory://``: one process, nothing to install; the default.

An acknowledgement survives what the process survives. Each channel gets a new epoch at
each start, so that a client of an earlier process is told of the gap.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from secrets import token_hex
from time import time as wall_time

from ..codes import ErrorCode
from ..errors import BrokerUnavailable, RequestError
from ..limits import Limits
from ..protocol.messages import Member, Position
from .base import (
    Broker,
    BrokerEvents,
    ChannelOptions,
    Completion,
    Page,
    Publication,
    Published,
    PublishOutcome,
    Record,
)
from .stream import DedupeWindow, Stream

SWEEP = 10.0  # seconds between looks for what is too old
SWEEP_STEP = 0.05  # seconds between two parts of a look
LOOK = 2_000  # channels looked at without a pause


class MemoryBroker(Broker):
    """Streams in a dict; those that hold anything also in a list to choose from."""

    url = "memory://"

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        wall: Callable[[], float] = wall_time,
        new_epoch: Callable[[], str] = lambda: token_hex(8),
    ) -> None:
        self._limits = limits or Limits()
        self._wall = wall
        self._new_epoch = new_epoch
        self._streams: dict[str, Stream] = {}
        self._holding: OrderedDict[Stream, float] = OrderedDict()
        """those that hold anything, and when they had been used when last looked at"""
        self._subscribed: set[str] = set()
        self._members: dict[str, dict[str, Member]] = {}
        self._held = 0
        self._unswept: list[str] = []
        self._events: BrokerEvents | None = None
        self._clock: Callable[[], float] = lambda: 0.0
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, events: BrokerEvents) -> None:
        loop = asyncio.get_running_loop()
        self._events = events
        self._clock = loop.time
        self._sweeper = loop.call_later(SWEEP, self._sweep, loop)

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper = self._events = None

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome:
        now = self._clock()
        channel = publication.channel
        stream = self._streams.get(channel)
        if stream is None:
            try:
                stream = self._open(channel, now)
            except BrokerUnavailable as error:
                return error
        offset = stream.top + 1
        message_id = publication.id
        if message_id:
            dedupe = stream.dedupe
            if dedupe is None:
                limits = self._limits
                dedupe = DedupeWindow(limits.dedupe_window, limits.dedupe_max, now)
                stream.dedupe = dedupe
            scope = publication.scope
            key = f"{len(scope)}:{scope}{message_id}"
            known = dedupe.claim(key, offset, now)
            if known > 0:
                return Published(Position(stream.epoch, known, message_id), True)
            if known < 0:
                return RequestError(code=ErrorCode.DEDUPE_FULL)
        else:
            message_id = f"{stream.epoch[:8]}-{offset}"
        record = Record(
            stream.epoch,
            offset,
            message_id,
            int(self._wall() * 1000),
            publication.payload,
            None,
            publication.publisher,
            publication.trace,
        )
        grown = stream.append(record, now, publication.options)
        if grown:
            self._held += grown
            if not stream.listed:
                stream.listed = True
                self._holding[stream] = now
            if self._held > self._limits.history_total:
                self._evict()
        if stream.subscribed and self._events is not None:
            self._events.on_record(channel, record)
        return Published(Position(stream.epoch, offset, message_id))

    async def subscribe(self, channels: Sequence[str]) -> None:
        self._subscribed.update(channels)
        self._note_subscribed(channels, True)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._subscribed.difference_update(channels)
        self._note_subscribed(channels, False)

    def _note_subscribed(self, channels: Sequence[str], subscribed: bool) -> None:
        for channel in channels:
            stream = self._streams.get(channel)
            if stream is not None:
                stream.subscribed = subscribed

    async def read(
        self,
        channel: str,
        since: Position | None,
        *,
        limit: int,
        limit_bytes: int,
        options: ChannelOptions,
    ) -> Page:
        return self._fresh(channel, options).read(since, limit, limit_bytes)

    async def latest(self, channel: str, *, limit: int, options: ChannelOptions) -> Page:
        return self._fresh(channel, options).latest(limit)

    async def presence_add(
        self, channel: str, member: Member, lease: float, instead: str | None = None
    ) -> None:
        # The lease is about nodes that die; the members of this process die with it.
        members = self._members.setdefault(channel, {})
        left = () if instead is None or members.pop(instead, None) is None else (instead,)
        joined = () if members.get(member.connection) == member else (member,)
        members[member.connection] = member
        if (joined or left) and channel in self._subscribed and self._events is not None:
            self._events.on_presence(channel, joined, left)

    async def presence_remove(self, channel: str, connection: str) -> None:
        members = self._members.get(channel)
        if members is None or members.pop(connection, None) is None:
            return
        if not members:
            del self._members[channel]
        if channel in self._subscribed and self._events is not None:
            self._events.on_presence(channel, (), (connection,))

    async def presence(self, channel: str, limit: int) -> tuple[list[Member], int]:
        members = self._members.get(channel, {})
        return list(members.values())[:limit], len(members)

    def _open(self, channel: str, now: float) -> Stream:
        """Begin a channel's numbering.

        Raises:
            BrokerUnavailable: there are as many channels as may be, none of them unused.
        """
        if len(self._streams) >= self._limits.channels:
            self._forget_one(now)
        stream = self._streams[channel] = Stream(self._new_epoch(), now)
        stream.subscribed = channel in self._subscribed
        return stream

    def _forget_one(self, now: float) -> None:
        """Make room for a channel: an id is never forgotten early, so one long unused goes."""
        unused = now - self._limits.dedupe_window
        for channel, stream in islice(self._streams.items(), LOOK):
            if stream.used < unused and not stream.subscribed:
                self._forget(channel, stream)
                return
        raise BrokerUnavailable("the broker holds as many channels as it may; later")

    def _forget(self, channel: str, stream: Stream) -> None:
        self._held += stream.clear()
        self._unlist(stream)
        del self._streams[channel]

    def _unlist(self, stream: Stream) -> None:
        stream.listed = False
        self._holding.pop(stream, None)

    def _fresh(self, channel: str, options: ChannelOptions) -> Stream:
        """The channel's stream, without what is too old by now."""
        now = self._clock()
        stream = self._streams.get(channel)
        if stream is None:
            if channel not in self._subscribed:  # asking about a channel does not make it
                return Stream(self._new_epoch(), now)
            stream = self._open(channel, now)
        stream.used = now
        self._held += stream.trim(now, options)
        return stream

    def _evict(self) -> None:
        """Empty the histories of channels that have not been used for long.

        The first of the list goes, unless it was used since it was put there: then it is
        put last. So using a channel costs nothing, and evicting costs a look for each
        channel that was used meanwhile, up to a limit.
        """
        looks = 0
        while self._held > self._limits.history_total and self._holding:
            stream, used = self._holding.popitem(last=False)
            looks += 1
            if stream.used != used and looks < LOOK:
                self._holding[stream] = stream.used
                continue
            stream.listed = False
            self._held += stream.clear()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let go of what is too old, some channels at a time."""
        now = loop.time()
        if not self._unswept:
            self._unswept = list(self._streams)
        some, self._unswept = self._unswept[:LOOK], self._unswept[LOOK:]
        for channel in some:
            stream = self._streams.get(channel)
            if stream is not None:
                self._sweep_one(channel, stream, now)
        pause = SWEEP_STEP if self._unswept else SWEEP
        self._sweeper = loop.call_later(pause, self._sweep, loop)

    def _sweep_one(self, channel: str, stream: Stream, now: float) -> None:
        if stream.options is not None and len(stream):
            self._held += stream.trim(now, stream.options)
        if stream.listed and not len(stream):
            self._unlist(stream)
        if stream.dedupe is not None and not stream.dedupe.turned(now):
            stream.dedupe = None
        if stream.used < now - self._limits.meta_ttl and not stream.subscribed:
            self._forget(channel, stream)
