"""How often a connection may subscribe: a bucket that empties at a steady rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import ErrorCode
from ..errors import RequestError

if TYPE_CHECKING:
    from .connection import Connection


class Churn:
    """What a connection has subscribed to lately."""

    __slots__ = ("_at", "_level")

    def __init__(self, now: float, channels: int) -> None:
        """The first request finds it empty: it is admitted, however large it is."""
        self._level = float(channels)
        self._at = now

    def wait(self, channels: int, now: float, rate: float, most: float) -> float:
        """Take note of so many more; or, if they are too many, return the seconds to wait.

        A full request is admitted to an empty bucket, however large it is.
        """
        self._level = max(0.0, self._level - (now - self._at) * rate)
        self._at = now
        room = most - self._level
        if channels > room and self._level > 0:
            return min(channels - room, self._level) / rate
        self._level += channels
        return 0.0


def check_churn(connection: Connection, channels: int) -> None:
    """Take note that a connection subscribes to so many channels.

    Raises:
        RequestError: it does too often; ``retry_after`` says when it may.
    """
    node = connection.node
    if connection.churn is None:
        connection.churn = Churn(node.wheel.now, channels)
        return
    limits = node.limits
    wait = connection.churn.wait(
        channels, node.wheel.now, limits.subscribes, 2 * limits.subscriptions
    )
    if wait:
        node.count("subscribes_limited")
        raise RequestError(
            f"a connection may subscribe to {limits.subscribes} channels a second",
            code=ErrorCode.RATE_LIMITED,
            retry_after=wait,
        )
