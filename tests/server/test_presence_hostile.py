"""Presence against what is against it: readers that come and go, failures in the middle, crowds."""

from __future__ import annotations

import asyncio
from typing import Any

from everwire import Connection, Everwire, Grant
from everwire.codes import CloseCode
from everwire.limits import KiB, Limits
from everwire.protocol import messages as m
from everwire.testing import Direction, run

from ..contracts.stepped import STEP, SteppedBroker
from .nodes import Nodes, who
from .peer import Peer, serving
from .test_presence import Watcher, join, on_nodes


def test_what_was_to_be_told_to_who_watched_before_is_not_told_to_who_watches_now() -> None:
    async def scenario(cluster: Nodes) -> None:
        first = await Watcher.at(cluster, 0)
        peer = await join(cluster, 0)
        await asyncio.sleep(1)
        await peer.ask(m.Unsubscribe(5, ["c"]))  # told at once
        await peer.subscribe("c")  # to be told in a moment
        await first.ask(m.Unsubscribe(6, ["c"]))
        await peer.ask(m.Unsubscribe(7, ["c"]))  # nobody watches
        second = await Watcher.at(cluster, 0)
        await asyncio.sleep(20)
        assert second.members == ["watcher"]
        assert second.count == 1

    on_nodes(1, scenario, latency=0.0)


def test_who_subscribes_anew_and_fails_is_not_left_present() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        peer = await join(cluster, 1)
        broker = cluster.broker(1)
        broker.severed = True
        result = await peer.subscribe("c")
        assert result["error"]["name"] == "unavailable"
        broker.severed = False
        await asyncio.sleep(5)
        assert await peer.ask(m.Unsubscribe(5, ["c"])) == {}
        await asyncio.sleep(20)
        assert watcher.members == ["watcher"]
        assert len(await cluster[0].presence("c")) == 1

    on_nodes(2, scenario)


def test_who_may_no_longer_see_who_is_present_is_told_no_more() -> None:
    seers = {"watcher"}

    def declare(wire: Everwire) -> None:
        @wire.channel("seen", presence=True)
        async def seen(conn: Connection) -> Grant:
            return Grant(presence=conn.user in seers)

    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0, "seen")
        peer = await join(cluster, 1)
        await peer.subscribe("seen")
        await asyncio.sleep(0.2)
        assert watcher.members == ["ada", "watcher"]
        seers.clear()
        assert isinstance(await watcher.ask(m.Auth(7, "watcher")), dict)
        await peer.ask(m.Unsubscribe(5, ["seen"]))
        await asyncio.sleep(20)
        assert watcher.told() == []
        seers.add("watcher")
        assert isinstance(await watcher.ask(m.Auth(8, "watcher")), dict)
        await peer.subscribe("seen")
        await asyncio.sleep(1)
        assert watcher.told() == []  # it asks for it by subscribing
        request = m.ChannelRequest("seen", presence=True)
        await watcher.ask(m.Subscribe(9, [request]))
        await asyncio.sleep(1)
        assert watcher.members == ["ada", "watcher"]

    on_nodes(2, scenario, declare=declare, make=only_named)


def only_named(**options: Any) -> Everwire:
    wire = Everwire(**options)
    wire.authenticate(who)
    wire.channel("c", presence=True, grant=Grant())
    return wire


def test_a_list_of_members_is_told_in_messages_that_may_be_read() -> None:
    def declare(wire: Everwire) -> None:
        @wire.channel("big", presence=True)
        async def big(conn: Connection) -> Grant:
            return Grant(info={"about": "x" * 3900})

    limits = Limits(message=64 * KiB)

    async def scenario(cluster: Nodes) -> None:
        for n in range(40):
            peer = await join(cluster, 1, f"u{n}")
            await peer.subscribe("big")
        biggest = 0

        class Measuring(Watcher):
            def received(self, opcode: int, payload: bytes | memoryview) -> None:
                nonlocal biggest
                biggest = max(biggest, len(payload))
                super().received(opcode, payload)

        watcher = await Measuring.at(cluster, 0, "big")
        assert watcher.members == sorted([*(f"u{n}" for n in range(40)), "watcher"])
        assert watcher.count == 41
        assert [one.full for one in watcher.seen].count(True) == 1
        late = cluster.peer(1)
        await late.auth(token="late")
        for n in range(30):  # many changes at once
            peer = await join(cluster, 1, f"v{n}")
            peer.send(m.Subscribe(9, [m.ChannelRequest("big")]))
        await asyncio.sleep(5)
        assert watcher.count == 71
        assert len(watcher.members) == 71
        assert biggest <= limits.message

    on_nodes(2, scenario, declare=declare, make=only_named, limits=limits)


def test_lists_of_members_wait_for_a_reader_that_does_not_read() -> None:
    """However many channels it asks for: what it has not read is not written."""
    limits = Limits(write_high=64 * KiB, write_low=8 * KiB)

    async def scenario(cluster: Nodes) -> None:
        names = [f"c{n}" for n in range(100)]
        requests = [m.ChannelRequest(name) for name in names]
        for _ in range(100):
            peer = cluster.peer(1)
            await peer.auth(token="somebody-with-a-long-name", subscribe=requests)
        watcher = cluster.peer(0)
        await watcher.auth(token="watcher")
        (connection,) = cluster.node(0).connections.values()
        connection.transport.set_write_limits(limits.write_high, limits.write_low)
        watcher.link.freeze(Direction.TO_CLIENT)
        requests = [m.ChannelRequest(name, presence=True) for name in names]
        watcher.send(m.Subscribe(9, requests))
        most = 0
        for _ in range(100):
            await asyncio.sleep(0.05)
            most = max(most, connection.transport.write_buffer_size())
        assert most < 4 * limits.write_high
        watcher.link.thaw()
        await asyncio.sleep(60)
        full = [one for one in watcher.inbox if isinstance(one, m.Presence) and one.full]
        assert len({one.sid for one in full}) == 100

    on_nodes(2, scenario, limits=limits)


def test_a_node_that_did_not_hear_that_it_was_given_up_makes_its_members_present_again() -> None:
    async def scenario(cluster: Nodes) -> None:
        watcher = await Watcher.at(cluster, 0)
        await join(cluster, 1)
        broker = cluster.broker(1)
        broker.severed = True
        await asyncio.sleep(21)
        assert watcher.members == ["watcher"]
        broker.severed, broker.lose_answers = False, True
        await asyncio.sleep(3)
        broker.lose_answers = False
        await asyncio.sleep(5)
        assert watcher.members == ["ada", "watcher"]

    on_nodes(2, scenario)


def test_who_is_lost_while_it_subscribes_anew_has_its_time_of_grace() -> None:
    async def main() -> None:
        wire = only_named(broker=SteppedBroker())
        async with serving(wire) as (network, node):
            peer = Peer(network)
            client = m.ClientInfo("i")
            await peer.auth(token="ada", client=client, subscribe=[m.ChannelRequest("c")])
            await asyncio.sleep(1)
            peer.send(m.Subscribe(5, [m.ChannelRequest("c")]))
            await asyncio.sleep(1.5 * STEP)
            (connection,) = node.connections.values()
            connection.closed(CloseCode.ABNORMAL, "")
            await asyncio.sleep(4)
            assert len(await wire.presence("c")) == 1
            await asyncio.sleep(4)
            assert await wire.presence("c") == []

    run(main)
