"""Twenty clients do everything that they can, while one node after the other is drained."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest

from everwire import Connection, Everwire, Grant
from everwire.client import Client, Message, Subscription
from everwire.limits import Limits
from everwire.protocol import messages as m

from .drain_world import Cluster, States, cluster
from .world import play, until

CLIENTS = 20
SEEDS = (0, 1, 2, 5)  # lines of 20, 1, 1 and 100 ms
CHANNELS = ("a", "b", "c", "d")


class Ran:
    """How often each command ran, whichever node it was."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()

    def declare(self, wire: Everwire) -> None:
        wire.channel("{name}", history=10_000, presence=True, grant=Grant(publish=True))

        @wire.command
        async def run(conn: Connection, job: str, seconds: float) -> str:
            self.times[job] += 1
            await asyncio.sleep(seconds)
            return job

        @wire.query
        async def echo(conn: Connection, value: int, seconds: float) -> int:
            await asyncio.sleep(seconds)
            return value


class User:
    """A client, what it published and read, and what it was told of its connection."""

    def __init__(self, name: str, client: Client, seed: int) -> None:
        self.name = name
        self.client = client
        self.random = Random(seed)
        self.states = States(client)
        self.published: dict[str, list[asyncio.Future[Any]]] = {one: [] for one in CHANNELS}
        self.commands: list[str] = []
        self.got: dict[str, list[Message]] = {}

    async def act(self, seconds: float) -> None:
        """Do one thing after the other, some of them at once."""
        loop, random = asyncio.get_running_loop(), self.random
        end, n = loop.time() + seconds, 0
        async with asyncio.TaskGroup() as group:
            while loop.time() < end:
                n += 1
                match random.randrange(10):
                    case 0:
                        group.create_task(self.ask(n))
                    case 1:
                        group.create_task(self.order(f"{self.name}-{n}", random.random() < 0.5))
                    case 2:
                        group.create_task(self.visit())
                    case _:
                        channel = random.choice(CHANNELS)
                        data = [self.name, len(self.published[channel])]
                        self.published[channel].append(self.client.publish_nowait(channel, data))
                await asyncio.sleep(random.choice((0.0, 0.01, 0.1, 0.5)))
        for futures in self.published.values():
            for future in futures:
                assert not (await future).duplicate

    async def ask(self, value: int) -> None:
        seconds = self.random.uniform(0, 0.5)
        assert await self.client.query("echo", {"value": value, "seconds": seconds}) == value

    async def order(self, job: str, keyed: bool) -> None:
        self.commands.append(job)
        payload = {"job": job, "seconds": self.random.uniform(0, 0.5)}
        assert await self.client.command("run", payload, key=None if keyed else False) == job

    async def visit(self) -> None:
        """Come and go."""
        async with self.client.subscribe(f"visited {self.random.random()}".replace(" ", "-")):
            await asyncio.sleep(self.random.uniform(0, 1))

    async def read(self, room: Subscription) -> None:
        got = self.got[room.channel] = []
        async for item in room:
            assert isinstance(item, Message)
            got.append(item)
            if self.random.random() < 0.1:
                await asyncio.sleep(self.random.choice((0.0, 0.01, 0.3)))


async def drain_all(world: Cluster, random: Random) -> None:
    for _ in range(3):
        await asyncio.sleep(random.uniform(0, 5))
        await world.roll(random.choice((4.0, 8.0, 15.0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_notices_that_nodes_are_replaced(seed: int) -> None:
    ran = Ran()

    async def scenario() -> None:
        random = Random(seed)
        limits = Limits(dedupe_window=100_000)
        latency = random.choice((0.001, 0.02, 0.1))
        async with cluster(ran.declare, limits=limits, latency=latency) as world:
            users = [
                User(f"u{n}", await world.client(dialect=("json", "msgpack")[n % 2]), seed + n)
                for n in range(CLIENTS)
            ]
            readers = []
            for user in users:
                for channel in random.sample(CHANNELS, k=2):
                    room = await user.client.subscribe(channel).__aenter__()
                    readers.append(asyncio.get_running_loop().create_task(user.read(room)))
            async with asyncio.TaskGroup() as group:
                draining = group.create_task(drain_all(world, random))
                for user in users:
                    group.create_task(user.act(40))
            await draining
            total = {one: sum(len(user.published[one]) for user in users) for one in CHANNELS}
            await until(
                lambda: all(
                    len(got) >= total[channel]
                    for user in users
                    for channel, got in user.got.items()
                )
            )
            await asyncio.sleep(5)
            assert not [reader for reader in readers if reader.done()]
            check(users, total)
            await close(users, readers)

    def check(users: list[User], total: dict[str, int]) -> None:
        jobs = Counter(job for user in users for job in user.commands)
        assert ran.times == jobs  # each once
        for user in users:
            assert user.states == ["draining", "ready"] * 3
            assert user.client.stats.gaps == 0
            for channel, got in user.got.items():
                assert len(got) == total[channel]
                offsets = [one.position.offset for one in got if one.position is not None]
                assert offsets == list(range(1, len(got) + 1))
                for other in users:
                    numbers = [one.data[1] for one in got if one.data[0] == other.name]
                    assert numbers == list(range(len(other.published[channel])))

    async def close(users: list[User], readers: list[asyncio.Task[None]]) -> None:
        for user in users:
            await user.client.close()
        await asyncio.wait(readers)
        for reader in readers:
            reader.result()

    play(scenario)


def test_a_node_that_drains_and_takes_its_clients_back_is_no_trouble_either() -> None:
    """The same node may be the next: the place is taken over there, presence and all."""
    ran = Ran()

    async def scenario() -> None:
        async with cluster(ran.declare, latency=0.02) as world:
            [node] = world.nodes
            users = [User(f"u{n}", await world.client(), n) for n in range(10)]
            rooms = [await user.client.subscribe("a", presence=True).__aenter__() for user in users]
            readers = [
                asyncio.get_running_loop().create_task(user.read(room))
                for user, room in zip(users, rooms, strict=True)
            ]
            async with asyncio.TaskGroup() as group:
                for user in users:
                    group.create_task(user.act(30))
                for _ in range(6):
                    await asyncio.sleep(5)
                    for connection in list(node.connections.values()):
                        connection.send(m.Drain(int(node.random.uniform(0, 2000)), 4_000))
            await asyncio.sleep(10)
            assert len(node.connections) == 10
            assert all(room.member_count == 10 for room in rooms)
            assert all(set(user.states) == {"draining", "ready"} for user in users)
            assert all(user.client.stats.gaps == 0 for user in users)
            assert set(ran.times.values()) == {1}
            for user in users:
                await user.client.close()
            await asyncio.wait(readers)

    play(scenario)
