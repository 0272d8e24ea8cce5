"""Channels to which the server subscribed us, and the application that is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..protocol import messages as m
from ..protocol.messages import Position
from .feed import Feed
from .hooks import call_hook

MOST = 1_000  # channels that wait for a function: a node gives a connection no more

Function = Callable[[str, Position], None]


class Assigned:
    """Tells of each channel once on a connection, also who begins to listen late.

    The server says so right after ``auth``, so before whoever has opened the client had the
    time to set :attr:`.client.Client.on_subscribed`, or not: that must make no difference.

    Args:
        subscriptions: what the application has subscribed to by itself, and need not be told.
    """

    __slots__ = ("_function", "_subscriptions", "_untold")

    def __init__(self, subscriptions: Iterable[Feed]) -> None:
        self._subscriptions = subscriptions
        self._untold: dict[str, Position] = {}
        self._function: Function | None = None

    def take(self, message: m.Subscribed) -> None:
        """The server gives us a channel."""
        self.tell(message.channel, Position(message.epoch, message.offset, message.id))

    def tell(self, channel: str, start: Position) -> None:
        """As :meth:`take`, of a member of a pool."""
        if self._function is not None:
            call_hook(self._function, channel, start)
        elif len(self._untold) < MOST or channel in self._untold:
            self._untold[channel] = start

    def lost(self) -> None:
        """The connection is: what is still ours, the next one is told again."""
        self._untold.clear()

    @property
    def function(self) -> Function | None:
        """Is called for each channel, at once for those of which nobody was told yet."""
        return self._function

    @function.setter
    def function(self, function: Function | None) -> None:
        self._function = function
        if function is None:
            return
        untold, self._untold = self._untold, {}
        taken = {feed.channel for feed in self._subscriptions}
        for channel, start in untold.items():
            if channel not in taken:
                call_hook(function, channel, start)
