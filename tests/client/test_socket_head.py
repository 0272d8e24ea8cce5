"""The message that is being written: nothing that happens to the others may tear it."""

from __future__ import annotations

import asyncio

import pytest

from everwire import Dropped, NotSent
from everwire.limits import ClientLimits
from everwire.testing import Network

from .socket_world import Server, socket_to
from .world import play, until

LARGE = "x" * 1000


def test_it_does_not_expire_and_expires_as_any_when_its_link_dies() -> None:
    async def scenario() -> None:
        network = Network(window=64)
        server = Server(network)
        async with socket_to(network, ttl=2.0) as socket:
            network.links[0].freeze()
            head = socket.send_nowait(LARGE)
            behind = socket.send_nowait("behind")
            await asyncio.sleep(5)
            assert not head.done()
            assert isinstance(behind.exception(), NotSent)
            network.links[0].thaw()
            await head
            await until(lambda: server.messages == [LARGE])
            network.links[0].freeze()
            head = socket.send_nowait(LARGE)
            network.refuse = True
            await asyncio.sleep(1)
            network.cut()
            await asyncio.sleep(1.5)
            assert isinstance(head.exception(), NotSent)

    play(scenario)


def test_it_is_not_the_oldest_that_makes_room() -> None:
    async def scenario() -> None:
        network = Network(window=64)
        server = Server(network)
        limits = ClientLimits(outbox_messages=3)
        async with socket_to(network, limits=limits, overflow="drop_oldest") as socket:
            network.links[0].freeze()
            head = socket.send_nowait(LARGE)
            oldest = socket.send_nowait("0")
            for n in range(1, 3):
                socket.send_nowait(f"{n}")
            assert isinstance(oldest.exception(), Dropped)
            assert not head.done()
            network.links[0].thaw()
            await until(lambda: len(server.messages) == 3)
            assert server.messages == [LARGE, "1", "2"]

    play(scenario)


def test_one_with_its_key_does_not_replace_it() -> None:
    async def scenario() -> None:
        network = Network(window=64, bandwidth=10_000.0)
        server = Server(network)
        async with socket_to(network, overflow="coalesce") as socket:
            blocking = socket.send_nowait(LARGE)
            begun = socket.send_nowait(LARGE + "k", key="k")
            await blocking
            assert not begun.done()
            socket.send_nowait("newer", key="k")
            assert not begun.done()
            await until(lambda: len(server.messages) == 3)
            assert server.messages == [LARGE, LARGE + "k", "newer"]

    play(scenario)


@pytest.mark.parametrize("way", ["cut", "drop"])
def test_it_is_the_first_on_the_next_link_whatever_ended_the_one_before(way: str) -> None:
    async def scenario() -> None:
        network = Network(latency=0.01, window=64)
        server = Server(network)
        async with socket_to(network) as socket:
            network.links[0].freeze()
            socket.send_nowait(LARGE)
            socket.send_nowait("behind")
            await asyncio.sleep(1)
            if way == "cut":
                network.links[0].cut()
            else:
                socket.drop()
            await until(lambda: len(server.messages) == 2)
            assert server.messages == [LARGE, "behind"]
            assert socket.stats.repeated == 1

    play(scenario)
