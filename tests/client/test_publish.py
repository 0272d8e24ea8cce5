"""Publishing: acknowledged means stored once, in order, whatever the network does."""

from __future__ import annotations

import asyncio
import re

import pytest

from everwire import (
    BadData,
    BrokerUnavailable,
    ClientLimits,
    ClosedOK,
    DeliveryUnknown,
    Everwire,
    Forbidden,
    Grant,
    NotSent,
    OutboxFull,
    RequestError,
)
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Direction, Network

from .world import (
    FAST,
    Peer,
    Script,
    client_to,
    data_of,
    loop,
    node_world,
    play,
    take,
    until,
    welcome,
)


def test_it_resolves_on_the_acknowledgement_only() -> None:
    async def scenario() -> None:
        async with node_world(latency=0.5) as world, world.client() as client:
            began = loop().time()
            ack = await client.publish("c", {"n": 1})
            assert loop().time() - began >= 1.0
            assert ack.position is not None
            assert (ack.position.offset, ack.position.id, ack.duplicate) == (1, ack.id, False)
            assert (client.stats.sent, client.stats.acknowledged) == (1, 1)

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
@pytest.mark.parametrize("cut_after", range(1, 12))
def test_over_a_cut_anywhere_each_is_stored_once_and_in_order(cut_after: int, dialect: str) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(dialect=dialect, limits=FAST) as client:
            async with client.subscribe("c") as room:
                link = world.network.links[0]
                if cut_after % 2:
                    link.cut_after(n_to_client=cut_after // 2 + 1)
                else:
                    link.cut_after(n_to_server=cut_after // 2)
                futures = [client.publish_nowait("c", n) for n in range(6)]
                late = client.publish_nowait("d", "other")
                acks = [await future for future in futures]
                await late
                assert data_of(await take(room, 6)) == list(range(6))
                assert [ack.position.offset for ack in acks if ack.position] == [1, 2, 3, 4, 5, 6]
                assert client.stats.gaps == 0
            assert client.stats.acknowledged == 7

    play(scenario)


def test_a_repetition_carries_the_same_id_and_the_next_run_and_counts_as_success() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Publish):
                if len(script.peers) > 1:
                    peer.respond(message, {"epoch": "e", "offset": 1, "duplicate": True})
            else:
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network, limits=FAST) as client:
            futures = [client.publish_nowait("c", 1), client.publish_nowait("d", 2)]
            await asyncio.sleep(1)
            client.drop()
            await until(lambda: len(script.peers) == 2)
            futures.append(client.publish_nowait("c", 3))
            acks = [await future for future in futures]
            assert all(ack.duplicate for ack in acks)
            first, second = (peer.of(m.Publish) for peer in script.peers)
            assert [(p.id, p.run) for p in first] == [(acks[0].id, 0), (acks[1].id, 0)]
            assert [(p.id, p.run) for p in second] == [(acks[0].id, 1), (acks[1].id, 1),
                                                       (acks[2].id, 1)]  # fmt: skip
            assert re.fullmatch(r"[\w-]{16}-\d+", acks[0].id)

    play(scenario)


def test_a_failure_of_the_broker_is_waited_out_in_order() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            world.broker.outcomes = [
                BrokerUnavailable("no", outcome="unknown"),
                BrokerUnavailable("no"),
            ]
            async with client.subscribe("c") as room:
                futures = [client.publish_nowait("c", n) for n in range(5)]
                for future in futures:
                    await future
                assert data_of(await take(room, 5)) == [0, 1, 2, 3, 4]
            assert world.broker.published.count(world.broker.published[0]) >= 2

    play(scenario)


def test_while_one_channel_is_held_others_go_on() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            world.broker.outcomes = [BrokerUnavailable("no")] * 30
            held = client.publish_nowait("c", 1)
            await asyncio.sleep(0.02)
            world.broker.outcomes.clear()
            began = loop().time()
            await client.publish("d", 2)
            assert loop().time() - began < 0.05
            assert not held.done()
            await held

    play(scenario)


