"""What is kept for one reader that cannot be written now, of a channel without history.

Where there is history a reader goes on from there, however slow it was. Without it the
messages of the meantime wait here, within bounds; at the bounds the channel's policy says
which of them go. Whoever takes them out sees by their numbers where some are missing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ..protocol.messages import Position
from ..protocol.positions import Place, place

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..brokers.base import Record
    from ..limits import Limits
    from .registry import Channel, Subscription


class Backlog:
    """Listens to a channel in the place of a reader that cannot be written.

    Args:
        subscription: whose messages these are.
        limits: the node's: ``overflow_messages`` and ``overflow_bytes``.
        overflow: is told of each message that finds no room, or drives another one out.
    """

    __slots__ = ("_kept", "_limits", "_overflow", "_size", "_subscription")

    def __init__(
        self,
        subscription: Subscription,
        limits: Limits,
        overflow: Callable[[Subscription], None],
    ) -> None:
        self._subscription = subscription
        self._limits = limits
        self._overflow = overflow
        self._kept: OrderedDict[object, Record] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def tell(self, channel: Channel, record: Record) -> None:
        """A message came that the reader cannot be sent."""
        subscription, policy = self._subscription, channel.options.on_overflow
        if record.epoch == subscription.epoch and record.offset <= subscription.offset:
            return  # it was read from the broker before the broker told of it
        if policy == "disconnect" and subscription.reader.paused:
            self._overflow(subscription)
            return
        key: object = (record.epoch, record.offset)
        if policy == "conflate":
            key = getattr(record, "channel", channel.name)  # a pattern's: of each channel one
            if key in self._kept:
                self._drop(key)
        while self._kept and not self._fits(record):
            if policy in ("disconnect", "drop_newest"):
                self._overflow(subscription)
                return
            self._drop(next(iter(self._kept)))
        self._kept[key] = record
        self._size += len(record.payload)

    def missed(self) -> None:
        """The next message tells by its number."""

    def _fits(self, record: Record) -> bool:
        limits = self._limits
        return (
            len(self._kept) < limits.overflow_messages
            and self._size + len(record.payload) <= limits.overflow_bytes
        )

    def _drop(self, key: object) -> None:
        self._size -= len(self._kept.pop(key).payload)
        self._overflow(self._subscription)

    def begin(self, position: Position) -> None:
        """Forget what is not after ``position``: it was kept before that was known."""
        for key, record in list(self._kept.items()):
            if record.epoch != position.epoch or record.offset <= position.offset:
                self._size -= len(self._kept.pop(key).payload)

    def take(self, limit: int, size: int) -> list[Record]:
        """Take out what follows the subscription's position without a hole.

        At most ``limit`` messages of together ``size`` bytes, but one in any case.
        """
        epoch, at = self._subscription.epoch, self._subscription.offset
        taken: list[Record] = []
        for record in self._kept.values():
            size -= len(record.payload)
            if (
                len(taken) == limit
                or (size < 0 and taken)
                or record.epoch != epoch
                or place(at, record.offset, record.prev) is Place.HOLE
            ):
                break
            taken.append(record)
            at = record.offset
        for record in taken:
            self._kept.popitem(last=False)
            self._size -= len(record.payload)
        return taken

    def resume(self) -> Position:
        """Where delivery goes on: before the first message that is kept, or at the last of all."""
        for record in self._kept.values():
            before = record.offset - 1 if record.prev is None else record.prev
            return Position(record.epoch, before)
        return self._subscription.channel.position
