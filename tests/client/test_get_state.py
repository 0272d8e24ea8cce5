"""Where history does not reach back the application's state takes over: no hole, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from everwire import (
    ClientLimits,
    ConfigError,
    Everwire,
    Gap,
    Grant,
    Message,
    Position,
    Snapshot,
)
from everwire.client import Client, StatefulSubscription
from everwire.protocol import messages as m
from everwire.testing import Network

from .world import (
    FAST,
    Peer,
    Script,
    World,
    client_to,
    loop,
    node_world,
    play,
    pushed,
    results,
    sid,
    welcome,
)

LIMITS = ClientLimits(first_retry=0.2, backoff_base=0.2, backoff_cap=0.5, queue_messages=8)


def declare(wire: Everwire) -> None:
    wire.channel("counter", history=3, grant=Grant(publish=True))
    wire.channel("none", history=0, grant=Grant(publish=True))


class Counter:
    """What the messages of a channel add up to, and how far: the application's own store."""

    def __init__(self, world: World, channel: str) -> None:
        self.world = world
        self.channel = channel
        self.states: list[tuple[int, Position | None]] = [(0, None)]

    @property
    def total(self) -> int:
        return self.states[-1][0]

    async def add(self, number: int) -> None:
        position = await self.world.wire.publish(self.channel, number)
        self.states.append((self.total + number, position))


class Reader:
    """Adds up what it is handed; a restart begins where it had stored that it was."""

    def __init__(self, client: Client, counter: Counter, calls: list[tuple[str, float]]) -> None:
        self.client = client
        self.counter = counter
        self.calls = calls
        self.stored: tuple[int, Position | None] = (0, None)
        self.snapshots = 0
        self.stale = True
        self.room: StatefulSubscription | None = None
        self.task: asyncio.Task[None] | None = None

    async def state(self) -> Any:
        kind, seconds = self.calls.pop(0) if self.calls else ("exact", 0.0)
        await asyncio.sleep(seconds)
        if kind == "busy":  # the state is ahead of what has reached the client
            for _ in range(3):
                await self.counter.add(1)
        if kind == "fail":
            raise OSError("no state today")
        states = self.counter.states
        total, position = states[max(1, len(states) - 3)] if kind == "old" else states[-1]
        await asyncio.sleep(seconds)
        return Snapshot(total, position)

    def take(self, item: Message | Gap | Snapshot) -> None:
        total, _ = self.stored
        if isinstance(item, Gap):
            self.stale = True
        elif isinstance(item, Snapshot):
            self.snapshots += 1
            self.stale = False
            total = item.data
        else:
            assert not self.stale, "a message between a gap and the state"
            total += item.data
        assert self.room is not None
        self.stored = (total, self.room.position)

    def enter(self) -> StatefulSubscription:
        _, since = self.stored
        self.stale = since is None
        self.room = self.client.subscribe(
            self.counter.channel, get_state=self.state, state_first=since is None, since=since
        )
        return self.room

    async def run(self) -> None:
        async with self.enter() as room:
            async for item in room:
                self.take(item)

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])


ACTIONS = st.tuples(
    st.sampled_from(("add", "add", "flood", "drop", "cut", "restart", "away")),
    st.sampled_from((0.0, 0.0, 0.005, 0.02, 0.3, 2.0)),
)
CALLS = st.tuples(
    st.sampled_from(("exact", "busy", "old", "fail")), st.sampled_from((0.0, 0.01, 0.5))
)


