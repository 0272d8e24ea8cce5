"""A timer wheel: what looks after every connection of a process with one timer.

An item is looked at when it is due and says when it wants to be looked at next; nothing
is done for it in between. So ten thousand idle connections cost a few hundred short
calls a second, and no task or timer each.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

SLOTS = 64


class Ticked(Protocol):
    """What can be put on a wheel; must be hashable by identity."""

    def tick(self, now: float) -> float:
        """Do what is due. Return in how many seconds to come again, 0 for never."""


class Wheel:
    """Ticks once a second, and looks at the items whose time has come.

    Attributes:
        now: the loop's time at the last tick: a cheap clock with a grain of a second.
        lag: by how many seconds the last tick came late: how long the loop was busy.
        lagged_at: the loop's time when it was last late by more than two seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, grain: float = 1.0) -> None:
        self._loop = loop
        self._grain = grain
        self._slots: list[dict[Ticked, float]] = [{} for _ in range(SLOTS)]
        self._at = 0
        self._handle: asyncio.TimerHandle | None = None
        self.now = loop.time()
        self.lag = 0.0
        self.lagged_at = float("-inf")

    def start(self) -> None:
        """Begin to tick."""
        self.now = self._loop.time()
        self._handle = self._loop.call_later(self._grain, self._tick)

    def stop(self) -> None:
        """Tick no more, and forget all items."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for slot in self._slots:
            slot.clear()

    def add(self, item: Ticked, delay: float) -> None:
        """Look at ``item`` in ``delay`` seconds (rounded up to the grain)."""
        due = self._loop.time() + delay
        steps = int(-((self.now - due) // self._grain))
        if steps < 1:
            steps = 1
        elif steps >= SLOTS:
            steps = SLOTS - 1
        slot = self._slots[(self._at + steps) % SLOTS]
        if slot.setdefault(item, due) > due:
            slot[item] = due

    def _tick(self) -> None:
        now = self._loop.time()
        self.lag = max(0.0, now - self.now - self._grain)
        if self.lag > 2 * self._grain:
            self.lagged_at = now
        self.now = now
        self._handle = self._loop.call_later(self._grain, self._tick)
        self._at = (self._at + 1) % SLOTS
        slot = self._slots[self._at]
        if not slot:
            return
        self._slots[self._at] = {}
        slots, at, grain = self._slots, self._at, self._grain
        for item, due in slot.items():
            if due > now + grain:  # further away than the wheel is round
                self.add(item, due - now)
            elif delay := item.tick(now):
                # As add() does, which is a call for each heartbeat.
                steps = -int(-delay // grain) or 1
                known = slots[(at + (steps if steps < SLOTS else SLOTS - 1)) % SLOTS]
                due = now + delay
                if known.setdefault(item, due) > due:
                    known[item] = due
