"""A grant's filter decides which messages of a channel a connection is sent: by the server alone.

Who reads through one is at a place like anybody else: what comes is contiguous by ``prev``, over
drops and slow reading, and there is a gap where one is due; nothing tells of what is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from everwire import JWT, Connection, Everwire, Gap, Grant, Identity, Message, Position
from everwire.brokers.memory import MemoryBroker
from everwire.hub.filters import FilteredLane
from everwire.limits import KiB, Limits
from everwire.protocol import messages as m
from everwire.protocol.positions import Place, place
from everwire.protocol.states import SubscriptionState
from everwire.server.node import Node
from everwire.testing import Network, run

from ..client.world import client_to, loop, take
from ..contracts.stepped import LateBroker, LossyBroker, SteppedBroker
from .peer import Peer, serving
from .test_auth import wall


def even(data: Any) -> bool:
    return isinstance(data, int) and data % 2 == 0


def odd(data: Any) -> bool:
    return isinstance(data, int) and data % 2 == 1


def text(data: Any) -> bool:
    return isinstance(data, str)


def broken(data: Any) -> bool:
    raise RuntimeError(f"cannot judge {data}")


FILTERS: dict[str, Any] = {"even": even, "odd": odd, "text": text, "all": None, "broken": broken}


def application(
    broker: Any = "auto", *, history: int = 100, limits: Limits | None = None
) -> Everwire:
    """Everybody is filtered by what the token says."""
    wire = Everwire(broker, limits=limits)

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity("somebody", info=token)

    @wire.channel("c", history=history)
    async def channel(conn: Connection) -> Grant:
        return Grant(publish=True, filter=FILTERS[conn.identity.info])

    return wire


def with_node(
    scenario: Callable[[Network, Node], Coroutine[Any, Any, None]],
    wire: Everwire | None = None,
    *,
    defects: int = 0,
) -> None:
    async def main() -> None:
        async with serving(wire or application()) as (network, node):
            await scenario(network, node)
            assert bool(node.counters["defects"]) == bool(defects)

    run(main)


class Reader(Peer):
    """Takes messages by the rules of positions; a hole is an error."""

    def __init__(self, network: Network, token: str, name: str = "json") -> None:
        super().__init__(network, name)
        self.token = token
        self.at = Position("", 0)
        self.gaps = 0

    async def enter(self, since: Position | None = None) -> dict[str, Any]:
        await self.auth(token=self.token)
        result = await self.subscribe("c", since)
        self.at = Position(result["epoch"], result["offset"], result["id"])
        return result

    def take(self) -> list[Any]:
        """What came since the last call."""
        data: list[Any] = []
        for item in self.inbox:
            if isinstance(item, m.GapNotice):
                self.at = Position(item.epoch, item.offset, item.id)
                self.gaps += 1
            elif isinstance(item, m.ChannelMessage):
                assert place(self.at.offset, item.offset, item.prev) is Place.NEXT, item
                self.at = Position(self.at.epoch, item.offset, item.id)
                data.append(item.data)
        self.inbox.clear()
        return data


async def publish(node: Node, numbers: range) -> None:
    for n in numbers:
        await node.app.publish("c", n)


@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_each_is_sent_what_its_filter_lets_through_and_who_has_none_everything(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        readers = {token: Reader(network, token, name) for token in ("even", "odd", "all")}
        for reader in readers.values():
            await reader.enter()
        await publish(node, range(20))
        await asyncio.sleep(1)
        assert readers["even"].take() == list(range(0, 20, 2))
        assert readers["odd"].take() == list(range(1, 20, 2))
        assert all(one.prev is None for one in readers["all"].messages())
        assert readers["all"].take() == list(range(20))

    with_node(scenario)


def test_those_with_the_same_function_share_a_lane_and_it_is_asked_once() -> None:
    asked: list[int] = []

    def counting(data: int) -> bool:
        asked.append(data)
        return data == 3

    FILTERS["counting"] = counting

    async def scenario(network: Network, node: Node) -> None:
        readers = [Reader(network, "counting") for _ in range(20)]
        for reader in readers:
            await reader.enter()
        await publish(node, range(6))
        await asyncio.sleep(1)
        assert asked == list(range(6))
        assert len(node.hub.channels["c"].lanes) == 1
        for reader in readers:
            assert reader.take() == [3]
            reader.link.cut()
        await asyncio.sleep(1)
        assert not node.hub.channels["c"].lanes
        assert node.hub.deliveries == 20

    with_node(scenario)


def test_history_is_filtered_too_whichever_way_it_is_asked_for() -> None:
    async def scenario(network: Network, node: Node) -> None:
        await publish(node, range(10))
        reader = Reader(network, "even")
        start = await node.broker.latest("c", limit=99, options=node.app.handlers.rules[0].options)
        await reader.enter(Position(start.top.epoch, 0))
        await asyncio.sleep(1)
        assert reader.take() == [0, 2, 4, 6, 8]
        answer = await reader.ask(m.Query(7, "everwire.history", {"channel": "c"}))
        assert [one["data"] for one in answer["messages"]] == [0, 2, 4, 6, 8]
        since = {"epoch": start.top.epoch, "offset": 4, "id": start.records[3].id}
        answer = await reader.ask(m.Query(8, "everwire.history", {"channel": "c", "since": since}))
        assert [one["data"] for one in answer["messages"]] == [4, 6, 8]

    with_node(scenario)


@pytest.mark.parametrize("broker", [SteppedBroker, LateBroker, LossyBroker])
@settings(max_examples=25)
@given(
    data=st.lists(st.integers(0, 9), min_size=1, max_size=25),
    cuts=st.lists(st.integers(0, 24), max_size=3),
)
def test_over_drops_every_reader_gets_each_message_that_passes_once_and_in_order(
    broker: type[SteppedBroker], data: list[int], cuts: list[int]
) -> None:
    async def main() -> None:
        async with serving(application(broker(), limits=Limits(page=2))) as (network, node):
            clients = {token: client_to(network, token=token) for token in ("even", "odd", "all")}
            rooms = {}
            for token, client in clients.items():
                await client
                rooms[token] = await client.subscribe("c")
            for n, number in enumerate(data):
                await node.app.publish("c", number)
                if n in cuts:
                    network.cut()
                if n % 7 == 6:
                    await asyncio.sleep(loop().random.uniform(0, 4))
            await asyncio.sleep(30)
            for number in (10, 11, 10, 11, 11, 10, 11, 10):  # some of them even a lossy one tells
                await node.app.publish("c", number)
            await asyncio.sleep(30)
            for token, room in rooms.items():
                wanted = [n for n in data if FILTERS[token] is None or FILTERS[token](n)]
                got = await take(room, room.queued)
                assert not any(isinstance(one, Gap) for one in got)
                seen = [one.data for one in got if isinstance(one, Message)]
                assert [n for n in seen if n < 10] == wanted
            for client in clients.values():
                await client.close()
            assert not node.counters["defects"]

    run(main)


@pytest.mark.parametrize(("history", "more"), [(1000, 30), (0, 30), (0, 300)])
def test_a_slow_reader_goes_on_through_its_filter(history: int, more: int) -> None:
    """Without history it has a queue; what is dropped of that is a gap, as for everybody."""

    async def scenario(network: Network, node: Node) -> None:
        slow = Reader(network, "text")
        await slow.enter()
        (connection,) = node.connections.values()
        slow.transport.pause_reading()
        while not connection.paused:
            await node.app.publish("c", 1)
            await node.app.publish("c", "x" * 30 * KiB)
            await asyncio.sleep(0)
        for n in range(more):
            await node.app.publish("c", n)
            await node.app.publish("c", f"text {n}")
        slow.transport.resume_reading()
        await asyncio.sleep(10)
        await node.app.publish("c", 5)
        await node.app.publish("c", "last")
        await asyncio.sleep(1)
        seen = [text for text in slow.take() if len(text) < 20]
        first = 0 if more < 100 else more - 50  # a hundred wait, half of them are text
        assert seen == [*(f"text {n}" for n in range(first, more)), "last"]
        assert slow.gaps == (1 if first else 0)
        assert connection.subscriptions["c"].state is SubscriptionState.SUBSCRIBED

    wire = application(history=history)
    with_node(scenario, wire)


def test_who_has_seen_nothing_for_long_is_not_told_of_a_hole_by_another_of_its_lane() -> None:
    """``prev`` must hold for the reader whose position is the oldest."""

    async def scenario(network: Network, node: Node) -> None:
        await publish(node, range(1, 4))
        early = Reader(network, "even")
        await early.enter(Position((await node.broker.tops(["c"]))[0].epoch, 0))
        await publish(node, range(5, 12, 2))  # nothing of it passes: its position stays
        await asyncio.sleep(1)
        assert early.take() == [2]
        late, back = Reader(network, "even"), Reader(network, "even")
        early.link.cut()
        await asyncio.sleep(1)
        await late.enter()  # from a place that ``back`` has not reached
        assert (await back.enter(early.at))["recovered"]
        await publish(node, range(12, 15))
        await asyncio.sleep(1)
        assert late.take() == back.take() == [12, 14]
        (lane,) = node.hub.channels["c"].lanes.values()
        assert isinstance(lane, FilteredLane)

    with_node(scenario)


def test_in_a_new_numbering_a_filter_goes_on_from_the_gap() -> None:
    async def scenario(network: Network, node: Node) -> None:
        assert isinstance(node.broker, MemoryBroker)
        await publish(node, range(30))
        reader = Reader(network, "even")
        await reader.enter(Position((await node.broker.tops(["c"]))[0].epoch, 0))
        await asyncio.sleep(1)
        assert reader.take() == list(range(0, 30, 2))
        del node.broker.memory.streams["c"]  # lost, with its numbers
        await publish(node, range(1, 9))
        await asyncio.sleep(1)
        await publish(node, range(9, 13))
        await asyncio.sleep(1)
        assert reader.take() == [2, 4, 6, 8, 10, 12]
        assert reader.gaps == 1

    with_node(scenario)


def test_a_channels_token_does_not_take_the_filter_away() -> None:
    made = JWT("s" * 32, algorithms=["HS256"], wall=wall)
    wire = Everwire(channel_tokens=made)

    @wire.channel("c", token=True)
    async def channel(conn: Connection) -> Grant:
        return Grant(publish=True, filter=even)

    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        request = m.ChannelRequest("c", token=made.issue("", channel="c"))
        answer = await peer.ask(m.Subscribe(5, [request]))
        assert "error" not in answer["subscriptions"][0]
        await publish(node, range(6))
        await asyncio.sleep(1)
        assert [one.data for one in peer.messages()] == [0, 2, 4]

    with_node(scenario, wire)


def test_a_filter_that_raises_lets_nothing_through_and_is_logged() -> None:
    async def scenario(network: Network, node: Node) -> None:
        reader, other = Reader(network, "broken"), Reader(network, "all")
        await reader.enter()
        await other.enter()
        await publish(node, range(5))
        await asyncio.sleep(1)
        assert reader.take() == []
        assert other.take() == list(range(5))
        assert reader.close_code is None

    with_node(scenario, defects=1)


def test_after_authenticating_anew_the_new_filter_decides_from_the_readers_position_on() -> None:
    """What it was not sent until then may be its due now."""

    async def scenario(network: Network, node: Node) -> None:
        reader, other = Reader(network, "odd"), Reader(network, "all")
        await reader.enter()
        await other.enter()
        await publish(node, range(4))
        for token, wanted in (("even", 0), ("all", None), ("odd", 1)):
            await asyncio.sleep(1)
            reader.take()
            assert isinstance(await reader.ask(m.Auth(token, token)), dict)
            ended = await reader.next(m.Unsubscribed)
            assert ended.temporary
            await publish(node, range(10, 20))
            assert (await reader.subscribe("c", reader.at))["recovered"]
            await asyncio.sleep(1)
            got = reader.take()
            expected = [n for n in range(10, 20) if wanted is None or n % 2 == wanted]
            assert got[-len(expected) :] == expected
            assert await reader.ask(m.Auth(f"{token} again", token)) == {
                "user": "somebody", "expiresIn": None, "subscriptions": [],
            }  # fmt: skip
            assert not any(isinstance(one, m.Unsubscribed) for one in reader.inbox)
        assert reader.gaps == 0

    with_node(scenario)


def test_what_cannot_be_a_filter_is_the_servers_failure_and_lets_nobody_in() -> None:
    wire = Everwire()

    async def waits(data: Any) -> bool:
        return True

    wire.channel("c", grant=Grant(filter=waits))
    wire.channel("chat:{room}", grant=Grant())
    wire.wildcard("chat:*")(lambda conn: Grant(filter=even))

    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        for name in ("c", "chat:*"):
            assert (await peer.subscribe(name))["error"]["name"] == "internal"
        assert not node.hub.subscriptions

    with_node(scenario, wire, defects=1)
