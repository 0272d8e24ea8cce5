"""A line that carries less than is published on it: slow is not dead, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire import Everwire, Grant

from .world import data_of, loop, node_world, play, until

MINUTES = 15


def declare(wire: Everwire) -> None:
    wire.channel(
        "c", history=100_000, history_ttl=1e6, history_bytes=2**30, grant=Grant(publish=True)
    )


@pytest.mark.parametrize(
    ("rate", "size", "every"),
    [
        (20_000.0, 10_000, 0.2),
        (20_000.0, 100_000, 3.0),
        (8_000.0, 10_000, 1.0),
        (3_000.0, 9_000, 1.0),
    ],
)
def test_a_reader_whose_line_is_too_slow_is_not_cut_off(
    rate: float, size: int, every: float
) -> None:
    """While its write buffer still fills, that it shrinks cannot be what shows life."""

    async def scenario() -> None:
        async with node_world(declare, window=64 * 1024) as world, world.client() as client:
            async with client.subscribe("c") as room:
                got: list[Any] = []

                async def read() -> None:
                    async for item in room:
                        got.extend(data_of([item]))

                reading = asyncio.get_running_loop().create_task(read())
                world.network.links[0].bandwidth = rate
                count = 0
                while loop().time() < MINUTES * 60:
                    await world.wire.publish("c", [count, "x" * size])
                    count += 1
                    await asyncio.sleep(every)
                assert client.stats.reconnects == 0
                assert len(world.node.connections) == 1
                world.network.links[0].bandwidth = None
                await until(lambda: len(got) >= count, within=600)
                assert [one[0] for one in got] == list(range(count))
                assert client.stats.reconnects == 0
                reading.cancel()

    play(scenario)


@pytest.mark.parametrize("every", [0.01, 0.2, 5.0])
def test_a_reader_that_is_gone_while_much_is_sent_to_it_is_found_in_time(every: float) -> None:
    """The buffer grows then, too; but the peer takes nothing."""

    async def scenario() -> None:
        async with node_world(declare) as world:
            client = await world.client()
            await client.subscribe("c").__aenter__()
            await asyncio.sleep(33.3)
            world.network.links[0].freeze(drop=True)
            struck = loop().time()
            old = world.connection().id

            async def push() -> None:
                while True:
                    await world.wire.publish("c", "x" * 10_000)
                    await asyncio.sleep(every)

            pushing = asyncio.get_running_loop().create_task(push())
            await until(lambda: old not in {one.id for one in world.node.connections.values()})
            assert loop().time() - struck <= 36.0
            pushing.cancel()
            await client.close()

    play(scenario)
