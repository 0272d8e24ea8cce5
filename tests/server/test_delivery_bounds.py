"""What a node holds unsent for one reader is bounded, whatever the reader asks for at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from everwire import Everwire, Grant, Position
from everwire.limits import DEFAULTS, KiB, MiB
from everwire.protocol import messages as m
from everwire.server.connection import Connection
from everwire.server.node import Node
from everwire.testing import Network, run

from .peer import Peer, serving

MANY = 250  # requests, each with an answer that is long beside it
SIZE = 10 * KiB


def with_reader(scenario: Callable[[Node, Peer], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with a reader that reads nothing until it is let."""
    wire = Everwire()
    wire.channel("{name:path}", history=100, presence=True, grant=Grant(publish=True))

    async def main() -> None:
        async with serving(wire, window=64 * KiB) as (network, node):
            assert isinstance(network, Network)
            reader = Peer(network)
            await reader.auth()
            reader.transport.pause_reading()
            await scenario(node, reader)
            assert node.counters["defects"] == 0

    run(main)


async def most_unsent(connection: Connection) -> int:
    """The most that waits to be written for a connection, as long as anything happens."""
    most = 0
    for _ in range(20_000):
        await asyncio.sleep(0)
        waiting = sum(map(len, connection.out or ()))
        most = max(most, connection.transport.write_buffer_size() + waiting)
    return most


def test_many_recoveries_at_once_wait_for_the_reader() -> None:
    async def scenario(node: Node, reader: Peer) -> None:
        beginnings = []
        for n in range(MANY):
            for _ in range(5):
                last = await node.app.publish(f"c{n}", "x" * SIZE)
            beginnings.append(Position(last.epoch, 0))
        for n, beginning in enumerate(beginnings):
            reader.send(m.Subscribe(1000 + n, [m.ChannelRequest(f"c{n}", beginning)]))
        (connection,) = node.connections.values()
        assert await most_unsent(connection) < DEFAULTS.write_high + 200 * KiB
        reader.transport.resume_reading()
        await asyncio.sleep(60)
        seen: dict[int, int] = {}
        for message in reader.messages():
            assert message.offset == seen.get(message.sid, 0) + 1
            seen[message.sid] = message.offset
        assert list(seen.values()) == [5] * MANY
        assert node.counters["gaps"] == 0

    with_reader(scenario)


def test_many_queries_for_history_at_once_are_answered_one_after_the_other() -> None:
    async def scenario(node: Node, reader: Peer) -> None:
        for n in range(50):
            await node.app.publish("c", f"{n} {'x' * SIZE}")
        for n in range(MANY):
            reader.send(m.Query(n, "everwire.history", {"channel": "c", "limit": 50}))
        (connection,) = node.connections.values()
        assert await most_unsent(connection) < DEFAULTS.write_high + 1 * MiB
        assert not reader.inbox or isinstance(reader.inbox[0], m.Hello)
        reader.transport.resume_reading()
        await asyncio.sleep(1)
        answers = [one for one in reader.inbox if isinstance(one, m.Response)]
        assert [one.request_id for one in answers] == list(range(MANY))
        assert all(len(one.payload["messages"]) == 50 for one in answers)
        assert not connection.operations

    with_reader(scenario)


def test_a_query_that_waits_for_its_reader_too_long_ends_in_time() -> None:
    async def scenario(node: Node, reader: Peer) -> None:
        for n in range(50):
            await node.app.publish("c", f"{n} {'x' * SIZE}")
        for n in range(MANY):
            reader.send(m.Query(n, "everwire.history", {"channel": "c"}, timeout=3000))
        (connection,) = node.connections.values()
        await asyncio.sleep(4)
        assert not connection.inflight
        assert not connection.operations
        reader.transport.resume_reading()
        await asyncio.sleep(5)
        answers = [one for one in reader.inbox if isinstance(one, (m.Response, m.Error))]
        late = [one for one in answers if isinstance(one, m.Error)]
        assert {one.name for one in late} == {"timeout"}
        assert len(answers) == MANY

    with_reader(scenario)
