"""What happens when a queue of outgoing messages is full: one mechanism for all queues.

A :class:`Room` knows how much its queue holds and who waits to get in; the queue itself, and
which of its messages may still be dropped, is the business of its :class:`Holder`. No I/O.

Rule 1: who came first gets in first, or is dropped first; nobody overtakes.
Rule 2: what has been sent is never dropped: it may have taken effect.
Rule 3: whatever is dropped, its holder is told, once the room is in order again: so
anything may be called from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeAlias, TypeVar, get_args

from ..errors import ConfigError, Dropped, OutboxFull, Superseded

Overflow: TypeAlias = Literal["block", "reject", "drop_oldest", "drop_newest", "coalesce"]
"""What becomes of a message for which there is no room:

* ``block``: it waits for room, and is refused with ``OutboxFull`` after a while;
* ``reject``: it is refused with ``OutboxFull`` at once;
* ``drop_oldest``: the oldest that was not sent yet makes room for it;
* ``drop_newest``: it is dropped itself;
* ``coalesce``: it replaces the one with the same key that was not sent yet, in its place and
  also where there is room; without such a one it blocks, or is refused where nothing waits.
"""


class Queued(Protocol):
    """A message in a queue."""

    @property
    def size(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Queued)
C = TypeVar("C", contravariant=True, bound=Queued)


class Holder(Protocol[T]):
    """The queue that a :class:`Room` is the bound of."""

    def take(self, item: T) -> None:
        """It got in: put it behind all others."""

    def replace(self, old: T, new: T) -> None:
        """Put ``new`` in the place of ``old``."""

    def discard(self, item: T) -> None:
        """Take it out; :meth:`dropped` follows."""

    def unsent(self) -> Iterable[T]:
        """What was never sent, the oldest first."""

    def same(self, item: T) -> T | None:
        """What was never sent and has the key of ``item``."""

    def dropped(self, item: T, error: Dropped) -> None:
        """It will not be sent: tell who published it. ``error`` says why."""


class Room(Generic[T]):
    """The bound of a queue, in messages and in bytes.

    Args:
        holder: the queue.
        messages: that it may hold.
        size: bytes that they may have.

    Attributes:
        messages: that it holds.
        size: bytes that they have.
    """

    def __init__(self, holder: Holder[T], *, messages: int, size: int) -> None:
        self.messages = 0
        self.size = 0
        self._holder = holder
        self._max_messages = messages
        self._max_size = size
        self._line: dict[T, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """Messages that wait for room."""
        return len(self._line)

    def offer(self, item: T, policy: Overflow) -> bool:
        """Let a message in, or do with it what ``policy`` says.

        Returns:
            False if it would have to wait: see :meth:`wait`. True if that is settled: it
            is in, or it was dropped.

        Raises:
            OutboxFull: it is refused.
        """
        if policy != "coalesce" and not self._line and self._holds(1, item.size):
            self._take(item)  # the usual case, first
            return True
        if item.size > self._max_size:
            raise OutboxFull(
                f"a message of {item.size} bytes; the whole outbox may have {self._max_size}"
            )
        same = self._holder.same(item) if policy == "coalesce" else None
        if same is not None and self._holds(0, item.size - same.size):
            self._replace(same, item)
        elif not self._line and self._holds(1, item.size):
            self._take(item)
        elif policy == "drop_newest":
            self._holder.dropped(item, Dropped(f"dropped, as the newest: {self._full()}"))
        elif policy == "drop_oldest":
            self._make_room(item)
        elif policy == "reject":
            self.refuse()
        else:
            return False
        return True

    def refuse(self) -> NoReturn:
        """Refuse what :meth:`offer` would let wait, where nobody can wait.

        Raises:
            OutboxFull: always.
        """
        raise OutboxFull(self._full())

    async def wait(self, item: T, seconds: float) -> None:
        """Let a message in as soon as there is room, first come, first served.

        Cancelling takes the message back, unless it got in already.

        Raises:
            OutboxFull: there was no room within ``seconds``.
            Dropped: it was dropped in favour of a later one.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line[item] = turn
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            if item in self._line:
                raise OutboxFull(
                    f"no room in the outbox within {seconds:g} s: {self._full()}"
                ) from None
            turn.result()  # its turn came in the very same moment
        finally:
            if self._line.pop(item, None) is not None:
                self._admit()  # a smaller one behind it may fit

    def admit(self, item: T) -> None:
        """Let a message in, whatever the bound says."""
        self._take(item)

    def left(self, item: T) -> None:
        """A message is out of the queue: let in who waits."""
        self.messages -= 1
        self.size -= item.size
        if self._line:
            self._admit()

    def clear(self) -> list[T]:
        """Everything leaves at once, and who waits need not: return what was in line."""
        line, self._line = self._line, {}
        self.messages = self.size = 0
        for turn in line.values():
            if not turn.done():
                turn.set_result(None)
        return list(line)

    def refuse_all(self, error: Exception) -> None:
        """Nobody will get in any more."""
        line, self._line = self._line, {}
        for turn in line.values():
            if not turn.done():
                turn.set_exception(error)

    def _holds(self, messages: int, size: int) -> bool:
        """Whether there is room for so many more."""
        return self.messages + messages <= self._max_messages and self.size + size <= self._max_size

    def _full(self) -> str:
        return (
            f"{self.messages} messages of {self.size} bytes wait; "
            f"{self._max_messages} messages of {self._max_size} bytes may"
        )

    def _take(self, item: T) -> None:
        self.messages += 1
        self.size += item.size
        self._holder.take(item)

    def _admit(self) -> None:
        while self._line:
            item, turn = next(iter(self._line.items()))
            if not self._holds(1, item.size):
                return
            del self._line[item]
            self._take(item)
            if not turn.done():
                turn.set_result(None)

    def _replace(self, old: T, new: T) -> None:
        self.size += new.size - old.size
        self._holder.replace(old, new)
        self._admit()
        self._holder.dropped(old, Superseded("a later message with its key took its place"))

    def _make_room(self, item: T) -> None:
        """Drop as many of the oldest as it takes, those in line among them, or none."""
        messages = self.messages + len(self._line) + 1
        size = self.size + sum(waiting.size for waiting in self._line) + item.size
        held: list[T] = []
        in_line: list[T] = []
        for group, victims in ((self._holder.unsent(), held), (self._line, in_line)):
            for victim in group:
                if messages <= self._max_messages and size <= self._max_size:
                    break
                victims.append(victim)
                messages -= 1
                size -= victim.size
        if messages > self._max_messages or size > self._max_size:
            raise OutboxFull(f"{self._full()}, and what is sent already cannot be dropped")
        error = Dropped(f"dropped, as the oldest: {self._full()}")
        turns = [self._line.pop(victim) for victim in in_line]
        for victim in held:
            self._holder.discard(victim)
            self.messages -= 1
            self.size -= victim.size
        self._admit()
        self._take(item)
        for victim in (*held, *in_line):
            self._holder.dropped(victim, error)
        for turn in turns:
            if not turn.done():
                turn.set_exception(error)

    def __repr__(self) -> str:
        return f"<Room messages={self.messages} bytes={self.size} waiting={len(self._line)}>"


def checked_overflow(policy: Any) -> Overflow | None:
    """Return a policy of the application's, or None if it has none.

    Raises:
        ConfigError: there is no such policy.
    """
    if policy is not None and policy not in get_args(Overflow):
        raise ConfigError(
            f"overflow must be one of {', '.join(get_args(Overflow))}, not {policy!r}"
        )
    chosen: Overflow | None = policy
    return chosen