@settings(max_examples=300)
@given(
    st.lists(ACTIONS, min_size=2, max_size=30),
    st.lists(CALLS, max_size=8),
    st.sampled_from(("counter", "none")),
    st.sampled_from((0.0, 0.01, 0.1)),
)
def test_a_counter_is_right_in_the_end_whatever_history_forgot(
    actions: list[tuple[str, float]], calls: list[tuple[str, float]], channel: str, latency: float
) -> None:
    async def scenario() -> None:
        async with (
            node_world(declare, latency=latency) as world,
            world.client(limits=LIMITS) as client,
        ):
            counter = Counter(world, channel)
            await counter.add(1)
            reader = Reader(client, counter, list(calls))
            reader.start()
            for number, (action, pause) in enumerate(actions):
                match action:
                    case "add":
                        await counter.add(number)
                    case "flood":
                        for _ in range(20):
                            await counter.add(number)
                    case "drop":
                        client.drop()
                    case "cut":
                        world.network.cut()
                    case "restart":
                        await reader.stop()
                        reader.start()
                    case "away":
                        world.network.refuse = True
                        client.drop()
                        for _ in range(5):
                            await counter.add(number)
                        await asyncio.sleep(pause)
                        world.network.refuse = False
                await asyncio.sleep(pause)
            await asyncio.sleep(120)
            await counter.add(1_000)
            await asyncio.sleep(5)
            assert reader.stored[0] == counter.total
            assert not reader.stale
            await reader.stop()

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "plain"])
def test_data_without_a_position_contains_what_was_published_before_the_call(dialect: str) -> None:
    """Messages that say what is, not what changed, may come again: the last one wins."""

    async def scenario() -> None:
        async with node_world(declare) as world, world.client(dialect=dialect) as client:
            store: dict[str, int] = {}

            async def put(key: str, value: int) -> None:
                store[key] = value
                await world.wire.publish("none", [key, value])

            async def state() -> dict[str, int]:
                before = dict(store)
                await asyncio.sleep(0.2)
                return before

            mine: dict[str, int] = {}
            snapshots = 0

            async def read() -> None:
                nonlocal mine, snapshots
                room = client.subscribe("none", get_state=state, state_first=True)
                async with room:
                    async for item in room:
                        if isinstance(item, Snapshot):
                            mine = dict(item.data)
                            snapshots += 1
                        elif isinstance(item, Message):
                            mine[item.data[0]] = item.data[1]

            reading = asyncio.get_running_loop().create_task(read())
            for n in range(100):
                await put("abc"[n % 3], n)
                await asyncio.sleep(0.02)
                if n in (30, 60):
                    client.drop()
            await asyncio.sleep(20)
            await put("z", 1)
            await asyncio.sleep(1)
            assert mine == store
            assert snapshots >= 2
            reading.cancel()
            await asyncio.wait([reading])

    play(scenario)


def subscribes(script: Script) -> list[m.ChannelRequest]:
    return [one for peer in script.peers for each in peer.of(m.Subscribe) for one in each.channels]


def test_the_position_is_read_then_the_state_then_what_follows_both_is_handed_over() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Subscribe):
                peer.respond(message, results(message.channels, offset=10, id="i10"))
                peer.send(pushed("c", 11, "in the state"), pushed("c", 12, "after it"))
            else:
                welcome(peer, message)

        script = Script(network, handle)
        asked: list[int] = []

        async def state() -> Snapshot:
            asked.append(len(subscribes(script)))
            await asyncio.sleep(1)
            return Snapshot({"n": 1}, Position("e", 11, "i11"))

        async with client_to(network) as client:
            async with client.subscribe("c", get_state=state, state_first=True) as room:
                assert room.position is None
                first = await anext(room)
                assert first == Snapshot({"n": 1}, Position("e", 11, "i11"), "c")
                assert room.position == Position("e", 11, "i11")
                second = await anext(room)
                assert isinstance(second, Message)
                assert second.data == "after it"
                assert asked == [1]
                assert [one.position for one in subscribes(script)] == [None]

    play(scenario)


def test_an_older_state_is_followed_by_all_that_came_since() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)

        async def state() -> Snapshot:
            return Snapshot("old", Position("e", 7, "i7"))

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Subscribe):
                at = message.channels[0].position
                where = {"offset": 10, "id": "i10"} if at is None else {}
                peer.respond(message, results(message.channels, **where))
                first = 11 if at is None else at.offset + 1
                peer.send(*(pushed("c", n, n) for n in range(first, 12)))
            else:
                welcome(peer, message)

        script._handle = handle
        async with client_to(network) as client:
            async with client.subscribe("c", get_state=state, state_first=True) as room:
                got = [await anext(room) for _ in range(5)]
                assert [item.data for item in got if not isinstance(item, Gap)] == [
                    "old", 8, 9, 10, 11,
                ]  # fmt: skip
            asked = [one.position for one in subscribes(script)]
            assert asked == [None, Position("e", 7, "i7")]

    play(scenario)


def test_a_state_that_fails_is_asked_for_again_at_a_pace_and_the_position_read_anew() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        calls = 0

        async def state() -> str:
            nonlocal calls
            calls += 1
            if calls < 6:
                raise OSError("not now")
            return "at last"

        async with client_to(network) as client:
            began = loop().time()
            async with client.subscribe("c", get_state=state, state_first=True) as room:
                item = await anext(room)
                assert isinstance(item, Snapshot)
                assert item.data == "at last"
                assert calls == 6
                assert 0.5 < loop().time() - began < 30
                assert len(subscribes(script)) == 6

    play(scenario)


def test_a_state_that_never_comes_is_given_up_and_asked_for_again() -> None:
    async def scenario() -> None:
        calls = 0

        async def state() -> str:
            nonlocal calls
            calls += 1
            if calls == 1:
                await asyncio.Event().wait()
            return "second"

        network = Network()
        Script(network, ping_interval=1_000.0)
        async with client_to(network) as client:
            async with client.subscribe("c", get_state=state, state_first=True) as room:
                item = await anext(room)
                assert isinstance(item, Snapshot)
                assert 30 <= loop().time() <= 31

    play(scenario)


