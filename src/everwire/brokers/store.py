"""What the nodes of one process share in memory: channels, members, commands and leases."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice

from ..errors import BrokerUnavailable
from ..limits import Limits
from .base import BrokerEvents, ChannelOptions, PresenceChange
from .claims import Claims
from .members import Rosters
from .stream import Stream

SWEEP = 10.0  # seconds between looks for what is too old
SWEEP_STEP = 0.05  # seconds between two parts of a look
LOOK = 2_000  # channels looked at without a pause


class Memory:
    """Streams in a dict; those that hold anything also in a list to choose from; the nodes.

    What :class:`.memory.MemoryBroker` does for each message it does here, without a call.
    """

    def __init__(
        self, limits: Limits, wall: Callable[[], float], new_epoch: Callable[[], str]
    ) -> None:
        self.limits = limits
        self.wall = wall
        self.clock: Callable[[], float] = lambda: 0.0
        self.streams: dict[str, Stream] = {}
        self.holding: OrderedDict[Stream, float] = OrderedDict()
        """those that hold anything, and when they had been used when last looked at"""
        self.held = 0
        self.subscribed: dict[str, dict[str, BrokerEvents]] = {}
        """the nodes that are told of a channel, by their names"""
        self.watched: dict[str, set[str]] = {}
        """the prefixes of which nodes are told all channels, by the nodes' names"""
        self.rosters = Rosters()
        self.claims = Claims(limits, self.alive)
        self.nodes: dict[str, BrokerEvents] = {}
        self.leases: dict[str, float] = {}
        self._given_up: set[str] = set()
        """nodes that run, and whose lease ran out all the same"""
        self.new_epoch = new_epoch
        self._unswept: list[str] = []
        self._sweeper: asyncio.TimerHandle | None = None

    # ---- nodes ------------------------------------------------------------------

    def join(self, events: BrokerEvents) -> None:
        """A node starts. The first one starts the sweeping."""
        loop = asyncio.get_running_loop()
        self.clock = loop.time
        self.nodes[events.id] = events
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP, self._sweep, loop)

    def leave(self, node: str) -> None:
        """A node stops: what it has not given up by now it gives up here."""
        self.nodes.pop(node, None)
        self._given_up.discard(node)
        for channel in [name for name, nodes in self.subscribed.items() if node in nodes]:
            self.note(channel, node, None)
        self.watch(node, set(), self.watched.get(node, set()))
        if self.leases.pop(node, None) is not None:
            self.tell(self.rosters.gone(node))
        if not self.nodes and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def note(self, channel: str, node: str, events: BrokerEvents | None) -> None:
        """Note that a node is told of a channel, or (None) no longer is."""
        nodes = self.subscribed.setdefault(channel, {})
        if events is not None:
            nodes[node] = events
        else:
            nodes.pop(node, None)
            if not nodes:
                del self.subscribed[channel]
        stream = self.streams.get(channel)
        if stream is not None:
            stream.listeners = self.listeners(channel)

    def watch(self, node: str, more: set[str], less: set[str]) -> None:
        """Note that a node is told of all channels with these prefixes, and no longer of those."""
        prefixes = self.watched.get(node, set()) - less | more
        if prefixes:
            self.watched[node] = prefixes
        else:
            self.watched.pop(node, None)
        changed = tuple(more | less)
        for channel, stream in self.streams.items():
            if channel.startswith(changed):
                stream.listeners = self.listeners(channel)

    def listeners(self, channel: str) -> tuple[BrokerEvents, ...]:
        """Those who are told of a channel's messages."""
        told = self.subscribed.get(channel, {})
        for node, prefixes in self.watched.items():
            if node in self.nodes and channel.startswith(tuple(prefixes)):
                told = {**told, node: self.nodes[node]}
        return tuple(told.values())

    def alive(self, node: str) -> bool:
        """Whether a node's lease holds."""
        return self.leases.get(node, -1.0) > self.clock()

    def renew(self, node: str, lease: float) -> bool:
        """See :meth:`.base.Broker.renew`."""
        now = self.clock()
        held = node not in self._given_up
        self._given_up.discard(node)
        self.leases[node] = now + lease
        for other in [name for name, until in self.leases.items() if until <= now]:
            del self.leases[other]
            if other in self.nodes:
                self._given_up.add(other)
            self.tell(self.rosters.gone(other))
        self.tell(self.rosters.overdue(now))
        return held

    def tell(self, changes: Iterable[tuple[str, PresenceChange | None]]) -> None:
        """Tell those who are subscribed of who came and went."""
        for channel, change in changes:
            if change is not None:
                for events in self.listeners(channel):
                    events.on_presence(channel, change)

    # ---- streams ----------------------------------------------------------------

    def open(self, channel: str, now: float) -> Stream:
        """Begin a channel's numbering.

        Raises:
            BrokerUnavailable: there are as many channels as may be, none of them unused.
        """
        if len(self.streams) >= self.limits.channels:
            self._forget_one(now)
        stream = self.streams[channel] = Stream(self.new_epoch(), now)
        stream.listeners = self.listeners(channel)
        return stream

    def _forget_one(self, now: float) -> None:
        """Make room for a channel: an id is never forgotten early, so one long unused goes."""
        unused = now - self.limits.dedupe_window
        for channel, stream in islice(self.streams.items(), LOOK):
            if stream.used < unused and channel not in self.subscribed:
                self._forget(channel, stream)
                return
        raise BrokerUnavailable("the broker holds as many channels as it may; later")

    def _forget(self, channel: str, stream: Stream) -> None:
        self.held += stream.clear()
        self._unlist(stream)
        del self.streams[channel]

    def _unlist(self, stream: Stream) -> None:
        stream.listed = False
        self.holding.pop(stream, None)

    def fresh(self, channel: str, options: ChannelOptions) -> Stream:
        """The channel's stream, without what is too old by now."""
        now = self.clock()
        stream = self.streams.get(channel)
        if stream is None:
            if channel not in self.subscribed:  # asking about a channel does not make it
                return Stream(self.new_epoch(), now)
            stream = self.open(channel, now)
        stream.used = now
        self.held += stream.trim(now, options)
        return stream

    def evict(self) -> None:
        """Empty the histories of channels that have not been used for long.

        The first of the list goes, unless it was used since it was put there: then it is
        put last. So using a channel costs nothing, and evicting costs a look for each
        channel that was used meanwhile, up to a limit.
        """
        looks = 0
        while self.held > self.limits.history_total and self.holding:
            stream, used = self.holding.popitem(last=False)
            looks += 1
            if stream.used != used and looks < LOOK:
                self.holding[stream] = stream.used
                continue
            stream.listed = False
            self.held += stream.clear()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let go of what is too old, some channels at a time."""
        now = loop.time()
        if not self._unswept:
            self._unswept = list(self.streams)
        some, self._unswept = self._unswept[:LOOK], self._unswept[LOOK:]
        for channel in some:
            stream = self.streams.get(channel)
            if stream is not None:
                self._sweep_one(channel, stream, now)
        pause = SWEEP_STEP if self._unswept else SWEEP
        self._sweeper = loop.call_later(pause, self._sweep, loop)

    def _sweep_one(self, channel: str, stream: Stream, now: float) -> None:
        if stream.options is not None and len(stream):
            self.held += stream.trim(now, stream.options)
        if stream.listed and not len(stream):
            self._unlist(stream)
        if stream.dedupe is not None and not stream.dedupe.turned(now):
            stream.dedupe = None
        if stream.used < now - self.limits.meta_ttl and channel not in self.subscribed:
            self._forget(channel, stream)
