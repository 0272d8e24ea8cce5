"""What a :class:`~everwire.Socket` has still to send, in order.

Rule 1: a message leaves the queue by being written, or by an error: never in silence.
Rule 2: a message that is being written is at the head, and stays there until all of it has
left: if the link dies before that, it did not arrive whole, and is sent again first.

No I/O and no clock: who calls says what time it is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator

from ..errors import Dropped, NotSent
from .overflow import Overflow, Room
from .tally import Counted


class Outgoing(Counted):
    """A message to be sent.

    Attributes:
        opcode: of its frame.
        payload: what it says.
        key: two with the same key may be one, if the overflow policy says so.
        expires: the loop's time at which it is given up.
        future: is done when it has left, or will not. Nobody need look at it.
        started: part of it may have left.
        own: it belongs to the current link, and is not sent on another.
        queue: that it is in.
    """

    __slots__ = ("expires", "future", "key", "opcode", "own", "payload", "queue", "started")

    def __init__(
        self, opcode: int, payload: bytes, *, key: str | None, expires: float, own: bool
    ) -> None:
        super().__init__()
        self.opcode = opcode
        self.payload = payload
        self.key = key
        self.expires = expires
        self.own = own
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = False
        self.queue: SendQueue | None = None

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return len(self.payload)


class SendQueue:
    """Holds messages until they have left; bounded in number and in bytes.

    Args:
        messages: that it may hold.
        size: bytes that they may have.
        lost: is told of each message that will not be sent, and why.

    Attributes:
        room: its bound.
    """

    def __init__(
        self, *, messages: int, size: int, lost: Callable[[Outgoing, Exception], None]
    ) -> None:
        self.room: Room[Outgoing] = Room(self, messages=messages, size=size)
        self._lost = lost
        self._first: dict[int, Outgoing] = {}  # those of the link itself: ahead of all others
        self._items: dict[int, Outgoing] = {}
        self._by_key: dict[str, Outgoing] = {}
        self._places = 0
        self._empty: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._first) + len(self._items)

    def __iter__(self) -> Iterator[Outgoing]:
        return iter([*self._first.values(), *self._items.values()])

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self.room.size + sum(item.size for item in self._first.values())

    # ---- coming in -------------------------------------------------------------

    def offer(self, item: Outgoing, overflow: Overflow) -> bool:
        """Let a message in, or do what ``overflow`` says; False if it has to wait for room.

        Raises:
            OutboxFull: it is refused.
        """
        if item.own:
            self.take(item)  # a link's own first words find room in any case
            return True
        return self.room.offer(item, overflow)

    def take(self, item: Outgoing) -> None:
        """It got in: see :class:`~.overflow.Holder`."""
        self._places += 1
        item.place = self._places
        item.queue = self
        if item.own:
            self._first[item.place] = item
            return
        self._items[item.place] = item
        if item.key is not None:
            self._by_key[item.key] = item

    def replace(self, old: Outgoing, new: Outgoing) -> None:
        """Put ``new`` where ``old`` was."""
        old.leave()
        new.queue = self
        new.place = old.place
        self._items[new.place] = new
        if new.key is not None:
            self._by_key[new.key] = new

    def discard(self, item: Outgoing) -> None:
        """Take it out; :meth:`dropped` follows."""
        item.leave()
        (self._first if item.own else self._items).pop(item.place, None)
        if item.key is not None and self._by_key.get(item.key) is item:
            del self._by_key[item.key]

    def unsent(self) -> Iterable[Outgoing]:
        """What may still be dropped, the oldest first."""
        return [item for item in self._items.values() if not item.started]

    def same(self, item: Outgoing) -> Outgoing | None:
        """What has the same key and may still be replaced."""
        found = None if item.key is None else self._by_key.get(item.key)
        return None if found is None or found.started else found

    def dropped(self, item: Outgoing, error: Dropped) -> None:
        """It made room for another, or found none."""
        self._fail(item, error)

    # ---- going out -------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is ahead of a message that is written now."""
        return not self._items and not self._first and not self.room.waiting

    def begin(self, item: Outgoing) -> None:
        """A message was written ahead of the queue, and part of it is still to leave."""
        item.started = True
        self.offer(item, "reject")

    def head(self) -> Outgoing | None:
        """The next to be written, or the one that is being."""
        return next(iter(self._first.values()), None) or next(iter(self._items.values()), None)

    def sent(self, item: Outgoing) -> None:
        """All of it has left."""
        if not item.gone:
            self._remove(item)
            if not item.future.done():
                item.future.set_result(None)

    def take_back(self, item: Outgoing) -> bool:
        """Who sent it wants it no more. False if it is too late."""
        if item.gone or item.started:
            return False
        self._remove(item)
        return True

    def unlink(self) -> Outgoing | None:
        """The link is gone: return what had begun to leave, and did not; it is the head again.

        What belonged to the link is given up.
        """
        for item in list(self._first.values()):
            self.give_up(item, "its connection was lost before it was sent")
        for item in self._items.values():
            if item.started:
                item.started = False
                return item
            break
        return None

    # ---- from one queue into another ---------------------------------------------

    def hand_over(self) -> list[Outgoing]:
        """Let go of everything, in order, what waits for room included. There is no link.

        Nobody is told of it: who calls this answers for what it gets.
        """
        items = [*self._items.values(), *self.room.clear()]
        self._items.clear()
        self._by_key.clear()
        self._check_empty()
        return items

    def adopt(self, item: Outgoing) -> None:
        """Take what another queue let go of, whatever the bound says."""
        self.room.admit(item)

    # ---- ending ------------------------------------------------------------------

    def next_expiry(self) -> float:
        """The loop's time at which the first message expires; infinite if none does."""
        return min((item.expires for item in self if not item.started), default=math.inf)

    def expire(self, now: float) -> None:
        """Give up what has waited for too long."""
        for item in self:
            if item.expires <= now and not item.started:
                self.give_up(item, "there was no connection within its time to live")

    def give_up(self, item: Outgoing, why: str, cause: BaseException | None = None) -> None:
        """Take a message out: it will not be sent."""
        if item.gone:
            return
        error = NotSent(f"a message of {item.size} bytes was not sent: {why}")
        error.__cause__ = cause
        self._remove(item)
        self._fail(item, error)

    def end(self, cause: BaseException) -> None:
        """Give everything up: nothing will be sent any more."""
        self.room.refuse_all(NotSent("a message was not sent: the socket ended"))
        for item in self:
            self.give_up(item, "the socket ended", cause)

    async def drained(self) -> None:
        """Wait until nothing waits to be sent. Safe to cancel."""
        while len(self) or self.room.waiting:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._empty.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._empty:
                    self._empty.remove(waiter)

    def _remove(self, item: Outgoing) -> None:
        self.discard(item)
        if not item.own:
            self.room.left(item)
        self._check_empty()

    def _check_empty(self) -> None:
        if not len(self):
            for waiter in self._empty:
                if not waiter.done():
                    waiter.set_result(None)

    def _fail(self, item: Outgoing, error: Exception) -> None:
        item.leave()
        if not item.future.done():
            item.future.set_exception(error)
            item.future.exception()  # whoever did not wait for it need not
        self._lost(item, error)

    def __repr__(self) -> str:
        return f"<SendQueue messages={len(self)} bytes={self.size}>"