def test_an_error_whose_outcome_is_unknown_is_sent_again_even_if_it_is_not_temporary() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if not isinstance(message, m.Publish):
                welcome(peer, message)
            elif message.run == 0:
                peer.send(m.Error(message.id, 500, "internal", "", False, "unknown"))
            else:
                peer.respond(message, {"epoch": "e", "offset": 1, "duplicate": True})

        Script(network, handle)
        async with client_to(network) as client:
            assert (await client.publish("c", 1)).duplicate

    play(scenario)


def test_the_server_says_how_long_to_wait() -> None:
    async def scenario() -> None:
        network = Network()
        times: list[float] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Publish):
                times.append(loop().time())
                if message.run == 0:
                    peer.send(m.Error(message.id, 401, "rate_limited", "", True, retry_after=7000))
                else:
                    peer.respond(message, {"epoch": "e", "offset": 1, "duplicate": False})
            else:
                welcome(peer, message)

        Script(network, handle)
        async with client_to(network) as client:
            await client.publish("c", 1)
            assert 7.0 <= times[1] - times[0] <= 7.5

    play(scenario)


def test_a_refusal_for_good_is_raised_and_the_others_go_on() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            wire.channel("read:{x}", grant=Grant(publish=False))

        async with node_world(declare) as world, world.client() as client:
            refused = client.publish_nowait("read:only", 1)
            accepted = client.publish_nowait("c", 1)
            with pytest.raises(Forbidden):
                await refused
            await accepted

    play(scenario)


def test_without_a_connection_it_waits_and_then_was_not_sent() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            world.network.refuse = True
            world.network.cut()
            await asyncio.sleep(0.1)
            began = loop().time()
            with pytest.raises(NotSent):
                await client.publish("c", 1, ttl=5.0)
            assert loop().time() - began == pytest.approx(5.0, abs=0.01)
            waiting = client.publish_nowait("c", 2)
            world.network.refuse = False
            assert (await waiting).duplicate is False

    play(scenario)


def test_sent_and_never_acknowledged_is_unknown() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            world.network.links[0].freeze(Direction.TO_CLIENT)
            with pytest.raises(DeliveryUnknown):
                await client.publish("c", 1, ttl=5.0)
            assert len(world.broker.published) == 1

    play(scenario)


def test_it_is_not_resent_when_the_server_may_have_forgotten_its_id() -> None:
    async def scenario() -> None:
        limits = Limits(dedupe_window=100.0)
        async with node_world(limits=limits) as world, world.client() as client:
            world.network.links[0].freeze(Direction.TO_CLIENT)
            waiting = client.publish_nowait("c", 1, ttl=1000.0)
            unsent = client.publish_nowait("c", 2, ttl=1000.0)
            await asyncio.sleep(1.0)
            world.network.cut()
            world.network.refuse = True
            await asyncio.sleep(75.0)
            world.network.refuse = False
            with pytest.raises(DeliveryUnknown, match="remembers 100 s"):
                await waiting
            with pytest.raises(DeliveryUnknown):
                await unsent
            assert len(world.broker.published) == 2

    play(scenario)


def test_the_time_of_a_suspended_machine_counts_for_the_servers_memory() -> None:
    async def scenario() -> None:
        wall = {"ahead": 0.0}
        async with node_world() as world:
            async with world.client(wall=lambda: loop().wall() + wall["ahead"]) as client:
                world.network.links[0].freeze(Direction.TO_CLIENT)
                waiting = client.publish_nowait("c", 1)
                await asyncio.sleep(1.0)
                wall["ahead"] = 400.0
                world.network.cut()
                with pytest.raises(DeliveryUnknown):
                    await waiting

    play(scenario)


def test_too_big_fails_at_once_and_disturbs_nothing() -> None:
    async def scenario() -> None:
        limits = Limits(message=2_000)
        async with node_world(limits=limits) as world, world.client() as client:
            waiting = client.publish_nowait("c", 1)
            with pytest.raises(RequestError) as error:
                await client.publish("c", "x" * 2_001)
            assert error.value.code == ErrorCode.TOO_BIG
            await waiting
            assert client.stats.reconnects == 0

    play(scenario)


