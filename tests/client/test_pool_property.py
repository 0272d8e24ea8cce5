"""Whatever the members of a pool go through: nothing is lost, doubled, or out of order."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from everwire import BrokerUnavailable, ClientLimits, Pool, RequestError
from everwire.brokers.base import PublishOutcome
from everwire.client import Gap, Message, Subscription
from everwire.limits import Limits
from everwire.testing import Direction

from .pool_world import Addresses, addresses
from .test_pool_order import end_member, keep_all
from .world import play, until

KEYS = ("a", "b", "c", "d", "e")
SIZE = 3
EAGER = ClientLimits(
    first_retry=0.2, backoff_base=0.2, backoff_cap=1.0, stable_after=5.0, outbox_block=1_000.0,
    outbox_messages=20,
)  # fmt: skip
SERVER = Limits(dedupe_window=100_000, ping_interval=5.0, ping_grace=5.0)

NUMBERS = st.integers(0, SIZE - 1)
ACTIONS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(KEYS), st.integers(1, 8)),
    st.tuples(st.just("keyed"), st.sampled_from(KEYS), st.sampled_from(("k1", "k2"))),
    st.tuples(st.just("forget"), st.sampled_from(KEYS)),
    st.tuples(st.just("down"), NUMBERS),
    st.tuples(st.just("up"), NUMBERS),
    st.tuples(st.just("cut"), NUMBERS),
    st.tuples(st.just("deaf"), NUMBERS, st.sampled_from(list(Direction))),
    st.tuples(st.just("hears"), NUMBERS),
    st.tuples(st.just("end"), NUMBERS),
    st.tuples(st.just("broker"), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.sampled_from((0.005, 0.02, 0.3, 3.0, 12.0))),
)


class Trial:
    """Publishes and breaks things; knows what must come out.

    Attributes:
        sent: of each channel and key, what was published, in the order of the calls.
    """

    def __init__(self, world: Addresses, pool: Pool) -> None:
        self.world = world
        self.pool = pool
        self.sent: dict[tuple[str, str], list[int]] = {}
        self.waiting: list[asyncio.Future[Any]] = []
        self.forgotten: set[int] = set()
        self.ended: set[int] = set()
        self.number = 0

    def publish(self, channel: str, key: str | None = None, *, forget: bool = False) -> None:
        """By a task of its own, so that it may wait for room as an application would."""
        pool = self.pool if key is None else self.pool.keyed(key)
        self.number += 1
        self.sent.setdefault((channel, key or channel), []).append(self.number)
        task = asyncio.ensure_future(pool.publish(channel, self.number, ttl=10_000))
        if forget:
            self.forgotten.add(self.number)
            asyncio.get_running_loop().call_later(0.001, task.cancel)
        self.waiting.append(task)

    async def do(self, action: tuple[Any, ...]) -> None:
        world = self.world
        match action:
            case "publish", channel, count:
                for _ in range(count):
                    self.publish(channel)
            case "keyed", channel, key:
                self.publish(channel, key)
            case "forget", channel:
                self.publish(channel, forget=True)
            case "down", number:
                world.down(number)
            case "up", number:
                world.up(number)
            case "cut", number:
                world.cut(number)
            case "deaf", number, direction:
                for link in world.links(number):
                    link.freeze(direction)
            case "hears", number:
                for link in world.links(number):
                    link.thaw()
            case "end", number if len(self.ended | {number}) < SIZE:
                self.ended.add(number)
                end_member(self.pool, number)
            case "broker", count:
                outcomes: list[PublishOutcome] = [
                    BrokerUnavailable("x", outcome="none"),
                    RequestError(code=403),
                ]
                world.broker.outcomes = (outcomes * 2)[:count]
            case "wait", seconds:
                await asyncio.sleep(seconds)

    async def settle(self) -> None:
        """All is well again."""
        self.world.broker.outcomes = []
        for number in range(SIZE):
            self.world.up(number)
        for link in self.world.network.links:
            link.thaw()
        if self.waiting:
            async with asyncio.timeout(600):
                await asyncio.wait(self.waiting)

    def check(self, channel: str, held: list[int]) -> None:
        """``held`` has what was acknowledged once, and in order for each key."""
        assert len(held) == len(set(held))
        for (where, key), sent in self.sent.items():
            if where != channel:
                continue
            mine = [number for number in held if number in set(sent)]
            expected = [n for n in sent if n not in self.forgotten or n in set(held)]
            assert mine == expected, (channel, key)


async def read(room: Subscription, got: list[Message | Gap]) -> None:
    async for item in room:
        got.append(item)  # noqa: PERF401  # as they come


async def trial(actions: list[tuple[Any, ...]], strategy: Any) -> None:
    async with addresses(SIZE, keep_all, limits=SERVER) as world:
        pool = await world.pool(limits=EAGER, strategy=strategy)
        one = Trial(world, pool)
        rooms = [await pool.subscribe(channel).__aenter__() for channel in KEYS]
        got: list[list[Message | Gap]] = [[] for _ in KEYS]
        readers = [asyncio.ensure_future(read(*each)) for each in zip(rooms, got, strict=True)]
        for action in actions:
            await one.do(action)
        await one.settle()
        for task in one.waiting:
            if not task.cancelled():
                assert task.exception() is None
        await until(lambda: not pool._pool.members._routes, within=600)  # the forgotten ones too
        for channel, items in zip(KEYS, got, strict=True):
            held = [entry.data for entry in await pool.history(channel, limit=100_000)]
            one.check(channel, held)
            await until(lambda items=items, held=held: len(items) >= len(held))  # type: ignore[misc]
            assert [item.data for item in items if isinstance(item, Message)] == held
            assert not [item for item in items if isinstance(item, Gap)]
        assert all(member.queued == member.requests == 0 for member in pool.members)
        await pool.close()
        for reader in readers:
            await reader


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(
    actions=st.lists(ACTIONS, max_size=40),
    strategy=st.sampled_from(("keyed", "round_robin", "least_inflight", "failover")),
)
def test_what_is_acknowledged_is_held_once_and_in_order_of_its_key(
    actions: list[tuple[Any, ...]], strategy: Any
) -> None:
    play(lambda: trial(actions, strategy), limit=100_000)


def some(random: Random) -> tuple[Any, ...]:
    number = random.randrange(SIZE)
    match random.randrange(16):
        case 0:
            return "down", number
        case 1 | 2:
            return "up", number
        case 3:
            return "cut", number
        case 4:
            return "deaf", number, random.choice(list(Direction))
        case 5:
            return "hears", number
        case 6:
            return "broker", random.randrange(1, 4)
        case 7 | 8:
            return "wait", random.choice((0.005, 0.02, 0.3, 3.0, 12.0))
        case 9:
            return "keyed", random.choice(KEYS), random.choice(("k1", "k2"))
        case 10:
            return "forget", random.choice(KEYS)
        case 11 if random.random() < 0.15:
            return "end", number
        case _:
            return "publish", random.choice(KEYS), random.randrange(1, 30)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_over_hundreds_of_faults(seed: int) -> None:
    random = Random(seed)
    actions = [some(random) for _ in range(300)]
    strategy = ("keyed", "round_robin", "least_inflight", "failover")[seed % 4]
    play(lambda: trial(actions, strategy), limit=100_000, seed=seed)
