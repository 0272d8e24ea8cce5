"""What a broker is: the one place where a channel's messages get their numbers.

A broker moves bytes. It numbers and keeps what is published, tells the nodes that are
subscribed, remembers who is present and what commands answered, and carries signals from
node to node. Everything that the delivery contract promises across connections and nodes
rests on properties that each implementation must have (the suite
``tests/contracts/test_broker.py`` runs over all of them):

* De-duplicating, numbering, keeping and telling the subscribers is *one* step for a
  message. Were it two, a reader could be told of a message that history does not have,
  or a resent message could be numbered twice.
* Offsets of a channel only grow within an epoch, and an epoch is never used again.
* :meth:`Broker.read` sees a channel's numbering and its history in one step.
* What :meth:`Broker.publish` acknowledged is in what :meth:`Broker.read` returns after
  it, for as long as size and age allow.
* A node holds a *lease*, by the broker's clock (:meth:`Broker.renew`). What belongs to it,
  members and claimed commands, is given up when the lease has run out, and not before.

A broker object is what *one* node has of the broker: each node opens its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from ..errors import BrokerUnavailable, RequestError
from ..limits import DEFAULTS
from ..protocol.data import unpack_data
from ..protocol.messages import Member, Position

Overflow: TypeAlias = Literal["disconnect", "drop_oldest", "drop_newest", "conflate"]


class ChannelOptions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is kept of a channel. All publishers of a channel should agree on it."""

    history: int = DEFAULTS.history
    """messages"""
    history_ttl: float = DEFAULTS.history_ttl
    """seconds"""
    history_bytes: int = DEFAULTS.history_bytes
    """bytes of payload"""
    on_overflow: Overflow = "drop_oldest"
    """what a node does without history for a reader that is too slow; no broker's concern"""


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
    """A numbered message.

    ``prev`` is the offset before it, None for ``offset - 1``; ``time`` is in milliseconds
    since 1970; ``payload`` is packed, and :attr:`data` is what was published.
    """

    epoch: str
    offset: int
    id: str
    time: int
    payload: bytes
    prev: int | None = None
    publisher: str | None = None
    trace: str | None = None

    @property
    def position(self) -> Position:
        """Its place in the channel."""
        return Position(self.epoch, self.offset, self.id)

    @property
    def data(self) -> Any:
        """What was published: the payload, read anew each time."""
        return unpack_data(self.payload)


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


class Members(msgspec.Struct, frozen=True, gc=False):
    """Who is present in a channel."""

    members: Sequence[Member]
    """as many as were asked for"""
    count: int
    """how many there are"""
    version: int
    """grows with each change; 0 when nobody is present"""


