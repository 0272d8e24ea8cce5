"""What a node makes up for by itself: lost notifications, outages, brokers that lost something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from everwire import Everwire, Grant
from everwire.brokers.memory import MemoryBroker
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.protocol.messages import Position
from everwire.server import upkeep
from everwire.testing import VirtualLoop, run

from ..contracts.stepped import LossyBroker
from .nodes import Nodes, nodes
from .peer import Peer, open_app, serving

Scenario = Callable[[Nodes], Coroutine[Any, Any, None]]


def on_nodes(count: int, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        async with nodes(count, **options) as cluster:
            await scenario(cluster)

    run(main)


async def subscriber(cluster: Nodes, index: int, *channels: str, dialect: str = "json") -> Peer:
    peer = cluster.peer(index, dialect)
    await peer.auth(token="ada", subscribe=[m.ChannelRequest(name) for name in channels or ("c",)])
    return peer


def data(peer: Peer) -> list[Any]:
    return [one.data for one in peer.messages()]


def gaps(peer: Peer) -> list[m.GapNotice]:
    return [one for one in peer.inbox if isinstance(one, m.GapNotice)]


@pytest.mark.parametrize("wait", [0.5, 3.0, 7.9])
def test_a_message_that_a_node_was_not_told_of_reaches_its_readers_within_ten_seconds(
    wait: float,
) -> None:
    async def scenario(cluster: Nodes) -> None:
        readers = [await subscriber(cluster, 0, "c", "d"), await subscriber(cluster, 0, "c")]
        other = await subscriber(cluster, 1, "c")
        await cluster[1].publish("c", 1)
        await asyncio.sleep(wait)
        cluster.broker(0).deaf = True
        await cluster[1].publish("c", 2)
        await cluster[1].publish("c", 3)
        cluster.broker(0).deaf = False
        await asyncio.sleep(0.1)
        assert data(other) == [1, 2, 3]
        assert [data(reader) for reader in readers] == [[1], [1]]
        await asyncio.sleep(9.9)
        assert [data(peer) for peer in (*readers, other)] == [[1, 2, 3]] * 3
        assert not any(gaps(peer) for peer in (*readers, other))
        assert cluster.node(0).counters["notifications_lost"] == 1
        assert cluster.node(1).counters["notifications_lost"] == 0
        await cluster[1].publish("c", 4)
        await asyncio.sleep(1)
        assert data(readers[0]) == [1, 2, 3, 4]

    on_nodes(2, scenario)


def test_a_broker_that_loses_notifications_is_made_up_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        wire = open_app(broker=LossyBroker(wall=loop.wall))
        async with serving(wire) as (network, _):
            peer = Peer(network)
            await peer.auth(subscribe=[m.ChannelRequest("c")])
            for n in range(1, 7):  # every second one is told to nobody
                await wire.publish("c", n)
                await asyncio.sleep(10.5)
                assert data(peer) == list(range(1, n + 1))

    run(main)


def test_what_is_late_is_not_taken_for_lost() -> None:
    async def scenario(cluster: Nodes) -> None:
        reader = await subscriber(cluster, 0)
        cluster.broker(0).delay = 0.9
        for n in range(300):
            await cluster[1].publish("c", n)
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        assert data(reader) == list(range(300))
        assert cluster.node(0).counters["notifications_lost"] == 0
        assert cluster.node(0).counters["catch_ups"] == 0

    on_nodes(2, scenario, limits=Limits(history=1000))


def test_a_reader_that_is_ahead_of_what_was_told_goes_on() -> None:
    """It read a message from history; of that message the node is never told."""

    async def scenario(cluster: Nodes) -> None:
        await subscriber(cluster, 0)
        cluster.broker(0).deaf = True
        position = await cluster[1].publish("c", 1)
        cluster.broker(0).deaf = False
        ahead = cluster.peer(0)
        await ahead.auth(token="bob")
        await ahead.subscribe("c", m.Position(position.epoch, 0, ""))
        await asyncio.sleep(10)
        await cluster[1].publish("c", 2)
        await asyncio.sleep(1)
        assert data(ahead) == [1, 2]
        assert not gaps(ahead)

    on_nodes(2, scenario)


def test_comparing_asks_once_for_a_thousand_channels_and_does_nothing_more() -> None:
    async def scenario(cluster: Nodes) -> None:
        names = [f"c{n}" for n in range(250)]
        peers = [cluster.peer(0) for _ in range(10)]
        for k, peer in enumerate(peers):
            await peer.auth(token="ada")
            for start in (0, 200):
                some = [m.ChannelRequest(f"{k}:{name}") for name in names[start : start + 200]]
                await peer.ask(m.Subscribe(start + 7, some))
        asked: list[int] = []
        tops = cluster.broker(0).tops

        async def counting(channels: Sequence[str]) -> Sequence[Position]:
            asked.append(len(channels))
            return await tops(channels)

        cluster.broker(0).tops = counting  # type: ignore[method-assign]
        await asyncio.sleep(upkeep.COMPARE + 1)
        assert asked == [1000, 1000, 500]
        assert cluster.node(0).counters["catch_ups"] == 0

    on_nodes(1, scenario)


def test_a_broker_that_lost_what_it_acknowledged_begins_a_new_epoch() -> None:
    async def scenario(cluster: Nodes) -> None:
        readers = [await subscriber(cluster, n) for n in range(2)]
        for n in range(1, 4):
            position = await cluster[0].publish("c", n, id=f"p-{n}")
        await asyncio.sleep(1)
        # A replica takes over that has the first message only.
        stream = cluster.broker(0).memory.streams["c"]
        stream.top, stream.top_id = 1, "p-1"
        del stream._records[1:], stream._kept[1:]
        assert (await cluster.broker(0).tops(["c"]))[0].epoch == position.epoch
        await asyncio.sleep(10.5)
        top = (await cluster.broker(0).tops(["c"]))[0]
        assert top.epoch != position.epoch
        for reader in readers:
            assert [gap.reason for gap in gaps(reader)] == ["epoch"]
        await cluster[1].publish("c", "new")
        await asyncio.sleep(1)
        for reader in readers:
            assert data(reader) == [1, 2, 3, 1, "new"]
        late = cluster.peer(1)
        await late.auth(token="ada")
        assert not (await late.subscribe("c", position))["recovered"]
        assert sum(cluster.node(n).counters["broker_losses"] for n in range(2)) >= 1

    on_nodes(2, scenario)


@pytest.mark.parametrize("history", [0, 10])
def test_a_broker_that_lost_a_channel_begins_a_new_epoch_and_readers_are_told_which(
    history: int,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        broker = MemoryBroker(wall=loop.wall)
        wire = Everwire(broker)
        wire.channel("c", history=history, grant=Grant(publish=True))
        async with serving(wire) as (network, _):
            peer = Peer(network)
            await peer.auth(subscribe=[m.ChannelRequest("c")])
            await wire.publish("c", 1)
            broker.memory.streams.clear()
            await asyncio.sleep(10.5)
            position = await wire.publish("c", 2)
            await asyncio.sleep(1)
            assert data(peer) == [1, 2]
            told = [(gap.epoch, gap.offset, gap.reason) for gap in gaps(peer)]
            assert told == [(position.epoch, 0, "epoch")]

    run(main)


def events(peer: Peer) -> list[str]:
    """The names of those that came, taken."""
    came = [one for one in peer.inbox if isinstance(one, m.Event)]
    for one in came:
        peer.inbox.remove(one)
    return [one.name for one in came]


@pytest.mark.parametrize("seconds", [26.0, 29.0, 32.0])
@pytest.mark.parametrize("dialect", ["json", "msgpack"])
def test_an_outage_is_told_once_and_its_end_and_what_was_missed_is_made_up_for(
    dialect: str, seconds: float
) -> None:
    async def scenario(cluster: Nodes) -> None:
        reader = await subscriber(cluster, 0, dialect=dialect)
        elsewhere = await subscriber(cluster, 1)
        cluster.broker(0).severed = True
        refused = await reader.publish("p-1", "c", 1)
        assert (refused.name, refused.temporary) == ("unavailable", True)
        await asyncio.sleep(1.1)  # a failure is looked into at once
        assert events(reader) == ["degraded"]
        await cluster[1].publish("c", "meanwhile")
        await asyncio.sleep(seconds)
        assert events(reader) == []
        assert reader.close_code is None
        cluster.broker(0).severed = False
        await asyncio.sleep(3.2)
        assert events(reader) == ["restored"]
        assert data(reader) == ["meanwhile"]
        assert not gaps(reader)
        await asyncio.sleep(30)
        assert events(reader) == events(elsewhere) == []

    on_nodes(2, scenario)


def test_an_outage_that_nobody_ran_into_is_found_by_the_lease() -> None:
    async def scenario(cluster: Nodes) -> None:
        reader = await subscriber(cluster, 0)
        cluster.broker(0).severed = True
        await asyncio.sleep(7)
        assert events(reader) == ["degraded"]
        cluster.broker(0).severed = False

    on_nodes(1, scenario)


def test_a_broker_may_say_itself_that_it_is_gone_and_back() -> None:
    async def scenario(cluster: Nodes) -> None:
        reader, plain = await subscriber(cluster, 0), cluster.peer(0, "plain")
        await plain.open()
        plain.send(m.Auth("a", "bob"))
        await plain.answer("a")
        for _ in range(2):
            cluster.node(0).on_degraded()
        cluster.node(0).on_restored()
        await asyncio.sleep(1)
        assert events(reader) == events(plain) == ["degraded", "restored"]

    on_nodes(1, scenario)
