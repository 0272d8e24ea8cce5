"""A WebSocket that stays, to servers of any kind: its life, and what the application is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire import (
    ClosedError,
    ClosedOK,
    ConfigError,
    EverwireError,
    HandshakeRefused,
    NotSent,
    RequestTimeout,
    Socket,
)
from everwire.testing import Network

from .socket_world import URL, Peer, Server, echo, socket_to
from .world import FAST, loop, play, until


def test_text_and_bytes_go_out_and_come_back() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        Server(network, echo)
        async with socket_to(network) as socket:
            assert socket.state == "ready"
            await socket.send("ä text")
            await socket.send(b"\x00\xff")
            await socket.send_json({"n": 1})
            assert await socket.recv() == "ä text"
            assert await socket.recv() == b"\x00\xff"
            assert await socket.recv() == '{"n":1}'
            assert (socket.stats.sent, socket.stats.received) == (3, 3)
        assert socket.state == "closed"

    play(scenario)


def test_iteration_goes_on_over_connections_and_ends_with_close() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        server = Server(network, on_open=lambda peer: peer.send(f"hello {len(server.peers)}"))
        got: list[Any] = []
        async with socket_to(network, limits=FAST) as socket:
            async for message in socket:
                got.append(message)
                if len(got) == 3:
                    break
                server.peers[-1].close(1001)
            server.peers[-1].send("last")
            await asyncio.sleep(0.1)
            assert socket.stats.opened == 3
        assert got == ["hello 1", "hello 2", "hello 3"]
        assert [message async for message in socket] == ["last"]
        with pytest.raises(ClosedOK):
            await socket.recv()
        with pytest.raises(ClosedOK):
            await socket.send("x")

    play(scenario)


def test_a_socket_that_ended_otherwise_says_why_after_the_last_message() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        async with socket_to(network) as socket:
            server.peers[0].send("last")
            server.peers[0].close(4500, "go away")
            await until(lambda: socket.state == "closed")
            got = []
            with pytest.raises(ClosedError, match="go away"):
                async for message in socket:
                    got.append(message)  # noqa: PERF401  # it raises in the end
            assert got == ["last"]
            with pytest.raises(ClosedError, match="go away"):
                socket.send_nowait("x")
            assert isinstance(socket.error, ClosedError)

    play(scenario)


def test_what_came_with_the_handshake_is_told_after_the_opening_and_never_lost() -> None:
    async def scenario() -> None:
        network = Network()

        def hello_and_goodbye(peer: Peer) -> None:
            peer.send("hello")
            peer.close(1008 if len(server.peers) == 3 else 1000)

        server = Server(network, on_open=hello_and_goodbye)
        told: list[Any] = []
        socket = socket_to(
            network,
            limits=FAST,
            on_open=lambda: told.append("open"),
            on_close=lambda error: told.append(error.code),
            on_message=told.append,
        )
        with pytest.raises(ClosedError):
            await socket
            await until(lambda: socket.state == "closed")
            await socket.recv()
        assert [one for one in told if one == "hello"] == ["hello"] * 3
        told.clear()
        server.on_open = lambda peer: peer.send("hello")
        async with socket_to(
            network, on_open=lambda: told.append("open"), on_message=told.append
        ) as other:
            server.peers[-1].send("more")
            await until(lambda: other.stats.received == 2)
        assert told == ["open", "hello", "more"]

    play(scenario)


# ---- entering ------------------------------------------------------------------------


def test_awaiting_works_too_and_closing_twice_is_once() -> None:
    async def scenario() -> None:
        network = Network()
        Server(network)
        socket = await socket_to(network)
        assert await socket is socket
        async with asyncio.TaskGroup() as group:
            group.create_task(socket.close())
            group.create_task(socket.close())
        await socket.close()
        with pytest.raises(ClosedOK):
            await socket
        with pytest.raises(ConfigError, match="open the socket first"):
            await socket_to(network).send("x")
        with pytest.raises(ConfigError, match="open the socket first"):
            await socket_to(network).recv()

    play(scenario)


def test_entering_waits_for_a_server_and_raises_the_last_cause() -> None:
    async def scenario() -> None:
        network = Network()
        began = loop().time()
        with pytest.raises(ConnectionRefusedError) as error:
            await socket_to(network, timeout=12.0)
        assert loop().time() - began == pytest.approx(12.0)
        assert "not connected to ws://foreign/socket within 12 s" in error.value.__notes__[0]
        network.partition()
        with pytest.raises(ClosedError, match="not connected"):
            await socket_to(network, timeout=5.0)
        with pytest.raises(RequestTimeout):
            await socket_to(network, timeout=11.0)

    play(scenario)


def test_without_waiting_it_is_entered_at_once_and_what_is_sent_waits() -> None:
    async def scenario() -> None:
        network = Network()
        async with socket_to(network, timeout=0) as socket:
            assert socket.state == "connecting"
            sent = [socket.send_nowait(f"{n}") for n in range(3)]
            await asyncio.sleep(3)
            server = Server(network)
            for future in sent:
                await future
            await asyncio.sleep(0)
            assert server.messages == ["0", "1", "2"]

    play(scenario)


def test_cancelling_the_entering_ends_the_socket() -> None:
    async def scenario() -> None:
        network = Network()
        socket = socket_to(network)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await socket
        assert socket.state == "closed"
        attempts = len(network.trace)
        await asyncio.sleep(100)
        assert len(network.trace) == attempts

    play(scenario)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "http://x"}, "did you mean ws://x"),
        ({"url": "http://me:secret@x?k=secret"}, "not a WebSocket URL"),
        ({"overflow": "drop_all"}, "overflow must be one of"),
        ({"proxy": "ftp://x"}, "is no proxy"),
        ({"proxy": "x:3128"}, "is no proxy"),
    ],
)
def test_an_option_that_cannot_be_used_is_told_at_once(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as error:
        Socket(**{"url": "ws://x", "network": Network(), **options})
    assert "secret" not in str(error.value)


# ---- url, headers, subprotocols --------------------------------------------------------


def test_url_and_headers_may_be_asked_for_each_time() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        asked: list[str] = []

        async def url() -> str:
            asked.append("url")
            await asyncio.sleep(0.1)
            return f"{URL}?token={len(asked)}"

        def headers() -> dict[str, str]:
            asked.append("headers")
            return {"X-Attempt": str(len(asked))}

        async with socket_to(network, url=url, headers=headers, limits=FAST) as socket:
            for _ in range(2):
                socket.drop()
                await asyncio.sleep(1)
            assert [peer.handshake.query for peer in server.peers] == [
                "token=1",
                "token=3",
                "token=5",
            ]
            assert server.peers[2].handshake.headers["x-attempt"] == "6"
            assert "token" not in repr(socket)

    play(scenario)


@pytest.mark.parametrize("way", ["raises", "hangs", "gives none"])
def test_a_function_that_fails_is_a_failed_attempt_and_wedges_nothing(way: str) -> None:
    async def scenario() -> None:
        network = Network()
        Server(network)
        asked: list[int] = []

        async def url() -> Any:
            asked.append(1)
            if len(asked) > 2:
                return URL
            if way == "raises":
                raise ValueError("no network")
            if way == "hangs":
                await asyncio.sleep(1000)
            return None

        if way == "gives none":
            with pytest.raises(ConfigError, match="a URL is text"):
                await socket_to(network, url=url)
            return
        failed: list[Exception] = []
        async with socket_to(network, url=url, on_error=failed.append, timeout=60.0):
            assert len(failed) == 2
            assert isinstance(failed[0], EverwireError)

    play(scenario)


def test_a_refusal_is_answered_once_with_fresh_headers_and_is_final_otherwise() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        network.refuse = HandshakeRefused(401, "Unauthorized", temporary=False)
        with pytest.raises(HandshakeRefused):
            await socket_to(network, headers={"Authorization": "old"})
        assert len(network.trace) == 2

        def headers() -> dict[str, str]:
            asked.append(1)
            network.refuse = network.refuse if len(asked) < lucky else False
            return {}

        asked: list[int] = []
        lucky = 2
        began = loop().time()
        async with socket_to(network, headers=headers):
            assert loop().time() == began
            assert len(server.peers) == 1
        asked = []
        lucky = 3
        network.refuse = HandshakeRefused(403, "Forbidden", temporary=False)
        with pytest.raises(HandshakeRefused):
            await socket_to(network, headers=headers)
        assert len(asked) == 2

    play(scenario)


def test_subprotocols_are_offered_in_order_and_the_chosen_one_is_told() -> None:
    async def scenario() -> None:
        network = Network()
        Server(network, subprotocols=["b", "c"])
        socket = socket_to(network, subprotocols=["a", "b", "c"])
        chosen = [socket.subprotocol]
        async with socket:
            chosen.append(socket.subprotocol)
        chosen.append(socket.subprotocol)
        assert chosen == [None, "b", None]
        async with socket_to(network, subprotocols=["x"]) as other:
            assert other.subprotocol is None

    play(scenario)


# ---- closing -------------------------------------------------------------------------------


def test_closing_sends_what_waits_and_tells_code_and_reason() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01, bandwidth=1000.0, window=64)
        server = Server(network)
        socket = await socket_to(network)
        for n in range(20):
            socket.send_nowait(f"{n} ".ljust(50))
        assert socket.waiting > 10
        await socket.close(4000, "done")
        await asyncio.sleep(1)
        assert [int(message) for message in server.messages] == list(range(20))
        assert server.peers[0].close_code == 4000

    play(scenario)


@pytest.mark.parametrize("silent", [False, True])
def test_closing_ends_in_time_whatever_the_server_and_the_queues_do(silent: bool) -> None:
    async def scenario() -> None:
        network = Network(window=64)

        def flood(peer: Peer) -> None:
            for _ in range(2000):
                peer.send("x")

        server = Server(network, on_open=flood)
        lost: list[Exception] = []
        socket = await socket_to(network, on_drop=lambda data, error: lost.append(error))
        await asyncio.sleep(1)  # more has come than is read
        network.links[0].freeze(drop=silent)
        for _ in range(5):
            socket.send_nowait("y" * 100)
        began = loop().time()
        await socket.close()
        assert loop().time() - began <= 6.01
        assert len(lost) == 5
        assert all(isinstance(error, NotSent) for error in lost)
        assert server.messages == []
        assert len([message async for message in socket]) >= 1024

    play(scenario)


def test_closing_that_is_cancelled_drops_the_connection() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network)
        socket = await socket_to(network)
        network.links[0].freeze()
        closing = asyncio.get_running_loop().create_task(socket.close())
        await asyncio.sleep(0.5)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert socket.state == "closed"
        network.links[0].thaw()
        await asyncio.sleep(0.1)
        assert server.peers[0].close_code is not None

    play(scenario)


def test_what_it_is_shows_no_secrets() -> None:
    async def scenario() -> None:
        network = Network()
        Server(network)
        async with socket_to(network, url="ws://me:secret@foreign/socket?token=secret") as socket:
            assert repr(socket) == (
                "<Socket ws://foreign/socket ready queued=0 unread=0 attempts=1>"
            )

    play(scenario)
