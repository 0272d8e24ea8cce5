"""The same links with a server of any kind, under a socket: alive, dead, slow, frozen, asleep.

The straightforward ways that fail here stand in ``test_edge_cases_links.py`` and, with a
well-known library, in ``real/test_edge_cases_libraries.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from everwire import ClientLimits, JsonPing, NativePing, OutboxFull, Socket
from everwire.testing import Direction, Network

from .socket_world import Peer, Server, echo, socket_to
from .world import loop, play, until

BOUND = 30.0  # interval and time-out of the default heartbeat
PROBE = 5.0


def flood(server: Server) -> Callable[[], None]:
    """Every peer is sent a numbered message each tenth of a second, for ever."""

    async def send() -> None:
        n = 0
        while True:
            for peer in server.peers:
                peer.send(f"{n}:" + "x" * 10_000)
            n += 1
            await asyncio.sleep(0.1)

    task = asyncio.get_running_loop().create_task(send())

    def stop() -> None:
        task.cancel()

    return stop


# ---- 4 -----------------------------------------------------------------------------------


def test_a_slow_reader_pauses_the_server_and_keeps_its_link() -> None:
    """4. Reading is paused while the queue is full, and its own silence is not the server's.

    websockets 17.4 and picows.websockets 2.3.1 give such a link up: 1011.
    """

    async def scenario() -> None:
        network = Network(latency=0.01, window=64 * 1024)
        server = Server(network)
        limits = ClientLimits(queue_messages=4)
        async with socket_to(network, limits=limits) as socket:
            stop = flood(server)
            await asyncio.sleep(600)  # nobody reads
            assert server.paused == 1
            got = [int(str(await socket.recv()).partition(":")[0]) for _ in range(3_000)]
            assert got == list(range(3_000))
            assert (len(server.peers), socket.stats.attempts) == (1, 1)
            stop()

    play(scenario, allow_leftovers=True)


def test_a_link_that_dies_while_reading_is_paused_is_found_after_all() -> None:
    """The excuse must not hold for ever: once it is read again, the silence counts."""

    async def scenario() -> None:
        network = Network(latency=0.01, window=64 * 1024)
        server = Server(network)
        async with socket_to(network, limits=ClientLimits(queue_messages=4)) as socket:
            stop = flood(server)
            await asyncio.sleep(60)
            stop()
            network.links[0].freeze(drop=True)
            await asyncio.sleep(60)
            for _ in range(4):
                await socket.recv()
            read = loop().time()
            await until(lambda: len(server.peers) == 2, within=BOUND + PROBE + 3)
            assert loop().time() - read <= BOUND + PROBE + 2.1

    play(scenario, allow_leftovers=True)


# ---- 5 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ping", [NativePing(), JsonPing()])
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_large_message_on_a_slow_line_does_not_starve_the_ping(
    way: str, ping: NativePing | JsonPing
) -> None:
    """5. A ping that waits behind a large message has not been sent yet."""

    async def scenario() -> None:
        network = Network(latency=0.01)
        large = "x" * 1_000_000

        def answer(peer: Peer, message: str | bytes) -> None:
            if message == '{"type":"ping"}':
                peer.send('{"type":"pong"}')
            elif way == "down":
                peer.send(large)

        server = Server(network, answer)
        async with socket_to(network, heartbeat=ping) as socket:
            network.links[0].bandwidth = 20_000.0  # fifty seconds
            await socket.send(large if way == "up" else "go")
            if way == "down":
                assert len(await socket.recv()) == len(large)
            await until(lambda: [one for one in server.messages if one != '{"type":"ping"}'], 90)
            await asyncio.sleep(60)
            assert len(server.peers) == 1

    play(scenario)


# ---- 6 and 7 -----------------------------------------------------------------------------


def test_a_busy_loop_and_a_sleep_cost_no_link() -> None:
    """6 and 7. The server is asked before it is given up."""

    async def scenario() -> None:
        asleep = [0.0]
        network = Network(latency=0.01)
        server = Server(network, echo)
        async with socket_to(network, wall=lambda: loop().wall() + asleep[0]) as socket:
            for _ in range(10):
                await asyncio.sleep(25)
                loop()._set(loop().time() + 40)
                await asyncio.sleep(25)
                asleep[0] += 3_600
            await socket.send("hi")
            assert await socket.recv() == "hi"
            assert len(server.peers) == 1

    play(scenario)


@pytest.mark.parametrize("before", [5.0, 19.9, 20.05, 33.3])
@pytest.mark.parametrize("direction", [None, Direction.TO_CLIENT, Direction.TO_SERVER])
@pytest.mark.parametrize("drop", [True, False])
def test_a_half_open_link_is_found_in_time(
    drop: bool, direction: Direction | None, before: float
) -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network):
            await asyncio.sleep(before)
            network.links[0].freeze(direction, drop=drop)
            struck = loop().time()
            await until(lambda: len(server.peers) == 2)
            assert loop().time() - struck <= BOUND + PROBE + 2.1

    play(scenario)


def test_after_a_sleep_a_dead_link_is_found_in_seconds() -> None:
    async def scenario() -> None:
        asleep = [0.0]
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network, wall=lambda: loop().wall() + asleep[0]):
            await asyncio.sleep(40.05)
            asleep[0] = 3_600
            network.links[0].freeze(drop=True)
            struck = loop().time()
            await until(lambda: len(server.peers) == 2)
            assert loop().time() - struck <= BOUND / 8 + PROBE + 2.1

    play(scenario)


# ---- 11, 12, 13 --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 4000, 4499])
def test_a_polite_goodbye_is_come_back_from(code: int) -> None:
    """11. Phoenix's client takes 1000 for "never again"."""

    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network):
            await asyncio.sleep(40)
            if code == 1006:
                network.cut()
            else:
                server.peers[0].close(code)
            await until(lambda: len(server.peers) == 2, within=3)

    play(scenario)


def test_what_waits_is_bounded_both_ways() -> None:
    """12. Offline, and with a peer that does not read."""

    async def scenario() -> None:
        network = Network(latency=0.01, window=64 * 1024)
        Server(network)

        def freeze() -> None:
            network.links[0].freeze()

        async with socket_to(network) as socket:
            for fault in (freeze, network.cut):
                fault()
                await asyncio.sleep(0.05)
                with pytest.raises(OutboxFull):
                    for _ in range(1_000_000):
                        socket.send_nowait("x" * 10_000)
                assert socket.waiting <= ClientLimits().outbox_messages

    play(scenario)


@pytest.mark.parametrize("queued", [0, 500])
@pytest.mark.parametrize("peer", ["silent", "flooding", "frozen", "gone"])
def test_closing_ends_in_time(peer: str, queued: int) -> None:
    """13. Whatever is queued, and whatever the peer does."""

    async def scenario() -> None:
        network = Network(latency=0.01, window=64 * 1024)
        server = Server(network)
        limits = ClientLimits(queue_messages=4)
        socket: Socket = await socket_to(network, limits=limits)
        stop = flood(server) if peer == "flooding" else None
        await asyncio.sleep(5)
        if peer in ("silent", "frozen"):
            network.links[0].freeze(drop=peer == "frozen")
        elif peer == "gone":
            network.refuse = True
            network.cut()
        for _ in range(queued):
            socket.send_nowait("x" * 10_000)
        began = loop().time()
        await socket.close()
        assert loop().time() - began <= 2 * limits.close_timeout + 0.1
        if stop is not None:
            stop()

    play(scenario, allow_leftovers=True)
