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
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Protocol

from ..errors import DeliveryUnknown, Dropped, NotSent, StillQueued
from .entry import Ack, Entry
from .overflow import Overflow, Room


class Lane:
    """The entries of one channel, by their places.

    Attributes:
        run: goes out with each of them.
        holding: nothing is sent until :meth:`Outbox.release`.
        failures: times that it had to hold since an entry was acknowledged.
    """

    __slots__ = ("failures", "hint", "holding", "in_flight", "pending", "run", "settled")

    def __init__(self, run: int) -> None:
        self.run = run
        self.pending: dict[int, Entry] = {}
        self.in_flight = 0
        self.holding = False
        self.settled = False
        self.failures = 0
        self.hint: float | None = None


class OutboxOwner(Protocol):
    """Is told what happens in an outbox."""

    def taken(self, entry: Entry, replaced: Entry | None) -> None:
        """An entry got in, perhaps in the place of another; :meth:`ended` follows for that."""

    def ended(self, entry: Entry, error: Exception | None, told: bool) -> None:
        """An entry is out: acknowledged, or given up. Those that never got in, if dropped.

        ``told``: somebody heard of ``error``.
        """

    def settled(self, channel: str, lane: Lane) -> None:
        """A channel must be sent again, and all that was sent of it is answered.

        Call :meth:`Outbox.release` after a while.
        """


