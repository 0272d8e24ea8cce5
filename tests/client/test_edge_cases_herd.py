"""Thousands of clients that lose their server in the same moment.

The policy alone is simulated for five thousand, each a process of its own; a few hundred whole
clients in memory show that they do what the policy says. Other libraries' rules beside it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any, TypeAlias

import pytest

from everwire import ClientLimits, ClosedError
from everwire.client.reconnection import Reconnection
from everwire.net.attempts import Attempts
from everwire.protocol import messages as m
from everwire.testing import Direction, Network

from .world import Peer, Script, World, client_to, loop, node_world, play, until, welcome

CLIENTS = 5_000
LOST = ClosedError(1006)
Delays: TypeAlias = Callable[[Random], Iterator[float]]


def phoenix(random: Random) -> Iterator[float]:
    """phoenix.js: a list, no chance in it."""
    yield from (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.0)
    while True:
        yield 5.0


def partysocket(random: Random) -> Iterator[float]:
    """partysocket 1.3: 3 s, times 1.3, to 10 s."""
    delay = 3.0
    while True:
        yield delay
        delay = min(10.0, delay * 1.3)


def picows(random: Random) -> Iterator[float]:
    """picows.websockets 2.3.1: at once, then 1 s doubled to 60 s."""
    yield 0.0
    delay = 1.0
    while True:
        yield delay
        delay = min(60.0, delay * 2)


def nats(random: Random) -> Iterator[float]:
    """nats.py: 2 s, always."""
    while True:
        yield 2.0


def socketio(random: Random) -> Iterator[float]:
    """socket.io-client 4.8: half of it is chance, which the cap of 5 s takes away again."""
    attempt = 0
    while True:
        yield min(5.0, 2.0**attempt * random.uniform(0.5, 1.5))
        attempt = min(attempt + 1, 60)


def arrivals(outage: float, delays: Delays, seed: int = 1) -> list[float]:
    """When each of the clients is back, in seconds after the server is; without a network."""
    random = Random(seed)
    back = []
    for _ in range(CLIENTS):
        now = 0.0
        for delay in delays(Random(random.random())):
            now += delay
            if now >= outage:
                back.append(now - outage)
                break
    return back


def peak(times: list[float], slot: float = 0.1) -> int:
    """The most in a tenth of a second."""
    return max(Counter(int(time / slot) for time in times).values())


async def ours(outage: float, seed: int, attempted: list[float] | None = None) -> list[float]:
    """The same of our policy, budgets included: each client is a process of its own."""
    chance = Random(seed)
    back: list[float] = []
    dropped = loop().time() + 100.0

    async def one() -> None:
        attempts = Attempts(clock=loop().time)
        policy = Reconnection(ClientLimits(), attempts=attempts, random=Random(chance.random()))
        policy.begin("ws://node/ws")
        policy.ready()
        await asyncio.sleep(dropped - loop().time())
        while True:
            await policy.wait(policy.after(LOST))
            policy.begin("ws://node/ws")
            if attempted is not None:
                attempted.append(loop().time() - dropped)
            if loop().time() >= dropped + outage:
                policy.stop()
                back.append(loop().time() - dropped - outage)
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(one())
    return back


def measured(scenario: Callable[[], Coroutine[Any, Any, list[float]]]) -> list[float]:
    out: list[float] = []

    async def main() -> None:
        out.extend(await scenario())

    play(main)
    return out


# ---- 8 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("delays", [phoenix, partysocket, picows, nats])
def test_without_chance_all_come_in_one_moment(delays: Delays) -> None:
    """phoenix #4045, nats.go #563, mattermost-webapp #10960: the server goes down again."""
    assert peak(arrivals(30.0, delays)) == CLIENTS


def test_chance_below_a_cap_bunches_too() -> None:
    """socket.io-client 4.8: from the fifth retry on its waits are the cap itself."""
    assert peak(arrivals(30.0, socketio)) > 150