def test_a_server_that_always_has_a_gap_is_not_asked_in_a_hurry() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            welcome(peer, message)
            if isinstance(message, m.Subscribe):
                peer.send(m.GapNotice(sid("c"), "e", 5, "", "slow"))

        script = Script(network, handle, ping_interval=1_000.0)

        async def state() -> int:
            return 1

        async with client_to(network) as client:
            async with client.subscribe("c", get_state=state):
                await asyncio.sleep(60)
                assert 3 < len(subscribes(script)) < 40

    play(scenario)


def test_a_gap_counts_only_with_the_state_that_follows() -> None:
    """So that a crash in between is followed by another gap, and not by silence."""

    async def scenario() -> None:
        async with node_world(declare) as world, world.client(limits=FAST) as client:
            counter = Counter(world, "counter")
            for _ in range(9):
                await counter.add(1)
            arrived = asyncio.Event()

            async def state() -> Snapshot:
                await arrived.wait()
                return Snapshot(*counter.states[-1])

            since = counter.states[2][1]
            async with client.subscribe("counter", since=since, get_state=state) as room:
                gap = await anext(room)
                assert isinstance(gap, Gap)
                assert gap.reason == "expired"
                assert room.position == since
                arrived.set()
                snapshot = await anext(room)
                assert snapshot == Snapshot(9, counter.states[-1][1], "counter")
                assert room.position == counter.states[-1][1]

    play(scenario)


def test_what_overflows_while_the_state_is_awaited_follows_from_history() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=LIMITS) as client:
            counter = Counter(world, "long")

            async def state() -> Snapshot:
                at = counter.states[-1]
                for n in range(50):
                    await counter.add(n)
                await asyncio.sleep(3)
                return Snapshot(*at)

            await counter.add(7)
            async with client.subscribe("long", get_state=state, state_first=True) as room:
                total = 0
                for _ in range(51):
                    item = await anext(room)
                    assert not isinstance(item, Gap)
                    total += item.data
                assert total == counter.total

    play(scenario)


def test_a_state_that_fails_after_an_overflow_is_asked_for_again() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=LIMITS) as client:
            counter = Counter(world, "long")
            calls = 0

            async def state() -> Snapshot:
                nonlocal calls
                calls += 1
                if calls == 1:
                    for n in range(50):
                        await counter.add(n)
                    await asyncio.sleep(3)
                    raise OSError("not now")
                return Snapshot(*counter.states[-1])

            async with client.subscribe("long", get_state=state, state_first=True) as room:
                item = await anext(room)
                assert isinstance(item, Snapshot)
                assert item.data == counter.total

    play(scenario)


def test_a_state_that_fails_does_not_make_up_for_the_time_that_the_server_asked_for() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network, ping_interval=1_000.0)
        calls = 0

        async def state() -> str:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise OSError("not now")
            if calls == 2:
                script.peers[0].send(m.Unsubscribed(sid("c"), 501, True, 5_000))
                await asyncio.sleep(1)
                raise OSError("not now")
            return "at last"

        async with client_to(network) as client:
            async with client.subscribe("c", get_state=state, state_first=True) as room:
                await anext(room)
                assert 5 <= loop().time() < 8
                assert calls == 3

    play(scenario)


def test_ending_while_the_state_is_awaited_ends_the_asking() -> None:
    async def scenario() -> None:
        cancelled = asyncio.Event()

        async def state() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with node_world() as world, world.client() as client:
            async with client.subscribe("c", get_state=state, state_first=True) as room:
                await asyncio.sleep(1)
                await room.unsubscribe()
                assert cancelled.is_set()
                assert [item async for item in room] == []

    play(scenario)


def never(_: object) -> None:
    raise AssertionError


async def nothing() -> None:
    return None


@pytest.mark.parametrize(
    "subscribe",
    [
        lambda client: client.subscribe("c", on_gap=never),
        lambda client: client.subscribe("c", on_message=never, state_first=True),
        lambda client: client.subscribe("c", on_message=never, get_state=nothing),
        lambda client: client.subscribe(
            "c", get_state=nothing, state_first=True, since=Position("e", 1)
        ),
        lambda client: client.subscribe("c", since=5),
        lambda client: client.subscribe("c", on_message="print"),
        lambda client: client.subscribe("c", get_state={"n": 1}),
    ],
)
def test_arguments_that_are_wrong_or_do_not_go_together_are_refused(
    subscribe: Callable[[Client], object],
) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            with pytest.raises(ConfigError):
                subscribe(client)

    play(scenario)
