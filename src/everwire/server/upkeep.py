"""What a node does every few seconds to stay one of several.

It renews its lease, and compares what it knows with what the broker knows: whatever the broker
told and was lost on the way is made up for within ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..errors import BrokerUnavailable
from ..hub.patterns import Pattern
from ..hub.registry import Channel
from ..protocol import messages as m
from ..protocol.dialects import Dialect
from ..protocol.messages import Position
from ..protocol.states import ConnectionState

if TYPE_CHECKING:
    from .node import Node

T = TypeVar("T")

RENEWALS = 3  # within a lease
COMPARE = 8.0  # seconds between comparisons; with the second look: a loss is found within ten
SECOND_LOOK = 1.0  # seconds after which what is on its way has arrived
BATCH = 1_000  # channels that the broker is asked about at a time


class Upkeep:
    """Looked at by the node's wheel once a second.

    Attributes:
        degraded: the broker does not answer.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._renewing = self._comparing = False
        self._renew_at = self._compare_at = 0.0
        self.degraded = False
        self._unheard = False
        """the broker may have said that it had given up this node, and was not heard"""

    async def begin(self) -> None:
        """Take the lease.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """
        await self._renew()
        self._compare_at = asyncio.get_running_loop().time() + COMPARE

    def tick(self, now: float) -> float:
        """Do what is due: see :class:`everwire.net.heartbeat.Ticked`."""
        tasks = self._node.tasks
        if now >= self._renew_at and not self._renewing:
            self._renewing = True
            tasks.start(self._keep(), "lease")
        if now >= self._compare_at and not self._comparing:
            self._comparing = True
            tasks.start(self._compare(), "comparison")
        self._node.presence.tick(now)
        return 1.0

    # ---- outages -----------------------------------------------------------------

    def doubt(self) -> None:
        """The broker did not answer: ask it at the next tick whether it is there."""
        self._renew_at = 0.0

    def on_degraded(self) -> None:
        """The broker does not answer: everybody is told."""
        if not self.degraded:
            self.degraded = True
            self._tell_all("degraded")

    def on_restored(self) -> None:
        """It answers again. What it would have told meanwhile is looked for at once."""
        if self.degraded:
            self.degraded = False
            self._compare_at = 0.0
            self._node.hub.patterns.missed()
            self._tell_all("restored")

    def _tell_all(self, event: str) -> None:
        encoded: dict[Dialect, bytes] = {}
        for connection in list(self._node.connections.values()):
            if connection.state is not ConnectionState.READY:
                continue
            dialect = connection.dialect
            if not dialect.acknowledges:  # there, each has an id of its own
                connection.send(m.Event(event, None))
                continue
            if dialect not in encoded:
                encoded[dialect] = dialect.encode(m.Event(event, None))
            connection.send_payload(encoded[dialect])

    # ---- the lease ---------------------------------------------------------------

    async def _keep(self) -> None:
        try:
            await self._renew()
        except BrokerUnavailable:
            self._node.broker_failed()  # and tried again in a second
            self.on_degraded()
        else:
            self.on_restored()
        finally:
            self._renewing = False

    async def _renew(self) -> None:
        node = self._node
        lease = node.limits.presence_lease
        began = asyncio.get_running_loop().time()
        try:
            held = await node.broker.renew(lease)
        except BrokerUnavailable as error:
            self._unheard = self._unheard or error.outcome == "unknown"
            raise
        self._renew_at = began + lease / RENEWALS
        if not held:
            node.log.log(logging.WARNING, "lease", "the broker had given up this node")
        if self._unheard or not held:
            self._unheard = False
            node.presence.restore()

    # ---- comparing ---------------------------------------------------------------

    async def _compare(self) -> None:
        node = self._node
        self._compare_at = asyncio.get_running_loop().time() + COMPARE
        try:
            known = {
                channel: channel.position
                for channel in node.hub.channels.values()
                if channel.last is not None
                and (channel.subscriptions or channel.listeners)
                and not isinstance(channel, Pattern)  # which has no numbering
            }
            behind = await _different(known, node.broker.tops)
            watched = node.presence.watched()
            changed = await _different(watched, node.broker.presence_versions)
            if behind or changed:
                await asyncio.sleep(SECOND_LOOK)
                for channel, top in behind.items():
                    if channel.position == known[channel]:  # nothing was told since
                        await self._repair(channel, top)
                node.presence.repair((channel, watched[channel]) for channel in changed)
        except BrokerUnavailable:
            node.broker_failed()
        finally:
            self._comparing = False

    def on_lost(self, channel: Channel) -> None:
        """The broker has lost messages of a channel, and has given their numbers again."""
        self._node.count("broker_losses")
        restart = partial(self._node.broker.restart, channel.key, channel.epoch)
        self._node.chores.add(channel.key, restart)

    async def _repair(self, channel: Channel, top: Position) -> None:
        """The last message of a channel is another than this node was told of."""
        node, known = self._node, channel.position
        if top.epoch == known.epoch and top.offset <= known.offset:
            # The broker has lost what it had acknowledged, and will give its numbers again.
            node.count("broker_losses")
            await node.broker.restart(channel.key, known.epoch)
            top = Position("", 0, "")
        node.count("notifications_lost")
        node.hub.renumber(channel, top)


async def _different(
    known: dict[Channel, T], ask: Callable[[Sequence[str]], Awaitable[Sequence[T]]]
) -> dict[Channel, T]:
    """What the broker says of the channels of which it says something else than is known."""
    channels = list(known)
    found: dict[Channel, T] = {}
    for start in range(0, len(channels), BATCH):
        some = channels[start : start + BATCH]
        said = await ask([channel.key for channel in some])
        pairs = zip(some, said, strict=True)
        found.update((channel, one) for channel, one in pairs if one != known[channel])
        await asyncio.sleep(0)
    return found
