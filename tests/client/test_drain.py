"""A node goes, and its clients move to another without a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everwire import (
    ClientLimits,
    ClosedError,
    Connection,
    DeliveryUnknown,
    Everwire,
    Handlers,
    Identity,
    NotSent,
    StreamInterrupted,
    Unauthorized,
)
from everwire.client import Client, Message
from everwire.protocol import messages as m
from everwire.protocol.dialects import dialect
from everwire.testing import Direction, Network

from .drain_world import Cluster, States, cluster
from .world import (
    Peer,
    Script,
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


class Jobs:
    """Commands and queries that take their time, and count how often they run."""

    def __init__(self) -> None:
        self.ran: list[Any] = []

    def declare(self, wire: Everwire) -> None:
        @wire.command
        async def work(conn: Connection, job: str, seconds: float) -> str:
            await asyncio.sleep(seconds)
            self.ran.append(job)
            return f"{job} done"

        @wire.query
        async def look(conn: Connection, seconds: float) -> str:
            await asyncio.sleep(seconds)
            return conn.node.id


async def is_told(world: Cluster, client: Any, leave: int, close: int) -> None:
    """The node tells everybody to go, and takes new connections still."""
    for connection in world.nodes[0].connections.values():
        connection.send(m.Drain(leave, close))
    world.nodes[0].hub.flush()
    await until(lambda: client.state == "draining")


def test_the_next_link_is_there_before_the_old_one_goes() -> None:
    async def scenario() -> None:
        async with cluster(latency=0.05) as world, world.client() as client:
            states, live = States(client), []
            await world.start()
            draining = asyncio.get_running_loop().create_task(world.retire(10.0))
            while not draining.done():
                await asyncio.sleep(0.001)
                live.append(sum(link.is_accepted for link in world.network.links))
            assert states == ["draining", "ready"]
            assert max(live) == 2
            assert min(live) == 1
            assert len(world.nodes[0].connections) == 1
            assert client.stats.reconnects == 1

    play(scenario)


def test_publishing_goes_on_while_a_client_moves_in_order_and_once() -> None:
    async def scenario() -> None:
        async with (
            cluster(latency=0.05) as world,
            world.client() as client,
            world.client() as other,
        ):
            async with other.subscribe("c") as room:
                await world.start()
                draining = asyncio.get_running_loop().create_task(world.retire(5.0))
                acks = []
                for n in range(600):
                    acks.append(client.publish_nowait("c", n))
                    await asyncio.sleep(0.01)
                await asyncio.wait(acks)
                await draining
                assert [(await ack).duplicate for ack in acks] == [False] * 600
                assert data_of(await take(room, 600)) == list(range(600))
                await quiet(room)
                assert other.stats.gaps == 0
                assert client.stats.sent == 600  # nothing was in flight when it moved

    play(scenario)


def test_what_must_not_be_sent_twice_is_waited_for() -> None:
    jobs = Jobs()

    async def scenario() -> None:
        async with cluster(jobs.declare) as world, world.client() as client:
            states = States(client)
            await world.start()
            await is_told(world, client, 0, 10_000)
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                group.create_task(client.command("work", {"job": "a", "seconds": 2.5}, key=False))
                group.create_task(client.command("work", {"job": "b", "seconds": 2.0}))
                group.create_task(client.query("look", {"seconds": 2.0}))
                await asyncio.sleep(1.0)
                assert client.state == "draining"
                began = loop().time()
                late = group.create_task(client.command("work", {"job": "late", "seconds": 0.1}))
                await late
                assert loop().time() - began < 2.0
            assert sorted(jobs.ran) == ["a", "b", "late"]
            assert states == ["draining", "ready"]

    play(scenario)


def test_what_the_server_asked_is_answered_before_the_client_moves() -> None:
    handlers = Handlers()
    ran: list[int] = []

    @handlers.command
    async def ring(client: Client) -> str:
        await asyncio.sleep(2)
        ran.append(1)
        return "rung"

    async def scenario() -> None:
        async with cluster() as world, world.client(handlers=handlers) as client:
            [connection] = world.nodes[0].connections.values()
            ringing = asyncio.get_running_loop().create_task(connection.command("ring"))
            await asyncio.sleep(0.1)
            await world.start()
            await is_told(world, client, 0, 30_000)
            assert await ringing == "rung"
            assert client.state == "draining"
            await until(lambda: client.state == "ready", within=0.1)
            assert ran == [1]

    play(scenario)


def test_a_stream_says_that_the_client_moved_and_one_on_the_new_link_goes_on() -> None:
    def declare(wire: Everwire) -> None:
        @wire.query
        async def ticks(conn: Connection) -> AsyncIterator[int]:
            for n in range(100):
                yield n
                await asyncio.sleep(0.5)

    async def scenario() -> None:
        async with cluster(declare, latency=0.1) as world, world.client() as client:
            old = client.stream("ticks")
            await anext(old)
            await world.start()
            await is_told(world, client, 0, 30_000)
            await until(lambda: client.state == "ready")
            new = client.stream("ticks")  # while the old link is being closed
            assert await anext(new) == 0
            with pytest.raises(StreamInterrupted) as caught:
                async for _ in old:
                    pass
            assert caught.value.parts >= 3
            for n in range(1, 10):
                assert await anext(new) == n
            await new.aclose()

    play(scenario)


def test_the_waiting_has_an_end_and_what_is_unanswered_then_is_as_if_the_link_was_lost() -> None:
    jobs = Jobs()

    async def scenario() -> None:
        async with cluster(jobs.declare) as world, world.client() as client:
            first, second = world.nodes[0], await world.start()
            query = asyncio.get_running_loop().create_task(client.query("look", {"seconds": 6}))
            lost = asyncio.get_running_loop().create_task(
                client.command("work", {"job": "x", "seconds": 8}, key=False)
            )
            await asyncio.sleep(0.1)
            began = loop().time()
            await is_told(world, client, 0, 60_000)
            await until(lambda: client.state == "ready")
            assert 3.0 <= loop().time() - began < 5.5
            with pytest.raises(DeliveryUnknown):
                await lost
            assert await query == second.id
            assert second.id != first.id

    play(scenario)


@pytest.mark.parametrize("close_in", [400, 1_000, 2_000])
def test_a_node_with_little_time_is_left_in_time(close_in: int) -> None:
    jobs = Jobs()

    async def scenario() -> None:
        async with cluster(jobs.declare) as world, world.client() as client:
            await asyncio.sleep(40)
            states = States(client)
            slow = asyncio.get_running_loop().create_task(client.query("look", {"seconds": 3}))
            await asyncio.sleep(0.1)
            await world.start()
            draining = asyncio.get_running_loop().create_task(world.retire(close_in / 1000))
            await draining
            assert states == ["draining", "ready"]
            assert await slow == world.nodes[0].id

    play(scenario)


def test_subscriptions_go_on_by_position_nothing_missing_nothing_twice() -> None:
    async def scenario() -> None:
        limits = ClientLimits(subscribe_batch=2)  # most channels come after the move
        async with cluster(latency=0.05) as world, world.client(limits=limits) as client:
            async with world.client() as other:
                rooms = [await client.subscribe(f"c{n}").__aenter__() for n in range(5)]
                await world.start()
                draining = asyncio.get_running_loop().create_task(world.retire(4.0))
                for n in range(500):
                    await other.publish(f"c{n % 5}", n)
                    await asyncio.sleep(0.002)
                await draining
                for index, room in enumerate(rooms):
                    assert data_of(await take(room, 100)) == list(range(index, 500, 5))
                    await quiet(room, 1.0)
                assert client.stats.gaps == 0

    play(scenario)


def test_messages_come_while_the_client_moves() -> None:
    """The old link delivers until the new one does."""

    async def scenario() -> None:
        async with cluster(latency=0.2) as world, world.client() as client:
            async with world.client() as other, client.subscribe("c") as room:
                await asyncio.sleep(1)
                await world.start()
                await is_told(world, client, 0, 10_000)
                began = loop().time()
                late: list[float] = []
                for n in range(80):
                    other.publish_nowait("c", n)
                    [item] = await take(room, 1)
                    assert isinstance(item, Message)
                    late.append(loop().time() - item.time)
                    await asyncio.sleep(0.05)
                assert client.state == "ready"
                assert loop().time() - began > 3

    play(scenario)


def test_subscribing_and_unsubscribing_while_moving_ends_as_wanted() -> None:
    async def scenario() -> None:
        async with cluster(latency=0.1) as world, world.client() as client:
            stays = await client.subscribe("stays").__aenter__()
            goes = await client.subscribe("goes").__aenter__()
            await world.start()
            await is_told(world, client, 0, 10_000)
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                for _ in range(30):  # at every moment of the move
                    group.create_task(come_and_go(client, group))
                    await asyncio.sleep(0.03)
                await goes.unsubscribe()
            await until(lambda: client.state == "ready")
            await asyncio.sleep(3)
            [connection] = world.nodes[1].connections.values()
            assert set(connection.subscriptions) == {"stays"}
            await client.publish("stays", 1)
            assert data_of(await take(stays, 1)) == [1]

    async def come_and_go(client: Any, group: asyncio.TaskGroup) -> None:
        async with client.subscribe(f"x{loop().random.random()}"):
            await asyncio.sleep(loop().random.uniform(0, 0.3))

    play(scenario)


def test_a_full_queue_moves_without_losing_its_place() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_messages=3)
        async with cluster(latency=0.1) as world, world.client(limits=limits) as client:
            async with world.client() as other, client.subscribe("c") as room:
                await world.start()
                await is_told(world, client, 0, 10_000)
                for n in range(50):
                    await other.publish("c", n)
                await until(lambda: client.state == "ready")
                assert data_of(await take(room, 50)) == list(range(50))
                assert client.stats.gaps == 0

    play(scenario)


# ---- what can go wrong ---------------------------------------------------------------------


def test_while_nobody_lets_it_in_a_client_stays_where_it_is() -> None:
    async def scenario() -> None:
        async with cluster() as world, world.client() as client:
            await asyncio.sleep(40)
            states = States(client)
            world.route(None)
            draining = asyncio.get_running_loop().create_task(world.retire(30.0))
            await until(lambda: client.state == "draining")
            while not draining.done():
                await client.publish("c", 1)
                await asyncio.sleep(0.5)
                if loop().time() > 69:
                    break
            attempts = [one for one in world.network.trace if one.kind == "refused"]
            assert 2 <= len(attempts) <= 12  # by backoff
            await draining
            assert states == ["draining", "connecting"]
            await world.start()
            await client.publish("c", 2)
            assert states == ["draining", "connecting", "authenticating", "ready"]

    play(scenario)


def test_a_refusal_is_not_final_while_the_old_link_works_and_is_when_it_is_gone() -> None:
    open_to = ["all"]

    def declare(wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str) -> Identity:
            if not open_to:
                raise Unauthorized("no more")
            return Identity("ada")

    async def scenario() -> None:
        tokens = []

        def token() -> str:
            tokens.append(1)
            return "t"

        async with cluster(declare) as world:
            client = await world.client(token=token)
            states = States(client)
            await world.start()
            await asyncio.sleep(40)
            open_to.clear()
            draining = asyncio.get_running_loop().create_task(world.retire(20.0))
            await asyncio.sleep(19)
            assert states == ["draining"]
            assert 3 <= len(tokens) <= 12
            await client.publish("c", 1)
            await draining
            await until(lambda: client.state == "closed")
            with pytest.raises(Unauthorized):
                await client.publish("c", 1)
            await client.close()

    play(scenario)


def test_a_move_that_comes_to_nothing_leaves_the_old_link_as_it_was() -> None:
    """The new node says hello, and then nothing."""

    async def scenario() -> None:
        async with cluster() as world, world.client() as client:
            async with client.subscribe("c") as room:
                await asyncio.sleep(40)
                states = States(client)
                silent = Script(Network(), lambda peer, message: None)
                world.route(None)
                listener = world.network.listen("ws://node/ws", silent._accept)
                await is_told(world, client, 0, 60_000)
                await until(lambda: silent.peers and silent.peers[0].of(m.Auth))
                waits = client.publish_nowait("c", 1)
                query = asyncio.get_running_loop().create_task(client.presence("c"))
                async with client.subscribe("d"):
                    pass
                await waits
                assert (await query).count == 1
                assert data_of(await take(room, 1)) == [1]
                assert states == ["draining"]
                listener.close()
                await world.start()
                await until(lambda: client.state == "ready")
                assert states == ["draining", "ready"]
                await client.publish("c", 2)
                assert data_of(await take(room, 1)) == [2]
                await quiet(room)

    play(scenario)


def test_the_node_that_it_moves_to_may_go_at_once_too() -> None:
    async def scenario() -> None:
        async with cluster() as world, world.client() as client:
            await asyncio.sleep(40)
            states = States(client)
            second = await world.start()
            accept = second.accept

            def accept_and_drain(transport: Any, handshake: Any) -> Any:
                made = accept(transport, handshake)
                assert isinstance(made, Connection)
                made.send(m.Drain(500, 20_000))
                return made

            second.accept = accept_and_drain  # type: ignore[method-assign]
            world.route(second)
            await is_told(world, client, 0, 10_000)
            await until(lambda: len(second.connections) == 1)
            await world.start()
            await until(lambda: len(world.nodes[2].connections) == 1 and client.state == "ready")
            assert states == ["draining", "ready", "draining", "ready"]
            await client.publish("c", 1)

    play(scenario)


def test_the_old_link_may_be_closed_before_the_new_one_is_answered() -> None:
    """Two connections have two ways: who closes the old one has answered on the new one."""

    async def scenario() -> None:
        async with node_world() as world, world.client() as client, client.subscribe("c") as room:
            await asyncio.sleep(40)
            states = States(client)
            world.connection().send(m.Drain(0, 10_000))
            world.node.hub.flush()
            await until(lambda: len(world.network.links) == 2)
            await until(lambda: len(world.node.connections) == 2)
            new = world.network.links[1]
            seen: list[bool] = []

            def answered(link: Any, direction: Direction, payload: bytes) -> None:
                if link is new and direction is Direction.TO_SERVER and not seen:
                    seen.append(True)
                    link.latency = 1.0

            world.network.on_message = answered
            await until(lambda: seen)
            publish = client.publish_nowait("c", 1)
            await until(lambda: len(world.network.links) == 1)
            assert states == ["draining"]
            await publish
            assert states == ["draining", "ready"]
            assert data_of(await take(room, 1)) == [1]

    play(scenario)


def test_a_link_that_was_to_be_replaced_and_is_was_not_told_off() -> None:
    """4507 is final, but not where we asked for it and the new link died on the way."""

    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth) and len(script.peers) == 2:
                assert message.replaces == "secret"
                peer.transport.abort()
                script.peers[0].close(4507)
            else:
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network) as client:
            script.peers[0].send(m.Drain(0, 10_000))
            await until(lambda: len(script.peers) == 3 and client.state == "ready")
            await asyncio.sleep(1)
            assert client.state == "ready"

    play(scenario)


def test_who_is_sent_away_for_good_does_not_come_back_by_the_next_link() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        client = await client_to(network)
        script._handle = lambda peer, message: None
        script.peers[0].send(m.Drain(0, 10_000))
        await until(lambda: len(script.peers) == 2)
        await asyncio.sleep(1)
        script.peers[0].close(4504, "by an administrator")
        await until(lambda: client.state == "closed")
        await asyncio.sleep(60)
        assert len(script.peers) == 2
        with pytest.raises(ClosedError, match="administrator"):
            await client.publish("c", 1)
        await client.close()

    play(scenario)


def test_a_link_that_dies_while_it_moves_goes_on_as_the_attempt_that_is_made() -> None:
    async def scenario() -> None:
        async with cluster(latency=0.5) as world, world.client() as client:
            await asyncio.sleep(40)
            states = States(client)
            await world.start()
            await is_told(world, client, 0, 10_000)
            await asyncio.sleep(0.1)
            world.network.links[0].cut()
            await client.publish("c", 1)
            assert states == ["draining", "connecting", "authenticating", "ready"]
            opened = [one for one in world.network.trace if one.kind == "connect"]
            assert len(opened) == 2

    play(scenario)


@pytest.mark.parametrize("after", [0.005, 0.105, 0.205, 0.305, 0.355, 0.405, 0.505, 0.605, 1.0])
def test_closing_while_it_moves_ends_both_links_in_time(after: float) -> None:
    async def scenario() -> None:
        async with cluster(latency=0.1) as world:
            client = await world.client()
            await world.start()
            await asyncio.sleep(40)
            for connection in world.nodes[0].connections.values():
                connection.send(m.Drain(0, 10_000))
            await asyncio.sleep(after)
            publish = client.publish_nowait("c", 1)
            began = loop().time()
            await client.close()
            assert loop().time() - began < 4
            assert (await publish).position is not None
            await asyncio.sleep(0.5)
            assert not world.network.links
            assert client.state == "closed"

    play(scenario)


@pytest.mark.parametrize("after", [0.005, 0.105, 0.205, 0.305, 0.405, 0.605])
def test_closing_while_it_moves_and_nobody_answers_any_more_ends_in_time(after: float) -> None:
    async def scenario() -> None:
        async with cluster(latency=0.1) as world:
            client = await world.client()
            await world.start()
            await asyncio.sleep(40)
            for connection in world.nodes[0].connections.values():
                connection.send(m.Drain(0, 10_000))
            await asyncio.sleep(after)
            world.network.partition()
            began = loop().time()
            await client.close()
            assert loop().time() - began <= 3.01
            world.network.partition(False)
            await asyncio.sleep(1)
            assert not world.network.links

    play(scenario)


# ---- what goes over which link -------------------------------------------------------------


class Moving:
    """A server whose second connection says hello, and answers auth when a test wants it."""

    def __init__(self, network: Network) -> None:
        self.script = Script(network, self.handle)
        self.auth: m.Auth | None = None

    def handle(self, peer: Peer, message: m.Message) -> None:
        if isinstance(message, m.Auth) and len(self.script.peers) == 2:
            self.auth = message
        else:
            welcome(peer, message)

    async def begin(self) -> tuple[Peer, Peer]:
        """Have the client ask the second connection to take over."""
        self.script.peers[0].send(m.Drain(0, 60_000))
        await until(lambda: self.auth)
        old, new = self.script.peers
        return old, new

    def answer(self, **fields: Any) -> None:
        assert self.auth is not None
        self.script.peers[1].respond(self.auth, results(self.auth.subscribe, **fields))


def test_from_the_hello_of_the_new_link_on_the_old_one_is_asked_nothing() -> None:
    async def scenario() -> None:
        network = Network()
        server = Moving(network)
        async with (
            client_to(network) as client,
            client.subscribe("c"),
            asyncio.TaskGroup() as group,
        ):
            old, new = await server.begin()
            before = len(old.messages)
            group.create_task(client.event("e"))
            group.create_task(client.publish("c", 1))
            group.create_task(client.query("q"))
            group.create_task(client.subscribe("d").__aenter__())
            await asyncio.sleep(1)
            assert len(old.messages) == before
            assert len(new.messages) == 1
            server.answer()
            await until(lambda: len(new.messages) == 5)
            assert len(old.messages) == before
            new.respond(new.of(m.Publish)[0], {"epoch": "e", "offset": 1})
            new.respond(new.of(m.Query)[0], None)

    play(scenario)


def test_what_the_old_link_delivers_until_the_answer_is_not_missed_and_not_handed_twice() -> None:
    async def scenario() -> None:
        network = Network()
        server = Moving(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            old, new = await server.begin()
            old.send(*(pushed("c", n) for n in (1, 2, 3)))
            await take(room, 3)
            assert server.auth is not None
            assert server.auth.subscribe[0].position == m.Position("e", 0, "")
            server.answer()
            new.send(*(pushed("c", n) for n in (1, 2, 3, 4)))
            [item] = await take(room, 1)
            assert item.position is not None
            assert item.position.offset == 4
            assert client.stats.duplicates == 3
            assert new.of(m.Subscribe) == []

    play(scenario)


def test_a_gap_that_the_old_link_has_filled_is_none() -> None:
    """Without a history the new node cannot deliver what came meanwhile; the old one did."""

    async def scenario() -> None:
        network = Network()
        server = Moving(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            old, new = await server.begin()
            old.send(*(pushed("c", n) for n in (1, 2, 3)))
            await take(room, 3)
            server.answer(recovered=False, offset=2, id="i2")
            new.send(m.GapNotice(sid("c"), "e", 2, "i2", "expired", 0), pushed("c", 3))
            await until(lambda: new.of(m.Subscribe))
            assert new.of(m.Subscribe)[0].channels[0].position == m.Position("e", 3, "i3")
            new.send(pushed("c", 4))
            [item] = await take(room, 1)
            assert isinstance(item, Message)
            assert item.id == "i4"
            assert client.stats.gaps == 0

    play(scenario)


def test_what_a_replaced_link_still_says_reaches_nobody() -> None:
    async def scenario() -> None:
        network = Network(latency=0.1)
        server = Moving(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            link = client._core.session.link
            assert link is not None
            publish = client.publish_nowait("c", 1)  # the old node never answers
            _, new = await server.begin()
            server.answer()
            await until(lambda: client.state == "ready")
            await until(lambda: new.of(m.Publish))
            [again] = new.of(m.Publish)
            assert link.error is None  # the server has not answered its close yet
            for late in (
                m.Error(again.id, 501, "unavailable", "too late", True, "unknown"),
                m.Drain(0, 0),
                pushed("c", 1),
                m.Unsubscribed(sid("c"), 202),
            ):
                link.received(2, link.dialect.encode(late))
            await asyncio.sleep(2)
            assert new.of(m.Publish) == [again]
            new.respond(again, {"epoch": "e", "offset": 1})
            assert (await publish).id == again.id
            await quiet(room)
            assert client.state == "ready"
            assert room.state == "subscribed"

    play(scenario)


def test_closing_is_polite_on_both_links() -> None:
    async def scenario() -> None:
        network = Network()
        server = Moving(network)
        async with client_to(network):
            old, new = await server.begin()
        assert old.close_code == new.close_code == 1000

    play(scenario)


def test_what_memory_had_to_give_up_meanwhile_is_asked_for_anew() -> None:
    async def scenario() -> None:
        network = Network()
        server = Moving(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            server.script.peers[0].send(*(pushed("c", n) for n in (1, 2, 3)))
            _, new = await server.begin()
            assert server.auth is not None
            assert server.auth.subscribe[0].position == m.Position("e", 3, "i3")
            room._feed.shed()
            server.answer()
            new.send(pushed("c", 4))
            left = len(room._feed.inbox)
            assert left < 3
            items = await take(room, left)
            await until(lambda: new.of(m.Subscribe))
            assert new.of(m.Subscribe)[0].channels[0].position == room.position
            new.send(*(pushed("c", n) for n in range(left + 1, 5)))
            items += await take(room, 4 - left)
            assert [item.position.offset for item in items if item.position] == [1, 2, 3, 4]

    play(scenario)


def test_a_hole_on_the_old_link_is_filled_by_the_new_one() -> None:
    async def scenario() -> None:
        network = Network()
        server = Moving(network)
        async with client_to(network) as client, client.subscribe("c") as room:
            old, new = await server.begin()
            old.send(pushed("c", 1), pushed("c", 4))
            await take(room, 1)
            server.answer()
            new.send(*(pushed("c", n) for n in (1, 2, 3, 4)))
            assert len(await take(room, 3)) == 3
            await asyncio.sleep(5)
            assert not room._feed.resync
            assert not new.of(m.Subscribe)

    play(scenario)


def test_a_state_is_not_asked_for_again_where_nothing_is_missing() -> None:
    async def scenario() -> None:
        asked: list[int] = []

        async def state() -> str:
            asked.append(1)
            return "state"

        network = Network()
        server = Moving(network)
        async with (
            client_to(network) as client,
            client.subscribe("c", since=m.Position("e", 0, ""), get_state=state) as room,
        ):
            old, new = await server.begin()
            old.send(*(pushed("c", n) for n in (1, 2, 3)))
            await take(room, 3)
            server.answer(recovered=False, offset=2, id="i2")
            new.send(m.GapNotice(sid("c"), "e", 2, "i2", "expired", 0), pushed("c", 3))
            await until(lambda: new.of(m.Subscribe))
            new.send(pushed("c", 4))
            [item] = await take(room, 1)
            assert isinstance(item, Message)
            assert item.id == "i4"
            assert not asked

    play(scenario)


def test_what_there_is_no_room_for_in_auth_is_subscribed_to_after_it() -> None:
    async def scenario() -> None:
        network = Network(latency=0.1)
        server = Moving(network)
        limits = ClientLimits(subscribe_batch=1)
        async with client_to(network, limits=limits) as client:
            rooms = [await client.subscribe(name).__aenter__() for name in "ab"]
            _, new = await server.begin()
            server.answer()
            await until(lambda: client.state == "ready")
            assert {room.state for room in rooms} == {"subscribed", "subscribing"}
            await until(lambda: {room.state for room in rooms} == {"subscribed"})
            assert len(new.of(m.Subscribe)) == 1

    play(scenario)


def test_closing_sends_nothing_on_a_link_that_was_held() -> None:
    async def scenario() -> None:
        network = Network()
        server = Moving(network)
        client = await client_to(network)
        old, _ = await server.begin()
        publish = client.publish_nowait("c", 1)
        network.links[0].freeze()
        await client.close()
        with pytest.raises(NotSent):
            await publish
        assert not old.of(m.Publish)

    play(scenario)


def test_an_answer_that_comes_while_the_client_closes_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        network = Network(latency=0.1)
        server = Moving(network)
        client = await client_to(network)
        await server.begin()
        link = client._core.session._next
        assert link is not None
        assert server.auth is not None
        states = States(client)
        closing = asyncio.get_running_loop().create_task(client.close())
        await until(lambda: client.state == "closing")
        payload = results(server.auth.subscribe)
        link.received(2, link.dialect.encode(m.Response(server.auth.id, payload)))
        await closing
        assert states == ["closing", "closed"]

    play(scenario)
    assert not caplog.records


# ---- whose place it takes ------------------------------------------------------------------


def test_presence_moves_with_the_user_and_nobody_sees_it_leave() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client, world.client() as other:
            async with client.subscribe("c"), other.subscribe("c", presence=True) as room:
                await asyncio.sleep(1)
                seen: list[m.Presence] = []
                watching = world.network.links[1]

                def note(link: Any, direction: Direction, payload: bytes) -> None:
                    if link is watching and direction is Direction.TO_CLIENT:
                        message = dialect("everwire.v1.msgpack").decode(payload)
                        if isinstance(message, m.Presence):
                            seen.append(message)

                world.network.on_message = note
                world.connection(0).send(m.Drain(0, 10_000))
                world.node.hub.flush()
                await until(lambda: client.stats.reconnects == 1)
                await asyncio.sleep(1)
                assert [(len(one.joined), len(one.left), one.count) for one in seen] == [(1, 1, 2)]
                assert len(room.members) == room.member_count == 2
                assert len(world.node.connections) == 2

    play(scenario)


def test_who_comes_back_takes_the_place_of_a_link_that_the_server_believes_in() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c") as room:
                await asyncio.sleep(1)
                [link] = world.network.links
                link.freeze(Direction.TO_SERVER)  # the server does not hear of the end
                client.drop()
                await until(lambda: client.state == "connecting")
                await until(lambda: client.state == "ready")
                await asyncio.sleep(0.1)
                connections = world.node.connections.values()
                assert sum(one.state == "ready" for one in connections) == 1
                assert (await client.presence("c")).count == 1
                await client.publish("c", 1)
                assert data_of(await take(room, 1)) == [1]
                await quiet(room)

    play(scenario)


# ---- the server ----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0.5, 2.0, 30.0])
def test_a_drain_spreads_its_clients_and_leaves_the_last_one_time(window: float) -> None:
    async def scenario() -> None:
        async with cluster() as world:
            clients = [await world.client() for _ in range(40)]
            states = [States(client) for client in clients]
            await asyncio.sleep(40)
            began = loop().time()
            await world.start()
            await world.retire(window)
            moved = [
                one.time - began
                for one in world.network.trace
                if one.kind == "open" and one.time > began
            ]
            assert len(moved) == 40
            assert max(moved) < window - min(window / 2, 5.0) + 0.1
            assert sum(at < max(moved) / 2 for at in moved) in range(8, 33)
            assert all(one == ["draining", "ready"] for one in states)
            for client in clients:
                await client.close()

    play(scenario)
