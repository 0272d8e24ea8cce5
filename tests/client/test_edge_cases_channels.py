"""Positions and subscriptions: what well-known clients believe of them, and we.

Each test shows the straightforward way first, and that it fails.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from everwire.client import Subscription
from everwire.protocol import messages as m
from everwire.testing import Network

from .naive import Wire
from .world import (
    FAST,
    Script,
    World,
    client_to,
    data_of,
    node_world,
    play,
    quiet,
    take,
    until,
)

# ---- 15 ----------------------------------------------------------------------------------


def test_recovery_needs_no_message_to_have_come_before() -> None:
    """An offset that is taken from events does not exist before the first one.

    socket.io's recovery needs one (#4888, #5538) and works once (#4880), or replays what it
    replayed before (#5419); a payload may even pass for an offset (#5539).
    """

    async def naive() -> None:
        async with node_world() as world:
            wire = await Wire().open(world.network)
            wire.send(m.Subscribe(wire.next_id(), [m.ChannelRequest("c")]))
            await asyncio.sleep(1)
            seen = wire.of(m.ChannelMessage)
            assert not seen  # so it has no position
            wire.transport.abort()
            await world.wire.publish("c", "while away")
            again = await Wire().open(world.network)
            again.send(m.Subscribe(again.next_id(), [m.ChannelRequest("c")]))
            await asyncio.sleep(10)
            assert not again.of(m.ChannelMessage)

    async def ours() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            async with client.subscribe("c") as room:
                said: list[Any] = []
                for time in range(10):  # not once only
                    client.drop()
                    await asyncio.sleep(0)
                    for data in (time, {"epoch": "x", "offset": 10**6, "id": "y"}, "1-1", None):
                        await world.wire.publish("c", data)
                        said.append(data)
                    assert data_of(await take(room, 4)) == said[-4:]
                    client.drop()  # with nothing new
                    await asyncio.sleep(3)
                await quiet(room)

    play(naive)
    play(ours)


def test_a_numbering_that_began_anew_is_noticed_before_the_first_message_too() -> None:
    """A client that has seen nothing keeps an empty epoch, and so never checks it.

    centrifuge-js #434: after the server lost its memory it goes on as if nothing were missing.
    """

    async def scenario() -> None:
        network = Network(latency=0.01)
        epochs = ["one", "two"]

        def handle(peer: Any, message: m.Message) -> None:
            if isinstance(message, (m.Auth, m.Subscribe)):
                asked = message.subscribe if isinstance(message, m.Auth) else message.channels
                peer.respond(
                    message,
                    {
                        "user": "",
                        "subscriptions": [
                            {"channel": one.channel, "sid": 1, "epoch": epochs[0], "offset": 0,
                             "id": "", "recovered": False, "recoverable": True}
                            for one in asked
                        ],
                    },
                )  # fmt: skip

        script = Script(network, handle)
        async with client_to(network, limits=FAST) as client, client.subscribe("c") as room:
            assert room.position == m.Position("one", 0, "")
            epochs.pop(0)
            client.drop()
            await until(lambda: len(script.peers) == 2 and room.state == "subscribed")
            script.peers[1].send(m.ChannelMessage(1, 1, "i1", 1, "new"))
            assert data_of(await take(room, 2)) == ["<epoch>", "new"]

    play(scenario)


# ---- 16 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("delivered", range(8))
def test_a_position_never_runs_ahead_of_what_was_delivered(delivered: int) -> None:
    """The reply to a subscription names the top; what lies before it comes afterwards.

    centrifuge-js #406 took the top for its position at once: a link that is lost in between
    loses the rest. centrifuge-dart #142 fell behind instead, and delivered twice.
    """

    async def before(world: World) -> m.Position:
        first = await world.wire.publish("c", "first")
        for n in range(6):
            await world.wire.publish("c", n)
        return first

    async def naive() -> list[Any]:
        async with node_world() as world:
            position = await before(world)
            got: list[Any] = []
            for attempt in range(2):
                wire = await Wire().open(world.network)
                wire.send(m.Subscribe(wire.next_id(), [m.ChannelRequest("c", position)]))
                if attempt == 0:
                    world.network.links[-1].cut_after(n_to_client=1 + delivered)
                await asyncio.sleep(1)
                got += [one.data for one in wire.of(m.ChannelMessage)]
                position = (await world.wire.history("c")).top
            return got

    async def ours() -> None:
        async with node_world() as world:
            position = await before(world)
            async with world.client(limits=FAST) as client:
                world.network.links[0].cut_after(n_to_client=1 + delivered)
                async with client.subscribe("c", since=position) as room:
                    assert data_of(await take(room, 6)) == list(range(6))
                    await quiet(room)

    lost: list[list[Any]] = []

    async def run_naive() -> None:
        lost.append(await naive())

    play(run_naive)
    assert (lost[0] == list(range(6))) is (delivered >= 6)
    play(ours)


def test_who_crashes_with_a_queue_comes_back_to_what_it_had_not_been_handed() -> None:
    """The same on this side of the queue: what was received is not what was handled.

    Saving the position of what was received, as a hook on each message does, skips the queue.
    """

    async def scenario() -> None:
        async with node_world() as world:
            async with world.client() as client:
                room = await client.subscribe("c").__aenter__()
                for n in range(20):
                    await client.publish("c", n)
                assert data_of(await take(room, 7)) == list(range(7))
                received, handed = room._feed.tail, room.position  # and here it crashes
                client.drop()
            for since, first in ((received, 20), (handed, 7)):
                async with world.client() as client:
                    async with client.subscribe("c", since=since) as room:
                        await client.publish("c", 20 if since is received else 21)
                        items = data_of(await take(room, 21 - first if since is received else 15))
                        assert items[0] == first

    play(scenario)


# ---- 17 ----------------------------------------------------------------------------------


def test_in_out_and_in_again_leaves_the_second_one_alive() -> None:
    """The late answer to ``unsubscribe`` is taken for one that concerns the new subscription.

    centrifuge-dart #128, centrifuge-js #274, phoenix #1579: subscribed on the server, and
    nobody on the client knows; or the other way round.
    """

    async def naive() -> None:
        async with node_world() as world:
            wire = await Wire().open(world.network)
            rooms: dict[str, int | None] = {}

            def note(message: m.Message) -> None:
                if isinstance(message, m.Response) and message.payload:
                    rooms["c"] = message.payload["subscriptions"][0]["sid"]
                elif isinstance(message, m.Response):
                    rooms.pop("c", None)

            wire.on_message = note
            wire.send(m.Subscribe(wire.next_id(), [m.ChannelRequest("c")]))
            wire.send(m.Unsubscribe(wire.next_id(), ["c"]))
            rooms["c"] = None  # "subscribe" again is remembered, as one is under way
            await asyncio.sleep(1)
            assert not rooms
            assert not world.connection().subscriptions

    async def ours() -> None:
        async with node_world(latency=0.05) as world, world.client() as client:
            for pause in (0.0, 0.01, 0.05, 0.1, 0.15):
                async with client.subscribe("c"):
                    await asyncio.sleep(pause)
                entering = asyncio.get_running_loop().create_task(
                    client.subscribe("c").__aenter__()
                )
                await asyncio.sleep(pause)
                entering.cancel()
                await asyncio.wait([entering])
                if not entering.cancelled():
                    await entering.result().unsubscribe()
                async with client.subscribe("c") as room:
                    await client.publish("c", pause)
                    assert data_of(await take(room, 1)) == [pause]
                    await quiet(room)
            await until(lambda: not world.connection().subscriptions)
            assert client.stats.reconnects == 0

    play(naive)
    play(ours)


@pytest.mark.parametrize("seed", range(20))
def test_after_any_ins_and_outs_both_sides_agree(seed: int) -> None:
    async def scenario() -> None:
        random = Random(seed)
        async with node_world(latency=0.02) as world, world.client(limits=FAST) as client:
            rooms: dict[str, asyncio.Task[Subscription]] = {}
            left: list[asyncio.Task[Any]] = []
            start = asyncio.get_running_loop().create_task
            for _ in range(150):
                name = f"r{random.randrange(6)}"
                if name not in rooms:
                    rooms[name] = start(client.subscribe(name).__aenter__())
                elif rooms[name].done():
                    left.append(start(rooms.pop(name).result().unsubscribe()))
                    await asyncio.sleep(0)
                else:
                    rooms[name].cancel()
                    left.append(rooms.pop(name))
                    await asyncio.sleep(0)
                await asyncio.sleep(random.choice((0.0, 0.0, 0.01, 0.02, 0.03, 0.1)))
                if random.random() < 0.05:
                    random.choice((client.drop, world.network.cut))()
            await asyncio.sleep(10)
            here = set(rooms)
            assert {room.channel for room in client._core.subscriptions} == here
            assert set(world.connection().subscriptions) == here
            for name, room in rooms.items():
                await client.publish(name, name)
                assert data_of(await take(room.result(), 1)) == [name]
            await asyncio.wait(left)

    play(scenario)