class Outbox:
    """Holds entries in order, bounded in number and in bytes.

    It is the :class:`~.overflow.Holder` of its room.

    Args:
        messages: entries at most.
        size: bytes of encoded messages at most.
        owner: is told what happens.
    """

    def __init__(self, *, messages: int, size: int, owner: OutboxOwner) -> None:
        self._owner = owner
        self._room: Room[Entry] = Room(self, messages=messages, size=size)
        self._entries: dict[int, Entry] = {}
        self._keys: dict[tuple[str, str], Entry] = {}
        self._in_flight = 0
        self._ready: deque[int] = deque()
        self._lanes: dict[str, Lane] = {}
        self._runs: dict[str, int] = {}  # of channels without entries; of this link only
        self._drained: list[asyncio.Future[None]] = []
        self._places = count(1)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._room.size

    @property
    def in_flight(self) -> int:
        """Entries that were sent on the current link and are not answered."""
        return self._in_flight

    @property
    def ready(self) -> int:
        """Entries that may be waiting for no more than to be sent."""
        return len(self._ready)

    # ---- coming in -------------------------------------------------------------

    def put(self, entry: Entry, overflow: Overflow = "reject") -> None:
        """Take an entry, or do with it what the overflow policy says.

        Raises:
            OutboxFull: it is refused.
        """
        if not self._room.offer(entry, overflow):
            self._room.refuse()

    def offer(self, entry: Entry, overflow: Overflow) -> bool:
        """Take an entry as :meth:`put` does; False if it may wait for room: :meth:`wait`.

        Raises:
            OutboxFull: it is refused.
        """
        return self._room.offer(entry, overflow)

    async def wait(self, entry: Entry, seconds: float) -> None:
        """Take an entry as soon as there is room, first come, first served.

        Cancelling takes the entry back, unless it was taken already.

        Raises:
            OutboxFull: there was no room within ``seconds``.
            Dropped: it was dropped in favour of a later one.
        """
        await self._room.wait(entry, seconds)

    def restore(self, entries: list[Entry]) -> None:
        """Take entries of a former process, with their places, whatever the bound says."""
        self._places = count(1 + max((entry.place for entry in entries), default=0))
        for entry in entries:
            self._room.admit(entry)

    def take(self, item: Entry) -> None:
        if not item.place:
            item.place = next(self._places)
        lane = self._lanes.get(item.channel)
        if lane is None:
            lane = self._lanes[item.channel] = Lane(self._runs.pop(item.channel, 0))
        self._enter(item, lane)
        if not lane.holding:
            self._ready.append(item.place)
        self._owner.taken(item, None)

    def replace(self, old: Entry, new: Entry) -> None:
        new.place = old.place
        old.leave()
        self._enter(new, self._lanes[new.channel])
        self._owner.taken(new, old)

    def _enter(self, entry: Entry, lane: Lane) -> None:
        self._entries[entry.place] = lane.pending[entry.place] = entry
        if entry.key is not None:
            self._keys[entry.channel, entry.key] = entry

    def unsent(self) -> Iterable[Entry]:
        return (entry for entry in self._entries.values() if entry.unsent)

    def same(self, item: Entry) -> Entry | None:
        found = self._keys.get((item.channel, item.key)) if item.key is not None else None
        return found if found is not None and found.unsent else None

    def discard(self, item: Entry) -> None:
        self._take_out(item)

    def dropped(self, item: Entry, error: Dropped) -> None:
        error = type(error)(f"message {item.id} to {item.channel!r} was {error}")
        self._owner.ended(item, error, item.settle(error))

    # ---- going out -------------------------------------------------------------

    def take_ready(self, window: int, size: int) -> list[tuple[Entry, int]]:
        """Return the next entries to send and their runs, and count them as in flight.

        Nothing overtakes an entry that may not be sent yet.

        Args:
            window: entries that may be in flight.
            size: bytes of them, from which on no more is returned.
        """
        found: list[tuple[Entry, int]] = []
        ready = self._ready
        while ready and self._in_flight < window and size > 0:
            entry = self._entries.get(ready[0])
            if entry is not None:
                lane = self._lanes[entry.channel]
                if not lane.holding:  # otherwise release() brings it back
                    if not entry.stored:
                        break
                    entry.in_flight = True
                    lane.in_flight += 1
                    self._in_flight += 1
                    size -= entry.size
                    found.append((entry, lane.run))
            ready.popleft()
        return found

    def acknowledge(self, entry: Entry, ack: Ack) -> bool:
        """Give the entry its acknowledgement. False if it was given up before."""
        if entry.gone:
            return False
        self._lanes[entry.channel].failures = 0
        self._end(entry, None, ack)
        return True

    def fail(self, entry: Entry, error: Exception) -> None:
        """Give the entry up with ``error``; the others go on."""
        if not entry.gone:
            self._end(entry, error, error)

    def take_back(self, entry: Entry, error: Exception) -> None:
        """Give the entry up with ``error``; who calls this answers for its message."""
        if not entry.gone:
            self._end(entry, error, error, told=True)

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

    def is_held(self, channel: str) -> bool:
        """Whether a channel waits to be sent again."""
        lane = self._lanes.get(channel)
        return lane is not None and lane.holding

    def release(self, channel: str) -> None:
        """Let a channel that was held go out again: all of it, with the next run."""
        lane = self._lanes.get(channel)
        if lane is None or not lane.settled:
            return
        lane.holding = lane.settled = False
        lane.run += 1
        self._ready = deque(place for place in self._ready if place not in lane.pending)
        self._ready.extend(lane.pending)

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
        self._ready = deque(self._entries)

    # ---- from one outbox into another ------------------------------------------

    def hand_over(self) -> list[Entry]:
        """Let go of everything, in order, what waits for room included. There is no link.

        Nobody is told of it: who calls this answers for what it gets.
        """
        entries = [*self._entries.values(), *self._room.clear()]
        for each in (self._entries, self._keys, self._lanes, self._runs, self._ready):
            each.clear()
        self._in_flight = 0
        self._check_drained()
        return entries

    def adopt(self, entries: list[Entry]) -> None:
        """Take what another outbox let go of, in that order, and whatever the bound says."""
        for entry in entries:
            entry.in_flight = False
            entry.place = 0
            self._room.admit(entry)

    # ---- ending ----------------------------------------------------------------

    def next_expiry(self) -> float | None:
        """The loop's time at which the first entry expires."""
        return min((entry.expires for entry in self._entries.values()), default=None)

    def expire(self, now: float) -> None:
        """Give up what has waited for its acknowledgement for too long."""
        for entry in self:
            if entry.expires <= now:
                self.give_up(entry, "no acknowledgement within its time to live")

    def refuse_waiting(self) -> None:
        """Nobody gets in any more."""
        self._room.refuse_all(NotSent("the client ended before there was room in the outbox"))

    def end(self, cause: BaseException) -> None:
        """Give everything up: nothing will be sent any more."""
        self.refuse_waiting()
        for entry in self:
            self.give_up(entry, "the client ended", cause)

    def keep(self, entry: Entry, cause: BaseException) -> None:
        """Let go of an entry that stays in the durable outbox."""
        error = StillQueued(f"message {entry.id} to {entry.channel!r} stays in the outbox's file")
        error.__cause__ = cause
        self._take_out(entry)
        self._room.left(entry)
        entry.settle(error)
        self._check_drained()

    async def drained(self) -> None:
        """Wait until nothing waits for its acknowledgement. Safe to cancel."""
        while self._entries or self._room.waiting:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drained.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._drained:
                    self._drained.remove(waiter)

    def _end(
        self,
        entry: Entry,
        error: Exception | None,
        result: Ack | Exception,
        *,
        told: bool = False,
    ) -> None:
        self._take_out(entry)
        told = entry.settle(result) or told
        self._room.left(entry)
        self._owner.ended(entry, error, told)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._drained and not self._entries and not self._room.waiting:
            for waiter in self._drained:
                if not waiter.done():
                    waiter.set_result(None)

    def _take_out(self, entry: Entry) -> None:
        entry.leave()
        del self._entries[entry.place]
        if entry.key is not None and self._keys.get((entry.channel, entry.key)) is entry:
            del self._keys[entry.channel, entry.key]
        lane = self._lanes[entry.channel]
        del lane.pending[entry.place]
        if not lane.pending:
            # The server goes by (channel, run) for as long as the link lasts.
            run = lane.run + 1 if lane.holding else lane.run
            if run:
                self._runs[entry.channel] = run
            del self._lanes[entry.channel]
        if entry.in_flight:
            self._answered(entry, lane)

    def _answered(self, entry: Entry, lane: Lane) -> None:
        entry.in_flight = False
        lane.in_flight -= 1
        self._in_flight -= 1
        if lane.holding and not lane.settled and not lane.in_flight and lane.pending:
            lane.settled = True
            self._owner.settled(entry.channel, lane)

    def __repr__(self) -> str:
        return f"<Outbox messages={len(self._entries)} bytes={self._room.size}>"
