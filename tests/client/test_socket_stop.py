"""When a socket comes back, how often it tries, and when it stops."""

from __future__ import annotations

import asyncio

import pytest

from everwire import (
    ClosedError,
    ConnectionClosed,
    EverwireError,
    Failure,
    HandshakeRefused,
    Retry,
    Stop,
)
from everwire.limits import MAX_ATTEMPTS, ClientLimits
from everwire.testing import Network

from .socket_world import Server, socket_to
from .world import FAST, loop, play, until


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 426])
def test_http_refusals_that_would_be_repeated_are_final(status: int) -> None:
    async def scenario() -> None:
        network = Network()
        network.refuse = HandshakeRefused(status, "", temporary=False)
        with pytest.raises(HandshakeRefused) as error:
            await socket_to(network)
        assert error.value.status == status
        assert len(network.trace) == 2

    play(scenario)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 4500, 4501, 4999])
def test_these_close_codes_are_final_and_keep_their_code(code: int) -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        async with socket_to(network) as socket:
            server.peers[0].close(code, "why")
            with pytest.raises(ClosedError, match="why") as error:
                await socket.recv()
            assert error.value.code == code
            await asyncio.sleep(100)
            assert len(server.peers) == 1

    play(scenario)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3000, 4000, 4402, 4499])
def test_after_any_other_it_comes_back(code: int) -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        async with socket_to(network):
            server.peers[0].close(code)
            await until(lambda: len(server.peers) == 2)

    play(scenario)


def test_the_application_decides_if_it_wants_to() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        seen: list[Failure] = []

        def decide(failure: Failure) -> Retry | Stop | float | None:
            seen.append(failure)
            error = failure.error
            if isinstance(error, ConnectionClosed) and error.code == 1000:
                return Stop()
            if isinstance(error, ConnectionClosed) and error.code == 4500:
                return 7.0
            return None

        async with socket_to(network, decide=decide) as socket:
            await asyncio.sleep(40)
            server.peers[0].close(4500)
            await asyncio.sleep(6.9)
            assert len(server.peers) == 1
            await until(lambda: len(server.peers) == 2)
            server.peers[1].close(1000)
            assert [message async for message in socket] == []  # as was wanted
            assert socket.state == "closed"
        assert seen[0].held == pytest.approx(40.0, abs=0.1)
        assert [failure.retries for failure in seen] == [0, 1]

    play(scenario)


def test_attempts_may_have_an_end() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        async with socket_to(network, max_attempts=4) as socket:
            server.listener.close()
            network.cut()
            failed: list[Exception] = []
            socket.on_error = failed.append
            with pytest.raises(ConnectionRefusedError):
                await socket.recv()
            assert len(failed) == 4
            assert isinstance(socket.error, ConnectionRefusedError)

    play(scenario)


def test_a_server_that_accepts_and_closes_is_not_hammered_and_others_are_not_throttled() -> None:
    async def scenario() -> None:
        network = Network()
        flapping = Server(network, on_open=lambda peer: peer.close(1011))
        healthy = Server(network, url="ws://healthy/socket")
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(_flap(network, 600.0))
            await asyncio.sleep(60)
            other = await socket_to(network, url="ws://healthy/socket", limits=FAST)
            for _ in range(5):  # of links that held
                await asyncio.sleep(31)
                other.drop()
                began = loop().time()
                await asyncio.sleep(0.001)
                await until(lambda: other.state == "ready")
                assert loop().time() - began <= 0.3
            await other.close()
        assert len(healthy.peers) == 6
        times = [peer.opened_at for peer in flapping.peers[5:]]
        assert max(sum(a <= t <= a + 60.0 for t in times) for a in times) <= MAX_ATTEMPTS
        assert len(times) >= 40

    play(scenario)


async def _flap(network: Network, seconds: float) -> None:
    async with socket_to(network, timeout=0):
        await asyncio.sleep(seconds)


def test_hurrying_makes_the_next_attempt_come_within_a_second() -> None:
    async def scenario() -> None:
        network = Network()
        async with socket_to(network, timeout=0, decide=lambda failure: 1000.0) as socket:
            await asyncio.sleep(10)
            Server(network)
            socket.hurry()
            await asyncio.sleep(1.01)
            assert socket.state == "ready"
            socket.hurry()

    play(scenario)


def test_a_message_above_the_limit_ends_the_socket_with_1009() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        async with socket_to(network, limits=ClientLimits(message=1000)) as socket:
            server.peers[0].send("x" * 1001)
            with pytest.raises(EverwireError, match="1009"):
                await socket.recv()

    play(scenario)
