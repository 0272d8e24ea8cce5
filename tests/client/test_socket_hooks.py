"""What the application is told of a socket, and what it may do about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from everwire import (
    ConnectionClosed,
    EverwireError,
    NotSent,
)
from everwire.testing import Network

from .socket_world import Server, echo, socket_to
from .world import FAST, play, until

# ---- hooks -------------------------------------------------------------------------------


def test_hooks_tell_what_happens_in_order() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network, echo)
        told: list[Any] = []

        def note(name: str) -> Callable[..., None]:
            return lambda *args: told.append((name, *map(str, args)))

        hooks: dict[str, Any] = {
            f"on_{name}": note(name) for name in ("open", "message", "close", "error", "state")
        }
        async with socket_to(network, limits=FAST, **hooks) as socket:
            await socket.send("x")
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            network.refuse = True
            server.peers[0].close(1012, "restart")
            await asyncio.sleep(0.3)
            network.refuse = False
            await until(lambda: socket.state == "ready")
        assert told[:5] == [
            ("state", "ready"),
            ("open",),
            ("message", "x"),
            ("state", "connecting"),
            ("close", "connection closed: 1012 service_restart (restart)"),
        ]
        assert {one[0] for one in told[5:-5]} == {"error"}
        assert told[-5:] == [
            ("state", "ready"),
            ("open",),
            ("state", "closing"),
            ("close", "connection closed: 1000 normal"),
            ("state", "closed"),
        ]

    play(scenario)


def test_hooks_may_raise_and_a_coroutine_is_no_hook(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        network = Network()
        Server(network, echo)

        async def wrong(message: str | bytes) -> None: ...

        def bad() -> None:
            raise ValueError("mine")

        async with socket_to(network, on_open=bad, on_message=wrong) as socket:
            await socket.send("x")
            await asyncio.sleep(0.1)
            assert socket.state == "ready"

    with caplog.at_level(logging.ERROR):
        play(scenario)
    assert "mine" in caplog.text
    assert "a hook is a plain function" in caplog.text


def test_any_method_may_be_called_from_a_hook() -> None:
    async def scenario() -> None:
        network = Network()
        server = Server(network, echo)
        tasks: list[asyncio.Task[None]] = []

        def on_message(message: str | bytes) -> None:
            if message == "again":
                socket.send_nowait("more")
                socket.hurry()
            elif message == "more":
                socket.drop()
                socket.send_nowait("after the drop")
            else:
                tasks.append(asyncio.get_running_loop().create_task(socket.close()))

        def on_close(error: ConnectionClosed) -> None:
            socket.send_nowait("from on_close")
            assert repr(socket)

        def on_drop(data: str | bytes, error: Exception) -> None:
            with pytest.raises((EverwireError, OSError)):
                socket.send_nowait("never")

        socket = socket_to(
            network, limits=FAST, on_message=on_message, on_close=on_close, on_drop=on_drop
        )
        async with socket:
            await socket.send("again")
            await until(lambda: tasks)
            await tasks[0]
        # Nothing is ahead of what is sent while the link is ended but what the hook sent.
        assert server.messages[:2] == ["again", "more"]
        assert set(server.messages[2:]) == {"from on_close", "after the drop"}

    play(scenario)


def test_what_on_open_sends_goes_first_on_each_connection_and_on_no_other() -> None:
    async def scenario() -> None:
        network = Network(window=64)
        server = Server(network)
        lost: list[Any] = []

        def subscribe() -> None:
            socket.send_nowait("subscribe")
            socket.send_nowait("and again" + "x" * 100)  # more than a window holds
            socket.send_nowait("and more")

        socket = socket_to(
            network,
            limits=FAST,
            timeout=0,
            on_open=subscribe,
            on_drop=lambda data, error: lost.append((data, type(error))),
        )
        async with socket:
            waiting = [socket.send_nowait(f"{n}") for n in range(3)]
            await waiting[-1]
            network.links[0].freeze()
            blocked = socket.send_nowait("y" * 100)
            await asyncio.sleep(0.1)
            network.cut()
            await blocked
            await asyncio.sleep(0.1)
        first, second = (peer.messages for peer in server.peers)
        hello = ["subscribe", "and again", "and more"]
        assert [message[:9] for message in first] == [*hello, "0", "1", "2"]
        assert [message[:9] for message in second] == [*hello, "y" * 9]
        assert not lost

    play(scenario)


def test_what_on_open_sent_dies_with_its_connection() -> None:
    async def scenario() -> None:
        network = Network(window=64)
        server = Server(network)
        lost: list[Any] = []

        def three() -> None:
            for n in range(3):
                socket.send_nowait(f"{n}" * 100)

        socket = socket_to(
            network,
            limits=FAST,
            on_open=three,
            on_drop=lambda data, error: lost.append((data[:1], type(error))),
        )
        network.on_message = lambda link, direction, payload: (
            link.cut() if len(server.peers) == 1 else None
        )
        async with socket:
            await until(lambda: len(server.messages) == 3)
            assert [message[:1] for message in server.messages] == ["0", "1", "2"]
        assert lost == [("0", NotSent), ("1", NotSent), ("2", NotSent)]

    play(scenario)
