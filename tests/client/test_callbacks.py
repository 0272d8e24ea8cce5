"""Functions instead of iterating: in order, one at a time, in the way of nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from everwire import (
    ClientLimits,
    ClosedError,
    ConfigError,
    Everwire,
    Forbidden,
    Gap,
    Grant,
    Message,
)
from everwire.client import Snapshot, SubscriptionState
from everwire.protocol import messages as m
from everwire.testing import Network

from .world import (
    FAST,
    Script,
    World,
    client_to,
    data_of,
    loop,
    node_world,
    play,
    pushed,
    sid,
    take,
    until,
)


async def publish(world: World, channel: str, *data: object) -> None:
    for one in data:
        await world.wire.publish(channel, one)


def reader(kind: str, got: list[Any]) -> Callable[[Message], object]:
    def now(message: Message) -> None:
        got.append(message.data)

    async def later(message: Message) -> None:
        await asyncio.sleep(0.01)
        got.append(message.data)

    return now if kind == "function" else later


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_each_message_is_given_to_the_callback_in_order_over_drops(kind: str) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            got: list[Any] = []
            room = await client.subscribe("c", on_message=reader(kind, got))
            for n in range(60):
                await publish(world, "c", n)
                if n % 20 == 10:
                    client.drop()
                    await asyncio.sleep(0.5)
            await until(lambda: len(got) == 60)
            assert got == list(range(60))
            await room.unsubscribe()
            await room.wait_ended()
            await publish(world, "c", 60)
            await asyncio.sleep(1)
            assert len(got) == 60

    play(scenario)


def test_the_position_moves_on_when_the_callback_has_returned() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            may = asyncio.Event()
            begun: list[Message] = []

            async def on_message(message: Message) -> None:
                begun.append(message)
                await may.wait()

            async with client.subscribe("c", on_message=on_message) as room:
                start = room.position
                await publish(world, "c", 1)
                await until(lambda: begun)
                assert room.position == start
                may.set()
                await until(lambda: room.position == begun[0].position)

    play(scenario)


def test_gaps_and_states_come_to_their_callbacks_in_order() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            wire.channel("short", history=2, grant=Grant(publish=True))

        async with node_world(declare) as world, world.client(limits=FAST) as client:
            got: list[str] = []
            total = 0

            async def state() -> int:
                return total

            def on_gap(gap: Gap) -> None:
                got.append(gap.reason)

            async def on_snapshot(snapshot: Snapshot) -> None:
                await asyncio.sleep(0.1)
                got.append(f"state {snapshot.data}")

            room = await client.subscribe(
                "short",
                on_message=lambda message: got.append(str(message.data)),
                on_gap=on_gap,
                get_state=state,
                state_first=True,
                on_snapshot=on_snapshot,
            )
            await publish(world, "short", 1)
            await until(lambda: "1" in got)
            world.network.refuse = True
            client.drop()
            await publish(world, "short", 2, 3, 4, 5)
            total = 15
            world.network.refuse = False
            await until(lambda: len(got) == 4)
            await publish(world, "short", 6)
            await until(lambda: len(got) == 5)
            assert got == ["state 0", "1", "expired", "state 15", "6"]
            await room.unsubscribe()

    play(scenario)


@pytest.mark.parametrize("kind", ["raises", "is cancelled from elsewhere"])
@pytest.mark.parametrize("stop", [False, True])
def test_a_callback_that_fails_is_logged_and_ends_the_subscription_only_if_it_is_to(
    stop: bool, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            got: list[Any] = []

            async def on_message(message: Message) -> None:
                got.append(message.data)
                if message.data == 2 and kind == "raises":
                    raise ValueError("not this one")
                if message.data == 2:
                    future = asyncio.get_running_loop().create_future()
                    future.cancel()
                    await future

            room = await client.subscribe("c", on_message=on_message, stop_on_error=stop)
            await publish(world, "c", 1, 2, 3)
            await asyncio.sleep(1)
            assert room.position is not None
            if stop:
                assert got == [1, 2]
                assert room.position.offset == 1
                assert room.state is SubscriptionState.FAILED
                with pytest.raises(ValueError if kind == "raises" else RuntimeError):
                    await room.wait_ended()
                assert not world.connection().subscriptions
                async with client.subscribe("c", since=room.position) as again:
                    assert data_of(await take(again, 2)) == [2, 3]
            else:
                assert got == [1, 2, 3]
                assert room.position.offset == 3
                await room.unsubscribe()

    with caplog.at_level(logging.ERROR, "everwire.client"):
        play(scenario)
    assert "a callback failed" in caplog.text


def test_a_callback_may_use_the_client_as_it_likes() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            got: list[Any] = []

            async def on_message(message: Message) -> None:
                got.append(message.data)
                if message.data < 3:
                    await client.publish("c", message.data + 1)
                    assert await client.history("c")
                    async with client.subscribe("other"):
                        pass
                else:
                    await room.unsubscribe()

            room = await client.subscribe("c", on_message=on_message)
            await client.publish("c", 1)
            await room.wait_ended()
            assert got == [1, 2, 3]
            assert room.state is SubscriptionState.UNSUBSCRIBED

    play(scenario)


@pytest.mark.parametrize("hang", ["coroutine", "many functions"])
def test_a_slow_callback_holds_up_neither_others_nor_the_heartbeat(hang: str) -> None:
    async def scenario() -> None:
        limits = ClientLimits(queue_messages=10)
        async with node_world() as world, world.client(limits=limits) as client:
            got: list[Any] = []

            async def never(message: Message) -> None:
                await asyncio.Event().wait()

            room = await client.subscribe("slow", on_message=never)
            await client.subscribe("quick", on_message=lambda message: got.append(message.data))
            for n in range(100):
                await publish(world, "slow", n)
                await publish(world, "quick", n)
                await asyncio.sleep(1)
            assert got == list(range(100))
            assert room.state is SubscriptionState.RECOVERING
            assert client.stats.reconnects == 0

    play(scenario)


def test_callbacks_that_never_wait_let_others_have_their_turn() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            calls = 0
            turns: list[int] = []

            def on_message(message: Message) -> None:
                nonlocal calls
                calls += 1

            async def other() -> None:
                while calls < 1_000:
                    turns.append(calls)
                    await asyncio.sleep(0)

            await client.subscribe("c", on_message=on_message)
            room = client._core.subscriptions._wanted["c"]
            for offset in range(1, 1_001):
                room.message(pushed("c", offset), 10)
            await other()
            assert max(b - a for a, b in pairwise(turns)) <= 64
            assert len(script.peers) == 1

    play(scenario)


def test_closing_the_client_hands_over_what_is_queued_first() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            got: list[Any] = []
            room = await client.subscribe("c", on_message=reader("coroutine function", got))
            await publish(world, "c", *range(20))
            await until(lambda: got)
            await client.close()
            assert got == list(range(20))
            await room.wait_ended()

    play(scenario)


def test_a_callback_that_never_ends_does_not_keep_the_client_from_closing() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            cancelled = False

            async def never(message: Message) -> None:
                nonlocal cancelled
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled = True

            room = await client.subscribe("c", on_message=never)
            await publish(world, "c", 1)
            await asyncio.sleep(1)
            began = loop().time()
            await client.close()
            assert cancelled
            assert loop().time() - began <= 3.5
            assert room.position is not None
            assert room.position.offset == 0

    play(scenario)


def test_a_callback_may_close_the_client() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            got: list[Any] = []

            async def on_message(message: Message) -> None:
                await client.close()
                got.append(message.data)

            async def never(message: Message) -> None:
                await asyncio.Event().wait()

            await client.subscribe("d", on_message=never)
            await publish(world, "d", 1)
            room = await client.subscribe("c", on_message=on_message)
            await publish(world, "c", 1)
            await room.wait_ended()
            assert got == [1]
            assert client.state == "closed"

    play(scenario)


def test_what_ends_it_is_raised_where_its_end_is_awaited() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            got: list[Any] = []
            room = await client.subscribe("c", on_message=lambda message: got.append(message.data))
            other = await client.subscribe("d", on_message=lambda message: None)
            script.peers[0].send(pushed("c", 1, "last"), m.Unsubscribed(sid("c"), 202))
            with pytest.raises(Forbidden):
                await room.wait_ended()
            assert got == ["last"]
            script.peers[0].close(4504)
            with pytest.raises(ClosedError):
                await other.wait_ended()

    play(scenario)


def test_each_new_state_is_told_and_a_hook_that_fails_harms_nothing() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            states: list[str] = []

            def on_state(state: SubscriptionState) -> None:
                states.append(state)
                raise ValueError("a hook that fails")

            async with client.subscribe("c", on_state=on_state) as room:
                client.drop()
                await until(lambda: states[-1] == "subscribed" and len(states) > 2)
                await publish(world, "c", 1)
                assert data_of(await take(room, 1)) == [1]
            assert states == [
                "subscribing", "subscribed", "subscribing", "subscribed", "unsubscribed",
            ]  # fmt: skip

    play(scenario)


def test_reading_it_in_two_ways_is_refused_with_the_remedy() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            async with client.subscribe("c", on_message=lambda message: None) as room:
                with pytest.raises(ConfigError, match="on_message"):
                    await anext(room)
            async with client.subscribe("d") as other:
                with pytest.raises(ConfigError, match="on_message"):
                    await other.wait_ended()

    play(scenario)
