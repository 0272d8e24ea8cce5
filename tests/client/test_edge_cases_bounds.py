"""What waits to be sent or to be read: what well-known clients hold of it, and we.

Each test shows the straightforward way first, and that it fails.
"""

from __future__ import annotations

import asyncio

import pytest

from everwire import ClientLimits, NotSent, OutboxFull, RequestError
from everwire.client import Client
from everwire.protocol import messages as m

from .naive import Wire
from .world import data_of, node_world, play, quiet, take

# ---- 12 ----------------------------------------------------------------------------------


def test_what_waits_to_be_sent_is_bounded_and_says_so() -> None:
    """socket.io-client 4.8, Phoenix and partysocket 1.3 buffer without an end while offline.

    relay-ide #1250 (15 GiB), oh-my-pi #4248: the process dies instead of the message.
    """

    async def naive() -> None:
        buffer = [b"%d" % n * 100 for n in range(50_000)]  # their sendBuffer takes it all
        assert sum(map(len, buffer)) > 16 * 2**20

    async def ours() -> None:
        async with node_world() as world, world.client() as client:
            world.network.links[0].freeze(drop=True)
            accepted, refused = 0, 0
            for size in [10] * 2_000 + [100_000] * 200:
                try:
                    client.publish_nowait("c", "x" * size).add_done_callback(
                        lambda future: future.exception()
                    )
                    accepted += 1
                except OutboxFull:
                    refused += 1
            outbox = client._core.publisher.outbox
            assert len(outbox) <= ClientLimits().outbox_messages
            assert outbox.size <= ClientLimits().outbox_bytes
            assert (accepted, refused) == (1_000, 1_200)
            with pytest.raises(OutboxFull):  # waits for room, and not for ever
                await client.publish("c", 1)

    play(naive)
    play(ours)


def test_a_peer_that_does_not_read_is_not_written_to_without_end() -> None:
    """``bufferedAmount`` grows for as long as the application writes (bun #31760: it says 0)."""

    def written(client: Client) -> int:
        link = client._core.session.link
        assert link is not None
        assert link._transport is not None
        return link._transport.write_buffer_size()

    async def naive() -> None:
        async with node_world() as world:
            wire = await Wire().open(world.network)
            world.network.links[0].freeze()
            for _ in range(300):
                wire.send(m.Event("move", "x" * 100_000))
            assert wire.transport.write_buffer_size() > 25 * 2**20

    async def ours() -> None:
        limits = ClientLimits(outbox_bytes=32 * 2**20)
        async with node_world() as world, world.client(limits=limits) as client:
            world.network.links[0].freeze()
            for _ in range(300):
                client.publish_nowait("c", "x" * 100_000).add_done_callback(
                    lambda future: future.exception()
                )
            assert written(client) < 2 * 2**20
            with pytest.raises(NotSent, match="read"):
                for _ in range(300):
                    await client.event("move", "x" * 100_000)
            assert written(client) < 2 * 2**20
            asking = [
                asyncio.get_running_loop().create_task(client.query("none", "x" * 100_000))
                for _ in range(300)
            ]
            await asyncio.sleep(1)
            assert written(client) < 2 * 2**20
            world.network.links[0].thaw()
            await asyncio.wait(asking)
            assert {type(one.exception()) for one in asking} == {RequestError}  # all were asked
            await client.event("move", "again")
            assert client.stats.reconnects == 0

    play(naive)
    play(ours, allow_leftovers=True)


def test_what_waits_to_be_read_is_bounded_and_nothing_of_it_is_lost() -> None:
    """centrifuge-python 0.7 queues what comes without an end; nats.py 2 drops it in the end."""

    async def naive() -> None:
        async with node_world() as world:
            wire = await Wire().open(world.network)
            wire.send(m.Subscribe(wire.next_id(), [m.ChannelRequest("c")]))
            await asyncio.sleep(1)
            for n in range(5_000):
                await world.wire.publish("c", n)
            await asyncio.sleep(10)
            assert len(wire.of(m.ChannelMessage)) == 5_000

    async def ours() -> None:
        limits = ClientLimits(queue_messages=10)
        async with node_world() as world, world.client(limits=limits) as client:
            async with client.subscribe("c") as room:
                for n in range(90):  # of a hundred that the history keeps
                    await world.wire.publish("c", n)
                await asyncio.sleep(10)
                assert len(room._feed.inbox) <= 10
                assert data_of(await take(room, 90)) == list(range(90))
                await quiet(room)

    play(naive)
    play(ours)
