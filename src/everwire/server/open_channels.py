"""The channels that this node is told of: opened for the first subscriber, let go after the last."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ..errors import BrokerUnavailable
from ..hub.patterns import Pattern
from ..hub.registry import Channel

if TYPE_CHECKING:
    from .access import Channelled
    from .node import Node


class OpenChannels:
    """Has the broker tell this node of a channel for as long as somebody is subscribed."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._opening: dict[str, asyncio.Future[None]] = {}
        """what the broker is being asked, by key: the next asks when it has answered"""

    async def open(self, granted: Channelled) -> Channel:
        """Have the hub and the broker ready for a channel's subscribers.

        Several may wait for the same channel; the broker is asked once. Cancelling one
        of them leaves the others waiting.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """
        key = granted.key
        while (opening := self._opening.get(key)) is not None:
            await asyncio.shield(opening)
        name, options, prefix = granted.name, granted.options, granted.prefix
        channel, new = (
            self._node.hub.open(key, name, options)
            if prefix is None
            else self._node.hub.open_pattern(key, name, options, prefix)
        )
        if new:
            opening = self._opening[key] = asyncio.get_running_loop().create_future()
            try:
                if prefix is None:
                    await self._node.broker.subscribe([key])
                else:
                    await self._node.broker.watch([prefix])
            except BaseException as error:
                self._node.hub.forget(channel)
                if not isinstance(error, BrokerUnavailable):  # the broker may tell of it by now
                    self._let_go_of(channel)
                raise
            finally:
                del self._opening[key]
                opening.set_result(None)
        return channel

    def tick(self, now: float) -> float:
        """Let go of channels that nobody has been subscribed to for a while."""
        for channel in self._node.hub.idle(now):
            self._node.hub.forget(channel)
            self._let_go_of(channel)
        return 1.0

    def _let_go_of(self, channel: Channel) -> None:
        self._node.chores.add(channel.key, partial(self._close, channel))

    async def _close(self, channel: Channel) -> None:
        key, hub = channel.key, self._node.hub
        known = hub.channels.get(key)
        if key in self._opening or (known is not None and not hub.patterns.alone(known)):
            return  # somebody wants it again
        closing = self._opening[key] = asyncio.get_running_loop().create_future()
        try:
            if isinstance(channel, Pattern):
                await self._node.broker.unwatch([channel.prefix])
            else:
                await self._node.broker.unsubscribe([key])
        finally:
            del self._opening[key]
            closing.set_result(None)
