"""One channel's numbering, history and remembered ids, in memory. No I/O, no clock."""

from __future__ import annotations

import msgspec

from ..protocol.messages import Position
from .base import BrokerEvents, ChannelOptions, Page, Record

RECORD_OVERHEAD = 256
"""bytes that a message in history costs beside its payload (220 were measured for 64)"""


class DedupeWindow:
    """Remembers ids for at least ``window`` seconds, and at most one and a half times that.

    Three generations of half a window each: forgetting is dropping a whole dict, so no
    publish ever pays for the ids of others.
    """

    __slots__ = ("_half", "_maximum", "_new", "_older", "_room", "_turn_at")

    def __init__(self, window: float, maximum: int, now: float) -> None:
        self._half = window / 2
        self._maximum = maximum
        self._new: dict[str, int] = {}
        self._older: tuple[dict[str, int], ...] = ()
        self._room = maximum
        """ids that ``_new`` may hold"""
        self._turn_at = now + self._half

    def _turn(self, now: float) -> None:
        while now >= self._turn_at:
            self._older = (self._new, *self._older[:1])
            self._new = {}
            self._turn_at += self._half
            if not any(self._older):
                self._older = ()
                self._turn_at = max(self._turn_at, now + self._half)
        self._room = self._maximum - sum(map(len, self._older))

    def claim(self, key: str, offset: int, now: float) -> int:
        """Remember ``key`` with ``offset``, which must be higher than any before it.

        Returns:
            0; or the offset that is remembered for ``key`` already; or -1 if another id
            would be more than may be remembered.
        """
        if now >= self._turn_at:
            self._turn(now)
        for ids in self._older:
            if (known := ids.get(key)) is not None:
                return known
        new = self._new
        known = new.setdefault(key, offset)
        if known != offset:
            return known
        if len(new) > self._room:
            del new[key]
            return -1
        return 0

    def turned(self, now: float) -> bool:
        """Forget what is old; tell whether anything is left."""
        if now >= self._turn_at:
            self._turn(now)
        return bool(self._new) or any(self._older)

    def __len__(self) -> int:
        return len(self._new) + sum(map(len, self._older))


class Stream:
    """A channel: its epoch, its last message, and the messages that are held."""

    __slots__ = (
        "_head", "_kept", "_records", "dedupe", "epoch", "listed", "listeners", "options", "size",
        "top", "top_id", "used",
    )  # fmt: skip

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.top = 0
        self.top_id = ""
        self.used = now
        self.size = 0
        """bytes of payload held"""
        self.dedupe: DedupeWindow | None = None
        self.options: ChannelOptions | None = None
        """those of the last message"""
        # Marks for its owner, who else would look them up for each message.
        self.listed = False
        """it is among those that hold anything"""
        self.listeners: tuple[BrokerEvents, ...] = ()
        """the nodes that are told of its messages"""
        # What is before _head is gone: a list that is trimmed now and then reads any
        # stretch at the cost of that stretch, which a deque does not.
        self._records: list[Record] = []
        self._kept: list[float] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._records) - self._head

    @property
    def position(self) -> Position:
        """The place of the last message."""
        return Position(self.epoch, self.top, self.top_id)

    def append(self, record: Record, now: float, options: ChannelOptions) -> int:
        """Make ``record`` the last message; return by how many bytes the history grew.

        What is too old is let go of by :meth:`trim`, when it is read or looked through.
        """
        self.top = record.offset
        self.top_id = record.id
        self.used = now
        self.options = options
        most = options.history
        if most <= 0:
            return 0
        records, head = self._records, self._head
        records.append(record)
        self._kept.append(now)
        grown = len(record.payload)
        self.size += grown
        held = len(records) - head
        if held <= most and self.size <= options.history_bytes:
            return grown + RECORD_OVERHEAD
        if held == most + 1 and head < most:
            # One for one. The oldest is let go of at once, so that its memory is used again
            # while it is in the processor's cache.
            oldest = len(records[head].payload)
            if self.size - oldest <= options.history_bytes:
                records[head] = None  # type: ignore[call-overload]
                self._head = head + 1
                self.size -= oldest
                return grown - oldest
        return grown + RECORD_OVERHEAD + self.trim(now, options)

    def trim(self, now: float, options: ChannelOptions) -> int:
        """Let go of what is too much or too old; return by how many bytes the history grew."""
        records, kept, head = self._records, self._kept, self._head
        if not records:
            return 0
        size, first = self.size, head
        end, oldest = len(records), now - options.history_ttl
        while head < end and (
            end - head > options.history
            or kept[head] <= oldest
            or (self.size > options.history_bytes and end - head > 1)
        ):
            self.size -= len(records[head].payload)
            head += 1
        grown = self.size - size - (head - first) * RECORD_OVERHEAD
        if head == end:
            records.clear()
            kept.clear()
            head = 0
        elif head > 64 and head * 2 > end:
            del records[:head], kept[:head]
            head = 0
        self._head = head
        return grown

    def clear(self) -> int:
        """Let go of all messages; return by how many bytes the history grew. The numbering stays."""
        grown = -self.size - len(self) * RECORD_OVERHEAD
        self._records.clear()
        self._kept.clear()
        self._head = self.size = 0
        return grown

    def restart(self, epoch: str) -> None:
        """Count on in another epoch, with what is held."""
        self.epoch = epoch
        for index in range(self._head, len(self._records)):
            self._records[index] = msgspec.structs.replace(self._records[index], epoch=epoch)

    def read(self, since: Position | None, limit: int, limit_bytes: int) -> Page:
        """See :meth:`everwire.brokers.base.Broker.read`."""
        top = self.position
        if since is None:
            return Page(top, top, (), False)
        records, head = self._records, self._head
        before_oldest = self._before(head)
        reason = ""
        if since.epoch != self.epoch or since.offset > self.top:
            reason = "epoch"
        elif since.offset == self.top:
            if since.id == self.top_id:
                return Page(top, top, (), True)
            reason = "epoch"
        elif since.offset == 0 and not since.id and before_oldest == 0:
            pass
        else:
            index = head + since.offset - before_oldest - 1
            if index < head:
                reason = "expired"
            elif records[index].id != since.id:
                reason = "epoch"
            else:
                head = index + 1
        start = since if not reason else Position(self.epoch, before_oldest, self._id_before(head))
        return Page(top, start, self._stretch(head, limit, limit_bytes), not reason, reason)

    def latest(self, limit: int) -> Page:
        """See :meth:`everwire.brokers.base.Broker.latest`."""
        head = max(self._head, len(self._records) - limit)
        start = Position(self.epoch, self._before(head), self._id_before(head))
        return Page(self.position, start, self._records[head:], True)

    def _before(self, index: int) -> int:
        """The offset before the record at ``index``; the numbers here have no gaps."""
        return self._records[index].offset - 1 if index < len(self._records) else self.top

    def _id_before(self, index: int) -> str:
        if index >= len(self._records):
            return self.top_id
        return self._records[index - 1].id if index > self._head else ""

    def _stretch(self, head: int, limit: int, limit_bytes: int) -> list[Record]:
        chosen = self._records[head : head + limit]
        size = 0
        for count, record in enumerate(chosen):
            size += len(record.payload)
            if size > limit_bytes and count:
                return chosen[:count]
        return chosen
