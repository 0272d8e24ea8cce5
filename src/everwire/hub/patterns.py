"""Subscriptions to all channels whose names begin alike: ``chat:*``.

A pattern is a channel of its own to the hub, with a numbering that nobody else sees: it
listens to each channel that it covers, and what it hears is its next message. So its lanes,
its slow readers and their gaps are those of any channel without history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from ..protocol.channels import split_key
from ..protocol.data import unpack_data
from ..protocol.messages import ChannelMessage
from .registry import Channel, Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..brokers.base import ChannelOptions, Record
    from ..protocol.dialects import Wire


# Seconds without a message after which a channel that nobody subscribed to is dropped: longer than
# it takes a node to find out that it was not told of its last one.
SILENT = 12.0


class Echo(msgspec.Struct, frozen=True, gc=False):
    """A message of the channel ``channel``, under a pattern's number: to the hub a record."""

    offset: int
    channel: str
    origin: Record
    payload: bytes
    id: str
    epoch: str = ""
    prev: int | None = None


class PatternLane(Lane):
    """Each message names its channel."""

    __slots__ = ()

    def frame(self, record: Record) -> bytes:
        echo = cast("Echo", record)
        of = echo.origin
        message = ChannelMessage(
            self.channel.sid, of.offset, of.id, of.time, unpack_data(of.payload),
            of.prev, of.publisher, of.trace, echo.channel,
        )  # fmt: skip
        return self.wire.frame(self.wire.dialect.encode(message))


class Pattern(Channel):
    """The channels whose keys begin with ``prefix``.

    Args:
        key: no channel has it.
        deliver: hands a message of the channel ``key`` on: the hub's own.
    """

    __slots__ = ("_deliver", "_skipped", "prefix")

    def __init__(
        self,
        key: str,
        name: str,
        sid: int,
        options: ChannelOptions,
        *,
        prefix: str,
        deliver: Callable[[str, Record], None],
    ) -> None:
        super().__init__(key, name, sid, options)
        self.prefix = prefix
        self.last = 0
        self._deliver = deliver
        self._skipped = 0

    def covers(self, key: str) -> bool:
        """Whether ``key`` is a channel's, of the same tenant, and begins with the prefix.

        A broker may tell of more than it was asked for.
        """
        return key.startswith(self.prefix) and "\x00" not in key[len(self.prefix) :]

    def make_lane(self, wire: Wire) -> Lane:
        return PatternLane(self, wire)

    # ---- Listener -------------------------------------------------------------

    def tell(self, channel: Channel, record: Record) -> None:
        offset = (self.last or 0) + 1 + self._skipped
        self._skipped = 0
        echo = Echo(offset, channel.name, record, record.payload, record.id)
        self._deliver(self.key, cast("Record", echo))

    def missed(self) -> None:
        self._skipped = 1


class Patterns:
    """The patterns of a hub, and the channels that are there for their sake alone.

    Args:
        channels: the hub's, by their keys.
        sids: gives numbers to channels.
    """

    def __init__(self, channels: dict[str, Channel], sids: Iterator[int]) -> None:
        self._channels = channels
        self._sids = sids
        self._patterns: list[Pattern] = []
        self._brought: dict[Channel, int | None] = {}
        """channels that nobody is subscribed to, and the last message of each at the last look"""
        self._look_at = 0.0

    def add(self, pattern: Pattern) -> None:
        """From now on it listens to all channels that it covers."""
        self._channels[pattern.key] = pattern
        self._patterns.append(pattern)
        for channel in self._channels.values():
            if pattern.covers(channel.key):
                channel.listeners += (pattern,)

    def covering(self, key: str) -> tuple[Pattern, ...]:
        """The patterns that a channel is covered by."""
        return tuple(pattern for pattern in self._patterns if pattern.covers(key))

    def bring(self, key: str) -> Channel | None:
        """Make the channel of a message that was told for a pattern's sake: for duplicates and holes."""
        patterns = self.covering(key)
        if not patterns:
            return None
        name, options = split_key(key)[1], patterns[0].options
        channel = self._channels[key] = Channel(key, name, next(self._sids), options)
        channel.listeners = patterns
        self._brought[channel] = None
        return channel

    def adopt(self, channel: Channel) -> bool:
        """Somebody subscribes to a channel; return whether it was there for patterns alone."""
        brought = channel in self._brought
        self._brought.pop(channel, None)
        return brought

    def alone(self, channel: Channel) -> bool:
        """Whether a channel is there for patterns alone."""
        return channel in self._brought

    def missed(self) -> None:
        """What the broker told may be lost: of all patterns."""
        for pattern in self._patterns:
            pattern.missed()

    def look(self, now: float) -> None:
        """Drop the channels that were silent since the last look."""
        if now < self._look_at:
            return
        self._look_at = now + SILENT
        for channel, last in list(self._brought.items()):
            if channel.last == last:
                del self._brought[channel], self._channels[channel.key]
            else:
                self._brought[channel] = channel.last

    def forget(self, channel: Channel) -> None:
        """A channel, or a pattern, is dropped."""
        self._brought.pop(channel, None)
        if not isinstance(channel, Pattern) or channel not in self._patterns:
            return
        self._patterns.remove(channel)
        for one in self._channels.values():
            if channel in one.listeners:
                one.listeners = tuple(each for each in one.listeners if each is not channel)
