"""A channel as the contract has it: numbers, what is held, which ids are remembered.

Lists and dicts. Nothing here knows how the server does it: what is held is worked out anew
from all that was ever stored, whenever it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

Position = tuple[str, int, str]  # epoch, offset, id
Name = tuple[str, str]  # whose id, and the id
GRAIN = 1e-6  # seconds by which the clocks of a test may differ


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a channel: messages, seconds, bytes; and ids, for how long and how many."""

    history: int
    ttl: float
    size: int
    window: float
    most_ids: int
    latest: bool = False
    """whoever subscribes is sent the last message first"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message that was numbered. ``step`` is its place in the record of the whole test."""

    offset: int
    id: str
    whose: str
    data: Any
    size: int
    step: int
    now: float


@dataclass(slots=True)
class Log:
    """One channel in one epoch."""

    channel: str
    kept: Kept
    epoch: str
    life: int
    entries: list[Entry] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    names: dict[Name, list[tuple[float, int]]] = field(default_factory=dict)
    """when an id was stored, and as which number"""

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.steps.append(entry.step)
        self.names.setdefault((entry.whose, entry.id), []).append((entry.now, entry.offset))

    def top(self, step: int) -> int:
        """The last number that had been given before a step of the test."""
        return bisect_left(self.steps, step)

    def oldest(self, step: int, now: float) -> int:
        """The number of the oldest message that is held, that behind the last if none is."""
        top = self.top(step)
        oldest, size = top + 1, 0
        while oldest > 1:
            entry = self.entries[oldest - 2]
            size += entry.size
            held = top - oldest + 2
            if (
                held > self.kept.history
                or entry.now <= now - self.kept.ttl
                or (size > self.kept.size and held > 1)
            ):
                break
            oldest -= 1
        return oldest

    def position(self, offset: int) -> Position:
        return (self.epoch, offset, self.entries[offset - 1].id if offset else "")

    def knows(self, at: Position) -> bool:
        """Whether there is such a message; an empty id is one that nobody told of."""
        epoch, offset, message_id = at
        if epoch != self.epoch or offset > len(self.entries):
            return False
        return message_id in ("", self.position(offset)[2])

    def recoverable(self, at: Position, step: int, now: float) -> bool:
        """Whether everything after a position can be had: rule 4."""
        epoch, offset, message_id = at
        top = self.top(step)
        if epoch != self.epoch or offset > top or message_id != self.position(offset)[2]:
            return False
        return (
            offset == top
            or offset >= self.oldest(step, now)
            or (offset == 0 and self.oldest(step, now) == 1)
        )

    def first(self, name: Name) -> int | None:
        """The number under which an id was stored first."""
        stored = self.names.get(name)
        return stored[0][1] if stored else None

    def last(self, name: Name) -> tuple[float, int] | None:
        """When an id was last stored, and as which number."""
        stored = self.names.get(name)
        return stored[-1] if stored else None

    def remembered(self, now: float, window: float) -> int:
        """How many ids were stored within ``window`` seconds."""
        return sum(stored[-1][0] > now - window for stored in self.names.values())
