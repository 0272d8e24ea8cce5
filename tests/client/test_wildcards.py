"""Subscriptions to all channels whose names begin alike: live, in order, with the channel's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from everwire import (
    ConfigError,
    Connection,
    Everwire,
    Forbidden,
    Gap,
    Grant,
    Identity,
    Message,
    RequestError,
)
from everwire.brokers.base import Overflow
from everwire.brokers.memory import MemoryBroker
from everwire.limits import KiB, Limits
from everwire.protocol import messages as m
from everwire.protocol.states import SubscriptionState
from everwire.server.node import Node
from everwire.testing import Network, run

from ..contracts.stepped import LateBroker, LossyBroker
from ..server.peer import Peer, serving
from .world import URL, client_to, loop, quiet, take, until

DIALECTS = ["msgpack", "json"]


def application(
    broker: Any = "auto", *, policy: Overflow = "drop_oldest", limits: Limits | None = None
) -> Everwire:
    """Tokens are ``user@tenant``; only auditors may have everything that begins with ``chat:``."""
    wire = Everwire(broker, limits=limits)

    @wire.authenticate
    async def who(token: str) -> Identity:
        user, _, tenant = token.partition("@")
        return Identity(user, tenant=tenant)

    @wire.channel("chat:{room}")
    async def chat(conn: Connection, room: str) -> Grant:
        return Grant(publish=True)

    wire.channel("{name:path}", grant=Grant(publish=True))

    @wire.wildcard("chat:*", on_overflow=policy)
    async def audit(conn: Connection) -> Grant:
        if conn.user != "auditor":
            raise Forbidden("for auditors")
        return Grant(publish=True)

    @wire.wildcard("org:{org}:*")
    async def all_of_it(conn: Connection, org: str) -> None:
        if org != "acme":
            raise Forbidden("not yours")

    return wire


def with_node(
    scenario: Callable[[Network, Node], Coroutine[Any, Any, None]], wire: Everwire | None = None
) -> None:
    async def main() -> None:
        async with serving(wire or application()) as (network, node):
            await scenario(network, node)
            assert node.counters["defects"] == 0
            assert node.counters["violations"] == 0

    run(main)


def auditor(network: Network, **options: Any) -> Any:
    return client_to(network, token="auditor", **options)


@pytest.mark.parametrize("name", DIALECTS)
def test_messages_of_all_that_begin_so_come_in_order_and_say_their_channel(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        async with auditor(network, dialect=name) as client, client.subscribe("chat:*") as rooms:
            assert rooms.position is None
            wanted = []
            for n in range(30):
                channel = ("chat:a", "chat:b", "chat:über", "other:a", "chat")[n % 5]
                await client.publish(channel, n)
                if channel.startswith("chat:"):
                    wanted.append((channel, n))
            got = await take(rooms, len(wanted))
            assert [(one.channel, one.data) for one in got] == wanted
            first = got[0]
            assert isinstance(first, Message)
            assert (first.position, first.publisher) == (None, "auditor")
            assert first.id
            assert first.time == pytest.approx(loop().wall(), abs=60)
            await quiet(rooms)

    with_node(scenario)


def test_on_the_wire_it_has_no_numbering_and_messages_have_their_own() -> None:
    async def scenario(network: Network, node: Node) -> None:
        for name in DIALECTS:
            peer = Peer(network, name)
            await peer.auth(token="auditor")
            result = await peer.subscribe("chat:*")
            sid = result.pop("sid")
            assert result == {
                "channel": "chat:*", "epoch": "", "offset": 0, "id": "", "recovered": False,
                "recoverable": False,
            }  # fmt: skip
            own = (await peer.subscribe("chat:a"))["sid"]
            ack = await peer.publish(f"{name}-1", "chat:a", b"\x00\xff")
            await asyncio.sleep(1)
            by_sid = {one.sid: one for one in peer.messages()}
            assert by_sid.keys() == {sid, own}
            for one in by_sid.values():
                assert (one.offset, one.data, one.id) == (ack["offset"], b"\x00\xff", f"{name}-1")
            assert (by_sid[sid].channel, by_sid[own].channel) == ("chat:a", None)

    with_node(scenario)


def test_in_plain_the_messages_look_like_those_of_their_channels() -> None:
    wire = Everwire()
    wire.channel("{name:path}", grant=Grant(publish=True))
    wire.wildcard("chat:*")(lambda conn: None)

    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, "plain").open()
        peer.send(m.Subscribe("", [m.ChannelRequest("chat:*")]))
        assert (await peer.next(m.Subscribed)).channel == "chat:*"
        for n, channel in enumerate(("chat:a", "else", "chat:b")):
            peer.send(m.Publish("", channel, n))
        await asyncio.sleep(1)
        assert [(one.channel, one.data) for one in peer.messages()] == [
            ("chat:a", 0),
            ("chat:b", 2),
        ]

    with_node(scenario, wire)


def test_only_whom_the_server_trusts_gets_one_and_only_as_it_is_declared() -> None:
    async def scenario(network: Network, node: Node) -> None:
        bob = Peer(network)
        await bob.auth(token="bob")
        assert (await bob.subscribe("chat:*"))["error"]["name"] == "forbidden"
        assert "error" not in await bob.subscribe("org:acme:*")
        assert (await bob.subscribe("org:evil:*"))["error"]["name"] == "forbidden"
        # A star elsewhere, another beginning, other signs: these are channels of that name.
        names = [
            "cha*",
            "chat:a*",
            "*",
            "chat:*x",
            "chat:**",
            "chat:?",
            "chat:[a-z]",
            "org:*",
            "c\\*",
        ]
        for name in names:
            result = await bob.subscribe(name)
            assert result["epoch"], name
        await bob.publish("b-0", "chat:a", 1)
        await bob.publish("b-1", "other", 1)
        await bob.publish("b-2", "org:acme:1", 1)
        await bob.publish("b-3", "org:evil:1", 1)
        await asyncio.sleep(1)
        assert [one.channel for one in bob.messages()] == ["org:acme:1"]

    with_node(scenario)


def test_nobody_publishes_to_one_or_reads_from_it() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth(token="auditor")
        assert (await peer.publish("a-1", "chat:*", 1)).name == "forbidden"
        await peer.subscribe("chat:*")
        assert (await peer.publish("a-2", "chat:*", 1)).name == "forbidden"
        await peer.publish("a-3", "chat:a", 1)
        history = await peer.ask(m.Query(5, "everwire.history", {"channel": "chat:*"}))
        assert history["messages"] == []
        for query in ("everwire.presence", "everwire.state"):
            assert isinstance(await peer.ask(m.Query(query, query, {"channel": "chat:*"})), m.Error)
        with pytest.raises(RequestError, match="no channel"):
            await node.app.publish("chat:*", 1)

    with_node(scenario)


def test_tenants_do_not_meet_whatever_they_are_called() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peers = {}
        for tenant in ("", "chat:x", "t"):
            peers[tenant] = Peer(network)
            await peers[tenant].auth(token=f"auditor@{tenant}")
            await peers[tenant].subscribe("chat:*")
        for tenant, peer in peers.items():
            await peer.publish(f"a-{tenant}", "chat:a", f"of {tenant}")
        await asyncio.sleep(1)
        for tenant, peer in peers.items():
            assert [one.data for one in peer.messages()] == [f"of {tenant}"]

    with_node(scenario)


def test_after_a_drop_there_is_a_gap_and_then_what_is_published_next() -> None:
    async def scenario(network: Network, node: Node) -> None:
        async with auditor(network) as client, client.subscribe("chat:*") as rooms:
            await client.publish("chat:a", 1)
            await take(rooms, 1)
            network.refuse = True
            network.cut()
            await asyncio.sleep(1)
            network.refuse = False
            gap = await anext(rooms)
            assert isinstance(gap, Gap)
            assert (gap.channel, gap.reason, gap.position) == ("chat:*", "dropped", None)
            await client.publish("chat:b", 3)
            assert (await take(rooms, 1))[0].channel == "chat:b"

    with_node(scenario)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "conflate"])
def test_a_slow_reader_is_told_of_a_gap_and_conflating_keeps_the_last_of_each_channel(
    policy: Overflow,
) -> None:
    async def scenario(network: Network, node: Node) -> None:
        slow, writer = Peer(network), Peer(network)
        await slow.auth(token="auditor")
        await writer.auth(token="bob")
        await slow.subscribe("chat:*")
        (connection, _) = node.connections.values()
        slow.transport.pause_reading()
        written = 0
        while not connection.paused:
            written += 1
            await writer.publish(f"f-{written}", "chat:fill", "x" * 30 * KiB)
        for n in range(12):
            await writer.publish(f"w-{n}", f"chat:{n % 3}", n)
        slow.transport.resume_reading()
        await asyncio.sleep(5)
        await writer.publish("last", "chat:last", "last")
        await asyncio.sleep(1)
        items = [one for one in slow.inbox if isinstance(one, (m.ChannelMessage, m.GapNotice))]
        assert all(isinstance(one, m.ChannelMessage) for one in items[:written])
        seen = [one.data if isinstance(one, m.ChannelMessage) else one.reason for one in items]
        assert (
            seen[written:]
            == {
                "drop_oldest": ["dropped", 7, 8, 9, 10, 11, "last"],
                "drop_newest": [0, 1, 2, 3, 4, "dropped", "last"],
                "conflate": ["dropped", 9, 10, 11, "last"],
            }[policy]
        )
        gap = next(one for one in items if isinstance(one, m.GapNotice))
        assert (gap.epoch, gap.offset, gap.id, gap.from_) == ("", 0, "", None)
        assert connection.subscriptions["chat:*"].state is SubscriptionState.SUBSCRIBED

    with_node(scenario, application(policy=policy, limits=Limits(overflow_messages=5)))


@pytest.mark.parametrize("own", [False, True], ids=["alone", "beside a subscription"])
def test_what_the_broker_loses_or_tells_twice_is_a_gap_or_nothing(own: bool) -> None:
    async def scenario(network: Network, node: Node) -> None:
        async with auditor(network) as client, client.subscribe("chat:*") as rooms:
            other = auditor(network)
            if own:
                await other
                await other.subscribe("chat:a")
            for n in range(1, 8):
                await client.publish("chat:a", n)
                await client.publish(f"chat:{n}", 1)
            await asyncio.sleep(1)
            got = await take(rooms, rooms.queued)
            of_a = [one.data for one in got if isinstance(one, Message) and one.channel == "chat:a"]
            assert of_a == [1, 3, 5, 7]  # what was lost is not repeated by history
            assert sum(isinstance(one, Gap) for one in got) == 3
            for before, after in pairwise(got):
                if isinstance(after, Message) and after.data in (3, 5, 7):
                    assert isinstance(before, Gap)
            await other.close()

    with_node(scenario, application(LossyBroker()))


def test_the_broker_is_asked_by_beginnings_and_only_while_somebody_listens() -> None:
    asked: list[Any] = []

    class Asked(LateBroker):
        async def watch(self, prefixes: Any) -> None:
            asked.append(("watch", *prefixes))
            await super().watch(prefixes)

        async def unwatch(self, prefixes: Any) -> None:
            asked.append(("unwatch", *prefixes))
            await super().unwatch(prefixes)

        async def unsubscribe(self, channels: Any) -> None:
            asked.append(("unsubscribe", *channels))
            await super().unsubscribe(channels)

    async def scenario(network: Network, node: Node) -> None:
        clients = [auditor(network) for _ in range(3)]
        for client in clients:
            await client
        rooms = [client.subscribe("chat:*") for client in clients]
        async with asyncio.TaskGroup() as group:
            for room in rooms:
                group.create_task(room.__aenter__())
        assert asked == [("watch", "chat:")]
        for n in range(100):
            await clients[0].publish(f"chat:{n}", n)
        assert len(node.hub.channels) > 90
        await asyncio.sleep(30)
        assert len(node.hub.channels) == 1  # silent ones are not held
        # One that is subscribed to, and left again, is still heard of.
        async with clients[1].subscribe("chat:7"):
            await clients[0].publish("chat:7", "both")
        await asyncio.sleep(30)
        assert asked[1:] == [("unsubscribe", "chat:7")]
        await clients[0].publish("chat:7", "again")
        await asyncio.sleep(1)
        for room in rooms:
            got = [one.data for one in await take(room, room.queued)]
            assert got == [*range(100), "both", "again"]
            await room.unsubscribe()
        await asyncio.sleep(30)
        assert asked[2:] == [("unwatch", "chat:")]
        assert not node.hub.channels
        await clients[0].publish("chat:7", "nobody")
        await asyncio.sleep(1)
        assert not node.hub.channels
        for client in clients:
            await client.close()

    with_node(scenario, application(Asked()))


def test_who_subscribes_to_a_channel_that_a_pattern_brought_keeps_it_without_the_pattern() -> None:
    async def scenario(network: Network, node: Node) -> None:
        async with auditor(network) as client, client_to(network, token="bob") as bob:
            async with client.subscribe("chat:*"):
                await client.publish("chat:a", 0)
                room = await bob.subscribe("chat:a")
                await asyncio.sleep(12)  # as long as it takes to drop what is silent
                await client.publish("chat:a", 1)
                assert [one.data for one in await take(room, 1)] == [1]
            await asyncio.sleep(12)  # the broker is no longer asked for all
            await client.publish("chat:a", 2)
            assert [one.data for one in await take(room, 1)] == [2]

    with_node(scenario)


def test_two_nodes_tell_each_other() -> None:
    async def main() -> None:
        first = MemoryBroker(wall=loop().wall)
        second = MemoryBroker(beside=first)
        async with (
            serving(application(first)) as (network, _),
            serving(application(second)) as (other, node),
        ):
            async with (
                auditor(network) as reader,
                reader.subscribe("chat:*") as rooms,
                client_to(other, url=URL, token="bob") as bob,
            ):
                await bob.publish("chat:a", 1)
                assert [(one.channel, one.data) for one in await take(rooms, 1)] == [("chat:a", 1)]
            await until(lambda: not first.memory.watched)
            assert node.counters["defects"] == 0

    run(main)


def test_a_wildcard_is_declared_with_its_star_at_the_end_and_once() -> None:
    wire = Everwire()
    for pattern in ("chat:", "*:chat", "chat:**", "ch*t:*"):
        with pytest.raises(ConfigError, match="ends in its only"):
            wire.wildcard(pattern)
    with pytest.raises(ConfigError, match="on_overflow"):
        wire.wildcard("chat:*", on_overflow="forget")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="takes how the names begin"):
        wire.wildcard(lambda conn: None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="parameters"):
        wire.wildcard("chat:*")(lambda conn, room: None)
    wire.wildcard("chat:*")(lambda conn: None)
    with pytest.raises(ConfigError, match="twice"):
        wire.wildcard("chat:*")
