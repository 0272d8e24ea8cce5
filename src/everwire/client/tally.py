"""Counting what is under way in queues of outgoing messages, whichever they are in."""

from __future__ import annotations

from typing import Protocol, Self


class Tally(Protocol):
    """Counts messages that are under way."""

    def entered(self) -> None:
        """One more."""

    def left(self) -> None:
        """One less: it is out of its queue for good, or did not get in."""


class Counted:
    """A message in a queue.

    Attributes:
        place: among all of its queue; 0 before it got in.
        gone: it is out for good, or did not get in.
        tally: counts it, if somebody wants to know.
    """

    __slots__ = ("gone", "place", "tally")

    def __init__(self) -> None:
        self.place = 0
        self.gone = False
        self.tally: Tally | None = None

    def counted(self, tally: Tally | None) -> Self:
        """Count it while it gets in: ``with message.counted(tally): put it into a queue``."""
        if tally is not None:
            tally.entered()
            self.tally = tally
        return self

    def __enter__(self) -> None:
        """It is on its way in."""

    def __exit__(self, *error: object) -> None:
        if not self.place:
            self.leave()

    def leave(self) -> None:
        """It is gone."""
        if not self.gone:
            self.gone = True
            if self.tally is not None:
                self.tally.left()
