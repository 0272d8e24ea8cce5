"""How soon a link that is dead, frozen or slept through is found, and what that costs: nothing.

With the default limits, in virtual time: 31 s after the fault (interval, grace, and the grain
of the server's timer), 36 s if our own loop had been busy and a probe came first. A publisher
and a subscriber are both hit each time; what is published meanwhile comes once and in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from everwire.client import Client
from everwire.limits import Limits
from everwire.testing import Direction, Link

from .world import World, client_to, data_of, loop, node_world, play, until

FOUND, SUSPECTED = 31.0, 36.0
EVERY = 0.5  # seconds between messages

Fault = Callable[[Link], None]

FAULTS: dict[str, Fault] = {
    "lost": lambda link: link.freeze(drop=True),
    "lost to the server": lambda link: link.freeze(Direction.TO_SERVER, drop=True),
    "lost to the client": lambda link: link.freeze(Direction.TO_CLIENT, drop=True),
    "kept": lambda link: link.freeze(),
    "the server stops reading": lambda link: link.freeze(Direction.TO_SERVER),
    "the client stops reading": lambda link: link.freeze(Direction.TO_CLIENT),
}


class Trial:
    """A publisher that publishes, a subscriber that reads, and when each lost its link."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ahead = 0.0  # of the clients' wall clock: what the machine slept
        self.lost: dict[str, list[float]] = {"publisher": [], "subscriber": []}
        self.read: list[Any] = []

    def client(self, name: str) -> Client:
        client = client_to(self.world.network, wall=lambda: loop().wall() + self.ahead)

        def note(state: str) -> None:
            if state == "connecting":
                self.lost[name].append(loop().time())

        client.on_state = note
        return client

    async def run(self, before: float, fault: Callable[[], None], after: float = 120.0) -> float:
        """Publish all the time; the fault comes ``before`` seconds in. Return when it did."""
        acks: list[asyncio.Future[Any]] = []
        async with self.client("publisher") as publisher, self.client("subscriber") as subscriber:
            async with subscriber.subscribe("c") as room, asyncio.TaskGroup() as group:

                async def read() -> None:
                    async for item in room:
                        self.read += data_of([item])

                reading = group.create_task(read())
                await asyncio.sleep(before)
                fault()
                struck = loop().time()
                while loop().time() < struck + after:
                    acks.append(publisher.publish_nowait("c", len(acks), ttl=1_000))
                    await asyncio.sleep(EVERY)
                await until(lambda: all(ack.done() for ack in acks))
                await until(lambda: len(self.read) >= len(acks))
                await asyncio.sleep(40)
                reading.cancel()
            assert self.read == list(range(len(acks)))
            assert [ack.result().position.offset - 1 for ack in acks] == self.read
            assert subscriber.stats.gaps == 0
        return struck


# A link that is idle in one direction or both: the moment within the heartbeat matters.
@pytest.mark.parametrize("before", [5.0, 19.9, 20.05, 33.3, 47.0])
@pytest.mark.parametrize("name", FAULTS)
def test_a_half_open_link_is_found_in_time_and_nothing_is_lost(name: str, before: float) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            trial = Trial(world)

            def strike() -> None:
                for link in world.network.links:
                    FAULTS[name](link)

            struck = await trial.run(before, strike)
            for times in trial.lost.values():
                assert len(times) == 1
                assert times[0] - struck <= FOUND
            assert len(world.node.connections) == 0

    play(scenario)


@pytest.mark.parametrize("before", [5.0, 19.9, 33.3])
def test_the_server_finds_it_as_soon(before: float) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            await asyncio.sleep(before)
            old = world.connection()
            world.network.links[0].freeze(drop=True)
            struck = loop().time()
            await until(lambda: old.id not in {one.id for one in world.node.connections.values()})
            assert loop().time() - struck <= FOUND
            await client.close()

    play(scenario)


@pytest.mark.parametrize("busy", [9.0, 15.0, 29.0])
def test_with_a_loop_that_was_busy_it_is_found_after_a_probe(busy: float) -> None:
    """The loop stood still before the fault, or over it."""

    async def scenario() -> None:
        for over in (False, True):
            async with node_world() as world:
                trial = Trial(world)

                def strike(world: World = world, over: bool = over) -> None:
                    if not over:
                        loop()._set(loop().time() + busy)
                    for link in world.network.links:
                        link.freeze(drop=True)
                    if over:
                        loop().call_later(1, lambda: loop()._set(loop().time() + busy))

                struck = await trial.run(33.3, strike)
                for times in trial.lost.values():
                    assert len(times) == 1
                    assert times[0] - struck <= SUSPECTED

    play(scenario)


@pytest.mark.parametrize("dead", [True, False])
@pytest.mark.parametrize("slept", [60.0, 3_600.0, 200_000.0])
def test_a_machine_that_slept_finds_out_in_seconds(slept: float, dead: bool) -> None:
    """The wall clock has run, the monotonic one has not; the link died meanwhile, or did not."""

    async def scenario() -> None:
        async with node_world() as world:
            trial = Trial(world)

            def strike() -> None:
                trial.ahead += slept
                if dead:
                    for link in world.network.links:
                        link.freeze(drop=True)

            struck = await trial.run(33.3, strike)
            for times in trial.lost.values():
                assert len(times) == dead
                if dead:
                    assert times[0] - struck <= 30 / 8 + 5 + 0.1

    play(scenario)


def test_sleeping_again_and_again_costs_no_link_and_no_message() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            trial = Trial(world)

            def sleep() -> None:
                trial.ahead += 1_000.0
                loop().call_later(7.0, sleep)

            await trial.run(5.0, lambda: None if trial.ahead else sleep())
            assert trial.lost == {"publisher": [], "subscriber": []}

    play(scenario, limit=10_000)


def test_an_idle_client_of_a_healthy_node_keeps_its_link_for_a_day() -> None:
    """The bound must not come from giving up too easily."""

    async def scenario() -> None:
        async with node_world(latency=0.3) as world, world.client() as client:
            async with client.subscribe("c"):
                await asyncio.sleep(86_400)
                assert client.stats.reconnects == 0

    play(scenario, limit=100_000)


def test_a_shorter_interval_of_the_server_is_gone_by() -> None:
    async def scenario() -> None:
        limits = Limits(ping_interval=5.0, ping_grace=5.0)
        async with node_world(limits=limits) as world:
            trial = Trial(world)

            def strike() -> None:
                for link in world.network.links:
                    link.freeze(drop=True)

            struck = await trial.run(13.0, strike)
            for times in trial.lost.values():
                assert times[0] - struck <= 5 + 10 + 1

    play(scenario)