class PresenceChange(msgspec.Struct, frozen=True, gc=False):
    """Who came and went, in one step; ``before`` and ``version`` are those of :class:`Members`."""

    joined: Sequence[Member]
    left: Sequence[str]
    count: int
    before: int
    version: int


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What came of claiming a command.

    * ``claimed``: it is the caller's to run, and to :meth:`Broker.finish`.
    * ``done``: it ran, and answered ``answer``.
    * ``running``: another has claimed it, and its node's lease holds.
    * ``lost``: another had claimed it, and its node's lease ran out.
    * ``reused``: the key was used with another digest.
    """

    state: Literal["claimed", "done", "running", "lost", "reused"]
    answer: bytes = b""


PublishOutcome: TypeAlias = Published | BrokerUnavailable | RequestError
Completion: TypeAlias = Callable[[PublishOutcome], None]


class BrokerEvents(Protocol):
    """What a broker tells its node, from the event loop."""

    id: str
    """the node's name: no two nodes ever have the same"""

    def on_record(self, channel: str, record: Record) -> None:
        """A message of a subscribed channel. Once, in order, or with a visible hole."""

    def on_presence(self, channel: str, change: PresenceChange) -> None:
        """The members of a subscribed channel changed. May get lost: see ``before``."""

    def on_signal(self, payload: bytes) -> None:
        """Another node says something; at most once."""

    def on_degraded(self) -> None:
        """The broker cannot be reached. A broker that notices it says so; none need."""

    def on_restored(self) -> None:
        """It can be reached again. What it would have told in between may be lost."""


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
    async def tops(self, channels: Sequence[str]) -> Sequence[Position]:
        """Return each channel's last message, as far as it has one: else offset 0.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def restart(self, channel: str, epoch: str) -> None:
        """Give a channel a new epoch, if it is still ``epoch``; what is held stays.

        For a broker that has lost what it acknowledged: the numbers that it will give again
        must not be taken for those that it gave before.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    # ---- presence ---------------------------------------------------------------

    @abstractmethod
    async def presence_add(
        self, channel: str, member: Member, instance: str = "", instead: str | None = None
    ) -> None:
        """Make ``member`` present for as long as this node's lease holds, or until removed.

        In the same step leave those of the same user whose place it takes: the connection
        ``instead``, and those of the same ``instance`` (if not "") that were removed and
        are still in their time of grace.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def presence_remove(self, channel: str, connection: str, grace: float = 0.0) -> None:
        """End a member's presence: at once, or in ``grace`` seconds, whatever becomes of this node.

        A node that gives a grace removes the member again when it is over; only if the node
        is no more may those who watch hear of it later, by :meth:`renew` of another.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def presence(self, channel: str, limit: int) -> Members:
        """Return up to ``limit`` members, and how many there are.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def presence_versions(self, channels: Sequence[str]) -> Sequence[int]:
        """Return each channel's :attr:`Members.version`.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    # ---- nodes ------------------------------------------------------------------

    @abstractmethod
    async def renew(self, lease: float) -> bool:
        """Hold this node's lease for ``lease`` seconds from now.

        Also lets go of what ran out, whichever node it belonged to: those who watch are told
        of members that are gone.

        Returns:
            Whether what belongs to this node is still there. If not, it must be made
            present again: the lease had run out, or the broker lost it.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def nodes(self) -> Sequence[str]:
        """Return the nodes whose lease holds, this one among them.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """

    @abstractmethod
    async def signal(self, node: str | None, payload: bytes) -> None:
        """Say something to a node, or (None) to all others. At most once, best effort.

        Raises:
            BrokerUnavailable: it cannot be reached; nobody was told, as far as is known.
        """

    # ---- commands ---------------------------------------------------------------

    @abstractmethod
    async def claim(
        self, owner: str, key: str, digest: bytes, *, attempt: str, again: bool
    ) -> Claim:
        """Claim the command ``key`` of a user for this node, under its lease.

        What became of a command is known for ``dedupe_window`` seconds after it ended.

        Args:
            owner: whose it is; an owner has at most ``command_keys_user`` of them.
            key: the command; those of different owners are different.
            digest: of what it is to do; with another, the key was reused.
            attempt: a name for this claim; who claims again by the same name has it.
            again: claim it even if a node that is no more had claimed it.

        Raises:
            RequestError: ``dedupe_full``: as many are remembered as may be.
            BrokerUnavailable: it cannot be reached; it may have been claimed.
        """

    @abstractmethod
    async def finish(self, owner: str, key: str, attempt: str, answer: bytes | None) -> None:
        """Note what a command answered; None: it had no effect, forget it.

        Nothing happens if it is not claimed by ``attempt``, or was finished.

        Raises:
            BrokerUnavailable: it cannot be reached; it may have been noted.
        """

    # ---- patterns ---------------------------------------------------------------

    @abstractmethod
    async def watch(self, prefixes: Sequence[str]) -> None:
        """Be told of the messages of all channels whose key begins with one of these.

        Taken literally, whatever characters there are. A broker may tell of more than that;
        of channels that are subscribed as well it may tell twice.

        Raises:
            BrokerUnavailable: it cannot be reached; none of them is watched.
        """

    @abstractmethod
    async def unwatch(self, prefixes: Sequence[str]) -> None:
        """No longer be told of these."""
