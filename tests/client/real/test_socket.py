"""Sockets to servers that are not ours: processes that are killed, stopped, and started again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from everwire import ClosedError, JsonPing, NativePing, Socket
from everwire.limits import ClientLimits
from everwire.net.attempts import Attempts
from everwire.net.websocket import PicowsNetwork

from ..world import until

HERE = Path(__file__).parent
QUICK = ClientLimits(first_retry=0.1, backoff_base=0.1, backoff_cap=0.3, backoff_floor=0.05)
SERVERS = ["ws", "websockets", "uvicorn"]


class Server:
    """A process on a port of its own, that may be killed and started again."""

    def __init__(self, start: Callable[..., Any], kind: str, port: int) -> None:
        self._start = start
        self._kind = kind
        self._port = port
        self.url = f"ws://127.0.0.1:{port}/"
        self.child: Any = None

    def up(self) -> None:
        port = str(self._port)
        if self._kind == "ws":
            self.child = self._start(["node", HERE / "echo_ws.cjs", port])
            self.child.line("^up$")
        elif self._kind == "websockets":
            self.child = self._start([sys.executable, HERE / "echo_websockets.py", port])
            self.child.line("^up$")
        else:
            command = [sys.executable, "-m", "uvicorn", "echo_asgi:app", "--app-dir", HERE]
            self.child = self._start([*command, "--port", port])
            self.child.line("running on", stream="err")

    def kill(self) -> None:
        self.child.kill()


@pytest.fixture
def server(request: pytest.FixtureRequest, start: Callable[..., Any], free_port: int) -> Server:
    made = Server(start, getattr(request, "param", "ws"), free_port)
    made.up()
    return made


def socket_to(url: str, **options: Any) -> Socket:
    """With a budget of attempts of its own: the tests of a process are not one application."""
    options.setdefault("limits", QUICK)
    return Socket(url, network=PicowsNetwork(Attempts()), **options)


def play(
    scenario: Callable[[], Coroutine[Any, Any, None]], run: Callable[..., Any] = asyncio.run
) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await scenario()

    run(main())


@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_exchange_kill_restart_and_on(server: Server, run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        ends: list[Exception] = []
        async with socket_to(server.url, on_close=ends.append) as socket:
            for message in ("text ä", b"\x00\xff", "", "x" * 300_000, b"y" * 300_000):
                await socket.send(message)
                assert await socket.recv() == message
            await asyncio.to_thread(server.kill)
            await until(lambda: ends)
            waiting = [socket.send_nowait(f"{n}") for n in range(100)]
            assert not any(future.done() for future in waiting)
            await asyncio.to_thread(server.up)
            assert [await socket.recv() for _ in range(100)] == [f"{n}" for n in range(100)]
            await socket.send("!close")
            await until(lambda: len(ends) == 2)
            assert str(ends[1]) == "connection closed: 1012 service_restart (restart)"
            await socket.send("after")
            assert await socket.recv() == "after"
            assert socket.stats.opened == 3

    play(scenario, run)


def test_a_server_that_is_slow_to_read_holds_the_sender_up_and_loses_nothing(
    server: Server,
) -> None:
    async def scenario() -> None:
        async with socket_to(server.url) as socket:
            server.child.signal(signal.SIGSTOP)
            sent = 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    while True:
                        await socket.send(f"{sent}".ljust(65_536))
                        sent += 1
            assert 1 <= sent <= 400  # what the kernels' buffers hold
            server.child.signal(signal.SIGCONT)
            got = [int(await socket.recv()) for _ in range(sent)]
            assert got == list(range(sent))

    play(scenario)


def test_what_had_not_left_when_the_server_was_killed_goes_to_the_next_one_once(
    server: Server,
) -> None:
    async def scenario() -> None:
        async with socket_to(server.url) as socket:
            server.child.signal(signal.SIGSTOP)
            sent = [socket.send_nowait(f"{n}".ljust(65_536)) for n in range(100)]
            await asyncio.sleep(0.5)
            left = sum(future.done() for future in sent)
            assert 0 < left < 100
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.up)
            got = [int(await socket.recv()) for _ in range(100 - left)]
            assert got == list(range(left, 100))
            assert socket.stats.repeated == 1

    play(scenario)


@pytest.mark.parametrize("heartbeat", [NativePing, JsonPing])
def test_a_server_that_stands_still_is_found_dead_and_one_that_answers_is_not(
    server: Server, heartbeat: Any
) -> None:
    async def scenario() -> None:
        ends: list[Any] = []
        async with socket_to(
            server.url, heartbeat=heartbeat(interval=0.4, timeout=0.4), on_close=ends.append
        ) as socket:
            await asyncio.sleep(2.0)
            assert not ends
            assert socket.stats.received == 0  # pongs are none of the application's
            server.child.signal(signal.SIGSTOP)
            await until(lambda: ends, within=8)
            assert ends[0].code == 4408
            server.child.signal(signal.SIGCONT)
            await socket.send("x")
            assert await socket.recv() == "x"

    play(scenario)


def test_a_slow_reader_is_no_dead_link(server: Server) -> None:
    """20 MB come while nobody reads, over many heartbeats."""

    async def scenario() -> None:
        async with socket_to(server.url, heartbeat=NativePing(interval=0.3, timeout=0.3)) as socket:
            await socket.send("!flood 20000")
            await asyncio.sleep(2.5)
            held = socket.stats.received
            assert held < 20_000
            await asyncio.sleep(0.5)
            assert socket.stats.received == held
            assert [int(await socket.recv()) for _ in range(20_000)] == list(range(20_000))
            assert socket.stats.opened == 1

    play(scenario)


def test_closing_is_quick_with_queues_full_both_ways(server: Server) -> None:
    async def scenario() -> None:
        socket = await socket_to(server.url, limits=ClientLimits(close_timeout=0.5))
        await socket.send("!flood 20000")
        await asyncio.sleep(0.5)
        server.child.signal(signal.SIGSTOP)
        for n in range(100):
            socket.send_nowait(f"{n}".ljust(65_536))
        async with asyncio.timeout(5):
            await socket.close()
        assert socket.state == "closed"
        assert socket.stats.dropped > 0
        server.child.signal(signal.SIGCONT)

    play(scenario)


def test_who_is_turned_away_for_good_does_not_come_back(server: Server) -> None:
    async def scenario() -> None:
        async with socket_to(server.url) as socket:
            await socket.send("x" * 2_000_000)  # it comes back above our limit
            with pytest.raises(ClosedError) as error:
                await socket.recv()
            assert error.value.code == 1009

    play(scenario)
