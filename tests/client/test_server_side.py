"""Server-side subscriptions, end to end: the server subscribes, the client goes on with it."""

from __future__ import annotations

import asyncio

import pytest

from everwire import ClientLimits, Connection, Everwire, Forbidden, Grant, Identity, Position
from everwire.client import Message

from .pool_world import addresses
from .world import FAST, data_of, node_world, play, quiet, take, until


def declare(wire: Everwire) -> None:
    """``own:{user}`` is each user's; ``given:…`` nobody may subscribe to by oneself."""
    wire.channel("own:{user}", own=True)

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token)

    @wire.channel("given:{name}")
    async def given(conn: Connection, name: str) -> Grant:
        raise Forbidden("it is given")

    @wire.on_connect
    async def came(conn: Connection) -> str:
        return "given:news"


def test_a_client_follows_what_it_is_given_over_drops_and_misses_nothing() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world:
            told: list[str] = []
            starts: dict[str, Position] = {}
            client = world.client(token="ada", limits=FAST)

            def subscribed(channel: str, start: Position) -> None:
                told.append(channel)
                starts[channel] = start

            client.on_subscribed = subscribed
            async with client:
                await until(lambda: len(told) == 2)
                assert sorted(told) == ["given:news", "own:ada"]
                await world.wire.publish("given:news", "before it listens")
                async with (
                    client.subscribe("given:news", since=starts["given:news"]) as news,
                    client.subscribe("own:ada", since=starts["own:ada"]) as own,
                ):
                    for number in range(5):
                        await world.wire.publish(world.wire.user_channel("ada"), number)
                        client.drop()
                        await world.wire.publish("given:news", number)
                        await asyncio.sleep(number)
                    items = await take(news, 6)
                    assert data_of(items) == ["before it listens", 0, 1, 2, 3, 4]
                    assert data_of(await take(own, 5)) == [0, 1, 2, 3, 4]
                    assert all(isinstance(item, Message) for item in items)
                    await quiet(news)
                    # who has a channel already is not told of it again
                    assert sorted(told) == ["given:news", "own:ada"]
            assert world.node.counters["gaps"] == 0

    play(scenario)


def test_whoever_listens_late_is_told_what_was_given_before_once_and_not_what_it_has() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world:
            told: list[str] = []
            async with world.client(token="ada", limits=FAST) as client:
                await asyncio.sleep(1)
                async with client.subscribe("own:ada"):
                    client.on_subscribed = lambda channel, start: told.append(channel)
                    assert told == ["given:news"]
                    client.on_subscribed = lambda channel, start: told.append(channel)
                    assert told == ["given:news"]

    play(scenario)


def test_whoever_listens_late_is_not_told_of_what_an_earlier_connection_was_given() -> None:
    async def scenario() -> None:
        def once(wire: Everwire) -> None:
            declare(wire)

            @wire.command
            async def join(conn: Connection) -> None:
                await conn.subscribe("given:once")

        async with node_world(once) as world:
            told: list[str] = []
            async with world.client(token="ada", limits=FAST) as client:
                await client.command("join")
                client.drop()
                await until(lambda: client.stats.reconnects == 1)
                await asyncio.sleep(1)
                client.on_subscribed = lambda channel, start: told.append(channel)
                assert sorted(told) == ["given:news", "own:ada"]

    play(scenario)


def test_whoever_listens_late_to_a_pool_is_told_of_each_channel_that_it_has_not() -> None:
    async def scenario() -> None:
        async with addresses(2, declare) as world, world.pool(token="ada", min_ready=2) as pool:
            told: list[str] = []
            await asyncio.sleep(1)
            async with pool.subscribe("own:ada"):
                pool.on_subscribed = lambda channel, start: told.append(channel)
                assert told == ["given:news"]

    play(scenario)


def test_what_the_application_does_not_take_up_is_told_on_each_connection() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world:
            told: list[str] = []
            client = world.client(token="ada", limits=FAST)
            client.on_subscribed = lambda channel, start: told.append(channel)
            async with client:
                await until(lambda: len(told) == 2)
                await world.wire.publish("given:news", "nobody takes it")
                client.drop()
                await until(lambda: len(told) == 4)
                assert sorted(told) == ["given:news"] * 2 + ["own:ada"] * 2

    play(scenario)


def test_who_has_a_channel_is_not_told_of_it_though_the_server_comes_first() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world:
            told: list[str] = []
            limits = ClientLimits(first_retry=0.2, backoff_base=0.2, subscribe_batch=1)
            client = world.client(token="ada", limits=limits)
            client.on_subscribed = lambda channel, start: told.append(channel)
            async with client:
                await until(lambda: len(told) == 2)
                async with (
                    client.subscribe("other", priority=9),
                    client.subscribe("given:news") as news,
                ):
                    client.drop()
                    for number in range(20):
                        await world.wire.publish("given:news", number)
                        await asyncio.sleep(0.1)
                    assert data_of(await take(news, 20)) == list(range(20))
                    assert told.count("given:news") == 1

    play(scenario)


def test_a_subscription_that_the_application_ends_ends_at_the_client() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world:
            starts: dict[str, Position] = {}
            client = world.client(token="ada", limits=FAST)
            client.on_subscribed = lambda channel, start: starts.update({channel: start})
            async with client:
                await until(lambda: len(starts) == 2)
                async with client.subscribe("given:news", since=starts["given:news"]) as news:
                    await world.wire.publish("given:news", 1)
                    assert data_of(await take(news, 1)) == [1]
                    assert await world.wire.unsubscribe("ada", "given:news") == 1
                    with pytest.raises(Forbidden):
                        await take(news, 1)

    play(scenario)
