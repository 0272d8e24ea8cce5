"""What a reader that is too slow gets of a channel without history: by the channel's policy.

Whatever is dropped is a gap, told before the next message; other readers notice nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from everwire import ConfigError, Everwire, Grant, Position
from everwire.brokers.base import Overflow
from everwire.codes import CloseCode
from everwire.hub.registry import Subscription
from everwire.limits import KiB, Limits
from everwire.protocol import messages as m
from everwire.protocol.states import SubscriptionState
from everwire.server.connection import Connection
from everwire.server.node import Node
from everwire.testing import Network, run

from ..contracts.stepped import STEP, LossyBroker, SteppedBroker
from .peer import Peer, serving

SIZE = 30 * KiB
FILLS = 60  # messages of SIZE that are more than what the network and the node hold unsent
QUEUE = 10
DROPPING: list[Overflow] = ["drop_oldest", "drop_newest", "conflate"]


class Reader(Peer):
    """Finds by its position that there is no hole in what comes, but by a gap."""

    def __init__(self, network: Network, channel: str, name: str = "json") -> None:
        super().__init__(network, name)
        self.channel = channel
        self.at = Position("", 0)

    async def enter(self) -> Reader:
        await self.auth()
        result = await self.subscribe(self.channel)
        self.at = Position(result["epoch"], result["offset"])
        assert not result["recoverable"]
        return self

    def items(self, reason: str = "dropped") -> list[Any]:
        """What came: offsets of messages; of gaps how many messages are missing."""
        found: list[Any] = []
        for item in self.inbox:
            if isinstance(item, m.GapNotice):
                assert item.reason == reason
                assert (item.from_, item.epoch) == (self.at.offset, self.at.epoch)
                found.append([item.offset - self.at.offset])
                assert found[-1] > [0]
                self.at = Position(item.epoch, item.offset)
            elif isinstance(item, m.ChannelMessage):
                assert item.offset == self.at.offset + 1
                found.append(item.offset)
                self.at = Position(self.at.epoch, item.offset)
        self.inbox.clear()
        return found


class World:
    """A reader that stands still, another one, and a writer, in one channel."""

    def __init__(self, node: Node, slow: Reader, quick: Reader, writer: Peer) -> None:
        self.node = node
        self.slow = slow
        self.quick = quick
        self.writer = writer
        self.connection: Connection = next(iter(node.connections.values()))
        self.count = 0

    @property
    def subscription(self) -> Subscription:
        return self.connection.subscriptions[self.slow.channel]

    async def publish(self, count: int, size: int = SIZE) -> None:
        for _ in range(count):
            self.count += 1
            await self.writer.publish(f"w-{self.count}", self.slow.channel, "x" * size)

    async def fill(self) -> int:
        """Stop the reader and publish until it is held up; return what was written last."""
        self.slow.transport.pause_reading()
        while not self.connection.paused:
            await self.publish(1)
        await asyncio.sleep(0)
        assert self.subscription.state is SubscriptionState.RECOVERING
        assert self.subscription.offset == self.count
        return self.count

    async def resume(self) -> None:
        self.slow.transport.resume_reading()
        await asyncio.sleep(5)


def application(policy: Overflow | None, broker: Any = "auto", **limits: Any) -> Everwire:
    limits.setdefault("overflow_messages", QUEUE)
    wire = Everwire(broker, limits=Limits(**limits))
    wire.channel("c", history=0, on_overflow=policy, grant=Grant(publish=True))
    wire.channel("kept", history=100, grant=Grant(publish=True))
    return wire


@asynccontextmanager
async def world(wire: Everwire, name: str = "json") -> AsyncIterator[World]:
    async with serving(wire) as (network, node):
        slow = await Reader(network, "c", name).enter()
        quick = await Reader(network, "c").enter()
        writer = Peer(network)
        await writer.auth()
        yield World(node, slow, quick, writer)
        assert node.counters["defects"] == 0


def in_world(
    scenario: Callable[[World], Coroutine[Any, Any, None]],
    wire: Everwire,
    name: str = "json",
    *,
    seed: int = 0,
) -> None:
    async def main() -> None:
        async with world(wire, name) as made:
            await scenario(made)

    run(main, seed=seed)


# ---- the policies ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [*DROPPING, None])
@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_what_does_not_fit_is_dropped_by_policy_and_the_rest_comes(
    policy: Overflow | None, name: str
) -> None:
    async def scenario(world: World) -> None:
        last = await world.fill()
        await world.publish(25, size=10)
        await world.resume()
        await world.publish(1)
        await asyncio.sleep(1)
        items = world.slow.items()
        assert items[:last] == list(range(1, last + 1))
        queued = list(range(last + 1, last + 26))
        assert items[last:] == {
            "drop_oldest": [[15], *queued[15:]],
            None: [[15], *queued[15:]],
            "drop_newest": [*queued[:10], [15]],
            "conflate": [[24], *queued[24:]],
        }[policy] + [last + 26]
        assert world.node.counters["dropped"] == (24 if policy == "conflate" else 15)
        assert world.node.counters["gaps"] == 1
        assert world.quick.items() == list(range(1, world.count + 1))

    in_world(scenario, application(policy), name)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_a_pause_that_the_queue_outlasts_loses_nothing(policy: Overflow) -> None:
    async def scenario(world: World) -> None:
        for _ in range(3):
            await world.fill()
            await world.publish(QUEUE, size=10)
            await world.resume()
            assert world.subscription.state is SubscriptionState.SUBSCRIBED
            assert not world.subscription.channel.listeners
        assert world.slow.items() == list(range(1, world.count + 1))

    in_world(scenario, application(policy))


@pytest.mark.parametrize("policy", DROPPING)
def test_bytes_are_bounded_and_one_message_may_always_wait(policy: Overflow) -> None:
    async def scenario(world: World) -> None:
        last = await world.fill()
        backlog = world.subscription.backlog
        assert backlog is not None
        for size, expected in ((400, 1), (400, 2), (400, 2), (5000, 1)):
            await world.publish(1, size=size)
            if policy == "drop_oldest":
                assert len(backlog) == expected
            assert len(backlog) <= 2
        await world.resume()
        items = world.slow.items()[last:]
        if policy == "drop_newest":
            assert items == [last + 1, last + 2, [2]]
        else:
            assert items == [[3], last + 4]

    in_world(scenario, application(policy, overflow_bytes=1000))


def test_disconnect_ends_the_connection_at_the_first_message_that_it_cannot_have() -> None:
    async def scenario(world: World) -> None:
        last = await world.fill()
        await asyncio.sleep(1)
        assert world.connection in world.node.connections.values()
        await world.publish(3)
        world.slow.transport.resume_reading()
        assert await world.slow.until_closed() == CloseCode.SLOW_CONSUMER
        assert world.slow.items() == list(range(1, last + 1))
        assert world.node.counters["slow_consumers"] == 1
        assert world.quick.items() == list(range(1, world.count + 1))
        assert not world.quick.close_code

    in_world(scenario, application("disconnect"))


def test_disconnect_spares_who_is_held_up_by_another_channel_while_this_one_is_silent() -> None:
    async def scenario(world: World) -> None:
        slow = world.slow
        await slow.subscribe("kept")
        slow.transport.pause_reading()
        for n in range(FILLS):
            await world.writer.publish(f"k-{n}", "kept", "x" * SIZE)
        assert world.connection.paused
        slow.transport.resume_reading()
        await asyncio.sleep(5)
        await world.publish(2)
        await asyncio.sleep(1)
        assert [one.offset for one in slow.messages() if one.sid != slow.messages()[0].sid] == [
            1,
            2,
        ]

    in_world(scenario, application("disconnect"))


def test_who_publishes_and_is_too_slow_itself_is_answered_and_then_cut_off() -> None:
    async def scenario(world: World) -> None:
        slow = world.slow
        await world.fill()
        await world.node.app.publish("c", "x")
        assert world.node.counters["slow_consumers"] == 0  # not inside of the publish
        slow.transport.resume_reading()
        assert await slow.until_closed() == CloseCode.SLOW_CONSUMER

    in_world(scenario, application("disconnect"))


# ---- around them -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", DROPPING)
def test_a_reader_that_stops_again_and_again_is_told_of_each_gap_and_of_no_other(
    policy: Overflow,
) -> None:
    async def scenario(world: World) -> None:
        random = world.node.random
        for _ in range(12):
            await world.fill()
            await world.publish(random.randrange(20), size=random.randrange(1, 9000))
            world.slow.transport.resume_reading()
            await asyncio.sleep(random.random() / 1000)
        await world.resume()
        await world.publish(1)
        await asyncio.sleep(1)
        items = world.slow.items()  # checks that they are contiguous
        assert items[-1] == world.count
        gaps = [one for one in items if isinstance(one, list)]
        assert sum(missing for (missing,) in gaps) == world.node.counters["dropped"]
        assert not any(isinstance(a, list) and isinstance(b, list) for a, b in pairwise(items))

    for seed in range(5):
        in_world(scenario, application(policy), seed=seed)


def test_nothing_is_kept_for_who_is_gone() -> None:
    async def scenario(world: World) -> None:
        await world.fill()
        await world.publish(5)
        channel = world.node.hub.channels["c"]
        assert len(channel.listeners) == 1
        world.slow.send(m.Unsubscribe(9, ["c"]))
        world.slow.link.cut()
        await asyncio.sleep(1)
        assert channel.listeners == ()
        assert len(channel.subscriptions) == 1

    in_world(scenario, application(None))


def test_in_plain_a_gap_names_its_channel() -> None:
    async def main() -> None:
        async with serving(application(None)) as (network, node):
            slow = await Peer(network, "plain").open()
            slow.send(m.Subscribe("", [m.ChannelRequest("c")]))
            await slow.next(m.Subscribed)
            slow.transport.pause_reading()
            (connection,) = node.connections.values()
            while not connection.paused:
                await node.app.publish("c", "x" * SIZE)
                await asyncio.sleep(0)
            for n in range(QUEUE + 1):
                await node.app.publish("c", n)
            slow.transport.resume_reading()
            await asyncio.sleep(5)
            gap = await slow.next(m.GapNotice)
            assert (gap.channel, gap.reason) == ("c", "dropped")
            assert [one.data for one in slow.messages()][-QUEUE:] == list(range(1, QUEUE + 1))

    run(main)


@pytest.mark.parametrize("broker", [SteppedBroker, LossyBroker])
@settings(max_examples=30)
@given(
    moments=st.lists(st.integers(0, 30), min_size=3, max_size=10),
    kept=st.integers(1, 3),
)
def test_whoever_subscribes_gets_every_message_after_its_answer_or_a_gap(
    broker: type[SteppedBroker], moments: list[int], kept: int
) -> None:
    """What is published while the answer is being made waits for it, as for a slow reader."""

    async def main() -> None:
        wire = application(None, broker(), overflow_messages=kept)
        async with serving(wire) as (network, node):
            published = 0

            async def publish() -> None:
                nonlocal published
                for moment, later in pairwise([0, *sorted(moments)]):
                    await asyncio.sleep((later - moment) * STEP / 3)
                    await node.app.publish("c", "x")
                    published += 1

            async with asyncio.TaskGroup() as group:
                group.create_task(publish())
                reader = await Reader(network, "c").enter()
            for _ in range(4):
                await node.app.publish("c", "x")
            await asyncio.sleep(1)
            first = reader.at.offset
            items = reader.items()
            if broker is SteppedBroker and kept == 3 and published < 3:
                assert items == list(range(first + 1, published + 5))
            missing = sum(one[0] for one in items if isinstance(one, list))
            messages = [one for one in items if isinstance(one, int)]
            assert missing + len(messages) == reader.at.offset - first
            assert reader.at.offset >= published + 4 - 2  # the last may be lost on the way

    run(main)


def test_a_message_that_the_broker_lost_is_a_gap_and_what_follows_it_comes() -> None:
    """No history can heal it; but the message by which the hole was seen is not lost as well."""

    async def scenario(world: World) -> None:
        await world.publish(9, size=10)
        await asyncio.sleep(1)
        assert world.slow.items() == [1, [1], 3, [1], 5, [1], 7, [1], 9]
        assert world.subscription.state is SubscriptionState.SUBSCRIBED

    in_world(scenario, application(None, LossyBroker()))


def test_on_overflow_goes_with_channels_that_keep_no_history() -> None:
    wire = Everwire()
    with pytest.raises(ConfigError, match="history=0"):
        wire.channel("c", on_overflow="conflate")
    with pytest.raises(ConfigError, match="drop_oldest"):
        wire.channel("c", history=0, on_overflow="forget")  # type: ignore[arg-type]
