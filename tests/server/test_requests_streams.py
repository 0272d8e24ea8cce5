"""However a stream ends, its handler's ``finally`` runs once, to its end, and its turn is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everwire import Connection, Everwire, Forbidden, Limits
from everwire.protocol import messages as m
from everwire.testing import run

from .peer import Peer, open_app, serving

LOG: list[str] = []


def application() -> Everwire:
    LOG.clear()
    wire = open_app(limits=Limits(message=10_000, hard_cap=20_000))

    @wire.query(concurrency=1)
    async def parts(conn: Connection, then: str, n: int = 3) -> AsyncIterator[Any]:
        LOG.append("begun")
        try:
            for number in range(n):
                yield number
            if then == "raise":
                raise RuntimeError("s3cret")
            if then == "refuse":
                raise Forbidden("no more")
            if then == "sleep":
                await asyncio.sleep(3600)
            if then in ODD:
                yield ODD[then]
        finally:
            await asyncio.sleep(0.5)  # as a database that takes its time to roll back
            LOG.append("closed")

    return wire


ODD = {"object": object(), "large": "x" * 20_000, "deep": [[[[float("inf")]]]]}


@pytest.mark.parametrize(
    ("then", "way", "name"),
    [
        ("end", "", ""),
        ("raise", "", "internal"),
        ("refuse", "", "forbidden"),
        ("object", "", "internal"),
        ("deep", "", "internal"),
        ("large", "", "too_big"),
        ("sleep", "", "timeout"),
        ("sleep", "cancel", "cancelled"),
        ("sleep", "cancel twice", "cancelled"),
        ("sleep", "cut", None),
        ("sleep", "close", None),
        ("credit", "cancel", "cancelled"),
        ("credit", "cut", None),
        ("unread", "cut", None),
    ],
)
def test_the_handler_is_closed_once_and_its_turn_given_back(
    then: str, way: str, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(application()) as (network, node):
            peer = Peer(network)
            await peer.auth()
            (conn,) = node.connections.values()
            if then == "unread":
                peer.transport.pause_reading()
            count = {"credit": 100, "unread": 100_000}.get(then, 3)
            peer.send(m.Query(2, "parts", {"then": then, "n": count}, 2000, stream=True))
            if then == "unread":
                peer.send(m.Credit(2, 100_000))
            await asyncio.sleep(1)
            if way.startswith("cancel"):
                for _ in way.split():
                    peer.send(m.Cancel(2))
                    await asyncio.sleep(0.1)
            elif way == "cut":
                peer.link.cut()
            elif way == "close":
                peer.transport.close()
            if name is not None:
                numbers = 16 if then == "credit" else count
                for number in range(numbers):
                    assert await peer.answer(2) == m.Response(2, number, more=True)
                end = await peer.answer(2)
                assert (end.name if isinstance(end, m.Error) else "") == name
                assert "s3cret" not in repr(end)
            await asyncio.sleep(1)
            assert LOG == ["begun", "closed"]
            assert not conn.streams
            assert len(node.working) == 0
            other = Peer(network)
            await other.auth()
            other.send(m.Query(2, "parts", {"then": "end", "n": 1}, stream=True))
            assert await other.answer(2) == m.Response(2, 0, more=True)
            if name is not None:  # there was one end, and nothing after it
                assert not [one for one in peer.inbox if isinstance(one, (m.Error, m.Response))]

    run(main)
    expected = ["a defect in query 'parts'"] if name == "internal" else []
    assert [record.getMessage() for record in caplog.records] == expected


def test_a_node_that_stops_waits_for_the_handlers_to_close() -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peer = Peer(network)
            await peer.auth()
            peer.send(m.Query(2, "parts", {"then": "sleep"}, stream=True))
            await asyncio.sleep(1)
        assert LOG == ["begun", "closed"]

    run(main)
