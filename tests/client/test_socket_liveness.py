"""Dead links are found, and slow readers are not taken for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from everwire import (
    ConfigError,
    ConnectionClosed,
    CustomPing,
    JsonPing,
    NativePing,
)
from everwire.codes import CloseCode
from everwire.limits import ClientLimits
from everwire.testing import Direction, Network

from .socket_world import Peer, Server, socket_to
from .world import loop, play, until


def answer_pings(peer: Peer, message: str | bytes) -> None:
    if message == '{"type":"ping"}':
        peer.send('{"type":"pong","time":1}')
    elif message == b"?":
        peer.send(b"!")


# ---- heartbeats ----------------------------------------------------------------------------


def test_an_idle_connection_stays_and_is_pinged_at_the_interval() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network, heartbeat=NativePing(interval=20.0, timeout=10.0)) as socket:
            states: list[str] = []
            socket.on_state = states.append
            await asyncio.sleep(1001)
            assert server.pings == 50
            assert states == []
        assert socket.stats.opened == 1

    play(scenario)


@pytest.mark.parametrize(
    ("heartbeat", "longest"),
    [
        (NativePing(), 30.0),
        (NativePing(interval=5.0, timeout=1.0), 6.0),
        (JsonPing(), 35.0),
        (CustomPing(send=b"?", expect=lambda message: message == b"!", interval=3.0), 8.0),
    ],
)
def test_a_dead_link_is_found_in_interval_and_timeout_and_left_without_ceremony(
    heartbeat: Any, longest: float
) -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network, answer_pings)
        async with socket_to(network, heartbeat=heartbeat) as socket:
            ends: list[tuple[float, ConnectionClosed]] = []
            socket.on_close = lambda error: ends.append((loop().time(), error))
            await asyncio.sleep(100)
            assert not ends
            network.links[0].freeze(drop=True)
            began = loop().time()
            await until(lambda: ends)
            assert ends[0][0] - began <= longest + 0.1
            assert ends[0][1].code == CloseCode.HEARTBEAT
            await until(lambda: len(server.peers) == 2)

    play(scenario)


@pytest.mark.parametrize(
    "heartbeat",
    [
        JsonPing(interval=10.0),
        CustomPing(send=lambda: b"?", expect=lambda message: message == b"!", interval=10.0),
    ],
)
def test_answers_to_pings_of_its_own_are_taken_out_of_the_stream(heartbeat: Any) -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network, answer_pings)
        async with socket_to(network, heartbeat=heartbeat) as socket:
            await asyncio.sleep(101)
            for message in ("pong", '{"type":"ping"}', '{"type":"no pong"}', "{", "[]", "x" * 9999):
                server.peers[0].send(message)
            assert await socket.recv() == "pong"
            assert [len(await socket.recv()) for _ in range(5)] == [15, 18, 1, 2, 9999]
            assert len(server.messages) == 10

    play(scenario)


def test_a_json_ping_may_be_anything_that_something_answers() -> None:
    ping = JsonPing(send=["ping", 1], expect="PONG")
    assert ping.frame() == (1, b'["ping",1]')
    assert ping.is_pong('"PONG"')
    assert not ping.is_pong('{"type":"pong"}')
    assert not ping.is_pong(b'"PONG"')
    assert JsonPing().is_pong('{"a":1,"type":"pong"}')
    assert not JsonPing().is_pong('{"type":"pong","a":"' + "x" * 5000 + '"}')  # not looked at
    with pytest.raises(ConfigError):
        JsonPing(interval=0)
    with pytest.raises(ConfigError):
        NativePing(timeout=-1)


def test_anything_that_comes_counts_as_life() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network)  # answers no JSON ping
        async with socket_to(network, heartbeat=JsonPing(interval=10.0)) as socket:
            for _ in range(20):
                await asyncio.sleep(14.0)
                server.peers[0].send("x")
            assert socket.stats.opened == 1

    play(scenario)


def test_a_large_message_on_a_slow_line_is_life_both_ways() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01, bandwidth=5_000.0, window=1000)
        server = Server(network)
        async with socket_to(network, heartbeat=NativePing(interval=2.0, timeout=1.0)) as socket:
            server.peers[0].send("x" * 500_000)
            assert len(await socket.recv()) == 500_000
            await socket.send("y" * 500_000)
            await until(lambda: server.messages, within=200)
            assert socket.stats.opened == 1

    play(scenario, limit=10_000)


def test_progress_with_what_we_send_is_life_also_where_the_server_never_answers() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01, bandwidth=1000.0, window=100)
        server = Server(network)
        heartbeat = CustomPing(send="?", expect=lambda message: False, interval=2.0, timeout=1.0)
        async with socket_to(network, heartbeat=heartbeat, ttl=1000.0) as socket:
            for n in range(200):
                socket.send_nowait(f"{n}".ljust(400))
            await until(lambda: socket.waiting == 0, within=200)
            assert socket.stats.opened == 1
            assert [m for m in server.messages if m != "?"][-1] == "199".ljust(400)

    play(scenario)


def test_a_ping_waits_for_what_is_being_written_and_goes_out_behind_it() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01, window=100)
        server = Server(network)
        async with socket_to(network, heartbeat=JsonPing(interval=10.0, timeout=20.0)) as socket:
            network.links[0].freeze(Direction.TO_SERVER)
            sending = socket.send_nowait("x" * 1000)
            behind = network.links[0].client.write_buffer_size()
            await asyncio.sleep(15)
            assert network.links[0].client.write_buffer_size() == behind
            network.links[0].thaw()
            await sending
            await asyncio.sleep(0.1)
            assert server.messages == ["x" * 1000, '{"type":"ping"}']

    play(scenario)


def test_without_a_heartbeat_silence_says_nothing() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        async with socket_to(network, heartbeat=None) as socket:
            await asyncio.sleep(3000)
            assert socket.state == "ready"
            assert server.pings == 0

    play(scenario)


def test_a_ping_of_the_application_that_raises_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        def broken(*args: Any) -> Any:
            raise ValueError("mine")

        network = Network()
        server = Server(network)
        async with socket_to(network, heartbeat=CustomPing(send=broken, expect=broken)) as socket:
            server.peers[0].send("x")
            assert await socket.recv() == "x"
            await asyncio.sleep(34)
            assert socket.stats.opened == 1

    with caplog.at_level(logging.ERROR):
        play(scenario)
    assert caplog.text.count("the application's ping failed") == 2


def test_when_our_own_loop_was_busy_or_the_machine_asleep_the_server_is_asked_first() -> None:
    async def scenario() -> None:
        ahead = [0.0]
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network, wall=lambda: loop().wall() + ahead[0]) as socket:
            states: list[str] = []
            socket.on_state = states.append
            await asyncio.sleep(28)
            loop()._set(loop().time() + 60)  # as if nothing had run for so long
            await asyncio.sleep(1)
            assert states == ["suspect", "ready"]
            ahead[0] = 3600.0
            await asyncio.sleep(5)
            assert states == ["suspect", "ready"] * 2
            assert len(server.peers) == 1
            network.links[0].freeze(drop=True)
            ahead[0] = 7200.0
            await asyncio.sleep(10)
            assert states[4:6] == ["suspect", "connecting"]

    play(scenario)


def call_soon(function: Callable[..., None], *args: Any) -> None:
    loop().call_later(0.1, function, *args)


# ---- slow readers ----------------------------------------------------------------------------


def test_a_slow_reader_holds_the_server_up_loses_nothing_and_keeps_its_connection() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_messages=10, queue_bytes=1 << 20)
        network = Network(latency=0.01, window=2000)
        server = Server(network)
        async with socket_to(
            network, limits=limits, heartbeat=NativePing(interval=2.0, timeout=1.0)
        ) as socket:
            peer = server.peers[0]
            peer.transport.set_write_limits(0, 0)
            for n in range(1000):
                peer.send(f"{n}".ljust(100))
            await asyncio.sleep(120)
            assert server.paused == 1  # it feels the back-pressure
            assert socket.stats.received <= 12
            assert socket.state == "ready"
            got = []
            for _ in range(1000):
                got.append(int(await socket.recv()))
                if len(got) % 100 == 0:
                    await asyncio.sleep(5)
            assert got == list(range(1000))
            assert (socket.stats.opened, server.paused) == (1, 0)

    play(scenario)


def test_reading_goes_on_when_half_of_the_queue_was_taken() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network, limits=ClientLimits(queue_messages=10)) as socket:
            for n in range(100):
                server.peers[0].send(f"{n}")
            await asyncio.sleep(1)
            held = socket.stats.received
            for _ in range(held - 6):
                await socket.recv()
                await asyncio.sleep(0.1)
                assert socket.stats.received == held
            await socket.recv()
            await asyncio.sleep(0.1)
            assert socket.stats.received > held

    play(scenario)


def test_bytes_fill_the_queue_as_messages_do() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_bytes=1000)
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network, limits=limits) as socket:
            for _ in range(10):
                server.peers[0].send("x" * 600)
            await asyncio.sleep(1)
            assert socket.stats.received == 2
            for _ in range(10):
                await socket.recv()

    play(scenario)


def test_a_reader_that_was_full_is_still_full_on_the_next_connection() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_messages=4, first_retry=0.1)
        network = Network(latency=0.01)

        def count_up(peer: Peer) -> None:
            for n in range(10):
                peer.send(f"{len(server.peers)}.{n}")

        server = Server(network, on_open=lambda peer: call_soon(count_up, peer))
        async with socket_to(network, limits=limits) as socket:
            await asyncio.sleep(1)
            held = socket.stats.received
            socket.drop()
            await asyncio.sleep(1)
            assert len(server.peers) == 2
            assert held == socket.stats.received
            got = [await socket.recv() for _ in range(held + 10)]
            assert got == [f"1.{n}" for n in range(held)] + [f"2.{n}" for n in range(10)]

    play(scenario)


def test_after_a_pause_a_dead_link_is_still_found() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_messages=4)
        network = Network(latency=0.01)
        server = Server(network)
        async with socket_to(network, limits=limits) as socket:
            for n in range(8):
                server.peers[0].send(f"{n}")
            await asyncio.sleep(100)
            network.links[0].freeze(drop=True)
            await asyncio.sleep(100)
            assert socket.stats.opened == 1
            for _ in range(socket.stats.received):
                await socket.recv()
            began = loop().time()
            await until(lambda: len(server.peers) == 2)
            assert loop().time() - began <= 33.0

    play(scenario)
