"""Links that are dead, slow, or only seem to be: what well-known clients make of them, and we.

Each test shows the straightforward way first, and that it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from everwire import Everwire, Grant
from everwire.client import Message, Subscription
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Direction, Network

from .naive import Wire
from .world import (
    FAST,
    Script,
    World,
    client_to,
    data_of,
    loop,
    node_world,
    play,
    quiet,
    take,
    until,
)

COUNT = 100


async def room_of(world: World, channel: str) -> Subscription:
    """Somebody who reads along, with a link of their own."""
    reader = await world.client()
    return await reader.subscribe(channel).__aenter__()


async def everything(room: Subscription) -> list[object]:
    """What comes until nothing comes any more."""
    items = []
    while True:
        try:
            async with asyncio.timeout(60):
                items.append(await anext(room))
        except TimeoutError:
            return data_of(items)


# ---- 2 -----------------------------------------------------------------------------------


def test_what_was_written_to_a_dead_link_gets_there_all_the_same() -> None:
    """``send()`` returns as soon as the bytes are with the kernel, also on a half-open link.

    websockets 17.4 takes 3.9 MB for a peer that reads nothing, says OK to each, and all is
    lost; likewise websocket-client #600, nats.net #271, cloudflare/agents #2242.
    """

    async def naive() -> None:
        async with node_world() as world:
            room = await room_of(world, "c")
            wire = await Wire("plain").open(world.network)
            world.network.links[-1].freeze(drop=True)
            for n in range(COUNT):
                wire.send(m.Publish("", "c", n))  # says nothing: "sent"
            assert await everything(room) == []

    async def ours() -> None:
        async with node_world() as world, world.client() as client:
            room = await room_of(world, "c")
            world.network.links[0].freeze(drop=True)
            acks = [client.publish_nowait("c", n, ttl=100) for n in range(COUNT)]
            positions = [(await ack).position for ack in acks]
            assert [at.offset for at in positions if at] == list(range(1, COUNT + 1))
            assert await everything(room) == list(range(COUNT))

    play(naive, allow_leftovers=True)
    play(ours, allow_leftovers=True)


# ---- 3 -----------------------------------------------------------------------------------


def test_what_is_sent_again_is_stored_once() -> None:
    """Whether a message arrived cannot be known when its acknowledgement is lost.

    socket.io-client 4.8 sends it again as a new one (#5334), paho.mqtt 2.1 under a new id
    (#698): it is there twice.
    """

    async def naive() -> None:
        async with node_world() as world:
            room = await room_of(world, "c")
            for attempt in range(2):
                wire = await Wire().open(world.network)
                link = world.network.links[-1]
                if attempt == 0:
                    link.freeze(Direction.TO_CLIENT)
                wire.send(m.Publish(f"attempt-{attempt}", "c", "pay 10"))
                await asyncio.sleep(1)
                link.cut()
            assert await everything(room) == ["pay 10"] * 2

    async def ours() -> None:
        async with node_world() as world, world.client() as client:
            room = await room_of(world, "c")
            link = world.network.links[0]
            link.freeze(Direction.TO_CLIENT)
            ack = client.publish_nowait("c", "pay 10")
            await asyncio.sleep(1)
            link.cut()
            assert (await ack).duplicate
            assert await everything(room) == ["pay 10"]

    play(naive, allow_leftovers=True)
    play(ours, allow_leftovers=True)


def test_who_lost_patience_can_go_on_waiting_for_the_same_message() -> None:
    """A ``send()`` that was cancelled by a time-out is delivered all the same in websockets 17.4.

    So "again after a time-out" sends it twice there. Here waiting can be taken up again,
    which sends nothing.
    """

    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            room = await room_of(world, "c")
            world.network.links[0].freeze()
            ack = client.publish_nowait("c", "pay 10")
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await asyncio.shield(ack)
            world.network.links[0].thaw()
            assert not (await ack).duplicate
            assert await everything(room) == ["pay 10"]

    play(scenario, allow_leftovers=True)


# ---- 4 -----------------------------------------------------------------------------------


def test_a_reader_that_is_slow_does_not_make_its_own_heartbeat_fail() -> None:
    """A full queue pauses reading, pongs stay unread, and the live link is given up.

    websockets 17.4 and picows.websockets 2.3.1 close it with 1011, keepalive ping timeout
    (aiohttp #10544, websockets #1012); ``tests/client/real`` shows it with the library.
    """

    async def keepalive(wire: Wire, interval: float, patience: float) -> bool:
        """As those do it: whether the pong came in time, until it does not."""
        for _ in range(20):
            await asyncio.sleep(interval)
            before = wire.pongs
            wire.transport.ping()
            await asyncio.sleep(patience)
            if wire.pongs == before:
                return False
        return True

    async def flood(world: World) -> None:
        for n in range(2_000):
            await world.wire.publish("c", n)
            await asyncio.sleep(0.1)

    def history(wire: Everwire) -> None:
        wire.channel("c", history=5_000, history_ttl=5_000, grant=Grant())

    async def naive() -> None:
        async with node_world(history) as world:
            wire = await Wire().open(world.network)
            wire.send(m.Subscribe(wire.next_id(), [m.ChannelRequest("c")]))
            await asyncio.sleep(1)
            wire.messages.clear()

            def pause_when_full(message: m.Message) -> None:
                if len(wire.messages) >= 16:
                    wire.transport.pause_reading()

            wire.on_message = pause_when_full
            flooding = asyncio.get_running_loop().create_task(flood(world))
            assert not await keepalive(wire, 20, 20)
            assert len(world.network.links) == 1  # it was alive
            await flooding

    async def ours() -> None:
        async with node_world(history) as world, world.client() as client:
            async with client.subscribe("c") as room:
                await flood(world)
                await asyncio.sleep(600)  # the application reads nothing for ten minutes
                assert data_of(await take(room, 2_000)) == list(range(2_000))
                assert client.stats.reconnects == 0

    play(naive, allow_leftovers=True)
    play(ours)


# ---- 5 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_large_message_on_a_slow_line_is_not_taken_for_a_dead_peer(way: str) -> None:
    """A ping waits in the line behind a large message, and its pong comes too late.

    websockets #1005, aiohttp #12029, sockjs-node #169, engine.io-client #706: a link that
    works is given up in the middle of the transfer.
    """
    large, rate = "x" * 1_000_000, 20_000.0  # fifty seconds

    async def naive() -> None:
        async with node_world() as world:
            wire = await Wire().open(world.network)
            world.network.links[0].bandwidth = rate
            wire.send(m.Publish("p-1", "c", large))
            wire.transport.ping()
            await asyncio.sleep(40)  # interval and time-out of websockets 17.4
            assert wire.pongs == 0  # it would give up here
            await asyncio.sleep(20)
            assert wire.pongs >= 1  # and it was alive

    async def ours() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                world.network.links[0].bandwidth = rate
                if way == "up":
                    await client.publish("c", large, ttl=1_000)
                else:
                    await world.wire.publish("c", large)
                await take(room, 1, within=300)
                assert client.stats.reconnects == 0
                assert len(world.node.connections) == 1

    play(naive)
    play(ours)


# ---- 6 -----------------------------------------------------------------------------------


def test_a_loop_that_was_busy_is_not_taken_for_a_dead_peer() -> None:
    """After the loop was blocked its watchdog is due before what has come was read.

    websockets #1620 and #532 (its FAQ), centrifuge-python #33: the link is given up, though
    the peer was there all the time.
    """

    async def world_of_pings() -> tuple[Network, Script, Callable[[], None]]:
        network = Network()
        script = Script(network)

        async def ping() -> None:
            while True:
                await asyncio.sleep(20)
                for peer in script.peers:
                    peer.send(m.Ping(1))

        pinging = asyncio.get_running_loop().create_task(ping())
        return network, script, pinging.cancel  # type: ignore[return-value]

    async def naive() -> None:
        network, _, stop = await world_of_pings()
        wire = await Wire().open(network)
        given_up: list[float] = []
        watchdog = loop().call_later(30, lambda: given_up.append(loop().time()))

        def rearm(message: m.Message) -> None:
            nonlocal watchdog
            watchdog.cancel()
            watchdog = loop().call_later(30, lambda: given_up.append(loop().time()))

        wire.on_message = rearm
        await asyncio.sleep(70)
        assert not given_up
        loop()._set(loop().time() + 40)  # nothing ran for so long
        await asyncio.sleep(1)
        assert given_up
        watchdog.cancel()
        stop()

    async def ours() -> None:
        network, script, stop = await world_of_pings()
        async with client_to(network) as client:
            await asyncio.sleep(70)
            for _ in range(10):
                loop()._set(loop().time() + 40)
                await asyncio.sleep(70)
            assert (client.state, client.stats.reconnects, len(script.peers)) == ("ready", 0, 1)
        stop()

    play(naive)
    play(ours)


# ---- 7 -----------------------------------------------------------------------------------


def test_after_a_sleep_a_dead_link_is_found_in_seconds() -> None:
    """The monotonic clock stands still while the machine sleeps (cpython #106940).

    Whoever goes by it alone takes the link for a living one for as long as a heartbeat
    takes: socket.io #5135, phoenix #4309, ably-js #2070.
    """

    async def found_after(wall: Callable[[], float], wake: Callable[[], None]) -> float:
        async with node_world() as world, client_to(world.network, wall=wall) as client:
            await asyncio.sleep(100)
            link = client._core.session.link
            assert link is not None
            beat = link._beat
            assert beat is not None
            await until(lambda: loop().time() - beat.heard_at < 0.02)
            world.network.links[0].freeze(drop=True)
            wake()
            woke = loop().time()
            await until(lambda: client._core.session.link is None)
            found = loop().time() - woke
            await until(lambda: client.state == "ready")
            return found

    async def scenario() -> None:
        assert await found_after(loop().wall, lambda: None) > 20
        asleep = [0.0]
        found = await found_after(
            lambda: loop().wall() + asleep[0], lambda: asleep.__setitem__(0, 3_600.0)
        )
        assert found <= 30 / 8 + 5 + 0.1

    play(scenario)


def test_after_a_sleep_a_living_link_is_kept() -> None:
    """Reconnecting at each wake-up, as socket.io-client and Phoenix do, is a herd at nine o'clock.

    Here the server is asked, and what was published meanwhile was never lost.
    """

    async def scenario() -> None:
        asleep = [0.0]
        async with node_world() as world:
            client = client_to(world.network, wall=lambda: loop().wall() + asleep[0], limits=FAST)
            async with client, client.subscribe("c") as room:
                for night in range(1, 6):
                    await asyncio.sleep(100)
                    asleep[0] = night * 30_000.0
                    await world.wire.publish("c", night)
                await asyncio.sleep(100)
                assert data_of(await take(room, 5)) == [1, 2, 3, 4, 5]
                await quiet(room)
                assert client.stats.reconnects == 0

    play(scenario)


def test_a_peer_that_was_frozen_applies_nothing_twice_when_it_thaws() -> None:
    """What a frozen peer's kernel took is neither lost nor doubled when it thaws.

    The naive retry under a new id has both copies applied then.
    """

    async def scenario() -> None:
        limits = Limits(ping_interval=5.0, ping_grace=5.0)
        async with node_world(limits=limits) as world, world.client(limits=FAST) as client:
            room = await room_of(world, "c")
            link = world.network.links[0]
            link.freeze()  # keeps what is sent, as TCP does
            acks = [client.publish_nowait("c", n) for n in range(COUNT)]
            await until(lambda: client.stats.reconnects == 1)
            link.thaw()  # the first copies arrive now, behind the second ones
            assert [(await ack).position for ack in acks]
            items = await take(room, COUNT)
            assert [item.data for item in items if isinstance(item, Message)] == list(range(COUNT))
            await quiet(room)

    play(scenario, allow_leftovers=True)
