"""The delivery contract while everything fails that can: seeded, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from everwire import BrokerUnavailable, ClientLimits, Everwire, Grant, RequestError
from everwire.brokers.base import PublishOutcome
from everwire.client import Client, Gap, Message, Subscription
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Direction

from .world import World, loop, node_world, play, until

CHANNELS = ("a", "b")


def declare(wire: Everwire) -> None:
    wire.channel("{name}", history=10_000, grant=Grant(publish=True))


async def publish(client: Client, who: str, random: Random, sent: dict[str, list[str]]) -> None:
    """Publish as fast as chance will; note what was acknowledged, in the order of the calls."""
    futures: list[tuple[str, str, asyncio.Future[Any]]] = []
    for n in range(60):
        channel = random.choice(CHANNELS)
        data = f"{who}{n}"
        futures.append((channel, data, client.publish_nowait(channel, data, ttl=1_000)))
        if random.random() < 0.4:
            await asyncio.sleep(random.choice((0.001, 0.05, 1.0, 3.0)))
    for channel, data, future in futures:
        await future
        sent[channel].append(data)


async def read(room: Subscription, random: Random, got: list[Any]) -> None:
    async for item in room:
        got.append(item)
        if random.random() < 0.2:
            await asyncio.sleep(random.choice((0.0, 0.01, 0.5)))


async def break_things(world: World, random: Random) -> None:
    network = world.network
    for _ in range(40):
        await asyncio.sleep(random.expovariate(1 / 3.0))
        links = network.links
        link = random.choice(links) if links else None
        direction = random.choice((Direction.TO_CLIENT, Direction.TO_SERVER, None))
        match random.randrange(10):
            case 0 if link:
                link.cut()
            case 1 if link:
                link.cut_after(n_to_client=random.randrange(1, 6))
            case 2 if link:
                link.cut_after(n_to_server=random.randrange(1, 6))
            case 3 if link:
                link.freeze(direction, drop=random.random() < 0.3)
            case 4 if link:
                link.thaw()
            case 5:
                network.latency = random.choice((0.0, 0.01, 0.2))
            case 6:
                outcomes: list[PublishOutcome] = [
                    BrokerUnavailable("x", outcome="none"),
                    RequestError(code=403),
                ]
                world.broker.outcomes = [*random.choices(outcomes, k=random.randrange(1, 4))]
            case 7:
                network.refuse = not network.refuse
            case _:
                for connection in world.node.connections.values():
                    connection.send(m.Drain(random.randrange(2_000), 2_000))
    network.refuse = False
    network.latency = 0.01
    world.broker.outcomes = []
    network.cut()


@pytest.mark.parametrize("seed", range(30))
def test_whatever_fails_all_is_delivered_once_and_in_order(seed: int) -> None:
    async def scenario() -> None:
        random = Random(seed)
        limits = ClientLimits(
            queue_messages=random.choice((3, 1_000)), backoff_cap=5.0, stable_after=5.0
        )
        server = Limits(ping_interval=5.0, ping_grace=5.0, dedupe_window=100_000)
        sents: list[dict[str, list[str]]] = [
            {channel: [] for channel in CHANNELS} for _ in range(2)
        ]
        async with node_world(declare, limits=server) as world:
            dialects = ("json", "msgpack")
            clients = [await world.client(limits=limits, dialect=dialects[n % 2]) for n in range(4)]
            rooms = [
                await client.subscribe(channel).__aenter__()
                for client in clients[2:]
                for channel in CHANNELS
            ]
            got: list[list[Message | Gap]] = [[] for _ in rooms]
            async with asyncio.TaskGroup() as group:
                readers = [
                    group.create_task(read(room, random, one))
                    for room, one in zip(rooms, got, strict=True)
                ]
                group.create_task(break_things(world, random))
                writers = [
                    group.create_task(publish(client, who, random, one))
                    for client, who, one in zip(clients, "xy", sents, strict=False)
                ]
                await asyncio.wait(writers)
                total = {
                    channel: len(sents[0][channel]) + len(sents[1][channel]) for channel in CHANNELS
                }
                await until(
                    lambda: all(
                        len(one) >= total[room.channel]
                        for room, one in zip(rooms, got, strict=True)
                    ),
                    within=600,
                )
                await asyncio.sleep(30)
                for reader in readers:
                    reader.cancel()
            for room, one in zip(rooms, got, strict=True):
                assert not [item for item in one if isinstance(item, Gap)]
                data = [item.data for item in one if isinstance(item, Message)]
                for who, mine in zip("xy", sents, strict=True):
                    assert [each for each in data if each[0] == who] == mine[room.channel]
            assert [item.data for item in got[0]] == [item.data for item in got[2]]  # type: ignore[union-attr]
            assert [item.data for item in got[1]] == [item.data for item in got[3]]  # type: ignore[union-attr]
            for client in clients:
                await client.close()
            assert loop().time() < 3_000

    play(scenario, limit=10_000)
