"""What a broker is: the one place where a channel's messages get their numbers.

A broker moves bytes. It numbers and keeps what is published, tells the nodes that are
subscribed, and remembers who is present. Everything that the delivery contract promises
across connections and nodes rests on four properties that each implementation must have
(the suite ``tests/contracts/test_broker.py`` runs over all of them):

* De-duplicating, numbering, keeping and telling the subscribers is *one* step for a
  message. Were it two, a reader could be told of a message that history does not have,
  or a resent message could be numbered twice.
* Offsets of a channel only grow within an epoch, and an epoch is never used again.
* :meth:`Broker.read` sees a channel's numbering and its history in one step.
* What :meth:`Broker.publish` acknowledged is in what :meth:`Broker.read` returns after
  it, for as long as size and age allow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from ..errors import BrokerUnavailable, RequestError
from ..limits import DEFAULTS
from ..protocol.messages import Member, Position


class ChannelOptions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is kept of a channel. All publishers of a channel should agree on it."""

    history: int = DEFAULTS.history
    """messages"""
    history_ttl: float = DEFAULTS.history_ttl
    """seconds"""
    history_bytes: int = DEFAULTS.history_bytes
    """bytes of payload"""


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A message on its way to the broker.

    ``scope`` is whose ids these are (a user): equal ids of different scopes are different
    messages. An empty ``id`` is not remembered, and the broker makes one up.
    """

    channel: str
    id: str
    payload: bytes
    scope: str = ""
    publisher: str | None = None
    trace: str | None = None
    options: ChannelOptions = ChannelOptions()


class Published(msgspec.Struct, frozen=True, gc=False):
    """The broker's acknowledgement."""

    position: Position
    duplicate: bool = False


class Record(msgspec.Struct, frozen=True, gc=False):
    """A numbered message. ``prev`` is the offset before it, None for ``offset - 1``."""

    epoch: str
    offset: int
    id: str
    time: int
    payload: bytes
    prev: int | None = None
    publisher: str | None = None
    trace: str | None = None


class Page(msgspec.Struct, frozen=True, gc=False):
    """A stretch of a channel's history, with the numbering as it was when it was read."""

    top: Position
    """the last message of the channel"""
    start: Position
    """where the records begin: the place before the first of them"""
    records: Sequence[Record]
    recovered: bool
    """whether nothing is missing between the position asked for and ``records``"""
    reason: str = ""
    """why it is not recovered: ``expired`` or ``epoch``"""

    @property
    def complete(self) -> bool:
        """Whether the records reach the top."""
        return (self.records[-1].offset if self.records else self.start.offset) >= self.top.offset


PublishOutcome: TypeAlias = Published | BrokerUnavailable | RequestError
Completion: TypeAlias = Callable[[PublishOutcome], None]


class BrokerEvents(Protocol):
    """What a broker tells its node, from the event loop."""

    def on_record(self, channel: str, record: Record) -> None:
        """A message of a subscribed channel. Once, in order, or with a visible hole."""

    def on_presence(self, channel: str, joined: Sequence[Member], left: Sequence[str]) -> None:
        """The members of a subscribed channel changed."""


class Broker(ABC):
    """See the module's text. Channels are keys (:func:`..protocol.channels.channel_key`)."""

    url: str

    @abstractmethod
    async def start(self, events: BrokerEvents) -> None:
        """Connect. Cancelling leaves the broker stopped.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Release everything. Safe to call twice, and to cancel."""

    @abstractmethod
    def publish(self, publication: Publication, done: Completion) -> PublishOutcome | None:
        """Number, keep and tell a message, in the order of the calls for each channel.

        Returns:
            The outcome where it is known at once; otherwise None, and ``done`` is called
            with it later. So a message costs no task and no future.
        """

    @abstractmethod
    async def subscribe(self, channels: Sequence[str]) -> None:
        """Be told of these channels: complete when nothing published later can be missed.

        Raises:
            BrokerUnavailable: it cannot be reached; none of them is subscribed.
        """

    @abstractmethod
    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """No longer be told of these channels."""

    @abstractmethod
    async def read(
        self,
        channel: str,
        since: Position | None,
        *,
        limit: int,
        limit_bytes: int,
        options: ChannelOptions,
    ) -> Page:
        """Read the numbering, and what came after ``since``, in one step.

        With ``since`` None there are no records, and ``start`` is the top. A position is
        recovered only if the message at it is still held (or is the top) with the same id.
        If it is not, the records begin with the oldest that is held.

        At least one record is returned if there is one, however large it is.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def latest(self, channel: str, *, limit: int, options: ChannelOptions) -> Page:
        """Read the last ``limit`` messages.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def presence_add(
        self, channel: str, member: Member, lease: float, instead: str | None = None
    ) -> None:
        """Make ``member`` present for ``lease`` seconds, or for longer if it is.

        In the same step the connection ``instead`` leaves the channel, if it is in it.
        """

    @abstractmethod
    async def presence_remove(self, channel: str, connection: str) -> None:
        """End a member's presence."""

    @abstractmethod
    async def presence(self, channel: str, limit: int) -> tuple[list[Member], int]:
        """Return up to ``limit`` members, and how many there are."""
