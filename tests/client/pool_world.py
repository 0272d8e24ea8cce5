"""A node that is reached at several addresses, each of which can fail by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from everwire import ClientLimits, Everwire, Pool
from everwire.limits import Limits
from everwire.net.attempts import Attempts

from .world import Broker, World, loop, node_world

SWIFT = ClientLimits(
    first_retry=0.2, backoff_base=0.2, backoff_cap=1.0, close_timeout=1.0, stable_after=5.0
)


class Addresses:
    """``ws://n0``, ``ws://n1``, …: as several nodes with one broker behind them."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.network = world.network
        self.urls = [f"ws://n{number}/ws" for number in range(count)]
        self._listeners: dict[int, Any] = {}
        for number in range(count):
            self.up(number)

    @property
    def broker(self) -> Broker:
        return self.world.broker

    def up(self, number: int) -> None:
        if number not in self._listeners:
            listener = self.network.listen(self.urls[number], self.world.node.accept)
            self._listeners[number] = listener

    def down(self, number: int) -> None:
        """Nobody gets in, and who is in is cut."""
        if number in self._listeners:
            self._listeners.pop(number).close()
        self.cut(number)

    def is_up(self, number: int) -> bool:
        return number in self._listeners

    def cut(self, number: int) -> None:
        for link in self.links(number):
            link.cut()

    def links(self, number: int) -> list[Any]:
        return [link for link in self.network.links if link.host.startswith(f"n{number}:")]

    def pool(self, size: int | None = None, **options: Any) -> Pool:
        """A member for each address, unless told otherwise."""
        options.setdefault("limits", SWIFT)
        options.setdefault("random", loop().random)
        options.setdefault("wall", loop().wall)
        urls = options.pop("urls", self.urls)
        return Pool(urls, size or len(self.urls), network=self.network, **options)

    def history(self, channel: str) -> list[Any]:
        """What the server holds of a channel: the ids and the data."""
        return [(one.id, one.payload) for one in self.broker._streams[channel]._records]


@asynccontextmanager
async def addresses(
    count: int = 3,
    declare: Callable[[Everwire], None] | None = None,
    *,
    limits: Limits | None = None,
    unlimited: bool = True,
    **options: Any,
) -> AsyncIterator[Addresses]:
    async with node_world(declare, limits=limits, **options) as world:
        if unlimited:
            world.network.attempts = Attempts(None)
        yield Addresses(world, count)
