"""The delivery contract on one node, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everwire import Everwire, Forbidden, Grant, Position
from everwire.brokers.base import Completion, Publication, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.codes import ErrorCode
from everwire.errors import BrokerUnavailable
from everwire.limits import KiB, Limits, MiB
from everwire.protocol import messages as m
from everwire.server import contents
from everwire.server.node import Node
from everwire.testing import Direction, Network, VirtualLoop, run

from ..contracts.stepped import STEP, SteppedBroker
from .peer import Peer, open_app, serving

Scenario = Callable[[Network, Node], Coroutine[Any, Any, None]]
DIALECTS = ["json", "msgpack"]


def with_node(scenario: Scenario, wire: Everwire | None = None, **options: Any) -> None:
    async def main() -> None:
        async with serving(wire, **options) as (network, node):
            await scenario(network, node)
            assert node.counters["defects"] == 0

    run(main)


def position(result: dict[str, Any]) -> Position:
    return Position(result["epoch"], result["offset"], result["id"])


async def ready(network: Network, name: str = "json") -> Peer:
    peer = Peer(network, name)
    await peer.auth()
    return peer


@pytest.mark.parametrize("name", DIALECTS)
def test_messages_reach_every_subscriber_once_in_order_whatever_its_dialect(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        readers = [await ready(network, name) for name in ("json", "msgpack", "json")]
        plain = await Peer(network, "plain").open()
        plain.send(m.Subscribe("", [m.ChannelRequest("c")]))
        assert (await plain.next(m.Subscribed)).channel == "c"
        for reader in readers:
            await reader.subscribe("c")
        writer = await ready(network, name)
        data = [1, "zwei", None, [3.5], {"vier": True}, b"\x00\xff" if name == "msgpack" else "b"]
        for n, one in enumerate(data):
            assert (await writer.publish(f"w-{n}", "c", one))["offset"] == n + 1
        await asyncio.sleep(1)
        for reader in readers:
            assert [(one.offset, one.id, one.data) for one in reader.messages()] == [
                (n + 1, f"w-{n}", one) for n, one in enumerate(data)
            ]
        assert [one.data for one in plain.messages()] == data

    with_node(scenario)


def test_pipelined_publishes_take_effect_in_order_even_while_authorisation_is_awaited() -> None:
    wire = Everwire()

    @wire.channel("slow:{name}")
    async def slow(conn: Any, name: str) -> Grant:
        await asyncio.sleep(1)
        if name == "no":
            raise Forbidden("not you")
        return Grant(publish=True)

    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        for n in range(20):
            peer.send(m.Publish(f"a-{n}", "slow:x", n))
            peer.send(m.Publish(f"b-{n}", "slow:no", n))
            if n == 10:
                await asyncio.sleep(0.5)
        answers = [await peer.answer(f"a-{n}") for n in range(20)]
        assert [a.payload["offset"] for a in answers if isinstance(a, m.Response)] == list(
            range(1, 21)
        )
        for n in range(20):
            refused = await peer.answer(f"b-{n}")
            assert isinstance(refused, m.Error)
            assert (refused.code, refused.message) == (ErrorCode.FORBIDDEN, "not you")

    with_node(scenario, wire)


def test_without_the_right_to_publish_or_subscribe_the_answer_is_forbidden() -> None:
    wire = Everwire()
    wire.channel("read", grant=Grant())
    wire.channel("write", grant=Grant(publish=True, subscribe=False))

    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        assert (await peer.publish("a-1", "read", 1)).code == ErrorCode.FORBIDDEN
        assert (await peer.publish("a-2", "write", 1))["offset"] == 1
        assert (await peer.subscribe("write"))["error"]["code"] == ErrorCode.FORBIDDEN
        assert "error" not in await peer.subscribe("read")
        for query in ("everwire.history", "everwire.presence"):
            assert (await peer.ask(m.Query(query, query, {"channel": "write"}))).code == 202
        for name in ("", "system", "everwire.x", "a b", "nowhere", "x" * 256):
            assert (await peer.subscribe(name))["error"]["code"] == ErrorCode.BAD_CHANNEL
            assert (await peer.publish(f"z-{name[:9]}", name, 1)).code == ErrorCode.BAD_CHANNEL

    with_node(scenario, wire)


def test_a_channel_that_shows_nobody_says_how_it_is_declared_to_those_who_may_read_it() -> None:
    wire = Everwire()
    wire.channel("plain", grant=Grant())
    wire.channel("hidden", grant=Grant(presence=False))

    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        for channel, declared in (("plain", True), ("hidden", False)):
            refused = await peer.ask(m.Query(channel, "everwire.presence", {"channel": channel}))
            assert refused.code == ErrorCode.FORBIDDEN
            assert ("without presence=True" in refused.message) is declared

    with_node(scenario, wire)


def test_a_subscriber_starts_at_the_top_and_is_told_where_that_is() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        for n in range(3):
            await peer.publish(f"a-{n}", "c", n)
        result = await peer.subscribe("c")
        assert (result["offset"], result["id"], result["recovered"]) == (3, "a-2", False)
        assert result["recoverable"]
        await peer.publish("a-3", "c", 3)
        assert [one.offset for one in peer.messages()] == [4]

    with_node(scenario)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_position_brings_exactly_what_came_after_it(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network, name)
        start = position(await peer.subscribe("c"))
        for n in range(250):  # more than two pages
            await peer.publish(f"a-{n}", "c", n)
        for at, first in ((start, 1), (Position(start.epoch, 200, "a-199"), 201)):
            other = await ready(network, name)
            result = await other.subscribe("c", at)
            assert (result["recovered"], result["offset"]) == (True, at.offset)
            await asyncio.sleep(1)
            assert [one.offset for one in other.messages()] == list(range(first, 251))

    wire = Everwire()
    wire.channel("c", history=1000, grant=Grant(publish=True))
    with_node(scenario, wire)


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (Position("", 2, "a-1"), "expired"),
        (Position("other", 8, "a-7"), "epoch"),
        (Position("", 8, "x-7"), "epoch"),
        (Position("", 99, "a-98"), "epoch"),
    ],
)
def test_a_position_that_cannot_be_recovered_is_a_gap_and_then_all_that_is_held(
    at: Position, reason: str
) -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        for n in range(10):
            await peer.publish(f"a-{n}", "c", n)
        epoch = (await node.broker.latest("c", limit=1, options=peer_options(node))).top.epoch
        result = await peer.subscribe("c", Position(at.epoch or epoch, at.offset, at.id))
        assert not result["recovered"]
        gap = await peer.next(m.GapNotice)
        assert (gap.reason, gap.offset, gap.epoch) == (reason, 5, epoch)
        await asyncio.sleep(1)
        assert [one.offset for one in peer.messages()] == [6, 7, 8, 9, 10]

    wire = Everwire()
    wire.channel("c", history=5, grant=Grant(publish=True))
    with_node(scenario, wire)


def peer_options(node: Node) -> Any:
    rule = node.access.place("c").rule
    assert rule is not None
    return rule.options


def test_a_resent_publish_has_no_second_effect() -> None:
    async def scenario(network: Network, node: Node) -> None:
        reader = await ready(network)
        await reader.subscribe("c")
        writer = await ready(network)
        first = await writer.publish("a-1", "c", 1)
        writer.link.cut()
        again = await (await ready(network)).publish("a-1", "c", 1)
        assert (first["duplicate"], again["duplicate"]) == (False, True)
        assert (first["epoch"], first["offset"]) == (again["epoch"], again["offset"])
        await asyncio.sleep(1)
        assert len(reader.messages()) == 1

    with_node(scenario)


class Failing(MemoryBroker):
    """Answers later, and fails for the messages it is told to."""

    failing: dict[str, str]
    calls = 0

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome | None:  # type: ignore[override]
        def later() -> None:
            how = self.failing.pop(publication.id, "")
            if how == "before":
                done(BrokerUnavailable("not now"))
            else:
                outcome = super(Failing, self).publish(publication, done)
                done(BrokerUnavailable("no answer", outcome="unknown") if how else outcome)

        self.calls += 1  # timers of one moment have no order among each other
        asyncio.get_running_loop().call_later(0.1 + self.calls * 1e-6, later)
        return None


@pytest.mark.parametrize("how", ["before", "after"])
def test_after_a_failure_later_publishes_are_held_until_the_next_run(how: str) -> None:
    """However the broker failed, the order of the calls is kept."""
    broker = Failing()
    broker.failing = {"a-3": how}

    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        for n in range(3):
            peer.send(m.Publish(f"a-{n}", "c", n))
        peer.send(m.Publish("a-3", "c", 3))
        failed = await peer.answer("a-3")
        assert isinstance(failed, m.Error)
        assert failed.code == ErrorCode.UNAVAILABLE
        assert failed.temporary
        assert failed.outcome == ("unknown" if how == "after" else "none")
        for n in range(4, 7):  # were under way when it failed
            answer = await peer.publish(f"a-{n}", "c", n)
            assert (answer.code, answer.temporary) == (ErrorCode.HELD, True)
        assert (await peer.publish("b-0", "other", 0))["offset"] == 1
        again = [await peer.publish(f"a-{n}", "c", n, run=1) for n in range(3, 7)]
        assert [one["offset"] for one in again] == [4, 5, 6, 7]
        assert again[0]["duplicate"] is (how == "after")

    with_node(scenario, open_app(broker=broker))


def test_a_reader_that_stood_still_gets_everything_from_history_and_memory_stays_bounded() -> None:
    size, count = 10 * KiB, 1500

    async def scenario(network: Network, node: Node) -> None:
        slow, quick = await ready(network), await ready(network)
        await slow.subscribe("c")
        await quick.subscribe("c")
        writer = await ready(network)
        slow.transport.pause_reading()
        most = 0
        for n in range(count):
            await writer.publish(f"w-{n}", "c", str(n) + "." + "x" * size)
            most = max(
                most, *(one.transport.write_buffer_size() for one in node.connections.values())
            )
        assert most < 1 * MiB + 100 * KiB
        assert len(quick.messages()) == count
        slow.transport.resume_reading()
        await asyncio.sleep(20)
        assert [one.offset for one in slow.messages()] == list(range(1, count + 1))
        await writer.publish("last", "c", "last")
        await asyncio.sleep(1)
        assert slow.messages()[-1].id == "last"
        assert not slow.inbox.count(m.GapNotice)

    wire = Everwire(limits=Limits(history_total=64 * MiB))
    wire.channel("c", history=10_000, history_bytes=64 * MiB, grant=Grant(publish=True))
    with_node(scenario, wire)


def test_a_reader_that_stood_still_for_longer_than_history_reaches_is_told_so() -> None:
    async def scenario(network: Network, node: Node) -> None:
        slow = await ready(network)
        await slow.subscribe("c")
        writer = await ready(network)
        slow.transport.pause_reading()
        for n in range(300):
            await writer.publish(f"w-{n}", "c", "x" * 10_000)
        slow.transport.resume_reading()
        await asyncio.sleep(20)
        await writer.publish("last", "c", "last")
        await asyncio.sleep(1)
        at, gaps = 0, 0
        for item in slow.inbox:
            if isinstance(item, m.GapNotice):
                assert (item.reason, item.from_) == ("slow", at)
                assert item.offset > at
                at, gaps = item.offset, gaps + 1
            elif isinstance(item, m.ChannelMessage):
                assert item.offset == at + 1
                at = item.offset
        assert gaps == 1
        assert at == 301

    with_node(scenario)


def test_a_reader_without_progress_for_30_seconds_ends_with_4430() -> None:
    async def scenario(network: Network, node: Node) -> None:
        slow = await ready(network)
        await slow.subscribe("c")
        writer = await ready(network)
        slow.transport.pause_reading()
        for n in range(200):
            await writer.publish(f"w-{n}", "c", "x" * 10_000)
        await asyncio.sleep(25)
        assert len(node.connections) == 2
        await asyncio.sleep(12)
        assert len(node.connections) == 1
        assert node.counters["slow_consumers"] == 1

    with_node(scenario)


def test_a_slow_but_moving_reader_is_not_cut_off() -> None:
    async def scenario(network: Network, node: Node) -> None:
        slow = await ready(network)
        await slow.subscribe("c")
        writer = await ready(network)
        slow.link.bandwidth = 20_000
        for n in range(300):
            await writer.publish(f"w-{n}", "c", "x" * 10_000)
        await asyncio.sleep(250)
        assert [one.offset for one in slow.messages()] == list(range(1, 301))

    wire = Everwire()
    wire.channel("c", history=1000, history_bytes=64 * MiB, grant=Grant(publish=True))
    with_node(scenario, wire)


def test_after_unsubscribe_nothing_comes_and_a_new_subscription_starts_where_it_says() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer, writer = await ready(network), await ready(network)
        await peer.subscribe("c")
        await writer.publish("w-1", "c", 1)
        assert await peer.ask(m.Unsubscribe(9, ["c", "never"])) == {}
        await writer.publish("w-2", "c", 2)
        await asyncio.sleep(1)
        assert [one.offset for one in peer.messages()] == [1]
        result = await peer.subscribe("c")
        assert result["offset"] == 2
        await writer.publish("w-3", "c", 3)
        await asyncio.sleep(1)
        assert [one.offset for one in peer.messages()] == [1, 3]

    with_node(scenario)


def test_subscribing_twice_replaces_the_first_and_doubles_nothing() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer, writer = await ready(network), await ready(network)
        await peer.subscribe("c")
        await writer.publish("w-1", "c", 1)
        result = await peer.subscribe("c", Position((await peer.subscribe("c"))["epoch"], 0))
        assert result["recovered"]
        await writer.publish("w-2", "c", 2)
        await asyncio.sleep(1)
        assert [one.offset for one in peer.messages()] == [1, 1, 2]
        assert (await contents.presence(node, "c")).count

    with_node(scenario)


def test_the_broker_is_subscribed_while_anybody_is_and_a_little_longer() -> None:
    async def scenario(network: Network, node: Node) -> None:
        assert isinstance(node.broker, MemoryBroker)
        one, two = await ready(network), await ready(network)
        await one.subscribe("c")
        await two.subscribe("c")
        one.link.cut()
        await asyncio.sleep(20)
        assert list(node.broker.memory.subscribed) == ["c"]
        two.link.cut()
        await asyncio.sleep(20)
        assert not node.broker.memory.subscribed
        assert not node.hub.channels

    with_node(scenario)


def test_presence_is_shown_in_full_and_then_by_change() -> None:
    async def scenario(network: Network, node: Node) -> None:
        watcher = await ready(network)
        await watcher.ask(m.Subscribe(5, [m.ChannelRequest("c", presence=True)]))
        full = await watcher.next(m.Presence)
        assert (full.full, full.count, len(full.joined)) == (True, 1, 1)
        other = await ready(network, "msgpack")
        await other.subscribe("c")
        joined = await watcher.next(m.Presence)
        assert (joined.full, len(joined.joined), joined.left, joined.count) == (False, 1, [], 2)
        other.link.cut()
        left = await watcher.next(m.Presence)
        assert (left.left, left.count) == ([joined.joined[0].connection], 1)

    with_node(scenario)


def test_a_secret_never_shows_in_presence() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth(subscribe=[m.ChannelRequest("c", presence=True)])
        secret = (await peer.next(m.Hello)).connection
        (member,) = (await peer.next(m.Presence)).joined
        assert secret not in member.connection
        assert member.connection not in secret

    with_node(scenario)


def test_a_cut_link_gets_no_more_and_a_frozen_one_is_found() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        await peer.subscribe("c")
        peer.link.freeze(Direction.TO_CLIENT, drop=True)
        writer = await ready(network)
        for n in range(10):
            await writer.publish(f"w-{n}", "c", n)
        await asyncio.sleep(60)
        assert len(node.connections) == 1

    with_node(scenario)


def test_a_dropped_link_does_not_stop_a_keyed_command() -> None:
    wire = open_app()
    done: list[int] = []

    @wire.command
    async def slow(conn: Any, n: int) -> int:
        await asyncio.sleep(2)
        done.append(n)
        return n

    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        peer.send(m.Command(1, "slow", {"n": 1}, key="k"))
        peer.send(m.Command(2, "slow", {"n": 2}))
        await asyncio.sleep(1)
        peer.link.cut()
        await asyncio.sleep(5)
        assert done == [1]
        assert await (await ready(network)).ask(m.Command(3, "slow", {"n": 1}, key="k")) == 1

    with_node(scenario, wire)


def test_requests_end_in_time_and_on_cancel_and_never_leak_a_defect() -> None:
    wire = open_app()

    @wire.query
    async def sleepy(conn: Any, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @wire.query
    async def broken(conn: Any) -> None:
        raise RuntimeError("the password is 1234")

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await ready(network)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            began = loop.time()
            late = await peer.ask(m.Query(1, "sleepy", {"seconds": 9}, timeout=500))
            assert (late.code, loop.time() - began < 0.6) == (ErrorCode.TIMEOUT, True)
            peer.send(m.Query(2, "sleepy", {"seconds": 9}))
            peer.send(m.Cancel(2))
            cancelled = await peer.answer(2)
            assert isinstance(cancelled, m.Error)
            assert (cancelled.code, loop.time() - began < 1) == (ErrorCode.CANCELLED, True)
            failed = await peer.ask(m.Query(3, "broken"))
            assert (failed.code, "1234" in failed.message) == (ErrorCode.INTERNAL, False)
            wrong = await peer.ask(m.Query(4, "sleepy", {"seconds": "x"}))
            assert (wrong.code, "seconds" in wrong.message) == (ErrorCode.BAD_REQUEST, True)
            missing = await peer.ask(m.Query(5, "sleepy"))
            assert (missing.code, "seconds" in missing.message) == (ErrorCode.BAD_REQUEST, True)
            extra = await peer.ask(m.Query(6, "sleepy", {"seconds": 1, "more": 1}))
            assert (extra.code, "more" in extra.message) == (ErrorCode.BAD_REQUEST, True)
            assert not node.connections[next(iter(node.connections))].inflight
            assert node.counters["defects"] == 1

    run(main)


def test_many_first_subscribers_at_once_ask_the_broker_once_and_wait_for_it() -> None:
    asked: list[list[str]] = []

    class Asked(SteppedBroker):
        async def subscribe(self, channels: Any) -> None:
            asked.append(list(channels))
            await super().subscribe(channels)

    async def scenario(network: Network, node: Node) -> None:
        peers = [await ready(network) for _ in range(10)]
        for peer in peers:
            peer.send(m.Subscribe(7, [m.ChannelRequest("c")]))
        await asyncio.sleep(STEP)
        assert not any(node.hub.channels["c"].subscriptions)  # not confirmed yet
        for peer in peers:
            assert isinstance(await peer.answer(7), m.Response)
        assert asked == [["c"]]

    with_node(scenario, open_app(broker=Asked()))


def test_a_broker_that_cannot_subscribe_is_a_temporary_error_and_leaves_nothing_behind() -> None:
    class Failing(SteppedBroker):
        failures = 1

        async def subscribe(self, channels: Any) -> None:
            await asyncio.sleep(STEP)
            if self.failures:
                self.failures -= 1
                raise BrokerUnavailable("not now")
            await super().subscribe(channels)

    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        error = (await peer.subscribe("c"))["error"]
        assert (error["code"], error["temporary"]) == (ErrorCode.UNAVAILABLE, True)
        assert not node.hub.channels
        assert "error" not in await peer.subscribe("c")

    with_node(scenario, open_app(broker=Failing()))


def test_subscribes_and_unsubscribes_of_a_channel_take_effect_in_the_order_of_sending() -> None:
    wire = Everwire()

    @wire.channel("c")
    async def slow(conn: Any) -> Grant:
        await asyncio.sleep(1)
        return Grant(publish=True)

    async def scenario(network: Network, node: Node) -> None:
        peer = await ready(network)
        for n in range(3):
            peer.send(m.Subscribe(10 + n, [m.ChannelRequest("c")]))
            peer.send(m.Unsubscribe(20 + n, ["c"]))
        await peer.answer(22)
        await asyncio.sleep(0.1)
        (connection,) = node.connections.values()
        assert not connection.subscriptions
        assert not connection.operations
        peer.send(m.Unsubscribe(30, ["c"]))
        peer.send(m.Subscribe(31, [m.ChannelRequest("c")]))
        await peer.answer(31)
        assert list(connection.subscriptions) == ["c"]

    with_node(scenario, wire)
