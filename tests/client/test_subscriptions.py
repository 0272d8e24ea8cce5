"""What an application reads: everything once, in order, or a gap that says so."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from everwire import (
    BrokerUnavailable,
    ClientLimits,
    ClosedError,
    ClosedOK,
    ConfigError,
    Everwire,
    Forbidden,
    Gap,
    Grant,
    Message,
    Position,
    RequestError,
)
from everwire.client import SubscriptionState
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Network

from .world import (
    FAST,
    Peer,
    Script,
    World,
    client_to,
    data_of,
    loop,
    node_world,
    play,
    pushed,
    quiet,
    results,
    sid,
    take,
    until,
    welcome,
)


async def publish(world: World, channel: str, *data: object) -> None:
    for one in data:
        await world.wire.publish(channel, one)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_messages_come_with_all_there_is_to_know(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(dialect=dialect) as client:
            async with client.subscribe("c") as room:
                assert room.state is SubscriptionState.SUBSCRIBED
                assert room.position is not None
                assert room.position.offset == 0
                ack = await client.publish("c", {"n": 1})
                (item,) = await take(room, 1)
                assert isinstance(item, Message)
                assert (item.channel, item.data, item.position, item.id) == (
                    "c", {"n": 1}, ack.position, ack.id,
                )  # fmt: skip
                assert item.time == pytest.approx(loop().wall(), abs=1)
                assert room.position == ack.position

    play(scenario)


def test_since_a_position_history_comes_first() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            acks = [await client.publish("c", n) for n in range(5)]
            async with client.subscribe("c", since=acks[1].position) as room:
                await client.publish("c", 5)
                assert data_of(await take(room, 4)) == [2, 3, 4, 5]

    play(scenario)


def test_over_drops_nothing_is_missing_and_nothing_twice() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            async with client.subscribe("c") as room:
                got: list[object] = []
                for n in range(60):
                    await publish(world, "c", n)
                    if n % 7 == 3:
                        client.drop()
                    if n % 5 == 0:
                        await asyncio.sleep(0.05)
                        got += data_of(await take(room, 1))
                got += data_of(await take(room, 60 - len(got)))
                assert got == list(range(60))
                await quiet(room)
                assert client.stats.reconnects >= 3
                assert client.stats.gaps == 0

    play(scenario)


def test_a_link_lost_before_the_first_message_forgets_nothing() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            async with client.subscribe("c") as room:
                client.drop()
                await publish(world, "c", 1, 2)
                assert data_of(await take(room, 2)) == [1, 2]

    play(scenario)


def test_what_is_queued_survives_a_drop_and_the_position_is_that_of_what_was_handed_over() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            async with client.subscribe("c") as room:
                await publish(world, "c", 1, 2, 3)
                await asyncio.sleep(0.1)
                assert data_of(await take(room, 1)) == [1]
                client.drop()
                await publish(world, "c", 4)
                await asyncio.sleep(2)
                assert room.position is not None
                assert room.position.offset == 1
                assert data_of(await take(room, 3)) == [2, 3, 4]
                assert client.stats.received == 4

    play(scenario)


def test_what_history_no_longer_has_is_a_gap_before_the_next_message() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            wire.channel("short", history=3, grant=Grant(publish=True))

        async with node_world(declare) as world, world.client(limits=FAST) as client:
            async with client.subscribe("short") as room:
                await publish(world, "short", 0)
                await take(room, 1)
                world.network.refuse = True
                client.drop()
                await publish(world, "short", *range(1, 8))
                world.network.refuse = False
                gap, *rest = await take(room, 4)
                assert isinstance(gap, Gap)
                assert (gap.reason, gap.from_) == ("expired", 1)
                assert gap.position is not None
                assert gap.position.offset == 5
                assert data_of(rest) == [5, 6, 7]
                assert client.stats.gaps == 1
                client.drop()
                await publish(world, "short", 8)
                assert data_of(await take(room, 1)) == [8]

    play(scenario)


def test_a_new_epoch_is_a_gap() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            await publish(world, "c", 1)
            async with client.subscribe("c", since=Position("other", 7, "x")) as room:
                assert data_of(await take(room, 2)) == ["<epoch>", 1]

    play(scenario)


def test_an_epoch_that_begins_meanwhile_is_a_gap_and_positions_are_of_the_new_one() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            script.peers[0].send(
                pushed("c", 1, "old"),
                m.GapNotice(sid("c"), "f", 0, "", "epoch"),
                pushed("c", 1, "new"),
            )
            assert data_of(await take(room, 2)) == ["old", "<epoch>"]
            assert room.position == Position("f", 0, "")
            assert data_of(await take(room, 1)) == ["new"]
            assert room.position == Position("f", 1, "i1")

    play(scenario)


def test_a_gap_that_the_server_forgets_to_tell_is_made_up_for() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Subscribe):
                answer = results(message.channels, recovered=False, offset=10, id="i10")
                peer.respond(message, answer)
                peer.send(pushed("c", 11, "eleven"))
            else:
                welcome(peer, message)

        Script(network, handle)
        async with client_to(network) as client:
            async with client.subscribe("c", since=Position("e", 5, "i5")) as room:
                gap, message = await take(room, 2)
                assert gap == Gap("c", "expired", Position("e", 10, "i10"), 5)
                assert isinstance(message, Message)
                assert message.position == Position("e", 11, "i11")

    play(scenario)


def test_an_unrecovered_position_is_not_forgotten_by_a_link_that_drops_before_the_gap() -> None:
    async def scenario() -> None:
        network = Network()
        asked: list[m.ChannelRequest] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth) and message.subscribe:
                asked.extend(message.subscribe)
                peer.respond(
                    message, results(message.subscribe, recovered=False, offset=10, id="i10")
                )
            else:
                welcome(peer, message)

        Script(network, handle)
        async with client_to(network, limits=FAST) as client:
            async with client.subscribe("c", since=Position("e", 5, "i5")) as room:
                client.drop()
                await until(lambda: len(asked) == 1)
                await asyncio.sleep(0.1)
                client.drop()
                await until(lambda: len(asked) == 2)
                assert [one.position for one in asked] == [Position("e", 5, "i5")] * 2
                assert room.position == Position("e", 5, "i5")

    play(scenario)


def test_duplicates_are_dropped_and_counted() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            for offset in (1, 2, 1, 2, 3):
                script.peers[0].send(pushed("c", offset, offset))
            assert data_of(await take(room, 3)) == [1, 2, 3]
            await quiet(room)
            assert (client.stats.received, client.stats.duplicates) == (5, 2)

    play(scenario)


def test_offsets_need_not_be_consecutive() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            script.peers[0].send(pushed("c", 4, "a", prev=0), pushed("c", 90, "b", prev=4))
            assert data_of(await take(room, 2)) == ["a", "b"]

    play(scenario)


def test_a_hole_is_recovered_never_skipped() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            welcome(peer, message)
            if isinstance(message, m.Subscribe) and message.channels[0].position is not None:
                at = message.channels[0].position.offset
                peer.send(*(pushed("c", n, n) for n in range(at + 1, 7)))

        script = Script(network, handle)
        async with client_to(network) as client, client.subscribe("c") as room:
            peer = script.peers[0]
            peer.send(pushed("c", 1, 1), *(pushed("c", n, n) for n in range(4, 60)))
            began = loop().time()
            assert data_of(await take(room, 6)) == [1, 2, 3, 4, 5, 6]
            assert loop().time() - began < 0.5
            assert [one.channels for one in peer.of(m.Unsubscribe)] == [["c"]]
            again = peer.of(m.Subscribe)[1].channels[0]
            assert again.position == Position("e", 1, "i1")
            assert client.stats.gaps == 0

    play(scenario)


def test_a_server_full_of_holes_is_not_asked_in_a_hurry() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            welcome(peer, message)
            if isinstance(message, m.Subscribe):
                peer.send(pushed("c", 1_000, "x"))

        script = Script(network, handle)
        async with client_to(network) as client, client.subscribe("c"):
            await asyncio.sleep(60)
            assert 3 < len(script.peers[0].of(m.Subscribe)) < 30

    play(scenario)


@pytest.mark.parametrize(
    "limits",
    [
        ClientLimits(queue_messages=10),
        ClientLimits(queue_bytes=1_000),
        ClientLimits(queue_messages=1),
    ],
)
def test_a_full_queue_loses_nothing(limits: ClientLimits) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=limits) as client:
            async with client.subscribe("c") as room:
                await publish(world, "c", *range(80))
                await asyncio.sleep(1)
                assert room.state is SubscriptionState.RECOVERING
                got = []
                for _ in range(80):
                    got += data_of(await take(room, 1))
                    await asyncio.sleep(0.01)
                assert got == list(range(80))
                assert client.stats.gaps == 0
                assert client.state == "ready"

    play(scenario)


def test_a_full_queue_over_a_drop_loses_nothing() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_messages=10, first_retry=0.2)
        async with node_world() as world, world.client(limits=limits) as client:
            async with client.subscribe("c") as room:
                await publish(world, "c", *range(30))
                await asyncio.sleep(1)
                client.drop()
                await publish(world, "c", *range(30, 50))
                await asyncio.sleep(1)
                assert client.stats.reconnects == 1
                assert not world.connection().subscriptions
                assert data_of(await take(room, 50)) == list(range(50))

    play(scenario)


def test_one_message_larger_than_the_queue_still_gets_through() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_bytes=100)
        async with node_world() as world, world.client(limits=limits) as client:
            async with client.subscribe("c") as room:
                await publish(world, "c", "x" * 500, "y" * 500)
                assert data_of(await take(room, 2)) == ["x" * 500, "y" * 500]

    play(scenario)


def test_a_reader_that_never_reads_does_not_cost_the_link() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_messages=5)
        async with node_world() as world, world.client(limits=limits) as client:
            async with client.subscribe("c"):
                for _ in range(100):
                    await publish(world, "c", "x" * 10_000)
                    await asyncio.sleep(2)
                assert client.stats.reconnects == 0

    play(scenario)


def test_refused_for_good_raises_on_entering() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            wire.channel("staff", grant=Grant(subscribe=False))

        async with node_world(declare) as world, world.client() as client:
            room = client.subscribe("staff")
            with pytest.raises(Forbidden):
                async with room:
                    raise AssertionError
            assert room.state is SubscriptionState.FAILED
            with pytest.raises(RequestError) as error:
                await client.subscribe("a b").__aenter__()
            assert error.value.code == ErrorCode.BAD_CHANNEL

    play(scenario)


def test_refused_for_now_is_tried_again_until_it_works() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            failures = [3]
            subscribe = world.broker.subscribe

            async def fails(channels: list[str]) -> None:
                if failures[0]:
                    failures[0] -= 1
                    raise BrokerUnavailable("no")
                await subscribe(channels)

            world.broker.subscribe = fails  # type: ignore[assignment, method-assign]
            began = loop().time()
            async with client.subscribe("c") as room:
                assert failures == [0]
                assert loop().time() - began > 0.3
                await publish(world, "c", 1)
                assert data_of(await take(room, 1)) == [1]

    play(scenario)


@pytest.mark.parametrize("gone_after", [0.0, 1.0])
def test_one_that_the_server_ends_for_good_hands_over_what_it_has_and_raises(
    gone_after: float,
) -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            script.peers[0].send(pushed("c", 1, "last"), m.Unsubscribed(sid("c"), 202))
            await asyncio.sleep(gone_after)
            assert data_of(await take(room, 1)) == ["last"]
            for _ in range(2):
                with pytest.raises(Forbidden):
                    await anext(room)
            assert room.state is SubscriptionState.FAILED
            client.drop()
            await until(lambda: len(script.peers) == 2 and client.state == "ready")
            assert script.peers[1].of(m.Auth)[0].subscribe == []

    play(scenario)


def test_one_that_the_server_ends_for_now_comes_back_where_it_was() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            peer = script.peers[0]
            peer.send(pushed("c", 1, 1), m.Unsubscribed(sid("c"), 501, True, 3_000))
            began = loop().time()
            await until(lambda: len(peer.of(m.Subscribe)) == 2)
            assert 3.0 <= loop().time() - began <= 3.6
            assert peer.of(m.Subscribe)[1].channels[0].position == Position("e", 1, "i1")
            await asyncio.sleep(0)
            peer.send(pushed("c", 2, 2))
            assert data_of(await take(room, 2)) == [1, 2]

    play(scenario)


def test_one_that_is_refused_after_it_held_is_not_asked_for_in_a_hurry() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Subscribe) and len(peer.of(m.Subscribe)) > 1:
                refused = [{"channel": "c", "error": {"code": 501, "name": "unavailable",
                            "message": "", "temporary": True}}]  # fmt: skip
                peer.respond(message, {"subscriptions": refused})
            else:
                welcome(peer, message)

        script = Script(network, handle, ping_interval=1000.0)
        async with client_to(network) as client, client.subscribe("c") as room:
            await asyncio.sleep(100)
            script.peers[0].send(m.Unsubscribed(sid("c"), 501, True))
            await asyncio.sleep(60)
            assert 4 <= len(script.peers[0].of(m.Subscribe)) <= 20
            assert room.state is SubscriptionState.SUBSCRIBING

    play(scenario)


def test_pushes_of_a_subscription_that_ended_are_ignored() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            async with client.subscribe("c") as old:
                pass
            script.peers[0].send(pushed("c", 1, "stale"), pushed("never", 1, "unknown"))
            async with client.subscribe("c") as new:
                script.peers[0].send(pushed("c", 1, "fresh"))
                assert data_of(await take(new, 1)) == ["fresh"]
            with pytest.raises(StopAsyncIteration):
                await anext(old)
            assert client.stats.reconnects == 0

    play(scenario)


@pytest.mark.parametrize("latency", [0.0, 0.05, 0.5])
def test_in_and_out_quickly_leaves_exactly_one(latency: float) -> None:
    async def scenario() -> None:
        async with node_world(latency=latency) as world, world.client() as client:
            for pause in (0.0, 0.01, 0.06, 0.3):
                entering = asyncio.get_running_loop().create_task(
                    client.subscribe("c").__aenter__()
                )
                await asyncio.sleep(pause)
                entering.cancel()
                await asyncio.wait([entering])
                if not entering.cancelled():
                    await entering.result().unsubscribe()
            async with client.subscribe("c") as room:
                assert list(world.connection().subscriptions) == ["c"]
                await publish(world, "c", 1, 2)
                assert data_of(await take(room, 2)) == [1, 2]
                await quiet(room)
            await asyncio.sleep(2)
            assert not world.connection().subscriptions

    play(scenario)


def test_two_at_a_time_for_one_channel_are_refused_with_the_remedy() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                with pytest.raises(ConfigError, match="subscribed to 'c' already"):
                    async with client.subscribe("c"):
                        raise AssertionError
                with pytest.raises(ConfigError, match="entered once"):
                    await room.__aenter__()
                await publish(world, "c", 1)
                assert data_of(await take(room, 1)) == [1]
            with pytest.raises(ConfigError, match="async with"):
                await anext(client.subscribe("c"))

    play(scenario)


def test_unsubscribing_ends_iteration_at_once() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                await publish(world, "c", 1, 2)
                await asyncio.sleep(1)
                seen = []
                async for item in room:
                    seen.append(item)
                    await room.unsubscribe()
                assert len(seen) == 1
                assert not world.connection().subscriptions
                await room.unsubscribe()
            assert room.state is SubscriptionState.UNSUBSCRIBED

    play(scenario)


def test_closing_the_client_hands_over_what_is_there_and_ends_iteration() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            room = await client.subscribe("c").__aenter__()
            await publish(world, "c", 1, 2)
            await asyncio.sleep(1)
            waiting = await client.subscribe("d").__aenter__()
            ends = asyncio.get_running_loop().create_task(anext(waiting, "end"))
            await asyncio.sleep(0)
            await client.close()
            assert [item.data async for item in room if isinstance(item, Message)] == [1, 2]
            assert await ends == "end"
            with pytest.raises(ClosedOK):
                client.subscribe("c")

    play(scenario)


def test_a_client_that_ended_for_good_raises_where_it_is_read() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                await publish(world, "c", 1)
                await asyncio.sleep(1)
                world.connection().close(4504, "thrown out")
                await asyncio.sleep(1)
                assert data_of(await take(room, 1)) == [1]
                with pytest.raises(ClosedError) as error:
                    await anext(room)
                assert (error.value.code, error.value.reason) == (4504, "thrown out")
                assert client.state == "closed"

    play(scenario)


def test_cancelling_a_reader_loses_nothing() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                got: list[object] = []
                for n in range(30):
                    reading = asyncio.get_running_loop().create_task(anext(room))
                    publishing = asyncio.get_running_loop().create_task(client.publish("c", n))
                    await asyncio.sleep(0.001 * n)
                    reading.cancel()
                    await asyncio.wait([reading])
                    if not reading.cancelled():
                        got += data_of([reading.result()])
                    await publishing
                got += data_of(await take(room, 30 - len(got)))
                assert got == list(range(30))

    play(scenario)


def test_two_readers_share_what_comes() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                async with asyncio.TaskGroup() as group:
                    readers = [group.create_task(take(room, 5)) for _ in range(2)]
                    await asyncio.sleep(0)
                    await publish(world, "c", *range(10))
                got = [one for reader in readers for one in data_of(reader.result())]
                assert Counter(got) == Counter(range(10))

    play(scenario)


def test_many_channels_go_out_in_batches_with_auth_first() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network, limits=FAST) as client:
            rooms = [client.subscribe(f"channel-{n}") for n in range(450)]
            async with asyncio.TaskGroup() as group:
                for room in rooms:
                    group.create_task(room.__aenter__())
            assert [len(one.channels) for one in script.peers[0].of(m.Subscribe)] == [200, 200, 50]
            client.drop()
            await until(lambda: all(room.state == "subscribed" for room in rooms))
            peer = script.peers[1]
            assert len(peer.of(m.Auth)[0].subscribe) == 200
            assert [len(one.channels) for one in peer.of(m.Subscribe)] == [200, 50]

    play(scenario)


def test_long_names_and_positions_stay_below_the_limit_of_a_message() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network, limits=FAST, dialect="json", token="t" * 9_000) as client:
            since = Position("e" * 16, 9, "i" * 128)
            rooms = [client.subscribe("c" * 250 + str(n), since=since) for n in range(300)]
            async with asyncio.TaskGroup() as group:
                for room in rooms:
                    group.create_task(room.__aenter__())
            client.drop()
            await until(lambda: len(script.peers) == 2)
            await until(lambda: all(room.state == "subscribed" for room in rooms))
            for peer in script.peers:
                assert max(len(raw) for raw in peer.raw) < 64 * 1024
            assert script.peers[1].of(m.Auth)[0].subscribe

    play(scenario)


def test_a_server_that_takes_smaller_batches_gets_them() -> None:
    async def scenario() -> None:
        limits = Limits(subscribe_batch=5)
        async with node_world(limits=limits) as world, world.client(limits=FAST) as client:
            rooms = [client.subscribe(f"c{n}") for n in range(12)]
            async with asyncio.TaskGroup() as group:
                for room in rooms:
                    group.create_task(room.__aenter__())
            assert len(world.connection().subscriptions) == 12
            client.drop()
            await asyncio.sleep(0.1)
            await until(lambda: all(room.state == "subscribed" for room in rooms))
            assert len(world.connection().subscriptions) == 12

    play(scenario)


def test_a_subscribe_that_is_never_answered_costs_the_link_and_not_the_subscription() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if not isinstance(message, m.Subscribe):
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network) as client:
            keep_alive = asyncio.get_running_loop().create_task(_pinging(script))
            began = loop().time()
            async with client.subscribe("c"):
                assert loop().time() - began < 35
            assert len(script.peers) == 2
            keep_alive.cancel()

    play(scenario)


async def _pinging(script: Script) -> None:
    while True:
        await asyncio.sleep(5)
        for peer in script.peers:
            peer.send(m.Ping(1))


def test_presence_is_kept_up_to_date() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c", presence=True) as room:
                await until(lambda: room.member_count == 1)
                async with world.client() as other, other.subscribe("c"):
                    await until(lambda: room.member_count == 2)
                    assert len(room.members) == 2
                await until(lambda: room.member_count == 1)
                assert len(room.members) == 1

    play(scenario)


def test_a_reader_of_a_channel_without_history_is_told_of_what_it_missed() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            async with client.subscribe("none:x") as room:
                await publish(world, "none:x", 1)
                assert data_of(await take(room, 1)) == [1]
                client.drop()
                await until(lambda: client.stats.reconnects == 1)
                await publish(world, "none:x", 2)
                assert data_of(await take(room, 1)) == [2]
                world.network.refuse = True
                client.drop()
                await publish(world, "none:x", 3)
                world.network.refuse = False
                await until(lambda: client.stats.reconnects == 2)
                await publish(world, "none:x", 4)
                assert data_of(await take(room, 2)) == ["<expired>", 4]

    play(scenario)