def test_what_grew_too_big_for_a_new_server_fails_alone() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network, lambda peer, message: None)
        script.limits = {"message": 10_000}

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Publish):
                if len(script.peers) > 1:
                    peer.respond(message, {"epoch": "e", "offset": 1, "duplicate": False})
            else:
                welcome(peer, message)

        script._handle = handle
        async with client_to(network, limits=FAST) as client:
            big = client.publish_nowait("c", "x" * 5_000)
            small = client.publish_nowait("c", "y")
            await asyncio.sleep(0.1)
            script.limits = {"message": 1_000}
            client.drop()
            with pytest.raises(RequestError) as error:
                await big
            assert error.value.code == ErrorCode.TOO_BIG
            assert (await small).position is not None

    play(scenario)


@pytest.mark.parametrize("data", [float("nan"), {1: {"a": b"x"}}, "\ud800", object(), 2**64])
def test_what_cannot_be_put_on_the_wire_is_refused_at_once(data: object) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            with pytest.raises(BadData):
                await client.publish("c", data)
            with pytest.raises(BadData):
                client.publish_nowait("a b", 1)
            await client.publish("c", 1)

    play(scenario)


def test_cancelling_ends_the_waiting_and_not_the_message() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                task = asyncio.get_running_loop().create_task(client.publish("c", "mine"))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert data_of(await take(room, 1)) == ["mine"]
            assert client.stats.acknowledged == 1

    play(scenario)


def test_a_full_outbox_blocks_publish_and_rejects_nowait() -> None:
    async def scenario() -> None:
        limits = ClientLimits(outbox_messages=2, outbox_block=3.0)
        async with node_world() as world, world.client(limits=limits) as client:
            world.network.links[0].freeze()
            first = [client.publish_nowait("c", n) for n in range(2)]
            with pytest.raises(OutboxFull):
                client.publish_nowait("c", 2)
            began = loop().time()
            with pytest.raises(OutboxFull):
                await client.publish("c", 2)
            assert loop().time() - began == pytest.approx(3.0)
            blocked = asyncio.get_running_loop().create_task(client.publish("c", 3))
            await asyncio.sleep(1)
            world.network.links[0].thaw()
            await blocked
            for future in first:
                await future

    play(scenario)


def test_the_server_is_not_given_more_than_its_window() -> None:
    async def scenario() -> None:
        network = Network()
        held: list[m.Publish] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Publish):
                held.append(message)
            else:
                welcome(peer, message)

        script = Script(network, handle, limits={"inflight": 4})
        async with client_to(network) as client:
            futures = [client.publish_nowait("c", n) for n in range(10)]
            await asyncio.sleep(1)
            assert len(held) == 4
            while not all(future.done() for future in futures):
                script.peers[0].respond(held.pop(0), {"epoch": "e", "offset": 1})
                await asyncio.sleep(0.1)
                assert len(held) <= 4

    play(scenario)


def test_it_stops_writing_while_the_link_takes_no_more() -> None:
    async def scenario() -> None:
        limits = ClientLimits(outbox_bytes=1 << 26, outbox_messages=5_000)
        async with node_world(window=1 << 16) as world, world.client(limits=limits) as client:
            link = world.network.links[0]
            link.client.set_write_limits(1 << 17, 1 << 14)
            link.freeze()
            futures = [client.publish_nowait("c", "x" * 10_000) for _ in range(200)]
            await asyncio.sleep(1)
            assert client.stats.sent < 40
            link.thaw()
            for future in futures:
                await future

    play(scenario)


def test_closing_sends_what_is_left_and_says_what_was_not() -> None:
    async def scenario() -> None:
        async with node_world(latency=0.2) as world:
            client = await world.client()
            pending = client.publish_nowait("c", 1)
            await client.close()
            assert (await pending).position is not None
            with pytest.raises(ClosedOK):
                await client.publish("c", 2)

            client = await world.client()
            world.network.links[0].freeze()
            pending = client.publish_nowait("c", 1)
            began = loop().time()
            await client.close()
            assert loop().time() - began <= 6.1
            with pytest.raises(DeliveryUnknown):
                await pending

    play(scenario)
