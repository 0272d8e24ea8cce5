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
    """A channel on a link: what was asked for, and what the server said.

    Args:
        feed: whose channel it is.
        beside: another link delivers it until this one answers.
    """

    __slots__ = ("_asked", "_beside", "feed", "left", "phase", "sid")

    def __init__(self, feed: Feed, *, beside: bool = False) -> None:
        self._beside = beside
        self._asked = feed.tail
        self.phase = Phase.ASKING
        self.feed = feed
        self.sid: int | None = None
        self.left: list[asyncio.Future[None]] = []

    def confirm(self, result: m.ChannelResult, now: float) -> None:
        """Tell the feed where this link goes on."""
        feed, tail, beside = self.feed, self.feed.tail, self._beside
        self._beside = False
        if beside:
            feed.resync = False
        if not beside or tail == self._asked:
            feed.confirmed(result, now)
            return
        # The link before went on delivering: what comes again is a duplicate. If this one
        # begins behind what came there, it is asked anew for what is between.
        if tail is not None:
            here = m.ChannelResult(
                feed.channel, result.sid, tail.epoch, tail.offset, tail.id, True, True
            )
            feed.confirmed(here, now)
        covered = tail is not None and result.epoch == tail.epoch and result.offset <= tail.offset
        if not (covered and result.recovered):
            feed.go_on_from(tail, 0.0)

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
