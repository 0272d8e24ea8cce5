"""Fan-out: from one message of the broker to one write for each reader.

A message is encoded once for each dialect and framed once. What arrives within one turn
of the event loop is joined, and each reader gets one write. Nearly all that is left is
the kernel's send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING

from ..protocol.messages import Position
from ..protocol.positions import Place, place
from ..protocol.states import SubscriptionState
from .backlog import Backlog
from .filters import FilteredLane
from .patterns import Pattern, Patterns
from .registry import Channel, Lane, Reader, Subscription

if TYPE_CHECKING:
    from ..brokers.base import ChannelOptions, PresenceChange, Record
    from ..limits import Limits

IDLE = 5.0  # seconds that a channel without subscribers stays subscribed at the broker


class Hub:
    """The registry of a node, and the one loop that writes.

    Args:
        loop: the event loop.
        recover: is called with subscriptions that left their lane and must be sent what
            follows their position from history, whenever their reader can take it.
        presence: is called with a channel that somebody watches, and who came and went.
        overflow: is called with a subscription for each message of a channel without
            history for which there was no room; see :mod:`.backlog`.
        limits: the node's.
        lost: is called with a channel whose last number the broker gives to another message.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        recover: Callable[[Iterable[Subscription]], None],
        presence: Callable[[Channel, PresenceChange], None],
        overflow: Callable[[Subscription], None],
        limits: Limits,
        lost: Callable[[Channel], None] = lambda channel: None,
    ) -> None:
        self._loop = loop
        self._lost = lost
        self._call_soon = loop.call_soon
        self._recover = recover
        self._presence = presence
        self._overflow = overflow
        self._limits = limits
        self._sids = count(1)
        self._dirty: list[Lane] = []
        self._touched: list[Reader] = []
        self._stuck: list[tuple[Reader, Iterable[Subscription]]] = []
        self._armed = False
        self._idle: dict[Channel, float] = {}
        self.channels: dict[str, Channel] = {}
        self.patterns = Patterns(self.channels, self._sids)
        self.subscriptions = 0
        """how many are registered"""
        self.deliveries = 0
        """messages of channels written, each as often as it has readers"""
        self.notes = 0
        """messages written to one reader each: answers, pings and so on"""
        self.bytes_out = 0
        """bytes of all frames written"""

    # ---- registry ------------------------------------------------------------

    def open(self, key: str, name: str, options: ChannelOptions) -> tuple[Channel, bool]:
        """Return the channel, and whether the broker must be asked for it first."""
        channel = self.channels.get(key)
        if channel is not None:
            channel.options = options
            return channel, self.patterns.adopt(channel)
        channel = self.channels[key] = Channel(key, name, next(self._sids), options)
        channel.listeners = self.patterns.covering(key)
        return channel, True

    def open_pattern(
        self, key: str, name: str, options: ChannelOptions, prefix: str
    ) -> tuple[Channel, bool]:
        """Return the pattern, and whether the broker must be asked to watch ``prefix`` first."""
        known = self.channels.get(key)
        if known is not None:
            return known, False
        sid = next(self._sids)
        pattern = Pattern(key, name, sid, options, prefix=prefix, deliver=self.on_record)
        self.patterns.add(pattern)
        return pattern, True

    def forget(self, channel: Channel) -> None:
        """Drop a channel that has no subscriptions."""
        self._idle.pop(channel, None)
        if self.channels.get(channel.key) is channel:
            del self.channels[channel.key]
        self.patterns.forget(channel)

    def add(self, subscription: Subscription) -> None:
        """Register a subscription that is not in a lane yet."""
        channel = subscription.channel
        self.subscriptions += subscription.reader not in channel.subscriptions
        channel.subscriptions[subscription.reader] = subscription
        self._idle.pop(channel, None)

    def remove(self, subscription: Subscription) -> None:
        """Take a subscription out, in whatever state it is. Twice is once."""
        channel = subscription.channel
        self._leave(subscription)
        subscription.state = SubscriptionState.UNSUBSCRIBED
        if channel.subscriptions.get(subscription.reader) is subscription:
            del channel.subscriptions[subscription.reader]
            self.subscriptions -= 1
            channel.watchers.pop(subscription.reader, None)
            if not channel.subscriptions:
                self._idle[channel] = self._loop.time()

    def unused(self, channel: Channel) -> None:
        """A channel was opened for a subscription that did not come about."""
        if not channel.subscriptions:
            self._idle.setdefault(channel, self._loop.time())

    def idle(self, now: float) -> list[Channel]:
        """The channels that nobody has been subscribed to for a while."""
        self.patterns.look(now)
        return [channel for channel, since in self._idle.items() if now - since >= IDLE]

    def join(self, subscription: Subscription) -> bool:
        """Let a subscription that is at the channel's last message go on live.

        Returns:
            Whether it does. If it is behind, read on; if the broker has not told this
            node of so much yet, it is joined as soon as it has.
        """
        channel = subscription.channel
        if subscription.epoch != channel.epoch or subscription.reader.paused:
            return False
        last = channel.last or 0
        if subscription.offset > last:
            if subscription not in channel.waiting:
                channel.waiting.append(subscription)
            return True
        if subscription.offset < last:
            return False
        lane = self._lane(subscription)
        if lane.pending is not None:
            self.flush()
        lane.members[subscription.reader] = subscription.reader.write
        self._discard(subscription)
        subscription.state = SubscriptionState.SUBSCRIBED
        return True

    @staticmethod
    def _lane(subscription: Subscription) -> Lane:
        """The lane of a subscription, made if there is none."""
        channel, key = subscription.channel, subscription.lane_key
        chosen, sent, wire = subscription.filter, subscription.sent, subscription.reader.wire
        lane = channel.lanes.get(key)
        if lane is None:
            lane = channel.lanes[key] = (
                channel.make_lane(wire)
                if chosen is None
                else FilteredLane(channel, wire, chosen, sent)
            )
        elif isinstance(lane, FilteredLane):
            lane.passed = min(lane.passed, sent)
        return lane

    def keep(self, subscription: Subscription) -> None:
        """From now on, keep what comes for a subscription that is not live.

        For channels without history; elsewhere there is nothing to be done. A new one needs
        no position for that yet; for one that has missed something already nothing is kept.
        """
        channel = subscription.channel
        if (
            channel.options.history <= 0
            and subscription.backlog is None
            and (
                subscription.state is SubscriptionState.SUBSCRIBING
                or subscription.offset >= (channel.last or 0)
            )
        ):
            subscription.backlog = Backlog(subscription, self._limits, self._overflow)
            channel.listeners += (subscription.backlog,)

    @staticmethod
    def _discard(subscription: Subscription) -> None:
        backlog, subscription.backlog = subscription.backlog, None
        if backlog is not None:
            channel = subscription.channel
            channel.listeners = tuple(one for one in channel.listeners if one is not backlog)

    def detach(self, subscriptions: Iterable[Subscription]) -> list[Subscription]:
        """Take live subscriptions out of their lanes, at the place that they have reached.

        Returns:
            Those that were live: they go on from history.
        """
        live = [one for one in subscriptions if one.state is SubscriptionState.SUBSCRIBED]
        for subscription in live:
            self._leave(subscription)
            subscription.move(subscription.channel.position)
            subscription.state = SubscriptionState.RECOVERING
            self.keep(subscription)
        return live

    def _leave(self, subscription: Subscription) -> None:
        channel = subscription.channel
        self._discard(subscription)
        if subscription in channel.waiting:
            channel.waiting.remove(subscription)
        if subscription.state is SubscriptionState.SUBSCRIBED:
            key = subscription.lane_key
            lane = channel.lanes[key]
            if lane.pending is not None:
                self.flush()
            del lane.members[subscription.reader]
            if not lane.members:
                del channel.lanes[key]

    # ---- from the broker -----------------------------------------------------

    def on_record(self, key: str, record: Record) -> None:
        """Deliver a message that the broker told of."""
        channel = self.channels.get(key) or self.patterns.bring(key)
        if channel is None:
            return
        last, offset = channel.last, record.offset
        if last is None:  # nobody has read the numbering yet
            channel.epoch = record.epoch
        elif (
            channel.epoch != record.epoch or offset != last + 1 or record.prev is not None
        ) and not self._is_next(channel, last, record):
            return
        channel.last = offset
        channel.last_id = record.id
        for lane in channel.lanes.values():
            frame = lane.frame(record)
            if not frame:
                continue
            if lane.pending is not None:
                lane.pending.append(frame)
                continue
            lane.pending = [frame]
            self._dirty.append(lane)
            if not self._armed:
                self._armed = True
                self._call_soon(self._turn_end)
        if channel.waiting:
            self._admit(channel)
        for listener in channel.listeners:
            listener.tell(channel, record)

    def _is_next(self, channel: Channel, last: int, record: Record) -> bool:
        """Whether a message is next; if something is missing before it, see to that."""
        if channel.epoch == record.epoch:
            where = place(last, record.offset, record.prev)
            if record.offset == last and channel.last_id not in ("", record.id):
                self._lost(channel)
            elif where is not Place.HOLE:
                return where is Place.NEXT
        self._restart(channel, record)
        return False

    def on_presence(self, key: str, change: PresenceChange) -> None:
        """Tell those who watch a channel who came and went."""
        channel = self.channels.get(key)
        if channel is not None and channel.watchers:
            self._presence(channel, change)

    def learn(self, channel: Channel, top: Position) -> None:
        """Take note of a channel's numbering, as it was just read.

        The first reading tells where the channel is. A later one with another epoch tells
        that the broker numbers anew: then everybody goes on from history.
        """
        if channel.last is None:
            channel.epoch, channel.last, channel.last_id = top.epoch, top.offset, top.id
        elif channel.epoch != top.epoch:
            self.renumber(channel, top)

    def _admit(self, channel: Channel) -> None:
        """Join those that were waiting for the broker to tell of what they had read."""
        waiting, channel.waiting = channel.waiting, []
        behind = [subscription for subscription in waiting if not self.join(subscription)]
        if behind:
            self._recover(behind)

    def _restart(self, channel: Channel, record: Record) -> None:
        """The broker left something out, or numbers anew: everybody goes on from history.

        Where there is none, from this message: the hole before it is seen by its number.
        """
        self.renumber(channel, Position(record.epoch, record.offset, record.id))
        for listener in channel.listeners:
            listener.tell(channel, record)

    def renumber(self, channel: Channel, top: Position) -> None:
        """Take ``top`` for the channel's last message: everybody goes on from history."""
        for listener in channel.listeners:
            listener.missed()
        behind = self.detach(list(channel.subscriptions.values())) + channel.waiting
        channel.waiting = []
        if channel.epoch and not top.epoch:
            # Not known before it is read; nor is where what was kept would belong.
            for subscription in behind:
                self._discard(subscription)
        channel.epoch, channel.last, channel.last_id = top.epoch, top.offset, top.id
        self._recover(behind)

    # ---- writing -------------------------------------------------------------

    def touch(self, reader: Reader) -> None:
        """Have ``reader.out``, which was None until now, written at the turn's end."""
        self._touched.append(reader)
        if not self._armed:
            self._armed = True
            self._call_soon(self._turn_end)

    def delivered(self, messages: int) -> None:
        """Count what is put into a reader's ``out`` as one piece: messages of its channels."""
        self.deliveries += messages
        self.notes -= 1

    def stuck(self, reader: Reader, subscriptions: Iterable[Subscription]) -> None:
        """Take a reader whose buffer is full out of its lanes, at the turn's end.

        It may be told in the middle of the loop that writes, so nothing changes yet.
        """
        self._stuck.append((reader, subscriptions))
        if not self._armed:
            self._armed = True
            self._call_soon(self._turn_end)

    def _turn_end(self) -> None:
        self._armed = False
        self.flush()
        if self._stuck:
            stuck, self._stuck = self._stuck, []
            for reader, subscriptions in stuck:
                if reader.paused:
                    self._recover(self.detach(list(subscriptions)))

    def flush(self) -> None:
        """Write everything that is waiting: each reader gets one write.

        This loop is the one place where a layer is skipped: a member's value is its
        transport's own ``write``, because after a system call each Python call costs
        two to three per cent of a delivery.
        """
        dirty, self._dirty = self._dirty, []
        touched, self._touched = self._touched, []
        handed = 0  # pieces of what readers have in ``out`` that are no notes
        if len(dirty) > 1:
            for lane in dirty:
                pending, lane.pending = lane.pending, None
                assert pending is not None
                data = pending[0] if len(pending) == 1 else b"".join(pending)
                readers = len(lane.members)
                handed += readers
                self.deliveries += readers * len(pending)
                for reader in lane.members:
                    if reader.out is None:
                        reader.out = [data]
                        touched.append(reader)
                    else:
                        reader.out.append(data)
            dirty = []
        if touched:
            notes, size = -handed, 0
            for reader in touched:
                out = reader.out
                if out is not None:  # otherwise it was closed meanwhile
                    reader.out = None
                    notes += len(out)
                    data = out[0] if len(out) == 1 else b"".join(out)
                    size += len(data)
                    reader.write(data)
            self.notes += notes
            self.bytes_out += size
        for lane in dirty:
            pending, lane.pending = lane.pending, None
            assert pending is not None
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            readers = len(lane.members)
            self.deliveries += readers * len(pending)
            self.bytes_out += readers * len(data)
            for write in lane.members.values():
                write(data)
