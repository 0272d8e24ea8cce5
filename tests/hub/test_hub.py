"""The hub's rules, each alone: lanes, joining, leaving, holes, new numberings, one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from everwire.brokers.base import ChannelOptions, Record
from everwire.hub.hub import Hub
from everwire.hub.registry import Channel, Subscription
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.protocol.data import pack_data
from everwire.protocol.dialects import Dialect, dialect, wire_for
from everwire.protocol.frames import split_frames
from everwire.protocol.states import SubscriptionState
from everwire.testing import run

JSON, PACK = dialect("json"), dialect("msgpack")


class Reader:
    """A connection that keeps what is written to it."""

    def __init__(self, dialect: Dialect = JSON) -> None:
        self.dialect = dialect
        self.wire = wire_for(dialect, False)
        self.out: list[bytes] | None = None
        self.paused = False
        self.writes: list[bytes] = []
        self.write: Callable[[bytes], None] = self.writes.append

    @property
    def offsets(self) -> list[int]:
        messages = [
            self.dialect.decode(payload)
            for data in self.writes
            for _, payload in split_frames(data)
            if payload != b"note"
        ]
        return [one.offset for one in messages if isinstance(one, m.ChannelMessage)]


class World:
    """A hub with one channel, and what it asked to be recovered."""

    def __init__(self) -> None:
        self.recovering: list[Subscription] = []
        self.overflowed: list[Subscription] = []
        self.hub = Hub(
            asyncio.get_running_loop(),
            self._recover,
            lambda *_: None,
            self.overflowed.append,
            Limits(overflow_messages=3, overflow_bytes=100),
        )
        self.channel, new = self.hub.open("c", "c", ChannelOptions())
        assert new
        self.hub.learn(self.channel, m.Position("e", 10, "id-10"))

    def _recover(self, subscriptions: Iterable[Subscription]) -> None:
        self.recovering += subscriptions

    def at(self, offset: int, reader: Reader | None = None, epoch: str = "e") -> Subscription:
        """A registered subscription that was sent everything up to ``offset``."""
        subscription = Subscription(reader or Reader(), self.channel)  # type: ignore[arg-type]
        subscription.state = SubscriptionState.RECOVERING
        subscription.move(m.Position(epoch, offset, f"id-{offset}"))
        self.hub.add(subscription)
        return subscription

    def tell(self, offset: int, prev: int | None = None, epoch: str = "e") -> None:
        self.hub.on_record("c", Record(epoch, offset, f"id-{offset}", 1, pack_data(offset), prev))


def in_world(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scenario(World())

    run(main)


def reader_of(subscription: Subscription) -> Reader:
    assert isinstance(subscription.reader, Reader)
    return subscription.reader


async def turn() -> None:
    """Let the loop's turn end."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_one_turn_is_one_write_however_many_messages() -> None:
    async def scenario(world: World) -> None:
        readers = [world.at(10, Reader(JSON)), world.at(10, Reader(PACK))]
        assert all(world.hub.join(one) for one in readers)
        for offset in range(11, 75):
            world.tell(offset)
        await turn()
        for one in readers:
            assert len(reader_of(one).writes) == 1
            assert reader_of(one).offsets == list(range(11, 75))

    in_world(scenario)


def test_several_channels_in_one_turn_are_one_write_too_and_in_order() -> None:
    async def scenario(world: World) -> None:
        reader = Reader()
        world.hub.join(world.at(10, reader))
        other, _ = world.hub.open("d", "d", ChannelOptions())
        world.hub.learn(other, m.Position("e", 0, ""))
        second = Subscription(reader, other)  # type: ignore[arg-type]
        second.move(other.position)
        world.hub.add(second)
        world.hub.join(second)
        world.tell(11)
        world.hub.on_record("d", Record("e", 1, "x", 1, pack_data(1)))
        world.tell(12)
        await turn()
        assert len(reader.writes) == 1
        assert sorted(reader.offsets) == [1, 11, 12]

    in_world(scenario)


def test_who_joins_gets_nothing_from_before_its_place() -> None:
    async def scenario(world: World) -> None:
        first = world.at(10)
        world.hub.join(first)
        world.tell(11)  # pending in the lane
        late = world.at(11)
        assert world.hub.join(late)
        world.tell(12)
        await turn()
        assert reader_of(first).offsets == [11, 12]
        assert reader_of(late).offsets == [12]

    in_world(scenario)


def test_who_leaves_gets_what_came_before() -> None:
    async def scenario(world: World) -> None:
        leaving, staying = world.at(10), world.at(10)
        world.hub.join(leaving)
        world.hub.join(staying)
        world.tell(11)
        world.hub.remove(leaving)
        world.tell(12)
        await turn()
        assert reader_of(leaving).offsets == [11]
        assert reader_of(staying).offsets == [11, 12]
        world.hub.remove(leaving)  # twice is once

    in_world(scenario)


def test_what_a_reader_was_sent_itself_goes_out_before_what_is_in_its_lane() -> None:
    async def scenario(world: World) -> None:
        one = world.at(10)
        reader = reader_of(one)
        world.hub.join(one)
        world.tell(11)
        reader.out = [b"\x81\x04note"]
        world.hub.touch(one.reader)
        await turn()
        assert b"".join(reader.writes).startswith(b"\x81\x04note")

    in_world(scenario)


