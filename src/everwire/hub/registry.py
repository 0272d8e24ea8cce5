"""Channels, lanes and subscriptions: the registry of one node.

It changes only in functions without ``await``. Rules that hold between any two of them:

* A connection is a member of a lane exactly while its subscription is ``SUBSCRIBED``.
* Whatever puts a member into a lane or takes one out flushes that lane first: nobody is
  sent a message from before the place where its delivery starts, and none is left out.
* What was put into a connection's ``out`` is written before what is pending in lanes.
* A reader that is paused joins no lane: it leaves them at the end of the turn in which it
  is told to pause, and nobody would take it out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..protocol.messages import Position
from ..protocol.states import SubscriptionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..brokers.base import ChannelOptions, Record
    from ..protocol.dialects import Wire
    from .backlog import Backlog
    from .filters import ReaderFilter


class Reader(Protocol):
    """What the hub needs of a connection."""

    wire: Wire
    write: Callable[[bytes], None]
    out: list[bytes] | None
    """what is written at the turn's end, None for nothing; see :meth:`.hub.Hub.touch`"""
    paused: bool


class Listener(Protocol):
    """What is told of a channel's messages beside its lanes."""

    def tell(self, channel: Channel, record: Record) -> None:
        """A message came."""

    def missed(self) -> None:
        """Messages are missing before the next one."""


class Lane:
    """A channel on one wire: all its readers are written the same bytes.

    ``members`` maps each reader to its bound ``write``: the one call that a delivery costs.
    A channel's lanes have members; ``pending`` is None while there is nothing to write.
    """

    __slots__ = ("channel", "members", "pending", "prefix", "wire")

    def __init__(self, channel: Channel, wire: Wire) -> None:
        self.channel = channel
        self.wire = wire
        self.prefix: Any = wire.dialect.message_prefix(channel.sid, channel.name)
        self.members: dict[Reader, Callable[[bytes], None]] = {}
        self.pending: list[bytes] | None = None

    def frame(self, record: Record) -> bytes:
        """Make the finished frame of a message; empty if these readers are not to have it."""
        wire = self.wire
        return wire.frame(
            wire.dialect.encode_message(
                self.prefix,
                record.offset,
                record.prev,
                record.id,
                record.time,
                record.payload,
                record.publisher,
                record.trace,
            ),
        )


class Channel:
    """A channel with subscribers on this node.

    ``last`` is the last message that the broker told this node of, None before the first
    reading. ``sid`` is its number on the wire, never used again by this process.
    """

    __slots__ = (
        "epoch", "key", "lanes", "last", "last_id", "listeners", "name", "options", "sid",
        "subscriptions", "waiting", "watchers",
    )  # fmt: skip

    def __init__(self, key: str, name: str, sid: int, options: ChannelOptions) -> None:
        self.key = key
        self.name = name
        self.sid = sid
        self.options = options
        self.epoch = ""
        self.last: int | None = None
        self.last_id = ""
        self.lanes: dict[object, Lane] = {}
        """by :attr:`Subscription.lane_key`"""
        self.subscriptions: dict[Reader, Subscription] = {}
        self.waiting: list[Subscription] = []
        """read further in history than the broker has told this node of"""
        self.listeners: tuple[Listener, ...] = ()
        self.watchers: dict[Reader, Subscription] = {}
        """those that want to know who is present"""

    @property
    def position(self) -> Position:
        """The last message that this node knows of."""
        return Position(self.epoch, self.last or 0, self.last_id)

    def make_lane(self, wire: Wire) -> Lane:
        """Make a lane, which is none of the channel's yet."""
        return Lane(self, wire)

    def __repr__(self) -> str:
        return f"<Channel {self.key!r} sid={self.sid} subscriptions={len(self.subscriptions)}>"


class Subscription:
    """A connection's subscription to a channel.

    While it is ``RECOVERING``, (epoch, offset, id) is the last message that was sent to
    it; while it is ``SUBSCRIBED``, its channel knows.
    """

    __slots__ = (
        "backlog", "channel", "epoch", "filter", "id", "offset", "reader", "sent", "state",
    )  # fmt: skip

    def __init__(self, reader: Reader, channel: Channel) -> None:
        self.reader = reader
        self.channel = channel
        self.state = SubscriptionState.SUBSCRIBING
        self.backlog: Backlog | None = None
        """what came since its position, in a channel that keeps no history"""
        self.filter: ReaderFilter | None = None
        self.sent = 0
        """with a filter: the reader's own position, which does not move with what is left out,
        or one before it"""
        self.epoch = ""
        self.offset = 0
        self.id = ""

    @property
    def lane_key(self) -> object:
        """Those with the same key share a lane."""
        wire = self.reader.wire
        return wire if self.filter is None else (wire, self.filter)

    @property
    def position(self) -> Position:
        """The last message that was sent, or is about to be."""
        if self.state is SubscriptionState.SUBSCRIBED:
            return self.channel.position
        return Position(self.epoch, self.offset, self.id)

    def begin(self, position: Position) -> None:
        """Note where delivery starts; of what was kept until now only what follows counts."""
        self.move(position)
        self.sent = position.offset
        if self.backlog is not None:
            self.backlog.begin(position)

    def move(self, position: Position) -> None:
        """Note what was sent last."""
        self.epoch, self.offset, self.id = position.epoch, position.offset, position.id

    def __repr__(self) -> str:
        return f"<Subscription {self.channel.key!r} {self.state} at {self.offset}>"
