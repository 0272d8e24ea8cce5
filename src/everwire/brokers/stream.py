"""One channel's numbering, history and remembered ids, in memory. No I/O, no clock."""

from __future__ import annotations

from ..protocol.messages import Position
from .base import ChannelOptions, Page, Record

RECORD_OVERHEAD = 256
"""bytes that a message in history costs beside its payload (220 were measured for 64)"""


class DedupeWindow:
    """Remembers ids for at least ``window`` seconds, and at most one and a half times that.

    Three generations of half a window each: forgetting is dropping a whole dict, so no
    publish ever pays for the ids of others.
    """

    __slots__ = ("_generations", "_half", "_maximum", "_turn_at")

    def __init__(self, window: float, maximum: int, now: float) -> None:
        self._half = window / 2
        self._maximum = maximum
        self._generations: list[dict[str, int]] = [{}, {}, {}]
        self._turn_at = now + self._half

    def _turn(self, now: float) -> None:
        while now >= self._turn_at:
            self._generations = [{}, *self._generations[:2]]
            self._turn_at += self._half
            if not any(self._generations):
                self._turn_at = max(self._turn_at, now + self._half)

    def find(self, key: str, now: float) -> int | None:
        """Return the offset that was remembered for ``key``."""
        if now >= self._turn_at:
            self._turn(now)
        for generation in self._generations:
            if generation and (found := generation.get(key)) is not None:
                return found
        return None

    def turned(self, now: float) -> bool:
        """Forget what is old; tell whether anything is left."""
        if now >= self._turn_at:
            self._turn(now)
        return any(self._generations)

    def full(self) -> bool:
        """Tell whether another id would be more than may be remembered."""
        new, middle, old = self._generations
        return len(new) + len(middle) + len(old) >= self._maximum

    def remember(self, key: str, offset: int) -> None:
        """Remember ``key``, from the time of the last :meth:`find`."""
        self._generations[0][key] = offset

    def __len__(self) -> int:
        return sum(map(len, self._generations))


class Stream:
    """A channel: its epoch, its last message, and the messages that are held."""

    __slots__ = ("_head", "_kept", "_records", "dedupe", "epoch", "size", "top", "top_id", "used")

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.top = 0
        self.top_id = ""
        self.used = now
        self.size = 0
        """bytes of payload held"""
        self.dedupe: DedupeWindow | None = None
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
        """Make ``record`` the last message; return by how many bytes the history grew."""
        self.top = record.offset
        self.top_id = record.id
        before = self.size
        if options.history > 0:
            self._records.append(record)
            self._kept.append(now)
            self.size += len(record.payload)
            self.trim(now, options)
        return self.size - before

    def trim(self, now: float, options: ChannelOptions) -> None:
        """Let go of what is too much or too old."""
        records, kept, head = self._records, self._kept, self._head
        end, oldest = len(records), now - options.history_ttl
        while head < end and (
            end - head > options.history
            or kept[head] <= oldest
            or (self.size > options.history_bytes and end - head > 1)
        ):
            self.size -= len(records[head].payload)
            head += 1
        if head == end:
            records.clear()
            kept.clear()
            head = 0
        elif head > 64 and head * 2 > end:
            del records[:head], kept[:head]
            head = 0
        self._head = head

    def clear(self) -> None:
        """Let go of all messages; the numbering stays."""
        self._records.clear()
        self._kept.clear()
        self._head = self.size = 0

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
