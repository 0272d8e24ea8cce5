"""What one link knows of the channels that it is subscribed to."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

import msgspec

from ..codes import ErrorCode
from ..protocol import messages as m
from .feed import Feed


class Phase(Enum):
    """Which request about a channel is under way."""

    ASKING = auto()
    LIVE = auto()  # none
    LEAVING = auto()


class Known:
    """A channel on a link: what was asked for, and what the server said."""

    __slots__ = ("feed", "left", "phase", "sid")

    def __init__(self, feed: Feed) -> None:
        self.phase = Phase.ASKING
        self.feed = feed
        self.sid: int | None = None
        self.left: list[asyncio.Future[None]] = []

    def tell_left(self) -> None:
        """Tell those who wait that the link knows the channel no more."""
        for left in self.left:
            if not left.done():
                left.set_result(None)


class _Results(msgspec.Struct):
    subscriptions: list[m.ChannelResult] = []


def results_of(payload: object) -> dict[str, m.ChannelResult]:
    """Read the answer to a subscribe, or to an auth with channels.

    Raises:
        msgspec.ValidationError: it is none.
    """
    results = msgspec.convert(payload, _Results).subscriptions
    return {result.channel: result for result in results}


NO_RESULT = m.ErrorBody(
    ErrorCode.INTERNAL, "internal", "the server did not answer for this channel", temporary=True
)
