"""The outbox: what was published and is not acknowledged yet.

Rule 1: an entry leaves it by an acknowledgement or by an error, never in silence.
Rule 2: the entries of a channel are sent in the order in which they were published, and
sent again in that order, all of them, with the channel's next ``run`` (protocol section 3
rule 2).

No I/O and no clock: who calls says what time it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ..errors import DeliveryUnknown, NotSent, OutboxFull
from ..protocol.messages import Position


class Ack(msgspec.Struct, frozen=True):
    """A message was accepted.

    Attributes:
        position: where it is stored; None in a dialect without acknowledgements.
        duplicate: an earlier attempt had stored it already.
        id: the message's id, the same over all attempts.
    """

    position: Position | None
    duplicate: bool = False
    id: str = ""


class Entry:
    """One message on its way.

    Attributes:
        expires: the loop's time at which it is given up.
        future: is given the :class:`Ack` or an error. Cancelling it changes nothing else.
        encoded: the bytes of its first run, until they are sent.
        first_sent: the loop's time of the first attempt, None before it.
        first_wall: the wall clock's time of the first attempt: it counts a suspended
            machine's time as well.
        error: what the server said last.
        taken: it got into the outbox.
        gone: and out of it.
    """

    __slots__ = ("channel", "data", "encoded", "error", "expires", "first_sent", "first_wall",
                 "future", "gone", "id", "in_flight", "size", "taken")  # fmt: skip

    def __init__(
        self,
        entry_id: str,
        channel: str,
        data: Any,
        encoded: bytes,
        expires: float,
        future: asyncio.Future[Ack],
    ) -> None:
        self.id = entry_id
        self.channel = channel
        self.data = data
        self.encoded: bytes | None = encoded
        self.size = len(encoded)
        self.expires = expires
        self.future = future
        self.first_sent: float | None = None
        self.first_wall = 0.0
        self.error: Exception | None = None
        self.in_flight = False
        self.taken = False
        self.gone = False


class Lane:
    """The entries of one channel.

    Attributes:
        run: goes out with each of them.
        holding: nothing is sent until :meth:`Outbox.release`.
        failures: times that it had to hold since an entry was acknowledged.
    """

    __slots__ = ("failures", "hint", "holding", "in_flight", "pending", "run", "settled")

    def __init__(self, run: int) -> None:
        self.run = run
        self.pending: dict[str, Entry] = {}
        self.in_flight = 0
        self.holding = False
        self.settled = False
        self.failures = 0
        self.hint: float | None = None


class Outbox:
    """Holds entries in order, bounded in number and in bytes.

    Args:
        messages: entries at most.
        size: bytes of encoded messages at most.
        settled: is called with a channel whose entries must be sent again, and its lane,
            once all that was sent of it is answered: call :meth:`release` after a while.
    """

    def __init__(self, *, messages: int, size: int, settled: Callable[[str, Lane], None]) -> None:
        self._max_messages = messages
        self._max_size = size
        self._on_settled = settled
        self._entries: dict[str, Entry] = {}
        self._size = 0
        self._in_flight = 0
        self._ready: deque[Entry] = deque()
        self._lanes: dict[str, Lane] = {}
        self._runs: dict[str, int] = {}  # of channels without entries; of this link only
        self._queue: dict[Entry, asyncio.Future[None]] = {}
        self._drained: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._size

    @property
    def in_flight(self) -> int:
        """Entries that were sent on the current link and are not answered."""
        return self._in_flight

    # ---- coming in -------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Take an entry.

        Raises:
            OutboxFull: there is no room, or others wait for it.
        """
        if self._queue or not self._fits(entry):
            raise OutboxFull(
                f"{len(self._entries)} messages of {self._size} bytes wait for their "
                f"acknowledgement; {self._max_messages} messages of {self._max_size} bytes may"
            )
        self._take(entry)

    async def put_when_room(self, entry: Entry) -> None:
        """Take an entry as soon as there is room, first come, first served.

        Cancelling takes the entry back, unless it was taken already.

        Raises:
            OutboxFull: it is larger than the whole outbox.
        """
        if not self._queue and self._fits(entry):
            self._take(entry)
            return
        if entry.size > self._max_size:
            raise OutboxFull(
                f"a message of {entry.size} bytes; the whole outbox may have {self._max_size}"
            )
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[entry] = room
        try:
            await room
        finally:
            if self._queue.pop(entry, None) is not None:
                self._admit()  # a smaller one behind it may fit

    def _fits(self, entry: Entry) -> bool:
        return len(self._entries) < self._max_messages and self._size + entry.size <= self._max_size

    def _take(self, entry: Entry) -> None:
        entry.taken = True
        self._entries[entry.id] = entry
        self._size += entry.size
        lane = self._lanes.get(entry.channel)
        if lane is None:
            lane = self._lanes[entry.channel] = Lane(self._runs.pop(entry.channel, 0))
        lane.pending[entry.id] = entry
        if not lane.holding:
            self._ready.append(entry)

    def _admit(self) -> None:
        while self._queue:
            entry, room = next(iter(self._queue.items()))
            if not self._fits(entry):
                return
            del self._queue[entry]
            self._take(entry)
            if not room.done():
                room.set_result(None)

    # ---- going out -------------------------------------------------------------

    def next(self, window: int) -> tuple[Entry, int] | None:
        """Return the next entry to send and its run, and count it as in flight.

        Args:
            window: entries that may be in flight.
        """
        while self._ready and self._in_flight < window:
            entry = self._ready.popleft()
            if entry.gone:
                continue
            lane = self._lanes[entry.channel]
            if lane.holding:
                continue  # release() brings it back
            entry.in_flight = True
            lane.in_flight += 1
            self._in_flight += 1
            return entry, lane.run
        return None

    def acknowledge(self, entry: Entry, ack: Ack) -> bool:
        """Give the entry its acknowledgement. False if it was given up before."""
        if entry.gone:
            return False
        self._lanes[entry.channel].failures = 0
        self._remove(entry)
        if not entry.future.done():
            entry.future.set_result(ack)
        return True

    def fail(self, entry: Entry, error: Exception) -> None:
        """Give the entry up with ``error``; the others go on."""
        if entry.gone:
            return
        self._remove(entry)
        if not entry.future.done():
            entry.future.set_exception(error)

    def give_up(self, entry: Entry, why: str, cause: BaseException | None = None) -> None:
        """Give the entry up with :exc:`NotSent` or :exc:`DeliveryUnknown`, as fits."""
        kind = NotSent if entry.first_sent is None else DeliveryUnknown
        error = kind(f"message {entry.id} to {entry.channel!r}: {why}")
        error.__cause__ = cause or entry.error
        self.fail(entry, error)

    def hold(self, entry: Entry, error: Exception, hint: float | None) -> None:
        """An entry in flight was refused for now: its channel is sent again, later.

        Args:
            entry: which one.
            error: why.
            hint: seconds that the server asked to wait.
        """
        if entry.gone or not entry.in_flight:
            return
        entry.error = error
        lane = self._lanes[entry.channel]
        if not lane.holding:
            lane.holding = True
            lane.failures += 1
            lane.hint = None
        if hint is not None:
            lane.hint = max(hint, lane.hint or 0.0)
        self._answered(entry, lane)

    def release(self, channel: str) -> None:
        """Let a channel that was held go out again: all of it, with the next run."""
        lane = self._lanes.get(channel)
        if lane is None or not lane.settled:
            return
        lane.holding = lane.settled = False
        lane.run += 1
        self._ready = deque(entry for entry in self._ready if entry.channel != channel)
        self._ready.extend(lane.pending.values())

    def relink(self) -> None:
        """There is a new link: everything goes out again, before anything new."""
        self._runs.clear()
        self._in_flight = 0
        for lane in self._lanes.values():
            if any(entry.first_sent is not None for entry in lane.pending.values()):
                lane.run += 1
            lane.in_flight = 0
            lane.holding = lane.settled = False
        for entry in self._entries.values():
            entry.in_flight = False
        self._ready = deque(self._entries.values())

    # ---- ending ----------------------------------------------------------------

    def next_expiry(self) -> float | None:
        """The loop's time at which the first entry expires."""
        return min((entry.expires for entry in self._entries.values()), default=None)

    def expire(self, now: float) -> None:
        """Give up what has waited for its acknowledgement for too long."""
        for entry in self:
            if entry.expires <= now:
                self.give_up(entry, "no acknowledgement within its time to live")

    def end(self, cause: BaseException) -> None:
        """Give everything up: nothing will be sent any more."""
        for entry, room in list(self._queue.items()):
            del self._queue[entry]
            if not room.done():
                room.set_exception(NotSent(f"message {entry.id}: the client ended"))
        for entry in self:
            self.give_up(entry, "the client ended", cause)

    async def drained(self) -> None:
        """Wait until nothing waits for its acknowledgement. Safe to cancel."""
        while self._entries or self._queue:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drained.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._drained:
                    self._drained.remove(waiter)

    def _remove(self, entry: Entry) -> None:
        entry.gone = True
        del self._entries[entry.id]
        self._size -= entry.size
        lane = self._lanes[entry.channel]
        del lane.pending[entry.id]
        if not lane.pending:
            # The server goes by (channel, run) for as long as the link lasts.
            run = lane.run + 1 if lane.holding else lane.run
            if run:
                self._runs[entry.channel] = run
            del self._lanes[entry.channel]
        if entry.in_flight:
            self._answered(entry, lane)
        if self._queue:
            self._admit()
        if self._drained and not self._entries and not self._queue:
            for waiter in self._drained:
                if not waiter.done():
                    waiter.set_result(None)

    def _answered(self, entry: Entry, lane: Lane) -> None:
        entry.in_flight = False
        lane.in_flight -= 1
        self._in_flight -= 1
        if lane.holding and not lane.settled and not lane.in_flight and lane.pending:
            lane.settled = True
            self._on_settled(entry.channel, lane)

    def __repr__(self) -> str:
        return f"<Outbox messages={len(self._entries)} bytes={self._size}>"