def test_who_is_behind_does_not_join() -> None:
    async def scenario(world: World) -> None:
        assert not world.hub.join(world.at(9))
        assert not world.hub.join(world.at(10, epoch="another"))

    in_world(scenario)


def test_who_read_further_than_the_broker_told_joins_when_it_has_told() -> None:
    async def scenario(world: World) -> None:
        ahead = world.at(12)
        assert world.hub.join(ahead)
        assert ahead.state is SubscriptionState.RECOVERING
        for offset in range(11, 15):
            world.tell(offset)
        await turn()
        assert ahead.state is SubscriptionState.SUBSCRIBED
        assert reader_of(ahead).offsets == [13, 14]

    in_world(scenario)


def test_who_waits_for_a_place_that_is_jumped_over_reads_on() -> None:
    async def scenario(world: World) -> None:
        ahead = world.at(12)
        world.hub.join(ahead)
        world.tell(20, prev=10)  # numbers may have gaps: 12 is never told of
        assert world.recovering == [ahead]

    in_world(scenario)


def test_a_reader_that_is_paused_joins_nothing_however_it_gets_there() -> None:
    """It would be written without end: it was told to pause already, and is not told again."""

    async def scenario(world: World) -> None:
        at_top, ahead = world.at(10), world.at(11)
        assert world.hub.join(ahead)  # as soon as the broker tells of 11
        for one in (at_top, ahead):
            reader_of(one).paused = True
        assert not world.hub.join(at_top)
        world.tell(11)
        assert world.recovering == [ahead]
        world.tell(12)
        await turn()
        assert reader_of(ahead).writes == []

    in_world(scenario)


def test_a_message_told_twice_or_late_is_delivered_once() -> None:
    async def scenario(world: World) -> None:
        one = world.at(10)
        world.hub.join(one)
        for offset in (11, 11, 10, 12, 11, 12, 13):
            world.tell(offset)
        await turn()
        assert reader_of(one).offsets == [11, 12, 13]

    in_world(scenario)


def test_numbers_with_gaps_are_contiguous_by_prev() -> None:
    async def scenario(world: World) -> None:
        one = world.at(10)
        world.hub.join(one)
        world.tell(17, prev=10)
        world.tell(30, prev=17)
        await turn()
        assert reader_of(one).offsets == [17, 30]
        assert not world.recovering

    in_world(scenario)


@pytest.mark.parametrize("how", ["hole", "epoch"])
def test_after_a_hole_or_a_new_numbering_everybody_goes_on_from_history(how: str) -> None:
    async def scenario(world: World) -> None:
        live, waiting, behind = world.at(10), world.at(12), world.at(3)
        world.hub.join(live)
        world.hub.join(waiting)
        world.tell(11)
        if how == "hole":
            world.tell(14)
        else:
            world.tell(1, epoch="f")
        await turn()
        assert world.recovering == [live, waiting]
        assert reader_of(live).offsets == [11]
        assert live.position == m.Position("e", 11, "id-11")
        assert behind.position.offset == 3
        top = m.Position("e", 14, "id-14") if how == "hole" else m.Position("f", 1, "id-1")
        assert world.channel.position == top

    in_world(scenario)


def test_a_reading_with_another_epoch_renumbers_and_one_with_the_same_does_not() -> None:
    async def scenario(world: World) -> None:
        one = world.at(10)
        world.hub.join(one)
        world.hub.learn(world.channel, m.Position("e", 50, "id-50"))
        assert world.channel.position.offset == 10  # the broker will tell of the rest
        world.hub.learn(world.channel, m.Position("f", 2, "x"))
        assert world.recovering == [one]
        assert world.channel.position == m.Position("f", 2, "x")

    in_world(scenario)


def test_a_reader_that_stops_in_the_middle_of_the_writing_leaves_its_lanes_afterwards() -> None:
    async def scenario(world: World) -> None:
        stuck, others = world.at(10), [world.at(10) for _ in range(5)]
        reader = reader_of(stuck)

        def write(data: bytes) -> None:
            reader.writes.append(data)
            reader.paused = True
            world.hub.stuck(stuck.reader, [stuck])

        reader.write = write
        for one in (stuck, *others):
            world.hub.join(one)
        world.tell(11)
        await turn()
        assert world.recovering == [stuck]
        assert stuck.position.offset == 11
        world.tell(12)
        await turn()
        assert reader.offsets == [11]
        assert all(reader_of(one).offsets == [11, 12] for one in others)

    in_world(scenario)


def test_a_channel_without_subscribers_is_idle_after_a_while_and_has_a_number_of_its_own() -> None:
    async def scenario(world: World) -> None:
        one = world.at(10)
        world.hub.remove(one)
        loop = asyncio.get_running_loop()
        assert world.hub.idle(loop.time()) == []
        await asyncio.sleep(6)
        assert world.hub.idle(loop.time()) == [world.channel]
        again = world.at(10)
        assert world.hub.idle(loop.time()) == []
        world.hub.remove(again)
        world.hub.forget(world.channel)
        fresh, new = world.hub.open("c", "c", ChannelOptions())
        assert new
        assert isinstance(fresh, Channel)
        assert fresh.sid != world.channel.sid

    in_world(scenario)
