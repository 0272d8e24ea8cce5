"""Positions: what comes next, what came already, what is missing.

Protocol section 3: with position *p*, a message at offset ≤ p is a duplicate, one whose
``prev`` ≤ p is next, and one whose ``prev`` > p leaves a hole. Offsets need not be
consecutive (a broker may number a whole stream of channels), hence ``prev``.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from .messages import Position


class Place(Enum):
    """Where a message stands, seen from a position."""

    DUPLICATE = "duplicate"
    NEXT = "next"
    HOLE = "hole"


def place(at: int, offset: int, prev: int | None) -> Place:
    """Tell where the message ``offset`` stands for a reader at offset ``at``.

    ``prev`` is the offset before it in the channel, None for ``offset - 1``.
    """
    if offset <= at:
        return Place.DUPLICATE
    if (offset - 1 if prev is None else prev) <= at:
        return Place.NEXT
    return Place.HOLE


NOWHERE = Position("", 0)
"""no place in any numbering"""


def advance(position: Position, offset: int, message_id: str) -> Position:
    """The position after a message of the same epoch was handed over."""
    return Position(position.epoch, offset, message_id)


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a channel, from which its messages go on.

    See ``get_state=`` of the client's ``subscribe``, and ``state`` of a server's channel.

    Attributes:
        data: what the application's function returned.
        position: of the last message that ``data`` contains; None in a dialect without
            positions, and for "as of the call" where the function returns one itself.
        channel: the channel's name; the client fills it in.
    """

    data: Any
    position: Position | None = None
    channel: str = ""
