"""One message on its way to the server, and what its publisher is given for it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ..errors import Dropped, StillQueued
from ..protocol.messages import Position
from .tally import Counted

DEDUPE_MARGIN = 30.0  # seconds before the end of the server's memory: for clocks and transit


def remembered(window: float) -> float:
    """Seconds after its first attempt for which a message may be sent again.

    Args:
        window: seconds for which the server remembers its id.
    """
    return window - min(DEDUPE_MARGIN, window / 2)


class Ack(msgspec.Struct, frozen=True):
    """A message was accepted.

    Attributes:
        position: where it is stored; None in a dialect without acknowledgements, and for
            ``wait="stored"``: then it is in the durable outbox, and not yet with the server.
        duplicate: an earlier attempt had stored it already.
        id: the message's id, the same over all attempts.
    """

    position: Position | None
    duplicate: bool = False
    id: str = ""


class Entry(Counted):
    """One message on its way.

    Attributes:
        key: two entries of a channel with the same key coalesce, if they are to.
        expires: the loop's time at which it is given up.
        firm: ``expires`` was asked for with this very message.
        future: is given the :class:`Ack` or an error. Cancelling it changes nothing else.
        encoded: the bytes of its first run, until they are sent.
        first_sent: the loop's time of the first attempt, None before it.
        first_wall: the wall clock's time of the first attempt: it counts a suspended
            machine's time as well.
        error: what the server said last.
        stored: it may be sent: it is in the durable outbox's file, or there is no such file.
        committed: is resolved when it is in the file; for who waits for no more than that.
        marked: the link for which its first attempt was noted in the file.
        orphan: ``future`` is nobody's.
    """

    __slots__ = ("channel", "committed", "data", "encoded", "error", "expires", "firm",
                 "first_sent", "first_wall", "future", "id", "in_flight", "key", "marked", "orphan",
                 "size", "stored")  # fmt: skip

    def __init__(
        self,
        entry_id: str,
        channel: str,
        data: Any,
        encoded: bytes,
        expires: float,
        future: asyncio.Future[Ack],
        key: str | None = None,
    ) -> None:
        super().__init__()
        self.id = entry_id
        self.channel = channel
        self.data = data
        self.encoded: bytes | None = encoded
        self.size = len(encoded)
        self.expires = expires
        self.firm = False
        self.future = future
        self.key = key
        self.first_sent: float | None = None
        self.first_wall = 0.0
        self.error: Exception | None = None
        self.in_flight = False
        self.stored = True
        self.committed: asyncio.Future[None] | None = None
        self.marked = 0
        self.orphan = False

    @property
    def taken(self) -> bool:
        """It got into the outbox."""
        return self.place > 0

    @property
    def unsent(self) -> bool:
        """It was never sent, nor is it being sent."""
        return self.first_sent is None and not self.in_flight

    def settle(self, result: Ack | Exception) -> bool:
        """Tell who waits for it. False if nobody does."""
        if isinstance(result, Ack):
            if self.future.done():
                return False
            self.future.set_result(result)
            return True
        told = False
        for each in (self.committed, None if self.orphan else self.future):
            if each is not None and not each.done():
                told = True
                each.set_exception(result)
                if isinstance(result, (Dropped, StillQueued)):
                    each.exception()  # a hook is told, or nothing is lost: nobody need ask
        return told
