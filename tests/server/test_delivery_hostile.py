"""The delivery contract where several things come together: what is told is needed, and all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from everwire import Connection, Everwire, Forbidden, Grant
from everwire.limits import KiB
from everwire.protocol import messages as m
from everwire.testing import run

from ..contracts.stepped import STEP, SteppedBroker
from .nodes import Nodes, who
from .peer import Peer, open_app, serving
from .test_upkeep import data, gaps, on_nodes, subscriber

NAMES = ["c1", "c2", "c3"]


def test_channels_that_are_recovered_in_part_together_have_one_gap_each() -> None:
    """Also those whose history has to wait until there is room to send it."""

    def declare(wire: Everwire) -> None:
        for name in NAMES:
            wire.channel(name, history=3, grant=Grant(publish=True))

    async def main() -> None:
        wire = Everwire()
        declare(wire)
        async with serving(wire) as (network, node):
            first = {name: await wire.publish(name, 0) for name in NAMES}
            for n in range(1, 6):
                for name in NAMES:
                    await wire.publish(name, str(n) * 60 * KiB)
            peer = Peer(network)
            requests = [m.ChannelRequest(name, first[name]) for name in NAMES]
            await peer.auth(subscribe=requests)
            await asyncio.sleep(5)
            told = gaps(peer)
            assert [(one.reason, one.offset, one.from_) for one in told] == [("expired", 3, 1)] * 3
            assert len(peer.messages()) == 9
            assert node.counters["gaps"] == 3

    run(main)


def test_latest_values_that_have_to_wait_follow_without_a_gap() -> None:
    wire = Everwire()
    for name in NAMES:
        wire.channel(name, latest=True, grant=Grant(publish=True))

    async def main() -> None:
        async with serving(wire) as (network, _):
            for n in range(3):
                for name in NAMES:
                    await wire.publish(name, str(n) * 600 * KiB)
            peer = Peer(network)
            await peer.auth(subscribe=[m.ChannelRequest(name) for name in NAMES])
            await asyncio.sleep(5)
            assert not gaps(peer)
            assert [one.offset for one in peer.messages()] == [3, 3, 3]

    run(main)


@pytest.mark.parametrize("more", [0, 1, 2, 5])
def test_a_broker_that_lost_messages_and_gives_their_numbers_again_is_found_out(more: int) -> None:
    """A replica takes over that has the first message only, and goes on at once."""

    async def scenario(cluster: Nodes) -> None:
        readers = [await subscriber(cluster, n) for n in range(2)]
        for n in range(1, 4):
            await cluster[0].publish("c", n, id=f"p-{n}")
        await asyncio.sleep(1)
        stream = cluster.broker(0).memory.streams["c"]
        stream.top, stream.top_id = 1, "p-1"
        del stream._records[1:], stream._kept[1:]
        new = [f"new {n}" for n in range(2 + more)]
        for one in new:
            await cluster[1].publish("c", one)
        await asyncio.sleep(20)
        await cluster[1].publish("c", "last")
        await asyncio.sleep(1)
        for reader in readers:
            assert [gap.reason for gap in gaps(reader)] == ["epoch"]
            assert data(reader) == [1, 2, 3, 1, *new, "last"]

    on_nodes(2, scenario)


def auditors(wire: Everwire) -> None:
    wire.wildcard("chat:*")(listen)


async def listen(conn: Connection) -> None: ...


@pytest.mark.parametrize("seconds", [7.0, 30.0])
def test_what_a_wildcard_missed_while_the_broker_was_away_is_a_gap(seconds: float) -> None:
    async def scenario(cluster: Nodes) -> None:
        peer = await subscriber(cluster, 1, "chat:*")
        await cluster[0].publish("chat:a", 1)
        await asyncio.sleep(1)
        cluster.broker(1).severed = True
        await asyncio.sleep(seconds - 1)
        await cluster[0].publish("chat:a", "lost")
        await cluster[0].publish("chat:new", "lost")
        await asyncio.sleep(1)
        cluster.broker(1).severed = False
        await asyncio.sleep(20)
        assert data(peer) == [1]
        await cluster[0].publish("chat:new", 2)
        await asyncio.sleep(1)
        assert data(peer) == [1, 2]
        assert [gap.reason for gap in gaps(peer)] == ["dropped"]
        await cluster[0].publish("chat:a", 3)
        await cluster[0].publish("chat:b", 4)
        await asyncio.sleep(1)
        assert data(peer)[:3] == [1, 2, 3]
        assert data(peer)[-1] == 4

    on_nodes(2, scenario, make=with_wildcards)


def with_wildcards(**options: Any) -> Everwire:
    wire = Everwire(**options)
    wire.authenticate(who)
    auditors(wire)
    wire.channel("{name:path}", grant=Grant(publish=True))
    return wire


@pytest.mark.parametrize("wait", [1.0, 3.0, 5.5, 7.5])
def test_what_was_lost_last_of_a_channel_is_a_gap_of_the_wildcard(wait: float) -> None:
    async def scenario(cluster: Nodes) -> None:
        peer = await subscriber(cluster, 1, "chat:*")
        await asyncio.sleep(wait)
        await cluster[0].publish("chat:a", 1)
        await asyncio.sleep(0.1)
        cluster.broker(1).deaf = True
        await cluster[0].publish("chat:a", "lost")
        cluster.broker(1).deaf = False
        await asyncio.sleep(30)
        await cluster[0].publish("chat:b", 2)
        await asyncio.sleep(1)
        assert data(peer) == [1, 2]
        assert [gap.reason for gap in gaps(peer)] == ["dropped"]

    on_nodes(2, scenario, make=with_wildcards)


class SlowToLetGo(SteppedBroker):
    """What it is told to forget it forgets later, as whatever takes time may be overtaken."""

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await asyncio.sleep(10 * STEP)
        await super().unsubscribe(channels)

    async def unwatch(self, prefixes: Sequence[str]) -> None:
        await asyncio.sleep(10 * STEP)
        await super().unwatch(prefixes)


@pytest.mark.parametrize("name", ["chat:a", "chat:*"])
def test_who_comes_while_the_broker_forgets_a_channel_is_told_of_it(name: str) -> None:
    async def main() -> None:
        broker = SlowToLetGo()
        async with serving(with_wildcards(broker=broker)) as (network, node):
            peer = Peer(network)
            await peer.auth(token="ada")
            for _ in range(3):
                await peer.subscribe(name)
                await peer.ask(m.Unsubscribe(peer._serial(), [name]))
                while node.hub.channels:
                    await asyncio.sleep(STEP)
                await asyncio.sleep(STEP)
                await peer.subscribe(name)
                await asyncio.sleep(20 * STEP)
                peer.inbox.clear()
                await node.app.publish("chat:a", 1)
                await asyncio.sleep(2 * STEP)
                assert data(peer) == [1]
                await peer.ask(m.Unsubscribe(peer._serial(), [name]))
                while node.hub.channels:
                    await asyncio.sleep(STEP)
                await asyncio.sleep(20 * STEP)
            assert not broker.memory.subscribed
            assert not broker.memory.watched

    run(main)


@pytest.mark.parametrize("step", range(4))
def test_what_was_opened_for_who_is_gone_is_let_go_of(step: int) -> None:
    async def main() -> None:
        broker = SteppedBroker()
        async with serving(open_app(broker=broker)) as (network, node):
            peer = Peer(network)
            await peer.auth()
            peer.send(m.Subscribe(2, [m.ChannelRequest("c")]))
            await asyncio.sleep((step + 0.5) * STEP)
            (connection,) = node.connections.values()
            connection.close(4504)
            await asyncio.sleep(20)
            assert not node.hub.channels
            assert not broker.memory.subscribed

    run(main)


@pytest.mark.parametrize(("why", "stays"), [("forbidden", True), ("unavailable", False)])
def test_who_subscribes_anew_and_is_refused_is_subscribed_as_before_unless_the_broker_failed(
    why: str, stays: bool
) -> None:
    asked: set[str] = set()

    def make(**options: Any) -> Everwire:
        wire = Everwire(**options)
        wire.authenticate(who)

        @wire.channel("once", presence=True)
        async def once(conn: Connection) -> None:
            if conn.id in asked:
                raise Forbidden("once")
            asked.add(conn.id)

        return wire

    async def scenario(cluster: Nodes) -> None:
        peer = await subscriber(cluster, 0, "once")
        (connection,) = cluster.node(0).connections.values()
        if why == "unavailable":
            cluster.broker(0).severed = True
        else:
            connection.channels.clear()  # as after many others
        result = await peer.subscribe("once")
        assert result["error"]["name"] == why
        cluster.broker(0).severed = False
        await asyncio.sleep(20)
        await cluster[1].publish("once", 1)
        await asyncio.sleep(1)
        assert data(peer) == [1] * stays
        assert len(await cluster[1].presence("once")) == stays

    on_nodes(2, scenario, make=make)
