"""What a client counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """What a client has done since it began. A snapshot.

    Attributes:
        sent: publishes written to a link, repetitions included.
        acknowledged: publishes that the server accepted.
        received: messages of channels, those put aside included.
        duplicates: of them, those that the application had been handed already.
        gaps: gaps handed to subscriptions.
        reconnects: links that became ready, after the first.
        dropped: publishes that a full outbox dropped.
        superseded: publishes that a later one with the same key took the place of.
    """

    sent: int = 0
    acknowledged: int = 0
    received: int = 0
    duplicates: int = 0
    gaps: int = 0
    reconnects: int = 0
    dropped: int = 0
    superseded: int = 0


@dataclass(slots=True)
class Counters:
    """The same, being counted."""

    sent: int = 0
    acknowledged: int = 0
    received: int = 0
    duplicates: int = 0
    gaps: int = 0
    reconnects: int = 0
    dropped: int = 0
    superseded: int = 0

    def snapshot(self) -> Stats:
        """Freeze them."""
        return Stats(
            self.sent,
            self.acknowledged,
            self.received,
            self.duplicates,
            self.gaps,
            self.reconnects,
            self.dropped,
            self.superseded,
        )
