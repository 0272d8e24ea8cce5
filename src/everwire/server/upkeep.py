"""What a node does every few seconds to stay one of several: it renews its lease."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import BrokerUnavailable

if TYPE_CHECKING:
    from .node import Node

RENEWALS = 3  # within a lease


class Upkeep:
    """Looked at by the node's wheel once a second."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._renewing: asyncio.Task[None] | None = None
        self._renew_at = 0.0

    async def begin(self) -> None:
        """Take the lease.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """
        await self._renew()

    def tick(self, now: float) -> float:
        """Do what is due: see :class:`everwire.net.heartbeat.Ticked`."""
        if now >= self._renew_at and self._renewing is None:
            self._renewing = self._node.tasks.start(self._keep(), "lease")
        return 1.0

    async def _keep(self) -> None:
        try:
            await self._renew()
        except BrokerUnavailable:
            self._node.broker_failed()  # and tried again in a second
        finally:
            self._renewing = None

    async def _renew(self) -> None:
        node = self._node
        lease = node.limits.presence_lease
        began = asyncio.get_running_loop().time()
        await node.broker.renew(lease)
        self._renew_at = began + lease / RENEWALS
