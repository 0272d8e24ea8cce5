"""Streams and the server's requests, message by message as the protocol has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everwire import BadData, Connection, DeliveryUnknown, Everwire
from everwire.codes import ErrorCode
from everwire.protocol import messages as m
from everwire.server.node import Node
from everwire.testing import Network, run

from .peer import Peer, open_app, serving

CLOSED: list[str] = []


def streaming() -> Everwire:
    CLOSED.clear()
    wire = open_app()

    @wire.query
    async def ticks(conn: Connection, n: int) -> AsyncIterator[int]:
        try:
            for number in range(n):
                yield number
        finally:
            CLOSED.append(conn.user)

    @wire.query
    async def once(conn: Connection) -> str:
        await asyncio.sleep(1)
        return "whole"

    return wire


async def opened(network: Network, dialect: str = "json") -> Peer:
    peer = Peer(network, dialect)
    await peer.auth()
    return peer


def parts(peer: Peer) -> list[Any]:
    """The parts that came since the last time."""
    got = [one for one in peer.inbox if isinstance(one, m.Response) and one.more]
    for one in got:
        peer.inbox.remove(one)
    return [one.payload for one in got]


@pytest.mark.parametrize("dialect", ["json", "msgpack"])
def test_no_more_parts_than_the_credit_and_the_end_needs_none(dialect: str) -> None:
    async def scenario() -> None:
        async with serving(streaming()) as (network, _):
            peer = await opened(network, dialect)
            peer.send(m.Query("s", "ticks", {"n": 20}, stream=True))
            await asyncio.sleep(1)
            assert parts(peer) == list(range(16))
            peer.send(m.Credit("s", 0))
            await asyncio.sleep(1)
            assert parts(peer) == []
            peer.send(m.Credit("other", 5))
            peer.send(m.Credit("s", 3))
            await asyncio.sleep(1)
            assert parts(peer) == [16, 17, 18]
            assert CLOSED == []
            peer.send(m.Credit("s", 2**53 - 1))
            end = await peer.answer("s")
            assert isinstance(end, m.Response)
            if end.more:
                assert end.payload == 19
                end = await peer.answer("s")
            assert isinstance(end, m.Response)
            assert (end.payload, end.more) == (None, False)
            assert CLOSED == [""]

    run(scenario)


def test_a_stream_of_as_many_parts_as_the_credit_ends_when_there_is_more_credit() -> None:
    """The handler is not asked whether there is another one before that could be sent."""

    async def scenario() -> None:
        async with serving(streaming()) as (network, _):
            peer = await opened(network)
            peer.send(m.Query("s", "ticks", {"n": 16}, stream=True))
            await asyncio.sleep(1)
            assert parts(peer) == list(range(16))
            assert not any(isinstance(one, m.Response) for one in peer.inbox)
            peer.send(m.Credit("s", 1))
            assert await peer.answer("s") == m.Response("s", None)

    run(scenario)


@pytest.mark.parametrize("dialect", ["json", "msgpack"])
def test_a_cancelled_stream_is_answered_with_cancelled_after_the_handler_was_closed(
    dialect: str,
) -> None:
    async def scenario() -> None:
        async with serving(streaming()) as (network, node):
            peer = await opened(network, dialect)
            peer.send(m.Query(5, "ticks", {"n": 1_000}, stream=True))
            peer.send(m.Cancel(5))
            await asyncio.sleep(1)
            parts(peer)
            error = await peer.answer(5)
            assert isinstance(error, m.Error)
            assert error.code == ErrorCode.CANCELLED
            assert CLOSED == [""]
            assert in_flight(node) == 0
            # Its id is free again.
            assert await peer.ask(m.Query(5, "once")) == "whole"

    run(scenario)


def in_flight(node: Node) -> int:
    return sum(len(one.streams) + len(one.inflight) for one in node.connections.values())


@pytest.mark.parametrize("second", ["stream", "query"])
def test_the_id_of_a_stream_that_is_open_is_in_flight(second: str) -> None:
    async def scenario() -> None:
        async with serving(streaming()) as (network, _):
            for first in ("ticks", "once"):
                peer = await opened(network)
                peer.send(m.Query(5, first, {"n": 99} if first == "ticks" else None, stream=True))
                await asyncio.sleep(0.1)
                if second == "stream":
                    peer.send(m.Query(5, "ticks", {"n": 99}, stream=True))
                else:
                    peer.send(m.Query(5, "once"))
                assert await peer.until_closed() == 4502

    run(scenario)


def test_a_connection_that_goes_closes_its_streams() -> None:
    async def scenario() -> None:
        async with serving(streaming()) as (network, node):
            peer = await opened(network)
            for n in range(10):
                peer.send(m.Query(n + 2, "ticks", {"n": 1_000}, stream=True))
            await asyncio.sleep(1)
            assert in_flight(node) == 10
            peer.link.cut()
            await asyncio.sleep(1)
            assert CLOSED == [""] * 10
            assert not node.connections

    run(scenario)


def test_a_node_that_stops_closes_its_streams() -> None:
    async def scenario() -> None:
        async with serving(streaming()) as (network, _):
            peer = await opened(network)
            peer.send(m.Query(5, "ticks", {"n": 1_000}, stream=True))
            await asyncio.sleep(1)
        assert CLOSED == [""]

    run(scenario)


@pytest.mark.parametrize("dialect", ["json", "msgpack"])
def test_what_the_server_asks_goes_over_the_wire_as_it_is_written(dialect: str) -> None:
    async def scenario() -> None:
        async with serving() as (network, node):
            peer = await opened(network, dialect)
            (conn,) = node.connections.values()
            create = asyncio.get_running_loop().create_task
            query = create(conn.query("who", {"a": 1}, timeout=2.5))
            asked = await peer.next(m.Query)
            assert (asked.name, asked.payload, asked.timeout) == ("who", {"a": 1}, 2_500)
            assert asked.stream is False
            peer.send(m.Response(asked.id, ["ada"]))
            assert await query == ["ada"]

            command = create(conn.command("do"))
            told = await peer.next(m.Command)
            assert told.id != asked.id
            assert told.key is None  # it is put once, and never again
            peer.send(m.Error(told.id, 102, "timeout", "late", True, "unknown"))
            with pytest.raises(DeliveryUnknown, match="may have run"):
                await command

            gone = create(conn.query("who"))
            asked = await peer.next(m.Query)
            gone.cancel()
            assert (await peer.next(m.Cancel)).id == asked.id
            peer.send(m.Response(asked.id, "late"))
            await asyncio.sleep(0.1)
            assert not conn.asked
            assert peer.close_code is None

    run(scenario)


def test_an_answer_that_is_not_allowed_as_data_is_not_handed_on() -> None:
    async def scenario() -> None:
        async with serving() as (network, node):
            peer = await opened(network)
            (conn,) = node.connections.values()
            query = asyncio.get_running_loop().create_task(conn.query("who"))
            asked = await peer.next(m.Query)
            deep: Any = 1
            for _ in range(40):
                deep = [deep]
            peer.send(m.Response(asked.id, deep))
            with pytest.raises(BadData, match="nested deeper"):
                async with asyncio.timeout(5):
                    await query

    run(scenario)
