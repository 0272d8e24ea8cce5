"""A WebSocket that stays, to servers of any kind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire import (
    ClosedOK,
)
from everwire.testing import Network

from .socket_world import Server, echo, socket_to
from .world import FAST, play


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
        assert got == ["hello 1", "hello 2", "hello 3"]
        assert [message async for message in socket] == ["last"]
        with pytest.raises(ClosedOK):
            await socket.recv()
        with pytest.raises(ClosedOK):
            await socket.send("x")

    play(scenario)
