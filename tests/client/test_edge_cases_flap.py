"""A server that accepts and closes at once, and who must not suffer from it.

Each rule is shown for the client and for the socket; the straightforward way stands first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from everwire import Socket
from everwire.client import Client
from everwire.limits import MAX_ATTEMPTS
from everwire.protocol import messages as m
from everwire.testing import Direction, Link, Network

from .naive import Wire
from .socket_world import Server
from .world import Peer, Script, client_to, loop, play, until, welcome

Made: TypeAlias = Client | Socket
Make: TypeAlias = Callable[[Network, str], Made]


def a_client(network: Network, host: str) -> Client:
    return client_to(network, url=f"ws://{host}/ws", timeout=1_000.0)


def a_socket(network: Network, host: str) -> Socket:
    return Socket(
        f"ws://{host}/ws",
        network=network,
        random=loop().random,
        wall=loop().wall,
        timeout=1_000.0,
        heartbeat=None,
    )


def attempts_of(network: Network) -> list[float]:
    return [one.time for one in network.trace if one.kind == "connect"]


def worst_minute(times: list[float]) -> int:
    return max((sum(at <= time <= at + 60.0 for time in times) for at in times), default=0)


def closing(peer: Peer, message: m.Message) -> None:
    """Accepts, says welcome, closes."""
    welcome(peer, message)
    if isinstance(message, m.Auth):
        peer.close(1011)


# ---- 1 -----------------------------------------------------------------------------------


def test_whoever_resets_its_backoff_on_open_has_none() -> None:
    """websockets 17.4 and picows.websockets 2.3.1 do; centrifuge-js did (#407, #408)."""

    async def naive() -> None:
        network = Network(latency=0.001, trace_limit=10_000)
        Script(network, closing)
        delay = 0.0
        while loop().time() < 2:
            await asyncio.sleep(delay)
            wire = await Wire().open(network)
            delay = 0.0  # it is open: all is well again
            await wire.lost.wait()
        assert len(attempts_of(network)) > 100

    play(naive)


@pytest.mark.parametrize("count", [1, 4, 12])
@pytest.mark.parametrize("make", [a_client, a_socket])
def test_a_process_makes_ten_attempts_a_minute_at_most(make: Make, count: int) -> None:
    """However many of them it has: they share what an endpoint may be asked."""

    async def scenario() -> None:
        network = Network(trace_limit=100_000)
        if make is a_client:
            Script(network, closing)
        else:
            Server(network, on_open=lambda peer: peer.close(1011))
        made = [make(network, "node" if make is a_client else "foreign") for _ in range(count)]
        opening = [asyncio.get_running_loop().create_task(one.__aenter__()) for one in made]
        await asyncio.sleep(1_800)
        times = attempts_of(network)
        first, later = times[:count], times[count:]  # the first of each follows no failure
        assert max(first) == 0.0
        assert worst_minute(later) <= MAX_ATTEMPTS
        assert len(later) >= 70  # and it does not give up
        for one in made:
            await one.close()
        await asyncio.wait(opening)
        for task in opening:
            task.exception()

    play(scenario)


def test_clients_and_sockets_of_a_process_share_it() -> None:
    async def scenario() -> None:
        network = Network(trace_limit=100_000)
        script = Script(network, closing)
        script.on_accept = lambda peer: None if peer.dialect.needs_auth else peer.close(1011)
        made: list[Made] = [a_client(network, "node") for _ in range(3)]
        made += [a_socket(network, "node") for _ in range(3)]
        opening: list[asyncio.Task[Any]] = [
            asyncio.get_running_loop().create_task(one.__aenter__()) for one in made
        ]
        await asyncio.sleep(900)
        assert worst_minute(attempts_of(network)[6:]) <= MAX_ATTEMPTS
        for one in made:
            await one.close()
        await asyncio.wait(opening)
        for task in opening:
            task.exception()

    play(scenario)


def test_a_link_that_holds_there_gives_the_others_one_more_burst_and_no_more() -> None:
    """The endpoint lets somebody in: five are tried at once again, for each that held."""

    async def scenario() -> None:
        network = Network(trace_limit=100_000)

        def handle(peer: Peer, message: m.Message) -> None:
            named = isinstance(message, m.Auth) and message.client and message.client.name
            (welcome if named == "let in" else closing)(peer, message)

        Script(network, handle, ping_interval=10_000)
        flapping = [client_to(network, timeout=1_000) for _ in range(4)]
        for one in flapping:
            await one
        await asyncio.sleep(300)
        spent = len(attempts_of(network))
        async with client_to(network, name="let in"):
            await asyncio.sleep(60)
            assert len(attempts_of(network)) - spent <= 1 + MAX_ATTEMPTS + MAX_ATTEMPTS // 2
            await asyncio.sleep(60)
            steady = len(attempts_of(network))
            await asyncio.sleep(600)
            assert len(attempts_of(network)) - steady <= MAX_ATTEMPTS * 10 // 2 + 1
        for one in flapping:
            await one.close()

    play(scenario)


@pytest.mark.parametrize("bystander", ["node-b", "node"])
def test_a_link_that_held_comes_back_at_once_whatever_others_have_spent(bystander: str) -> None:
    """At another endpoint, and at the same one: a loss after half a minute is no failure."""

    async def scenario() -> None:
        network = Network(trace_limit=100_000)
        flapping = {"on": False}

        def handle(peer: Peer, message: m.Message) -> None:
            name = message.client.name if isinstance(message, m.Auth) and message.client else ""
            (closing if name == "flapping" and flapping["on"] else welcome)(peer, message)

        script = Script(network, handle, ping_interval=10_000)
        if bystander != "node":
            network.listen(f"ws://{bystander}/ws", script._accept)
        healthy = await client_to(network, url=f"ws://{bystander}/ws")
        await asyncio.sleep(60)
        flapping["on"] = True
        others = [client_to(network, name="flapping", timeout=1_000) for _ in range(5)]
        for one in others:
            await one
        await asyncio.sleep(120)  # they have spent what there is
        assert network.attempts.wait("ws://node:80") > 0
        for _ in range(5):
            healthy.drop()
            began = loop().time()
            await asyncio.sleep(0)
            await until(lambda: healthy.state == "ready")
            assert loop().time() - began <= 2.1
            await asyncio.sleep(31)
        assert healthy.stats.reconnects == 5
        for one in (healthy, *others):
            await one.close()

    play(scenario)


def test_who_is_refused_for_a_while_is_back_soon_after_it_ends() -> None:
    """A budget must not become a punishment: the last wait is one of it, and no longer."""

    async def scenario() -> None:
        network = Network(trace_limit=100_000)
        script = Script(network, ping_interval=10_000)
        clients = [client_to(network) for _ in range(3)]
        for client in clients:
            await client
        await asyncio.sleep(60)
        cut: list[Link] = []

        def cut_early(link: Link, direction: Direction, payload: bytes) -> None:
            cut.append(link)
            link.cut()

        network.on_message = cut_early
        network.cut()
        await asyncio.sleep(600)
        network.on_message = None
        began = loop().time()
        await until(lambda: all(client.state == "ready" for client in clients), within=300)
        assert loop().time() - began <= len(clients) * 12 * 1.25 + 20
        assert len(script.peers) > 3
        for client in clients:
            await client.close()

    play(scenario)