@pytest.mark.parametrize("seed", range(3))
def test_after_an_outage_five_thousand_come_back_spread_out(seed: int) -> None:
    """Never more than a hundred in a tenth of a second after half a minute."""
    attempted: list[float] = []
    back = measured(lambda: ours(30.0, seed, attempted))
    assert len(back) == CLIENTS
    assert peak(back) <= 100
    back.sort()
    assert back[CLIENTS // 2] <= 12
    assert back[-1] <= 30
    assert len(attempted) / CLIENTS <= 10  # while it was down


@pytest.mark.parametrize("seed", range(3))
def test_after_a_drop_they_are_back_in_two_seconds_and_still_spread_out(seed: int) -> None:
    """The server is there at once: never more than three hundred in a tenth of a second."""
    back = measured(lambda: ours(0.0, seed))
    assert len(back) == CLIENTS
    assert peak(back) <= 300
    assert max(back) <= 2.0


@pytest.mark.parametrize("outage", [0.0, 5.0, 30.0, 120.0])
def test_whole_clients_do_what_the_policy_says(outage: float) -> None:
    """Their share of each slot is that of the five thousand, give or take what chance does."""
    count = 300

    async def scenario() -> list[float]:
        network = Network()
        times: list[float] = []

        def note(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth):
                times.append(loop().time())
            welcome(peer, message)

        script = Script(network, note, ping_interval=1_000)
        clients = []
        for n in range(count):
            process: Any = Network()  # a budget of its own, and the links of the other
            process.connect = network.connect
            clients.append(await client_to(process, random=Random(n)))
        await asyncio.sleep(31)
        times.clear()
        network.refuse = True
        network.cut()
        await asyncio.sleep(outage)
        network.refuse = False
        began = loop().time()
        await until(lambda: all(client.state == "ready" for client in clients), within=300)
        for client in clients:
            await client.close()
        assert len(script.peers) == 2 * count
        return [time - began for time in times]

    whole = sorted(measured(scenario))
    policy = sorted(measured(lambda: ours(outage, 1)))
    assert len(whole) == count
    for part in (0.1, 0.25, 0.5, 0.75, 0.9):
        expected = policy[int(part * CLIENTS)]
        found = sum(time <= expected for time in whole) / count
        assert abs(found - part) <= 0.1  # three and a half standard deviations


# ---- 9 -----------------------------------------------------------------------------------


async def drained(world: World, count: int, window: float) -> list[float]:
    """When each of the clients has its new link, in seconds after the drain began."""
    clients = [await client_to(world.network, random=Random(n), name=str(n)) for n in range(count)]
    await asyncio.sleep(40)
    back: list[float] = []

    def note(link: Any, direction: Direction, payload: bytes) -> None:
        if direction is Direction.TO_SERVER and link.id > count and link.delivered(direction) == 0:
            back.append(loop().time() - began)

    began = loop().time()
    world.network.on_message = note
    node = world.node

    async def next_node() -> None:
        await node.drain(window)
        node.draining = False

    async with asyncio.TaskGroup() as group:
        draining = group.create_task(next_node())
        await asyncio.sleep(0)
        node.draining = False  # as if another node took them
        await asyncio.wait([draining])
    await until(lambda: len(back) >= count)
    for client in clients:
        await client.close()
    return back


def test_a_planned_restart_is_spread_by_the_server() -> None:
    """Clients that are told "restart" begin their backoff anew, all in one moment.

    block/buzz #4542 closes with 1012: what spreads them must come from the server. AnyCable's
    slow drain does so, too.
    """

    async def told_to_restart() -> list[float]:
        network = Network()
        script = Script(network, ping_interval=1_000)
        clients = [await client_to(network, random=Random(n)) for n in range(300)]
        await asyncio.sleep(31)
        began = loop().time()
        for peer in list(script.peers):
            peer.close(1012)
        await until(lambda: len(script.peers) == 600)
        took = loop().time() - began
        for client in clients:
            await client.close()
        return [took]

    async def scenario() -> list[float]:
        async with node_world() as world:
            return await drained(world, 300, 20.0)

    assert peak(arrivals(0.0, phoenix)) == CLIENTS
    assert measured(told_to_restart)[0] <= 2.1  # ours without a word of the server
    back = measured(scenario)
    assert len(back) == 300
    assert max(back) > 14.0
    assert peak(back, 1.0) <= 40  # of 300 in 16 s, 19 a second on average
