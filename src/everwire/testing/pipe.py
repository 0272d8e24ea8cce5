"""One direction of a link: what is under way, when it arrives, and what holds it up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from ..protocol.frames import Opcode

if TYPE_CHECKING:
    from .link import Link

GRAIN = 1e-9  # seconds by which a timer of asyncio may come early
PROGRESS = 1.0  # seconds between signs of a message that comes slowly


class Direction(StrEnum):
    """Which way something goes on a link."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


def frame_size(payload: int) -> int:
    """Bytes of an unmasked frame; a mask is not counted, so both directions are alike."""
    return payload + (2 if payload < 126 else 4 if payload < 65536 else 10)


class Item:
    """Something under way: a frame, or something to be done when it is its turn."""

    __slots__ = ("act", "arrived", "begins", "due", "opcode", "payload", "shown", "size")

    def __init__(self, opcode: int | None, payload: bytes, act: Callable[[], None] | None) -> None:
        self.opcode = opcode
        self.payload = payload
        self.act = act
        self.size = 0 if opcode is None else frame_size(len(payload))
        self.begins = 0.0  # the loop's time when its first byte arrives
        self.due = 0.0  # and its last; what was sent before it comes first all the same
        self.arrived = 0  # bytes of it that the receiver has
        self.shown = False  # to the network's on_message

    @property
    def is_message(self) -> bool:
        """Whether it is a text or binary message."""
        return self.opcode in (Opcode.TEXT, Opcode.BINARY)


class Pipe:
    """Carries items in order, one direction.

    Attributes:
        outstanding: bytes sent and not yet delivered.
        delivered: messages that were.
        arrived: bytes that were.
        remaining: messages after which the link is cut, or None.
        frozen: nothing gets through.
    """

    def __init__(self, link: Link, direction: Direction) -> None:
        self.direction = direction
        self.outstanding = 0
        self.delivered = 0
        self.arrived = 0
        self.remaining: int | None = None
        self.frozen = False
        self._link = link
        self._queue: deque[Item] = deque()
        self._handle: asyncio.Handle | None = None
        self._free_at = 0.0  # when the line has sent what it was given
        self._lost = False
        self._discarded = False

    @property
    def _blocked(self) -> bool:
        link, to = self._link, self._link.receiver(self.direction)
        return self.frozen or link.network.partitioned or to.reading_paused

    # ---- the sender's end ------------------------------------------------------

    def put(
        self, opcode: int | None, payload: bytes, act: Callable[[], None] | None = None
    ) -> None:
        """Send a frame, or have something done in its turn."""
        if self._discarded:
            return
        link, item = self._link, Item(opcode, payload, act)
        if opcode is not None:
            link.network.record(link.id, self.direction, "sent", opcode, payload)
        self.outstanding += item.size
        if self._lost:
            return
        starts = max(link.loop.time(), self._free_at)
        self._free_at = starts + (0.0 if link.bandwidth is None else item.size / link.bandwidth)
        item.begins = starts + link.latency
        item.due = self._free_at + link.latency
        self._queue.append(item)
        self.schedule()

    def discard(self) -> None:
        """Lose all that is under way, and all that follows; nothing is outstanding."""
        self._queue.clear()
        self.outstanding = 0
        self._discarded = True

    def lose(self) -> None:
        """Lose all that is under way, and all that follows, without the sender knowing."""
        self._queue.clear()
        self._lost = True

    def keep(self, size: int) -> None:
        """Keep the first ``size`` bytes under way, in whole frames; lose the rest."""
        kept: deque[Item] = deque()
        total = 0
        for item in self._queue:
            total += item.size - item.arrived
            if total > size:
                break
            kept.append(item)
        self._queue = kept
        self.outstanding = sum(item.size - item.arrived for item in kept)
        self._free_at = kept[-1].due - self._link.latency if kept else 0.0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.schedule()

    # ---- the receiver's end ------------------------------------------------------

    def schedule(self) -> None:
        """See to it that the next item is delivered when it is due."""
        if self._handle is not None or not self._queue or self._blocked:
            return
        loop, head = self._link.loop, self._queue[0]
        now = loop.time()
        if head.due <= now + GRAIN:
            self._handle = loop.call_soon(self._pump)
        else:
            self._handle = loop.call_at(min(head.due, max(now, head.begins) + PROGRESS), self._pump)

    def _pump(self) -> None:
        self._handle = None
        link = self._link
        while self._queue and not self._blocked:
            head = self._queue[0]
            now = link.loop.time()
            if head.due > now + GRAIN:
                self._progress(head, now)
                break
            heeded = head.opcode is not None and link.receiver(self.direction).heeds(head.opcode)
            if head.is_message and heeded and not head.shown:
                # It may cut, freeze or pause: everything is looked at anew after it.
                head.shown = True
                link.show(self.direction, head.payload)
                continue
            self._queue.popleft()
            self.outstanding -= head.size - head.arrived
            self.arrived += head.size - head.arrived
            if head.act is not None:
                head.act()
            elif head.opcode is not None and heeded:
                self._deliver(head.opcode, head)
            link.sender(self.direction).check_write_buffer()
        self.schedule()

    def _progress(self, head: Item, now: float) -> None:
        """Account for the part of a message that a slow line has brought."""
        if now <= head.begins:
            return
        arrived = int(head.size * (now - head.begins) / (head.due - head.begins))
        self.outstanding -= arrived - head.arrived
        self.arrived += arrived - head.arrived
        head.arrived = arrived
        self._link.receiver(self.direction).part_came()
        self._link.sender(self.direction).check_write_buffer()

    def _deliver(self, opcode: int, item: Item) -> None:
        link = self._link
        link.network.record(link.id, self.direction, "delivered", opcode, item.payload)
        if not item.is_message:
            link.receiver(self.direction).take(opcode, item.payload)
            return
        self.delivered += 1
        link.receiver(self.direction).take(opcode, item.payload)
        if self.remaining is not None:
            self.remaining -= 1
            if self.remaining <= 0:
                link.cut()
