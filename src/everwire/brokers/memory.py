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
from .stream import RECORD_OVERHEAD, DedupeWindow, Stream

SWEEP = 10.0  # seconds between looks for what is too old
SWEEP_STEP = 0.05  # seconds between two parts of a look
LOOK = 2_000  # channels looked at without a pause


class MemoryBroker(Broker):
    """Streams in a dict; those with a history also in order of their last message."""

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
        self._holding: OrderedDict[str, Stream] = OrderedDict()
        self._options: dict[str, ChannelOptions] = {}
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
        if publication.id:
            dedupe = stream.dedupe
            if dedupe is None:
                limits = self._limits
                dedupe = DedupeWindow(limits.dedupe_window, limits.dedupe_max, now)
                stream.dedupe = dedupe
            scope = publication.scope
            key = f"{len(scope)}:{scope}{publication.id}"
            known = dedupe.find(key, now)
            if known is not None:
                return Published(Position(stream.epoch, known, publication.id), True)
            if dedupe.full():
                return RequestError(code=ErrorCode.DEDUPE_FULL)
            dedupe.remember(key, stream.top + 1)
        offset = stream.top + 1
        message_id = publication.id or f"{stream.epoch[:8]}-{offset}"
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
        stream.used = now
        held = len(stream)
        options = publication.options
        grown = stream.append(record, now, options)
        self._held += grown + (len(stream) - held) * RECORD_OVERHEAD
        if options.history:
            self._holding[channel] = stream
            self._holding.move_to_end(channel)
        if self._held > self._limits.history_total:
            self._evict()
        self._options[channel] = options
        if channel in self._subscribed and self._events is not None:
            self._events.on_record(channel, record)
        return Published(Position(stream.epoch, offset, message_id))

    async def subscribe(self, channels: Sequence[str]) -> None:
        self._subscribed.update(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._subscribed.difference_update(channels)

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

    async def presence_add(self, channel: str, member: Member, lease: float) -> None:
        # The lease is about nodes that die; the members of this process die with it.
        members = self._members.setdefault(channel, {})
        known = members.get(member.connection)
        members[member.connection] = member
        if known != member and channel in self._subscribed and self._events is not None:
            self._events.on_presence(channel, (member,), ())

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
        return stream

    def _forget_one(self, now: float) -> None:
        """Make room for a channel: an id is never forgotten early, so one long unused goes."""
        unused = now - self._limits.dedupe_window
        for channel, stream in islice(self._streams.items(), LOOK):
            if stream.used < unused and channel not in self._subscribed:
                self._forget(channel, stream)
                return
        raise BrokerUnavailable("the broker holds as many channels as it may; later")

    def _forget(self, channel: str, stream: Stream) -> None:
        self._held -= stream.size + len(stream) * RECORD_OVERHEAD
        del self._streams[channel]
        self._holding.pop(channel, None)
        self._options.pop(channel, None)

    def _fresh(self, channel: str, options: ChannelOptions) -> Stream:
        """The channel's stream, without what is too old by now."""
        now = self._clock()
        stream = self._streams.get(channel)
        if stream is None:
            if channel not in self._subscribed:  # asking about a channel does not make it
                return Stream(self._new_epoch(), now)
            stream = self._open(channel, now)
        stream.used = now
        self._trim(stream, now, options)
        return stream

    def _trim(self, stream: Stream, now: float, options: ChannelOptions) -> None:
        size, held = stream.size, len(stream)
        stream.trim(now, options)
        self._held += stream.size - size + (len(stream) - held) * RECORD_OVERHEAD

    def _evict(self) -> None:
        """Empty the histories of the channels that were published to longest ago."""
        while self._held > self._limits.history_total and self._holding:
            _, stream = self._holding.popitem(last=False)
            self._held -= stream.size + len(stream) * RECORD_OVERHEAD
            stream.clear()

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
        options = self._options.get(channel)
        if options is not None and len(stream):
            self._trim(stream, now, options)
        if not len(stream):
            self._holding.pop(channel, None)
        if stream.dedupe is not None and not stream.dedupe.turned(now):
            stream.dedupe = None
        if stream.used < now - self._limits.meta_ttl and channel not in self._subscribed:
            self._forget(channel, stream)
