"""Full queues: each policy does what its name says, and nothing is dropped in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from everwire import ConfigError, Dropped, OutboxFull, Superseded
from everwire.client.overflow import Overflow, Room, checked_overflow
from everwire.testing import run


@dataclass(eq=False)
class Item:
    name: str
    size: int = 1
    key: str = ""
    sent: bool = False

    def __repr__(self) -> str:
        return self.name


@dataclass
class Queue:
    """The plainest queue that there is."""

    messages: int = 3
    size: int = 100
    items: list[Item] = field(default_factory=list)
    lost: list[tuple[str, type[Exception]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.room: Room[Item] = Room(self, messages=self.messages, size=self.size)

    def take(self, item: Item) -> None:
        self.items.append(item)

    def replace(self, old: Item, new: Item) -> None:
        self.items[self.items.index(old)] = new

    def discard(self, item: Item) -> None:
        self.items.remove(item)

    def unsent(self) -> Iterable[Item]:
        return [item for item in self.items if not item.sent]

    def same(self, item: Item) -> Item | None:
        return next((old for old in self.unsent() if item.key and old.key == item.key), None)

    def dropped(self, item: Item, error: Dropped) -> None:
        self.lost.append((item.name, type(error)))

    def leave(self, item: Item) -> None:
        self.items.remove(item)
        self.room.left(item)

    def names(self) -> list[str]:
        return [item.name for item in self.items]


def filled(names: str = "abc", **options: Any) -> Queue:
    queue = Queue(**options)
    for name in names:
        assert queue.room.offer(Item(name), "reject")
    return queue


def waits(queue: Queue, item: Item, seconds: float = 5.0) -> asyncio.Task[None]:
    assert not queue.room.offer(item, "block")
    return asyncio.get_running_loop().create_task(queue.room.wait(item, seconds))


@pytest.mark.parametrize("policy", ["block", "reject", "drop_oldest", "drop_newest", "coalesce"])
def test_whatever_the_policy_what_there_is_room_for_gets_in(policy: Overflow) -> None:
    queue = filled("ab")
    assert queue.room.offer(Item("c"), policy)
    assert (queue.names(), queue.lost) == (["a", "b", "c"], [])


def test_reject_refuses_at_once() -> None:
    queue = filled()
    with pytest.raises(OutboxFull, match="3 messages of 3 bytes wait; 3 messages of 100 bytes may"):
        queue.room.offer(Item("d"), "reject")
    assert (queue.names(), queue.lost) == (["a", "b", "c"], [])


def test_drop_newest_drops_what_comes_and_tells() -> None:
    queue = filled()
    assert queue.room.offer(Item("d"), "drop_newest")
    assert (queue.names(), queue.lost) == (["a", "b", "c"], [("d", Dropped)])


def test_drop_oldest_drops_as_many_as_it_takes_and_tells_of_each() -> None:
    queue = filled(size=5)
    assert queue.room.offer(Item("d", size=4), "drop_oldest")
    assert (queue.names(), queue.lost) == (["c", "d"], [("a", Dropped), ("b", Dropped)])
    assert (queue.room.messages, queue.room.size) == (2, 5)


def test_what_was_sent_is_never_dropped() -> None:
    queue = filled()
    queue.items[0].sent = True
    queue.room.offer(Item("d"), "drop_oldest")
    assert (queue.names(), queue.lost) == (["a", "c", "d"], [("b", Dropped)])
    for item in queue.items:
        item.sent = True
    with pytest.raises(OutboxFull, match="sent already"):
        queue.room.offer(Item("e"), "drop_oldest")
    assert queue.names() == ["a", "c", "d"]


def test_nothing_is_dropped_for_what_does_not_fit_even_then() -> None:
    queue = filled(size=5)
    queue.items[0].sent = True
    with pytest.raises(OutboxFull):
        queue.room.offer(Item("d", size=5), "drop_oldest")
    assert (queue.names(), queue.lost) == (["a", "b", "c"], [])
    with pytest.raises(OutboxFull, match="the whole outbox may have 5"):
        queue.room.offer(Item("e", size=6), "block")


def test_coalesce_replaces_in_place_also_where_there_is_room() -> None:
    queue = Queue()
    for name in ("k1", "x", "k2"):
        queue.room.offer(Item(name, key=name[0], size=len(name)), "coalesce")
    assert (queue.names(), queue.lost) == (["k2", "x"], [("k1", Superseded)])
    assert (queue.room.messages, queue.room.size) == (2, 3)
    queue.items[0].sent = True
    queue.room.offer(Item("k3", key="k"), "coalesce")
    assert queue.names() == ["k2", "x", "k3"]
    assert not queue.room.offer(Item("y1", key="y"), "coalesce")


def test_a_replacement_that_does_not_fit_waits() -> None:
    queue = Queue(size=5)
    queue.room.offer(Item("k1", key="k"), "coalesce")
    queue.room.offer(Item("x", size=3), "reject")
    assert not queue.room.offer(Item("k2", key="k", size=3), "coalesce")
    assert (queue.names(), queue.lost) == (["k1", "x"], [])


def test_a_smaller_replacement_lets_in_who_waits() -> None:
    async def scenario() -> None:
        queue = Queue(size=5)
        queue.room.offer(Item("k1", key="k", size=5), "coalesce")
        waiting = waits(queue, Item("w", size=4))
        await asyncio.sleep(0)
        queue.room.offer(Item("k2", key="k", size=1), "coalesce")
        await waiting
        assert queue.names() == ["k2", "w"]

    run(scenario)


def test_drop_oldest_does_not_overtake_who_waits() -> None:
    async def scenario() -> None:
        queue = filled()
        waiting = waits(queue, Item("w"))
        await asyncio.sleep(0)
        queue.room.offer(Item("d"), "drop_oldest")
        await waiting
        assert (queue.names(), queue.lost) == (["c", "w", "d"], [("a", Dropped), ("b", Dropped)])

    run(scenario)


def test_who_waits_may_be_the_oldest_and_is_told() -> None:
    async def scenario() -> None:
        queue = Queue(messages=1)
        queue.room.offer(Item("a"), "reject")
        first, second = Item("v"), Item("w")
        lost, kept = waits(queue, first), waits(queue, second)
        await asyncio.sleep(0)
        queue.items[0].sent = True
        with pytest.raises(OutboxFull):
            queue.room.offer(Item("d"), "drop_oldest")
        queue.items[0].sent = False
        queue.room.offer(Item("e"), "drop_oldest")
        assert queue.names() == ["e"]
        assert [name for name, _ in queue.lost] == ["a", "v", "w"]
        for task in (lost, kept):
            with pytest.raises(Dropped):
                await task

    run(scenario)


def test_waiting_ends_with_room_or_with_an_error_in_time() -> None:
    async def scenario() -> None:
        queue = filled()
        began = asyncio.get_running_loop().time()
        waiting = waits(queue, Item("w"), seconds=5.0)
        with pytest.raises(OutboxFull, match="no room in the outbox within 5 s"):
            await waiting
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
        waiting = waits(queue, Item("v"))
        await asyncio.sleep(4.0)
        queue.leave(queue.items[0])
        await waiting
        assert queue.names() == ["b", "c", "v"]

    run(scenario)


def test_the_hook_of_a_drop_may_publish() -> None:
    class Republishing(Queue):
        def dropped(self, item: Item, error: Dropped) -> None:
            super().dropped(item, error)
            if item.name == "a":
                self.room.offer(Item("again"), "drop_oldest")

    queue = Republishing()
    for name in "abcd":
        queue.room.offer(Item(name), "drop_oldest")
    assert queue.names() == ["c", "d", "again"]
    assert queue.room.messages == 3


def test_an_unknown_policy_is_told_with_the_known_ones() -> None:
    assert checked_overflow(None) is None
    assert checked_overflow("reject") == "reject"
    with pytest.raises(ConfigError, match="block, reject, drop_oldest, drop_newest, coalesce"):
        checked_overflow("drop-oldest")


offers = st.tuples(
    st.sampled_from(["block", "reject", "drop_oldest", "drop_newest", "coalesce"]),
    st.integers(1, 6),
    st.sampled_from(["", "k", "l"]),
)
steps = st.one_of(
    st.tuples(st.just("offer"), offers),
    st.tuples(st.just("send"), st.none()),
    st.tuples(st.just("leave"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
)


@settings(max_examples=200)
@given(st.lists(steps, max_size=40))
def test_bounds_and_order_hold_and_each_message_has_one_fate(trace: list[Any]) -> None:
    async def scenario() -> None:
        queue = Queue(messages=3, size=9)
        offered: list[Item] = []
        refused: set[str] = set()
        gone: set[str] = set()
        line: list[tuple[Item, asyncio.Task[None]]] = []
        for kind, value in trace:
            if kind == "offer":
                policy, size, key = value
                item = Item(f"{len(offered)}", size, key)
                offered.append(item)
                try:
                    if not queue.room.offer(item, policy):
                        task = asyncio.get_running_loop().create_task(queue.room.wait(item, 1e6))
                        line.append((item, task))
                except OutboxFull:
                    refused.add(item.name)
            elif kind == "send":
                next(iter(queue.unsent()), Item("none")).sent = True
            elif kind == "leave" and value < len(queue.items):
                gone.add(queue.items[value].name)
                queue.leave(queue.items[value])
            elif kind == "cancel" and value < len(line):
                line[value][1].cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert queue.room.messages == len(queue.items) <= 3
            assert queue.room.size == sum(item.size for item in queue.items) <= 9
            numbers = [int(item.name) for item in queue.items if not item.key]
            assert numbers == sorted(numbers)
        waiting = set()
        for item, task in line:
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled() and item not in queue.items and item.name not in gone:
                waiting.add(item.name)
        lost = [name for name, _ in queue.lost]
        fates = [*lost, *refused, *gone, *(item.name for item in queue.items), *waiting]
        assert sorted(fates, key=int) == sorted({*fates}, key=int)
        assert {*fates} == {item.name for item in offered}

    run(scenario)
