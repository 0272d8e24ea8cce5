"""What is left of a message that was not delivered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..protocol.data import unpack_data
from .entry import Entry
from .records import Buried


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A message that the server did not acknowledge, and that nobody sends any more.

    Attributes:
        id: of the message.
        channel: where it was to go.
        data: what was published, as plain data.
        key: that it was published with.
        sent: it was sent: nobody knows whether it took effect. Otherwise it had none.
        reason: why it was given up.
        number: in the durable outbox's file, where it is kept; 0 elsewhere.
    """

    id: str
    channel: str
    data: Any
    key: str | None
    sent: bool
    reason: str
    number: int = 0

    @classmethod
    def of_entry(cls, entry: Entry, reason: object) -> Undelivered:
        """Make it of an entry of the outbox."""
        sent = entry.first_sent is not None
        return cls(entry.id, entry.channel, entry.data, entry.key, sent, str(reason))

    @classmethod
    def of_buried(cls, row: Buried) -> Undelivered:
        """Make it of a row of the file."""
        data = unpack_data(row.data)
        return cls(row.id, row.channel, data, row.key, row.sent, row.reason, row.number)
