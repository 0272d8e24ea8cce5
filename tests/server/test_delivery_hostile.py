"""The delivery contract where several things come together: what is told is needed, and all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from everwire import Everwire, Grant
from everwire.limits import KiB, Limits
from everwire.protocol import messages as m
from everwire.protocol.messages import Position
from everwire.testing import run

from ..contracts.stepped import STEP, SteppedBroker
from .nodes import Nodes, nodes
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
        async with serving(wire) as (network, node):
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
