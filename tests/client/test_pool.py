"""A pool of clients: opening, choosing, failing over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everwire import (
    ClosedError,
    ClosedOK,
    ConfigError,
    Connection,
    ConnectionClosed,
    DeliveryUnknown,
    Everwire,
    Handlers,
    Message,
    NotSent,
    Pool,
    PoolMember,
    PoolTimeout,
    RequestError,
    StreamInterrupted,
    Unauthorized,
)
from everwire.client import Client
from everwire.protocol import messages as m
from everwire.protocol.states import ConnectionState as State

from .pool_world import addresses
from .world import URL, data_of, loop, node_world, play, take, until


def slow(wire: Everwire) -> None:
    @wire.query
    async def wait(conn: Connection, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return conn.id

    @wire.query
    async def who(conn: Connection) -> str:
        return conn.id


def ready(pool: Pool) -> int:
    return sum(member.state is State.READY for member in pool.members)


# ---- opening ------------------------------------------------------------------------


def test_members_are_opened_one_at_a_time_and_apart() -> None:
    async def scenario() -> None:
        async with addresses(1, latency=0.3) as world, world.pool(5, urls=[URL]) as pool:
            await until(lambda: ready(pool) == 5)
            opened = [r.time for r in world.network.trace if r.kind == "open"]
            began = [r.time for r in world.network.trace if r.kind == "connect"]
            assert len(began) == len(opened) == 5
            # opened: with the server; the client knows of it 0.3 s later
            pauses = [
                start - (open_at + 0.3)
                for start, open_at in zip(began[1:], opened[:-1], strict=True)
            ]
            assert all(0.18 <= pause <= 0.32 for pause in pauses)
            assert len({round(pause, 6) for pause in pauses}) > 1

    play(scenario)


def test_a_host_that_does_not_answer_holds_up_nobody_elses_attempt_time() -> None:
    """A member's connect time-out begins when it is its turn."""

    async def scenario() -> None:
        async with addresses(1) as world:
            world.network.partition()
            pool = world.pool(3, urls=[URL], connect_timeout=2.0, timeout=30.0)
            opening = asyncio.ensure_future(pool.__aenter__())
            await asyncio.sleep(5.0)  # two attempts were given up, one after the other
            world.network.partition(False)
            await opening
            await until(lambda: ready(pool) == 3)
            connects = [r.time for r in world.network.trace if r.kind == "connect"]
            assert connects[1] - connects[0] >= 2.0 and connects[2] - connects[1] >= 2.0
            await pool.close()

    play(scenario)


def test_entering_returns_when_enough_members_are_ready() -> None:
    async def scenario() -> None:
        async with addresses(3) as world:
            world.down(2)
            async with world.pool(min_ready=2) as pool:
                assert ready(pool) == 2
                assert pool.state is State.READY
                world.up(2)
                await until(lambda: ready(pool) == 3)
            async with world.pool(min_ready=0) as pool:
                assert ready(pool) == 0

    play(scenario)


def test_entering_fails_with_the_last_cause_when_too_few_become_ready() -> None:
    async def scenario() -> None:
        async with addresses(2) as world:
            world.down(1)
            with pytest.raises(ConnectionRefusedError) as error:
                await world.pool(min_ready=2, timeout=5.0)
            assert "2 of 2 members" in "".join(error.value.__notes__)
            assert not world.network.links

    play(scenario)


def test_entering_fails_at_once_when_too_many_are_refused_for_good() -> None:
    def declare(wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str) -> Any:
            raise Unauthorized("no")

    async def scenario() -> None:
        async with addresses(2, declare) as world:
            began = loop().time()
            with pytest.raises(Unauthorized):
                await world.pool(token="x")
            assert loop().time() - began < 2.0

    play(scenario)


def test_cancelling_the_entering_ends_every_member() -> None:
    async def scenario() -> None:
        async with addresses(3) as world:
            pool = world.pool(3, urls=[URL], min_ready=3)
            opening = asyncio.ensure_future(pool.__aenter__())
            await asyncio.sleep(0.3)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await asyncio.sleep(1.0)
            assert not world.network.links
            with pytest.raises(ClosedOK):
                pool.publish_nowait("c", 1)

    play(scenario)


def test_a_token_is_fetched_once_for_members_that_want_it_at_the_same_time() -> None:
    def declare(wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str) -> Any:
            from everwire import Identity

            return Identity(token)

    async def scenario() -> None:
        calls = 0

        async def token() -> str:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.5)
            return "ada"

        async with addresses(3, declare) as world:
            async with world.pool(token=token, min_ready=3) as pool:
                assert calls == 1
                assert (await pool.publish("c", 1)).position
                pool.drop()
                await until(lambda: ready(pool) == 0)
                await until(lambda: ready(pool) == 3)
                assert calls > 1  # for new links a new one

    play(scenario)


def test_a_token_provider_that_hangs_or_raises_is_a_failed_attempt() -> None:
    async def scenario() -> None:
        answers: list[Any] = ["hang", ValueError("x"), "ada"]

        async def token() -> str:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer == "hang":
                await asyncio.Event().wait()
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        async with addresses(2) as world, world.pool(token=token) as pool:
            assert pool.state is State.READY
            assert loop().time() > 10.0

    play(scenario)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 17},
        {"min_ready": 4},
        {"min_ready": -1},
        {"strategy": "best"},
        {"max_inflight": 0},
        {"dialect": "none"},
        {"outbox": "file.db"},
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Pool("ws://n/ws", **options)
    with pytest.raises(ConfigError):
        Pool([])
    with pytest.raises(ConfigError):
        Pool("http://n/")


# ---- the interface of a client ---------------------------------------------------------


async def everything(client: Client) -> list[Any]:
    """Code that does not know which of the two it has."""
    async with client.subscribe("c", presence=True) as room:
        await client.publish("c", {"n": 1})
        await client.publish_nowait("c", {"n": 2})
        assert data_of(await take(room, 2)) == [{"n": 1}, {"n": 2}]
        assert (await client.presence("c")).count == 1
    assert [one.data for one in await client.history("c")] == [{"n": 1}, {"n": 2}]
    await client.event("seen", {})
    return [
        await client.query("double", {"n": 3}, type=int),
        await client.command("double_too", {"n": 4}, type=int),
    ]


def test_a_pool_does_what_a_client_does() -> None:
    def declare(wire: Everwire) -> None:
        @wire.query
        async def double(conn: Connection, n: int) -> int:
            return 2 * n

        @wire.command
        async def double_too(conn: Connection, n: int) -> int:
            return 2 * n

    async def scenario() -> None:
        async with node_world(declare) as world:
            async with world.client() as client:
                assert await everything(client) == [6, 8]
        async with addresses(3, declare) as there:
            async with there.pool(min_ready=3) as pool:
                assert await everything(pool) == [6, 8]
                assert pool.stats.acknowledged == 2 and pool.stats.received == 2
                assert sum(one.stats.acknowledged for one in pool.members) == 2
                keyed = pool.keyed("k")
                assert await everything_again(keyed) == 10
                assert keyed.state is State.READY and keyed.stats == pool.stats

    async def everything_again(client: Client) -> int:
        await client.publish("c", 1)
        await client.event("seen", {})
        return await client.query("double", {"n": 5}, type=int)

    play(scenario)


def test_hooks_hear_of_all_members() -> None:
    async def scenario() -> None:
        async with addresses(2) as world:
            pool = world.pool(min_ready=2)
            states: list[State] = []
            events: list[Any] = []

            def state(new: State) -> None:
                states.append(new)
                raise ValueError("a hook that fails harms nobody")

            pool.on_state = state
            pool.keyed("k").on_event = lambda name, data: events.append(name)
            async with pool:
                pool.drop()
                await until(lambda: State.CONNECTING in states)
                await until(lambda: pool.state is State.READY)
                await until(lambda: ready(pool) == 2)
                for connection in world.world.node.connections.values():
                    connection.send(m.Event("hello", {}))
                await until(lambda: events == ["hello", "hello"])
            assert states[-2:] == [State.CLOSING, State.CLOSED]
            assert State.READY in states

    play(scenario)


def test_one_channel_one_subscription() -> None:
    async def scenario() -> None:
        async with addresses(2) as world, world.pool(min_ready=2) as pool:
            async with pool.subscribe("c"):
                with pytest.raises(ConfigError):
                    await pool.subscribe("c").__aenter__()
            async with pool.subscribe("c") as room:
                await pool.publish("c", 1)
                assert data_of(await take(room, 1)) == [1]
                assert "subscriptions=1" in repr(pool)

    play(scenario)


# ---- who takes what -----------------------------------------------------------------


async def publishers_of(pool: Pool, channels: list[str]) -> Counter[int]:
    """Publish to each channel; count the acknowledgements of each member."""
    before = [member.stats.acknowledged for member in pool.members]
    for channel in channels:
        await pool.publish(channel, 0)
    after = [member.stats.acknowledged for member in pool.members]
    return Counter({n: b - a for n, (a, b) in enumerate(zip(before, after, strict=True)) if b > a})


def test_keyed_a_channel_has_its_member_and_channels_spread() -> None:
    async def scenario() -> None:
        async with addresses(3) as world, world.pool(min_ready=3) as pool:
            assert len(await publishers_of(pool, ["c"] * 10)) == 1
            spread = await publishers_of(pool, [f"c{n}" for n in range(60)])
            assert len(spread) == 3 and min(spread.values()) >= 8
            again = await publishers_of(pool, [f"c{n}" for n in range(60)])
            assert again == spread

    play(scenario)


def test_an_explicit_key_goes_before_the_channel() -> None:
    async def scenario() -> None:
        async with addresses(3) as world, world.pool(min_ready=3) as pool:
            keyed = pool.keyed("order 7")
            for n in range(30):
                await keyed.publish(f"c{n}", n)
            counts = [member.stats.acknowledged for member in pool.members]
            assert sorted(counts) == [0, 0, 30]

    play(scenario)


def test_round_robin_takes_turns() -> None:
    async def scenario() -> None:
        async with addresses(3) as world:
            async with world.pool(min_ready=3, strategy="round_robin") as pool:
                assert await publishers_of(pool, ["c"] * 9) == {0: 3, 1: 3, 2: 3}

    play(scenario)


def test_failover_takes_the_first_that_is_ready_and_comes_back_to_it() -> None:
    async def scenario() -> None:
        async with addresses(2) as world:
            async with world.pool(min_ready=2, strategy="failover") as pool:
                assert await publishers_of(pool, ["a", "b"]) == {0: 2}
                world.down(0)
                await until(lambda: pool.members[0].state is not State.READY)
                began = loop().time()
                assert await publishers_of(pool, ["a", "b"]) == {1: 2}
                assert loop().time() - began < 0.1
                world.up(0)
                await until(lambda: ready(pool) == 2)
                assert await publishers_of(pool, ["a", "b"]) == {0: 2}

    play(scenario)


def test_least_inflight_avoids_the_busy_member() -> None:
    async def scenario() -> None:
        async with addresses(2, slow) as world:
            async with world.pool(min_ready=2, strategy="least_inflight") as pool:
                waiting = [
                    asyncio.ensure_future(pool.query("wait", {"seconds": 5.0})) for _ in range(20)
                ]
                await asyncio.sleep(0.5)
                assert [member.requests for member in pool.members] == [10, 10]
                for one in waiting:
                    await one
                assert [member.requests for member in pool.members] == [0, 0]

    play(scenario)


def test_a_function_chooses_and_its_failures_harm_nobody() -> None:
    async def scenario() -> None:
        seen: list[tuple[int, str | None]] = []
        fails: list[Any] = []

        def last(members: Any, key: str | None) -> PoolMember:
            assert all(type(member) is PoolMember for member in members)
            seen.append((len(members), key))
            if fails:
                return fails[0]  # type: ignore[no-any-return]
            chosen: PoolMember = members[-1]
            return chosen

        async with addresses(3, slow) as world:
            async with world.pool(min_ready=3, strategy=last) as pool:
                assert await publishers_of(pool, ["a", "b"]) == {2: 2}
                await pool.query("who")
                assert seen == [(3, "a"), (3, "b"), (3, None)]
                fails.append("nobody")
                assert (await publishers_of(pool, ["a", "b"])).total() == 2
                await pool.query("who")

    play(scenario)


# ---- requests -----------------------------------------------------------------------


def test_no_member_ready_an_error_says_what_they_are_at() -> None:
    async def scenario() -> None:
        async with addresses(2, slow) as world, world.pool(min_ready=2) as pool:
            world.down(0)
            world.down(1)
            await asyncio.sleep(3.0)
            began = loop().time()
            with pytest.raises(PoolTimeout) as error:
                await pool.query("who")
            assert isinstance(error.value, NotSent) and isinstance(error.value, TimeoutError)
            assert loop().time() - began == pytest.approx(5.0)
            text = str(error.value)
            assert "member 0" in text and "member 1" in text
            assert text.count("ConnectionRefusedError") == 2
            with pytest.raises(PoolTimeout):
                await pool.event("e")
            began = loop().time()
            with pytest.raises(PoolTimeout):
                await pool.command("x", timeout=1.0)
            assert loop().time() - began == pytest.approx(1.0)
            world.up(0)
            assert await pool.query("who")

    play(scenario)


def test_who_waits_for_a_member_is_served_in_turn() -> None:
    async def scenario() -> None:
        async with addresses(1, slow) as world:
            async with world.pool(max_inflight=1, acquire_timeout=60.0) as pool:
                order: list[int] = []

                async def ask(n: int) -> None:
                    await pool.query("wait", {"seconds": 1.0}, timeout=60.0)
                    order.append(n)

                tasks = [asyncio.ensure_future(ask(n)) for n in range(5)]
                await asyncio.sleep(0.5)
                tasks[2].cancel()
                await asyncio.wait(tasks)
                assert order == [0, 1, 3, 4]
                assert pool.members[0].requests == 0

    play(scenario)


def test_who_gives_up_in_the_moment_of_its_turn_leaves_it_to_the_next() -> None:
    async def scenario() -> None:
        async with addresses(1, slow) as world:
            async with world.pool(max_inflight=1) as pool:
                members = pool._pool.members
                member = await members.acquire(None, 1.0)
                waiting = [asyncio.ensure_future(members.acquire(None, 1.0)) for _ in range(2)]
                await asyncio.sleep(0)
                members.release(member)
                waiting[0].cancel()  # it has its turn, and does not know yet
                assert await waiting[1] is member
                members.release(member)
                assert member.requests == 0

    play(scenario)


def test_a_member_has_so_many_requests_under_way_and_no_more() -> None:
    async def scenario() -> None:
        async with addresses(2, slow) as world:
            async with world.pool(min_ready=2, max_inflight=2, acquire_timeout=1.0) as pool:
                asking = [
                    asyncio.ensure_future(pool.query("wait", {"seconds": 3.0})) for _ in range(6)
                ]
                await asyncio.sleep(0.5)
                assert [member.requests for member in pool.members] == [2, 2]
                done, _ = await asyncio.wait(asking)
                late = [t for t in done if isinstance(t.exception(), PoolTimeout)]
                assert len(late) == 2
                assert "2 requests under way" in str(late[0].exception())

    play(scenario)


def test_a_query_goes_to_a_member_that_is_ready() -> None:
    async def scenario() -> None:
        async with addresses(3, slow) as world, world.pool(min_ready=3) as pool:
            world.down(0)
            world.down(1)
            await asyncio.sleep(0.1)
            began = loop().time()
            for n in range(20):
                await pool.keyed(f"k{n}").query("who")
            assert loop().time() - began < 1.0

    play(scenario)


@pytest.mark.parametrize("kind", ["query", "command"])
def test_what_may_be_asked_twice_is_asked_of_another_when_a_member_ends(kind: str) -> None:
    runs: list[str] = []

    def declare(wire: Everwire) -> None:
        async def work(conn: Connection) -> str:
            runs.append(conn.id)
            await asyncio.sleep(1.0)
            return "done"

        wire.query(work) if kind == "query" else wire.command(work)

    async def scenario() -> None:
        async with addresses(2, declare) as world, world.pool(min_ready=2) as pool:
            ask = pool.query if kind == "query" else pool.command
            asking = asyncio.ensure_future(ask("work"))
            await until(lambda: runs)
            busy = next(c for c in world.world.node.connections.values() if c.id == runs[0])
            busy.close(4504, "by the administrator")
            assert await asking == "done"
            assert len(runs) == (2 if kind == "query" else 1)
            assert [one.state for one in pool.members].count(State.CLOSED) == 1
            assert pool.state is State.READY

    play(scenario)


def test_what_must_not_be_asked_twice_is_not() -> None:
    runs: list[str] = []

    def declare(wire: Everwire) -> None:
        @wire.command
        async def work(conn: Connection) -> None:
            runs.append(conn.id)
            await asyncio.sleep(1.0)

    async def scenario() -> None:
        async with addresses(2, declare) as world, world.pool(min_ready=2) as pool:
            asking = asyncio.ensure_future(pool.command("work", key=False))
            await until(lambda: runs)
            busy = next(c for c in world.world.node.connections.values() if c.id == runs[0])
            busy.close(4504, "by the administrator")
            with pytest.raises(DeliveryUnknown):
                await asking
            assert len(runs) == 1

    play(scenario)


# ---- ending -------------------------------------------------------------------------


def test_when_all_members_ended_the_pool_has() -> None:
    async def scenario() -> None:
        async with addresses(2) as world:
            pool = await world.pool(min_ready=2)
            states: list[State] = []
            pool.on_state = states.append
            room = await pool.subscribe("c").__aenter__()
            for connection in list(world.world.node.connections.values()):
                connection.close(4504, "out")
            await until(lambda: pool.state is State.CLOSED)
            assert states[-1] is State.CLOSED
            with pytest.raises(ClosedError) as error:
                await pool.publish("c", 1)
            assert error.value.code == 4504
            with pytest.raises(ClosedError):
                await anext(room)
            with pytest.raises(ClosedError):
                await pool.query("x")
            await pool.close()

    play(scenario)


def test_close_waits_for_acknowledgements_and_twice_is_once() -> None:
    async def scenario() -> None:
        async with addresses(3) as world:
            pool = await world.pool(min_ready=3)
            futures = [pool.publish_nowait(f"c{n}", n) for n in range(30)]
            room = await pool.subscribe("x").__aenter__()
            closing = asyncio.ensure_future(pool.close())
            await pool.close()
            await closing
            assert all(future.result().position for future in futures)
            assert [item async for item in room] == []
            with pytest.raises(ClosedOK):
                pool.publish_nowait("c", 1)
            assert pool.state is State.CLOSED
            assert not world.network.links

    play(scenario)


def test_cancelling_close_drops_the_connections_at_once() -> None:
    async def scenario() -> None:
        async with addresses(3) as world:
            pool = await world.pool(min_ready=3)
            for link in world.network.links:
                link.freeze()
            future = pool.publish_nowait("c", 1)
            closing = asyncio.ensure_future(pool.close())
            await asyncio.sleep(0.1)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert future.exception()
            await pool.close()

    play(scenario)


def test_a_query_that_waits_for_a_member_ends_with_the_pool() -> None:
    async def scenario() -> None:
        async with addresses(1) as world:
            pool = await world.pool()
            world.down(0)
            await asyncio.sleep(0.1)
            asking = asyncio.ensure_future(pool.query("who"))
            await asyncio.sleep(0.1)
            await pool.close()
            with pytest.raises(ClosedOK):
                await asking

    play(scenario)


def test_a_pool_is_told_apart_from_one_that_was_never_opened() -> None:
    async def scenario() -> None:
        async with addresses(1) as world:
            pool = world.pool()
            with pytest.raises(ConfigError, match="open the pool first"):
                await pool.publish("c", 1)
            await pool.close()
            await asyncio.sleep(1)
            assert not world.network.links

    play(scenario)


# ---- streams, and what the server asks -------------------------------------------------


def streaming(wire: Everwire) -> None:
    @wire.query
    async def count(conn: Connection, to: int) -> AsyncIterator[int]:
        for n in range(to):
            yield n
            await asyncio.sleep(0.01)


def test_streams_come_over_any_member_and_say_when_it_is_lost() -> None:
    async def scenario() -> None:
        async with addresses(3, streaming) as world, world.pool(min_ready=3) as pool:
            async with pool.stream("count", {"to": 40}, type=int) as numbers:
                assert [n async for n in numbers] == list(range(40))
            got: list[int] = []
            with pytest.raises(StreamInterrupted) as error:
                async with pool.keyed("k").stream("count", {"to": 1_000}, type=int) as numbers:
                    async for n in numbers:
                        got.append(n)
                        if n == 20:
                            pool.drop()
            assert got == list(range(error.value.parts))

    play(scenario)


def test_handlers_are_given_the_pool() -> None:
    handlers = Handlers()
    given: list[Client] = []

    @handlers.query
    async def relay(client: Client, text: str) -> int:
        given.append(client)
        ack = await client.publish("c", text)
        assert ack.position is not None
        return ack.position.offset

    async def scenario() -> None:
        async with addresses(2) as world:
            async with world.pool(min_ready=2, handlers=handlers) as pool:
                for connection in list(world.world.node.connections.values()):
                    await world.world.wire.request(connection, "relay", {"text": "x"})
                assert given == [pool, pool]
                assert not pool._pool.members._routes

    play(scenario)


def test_a_handler_may_close_the_pool() -> None:
    handlers = Handlers()
    closed: list[bool] = []

    @handlers.query
    async def leave(client: Client) -> None:
        await client.close()
        closed.append(client.state is State.CLOSED)

    async def scenario() -> None:
        async with addresses(3) as world:
            pool = await world.pool(min_ready=3, handlers=handlers)
            room = await pool.subscribe("c").__aenter__()
            connection = list(world.world.node.connections.values())[1]
            with pytest.raises((RequestError, ConnectionClosed)):
                await world.world.wire.request(connection, "leave", timeout=5.0)
            await until(lambda: closed == [True])
            assert not world.network.links
            assert [item async for item in room] == []

    play(scenario)


def test_a_callback_may_close_the_pool() -> None:
    async def scenario() -> None:
        async with addresses(2) as world:
            pool = await world.pool(min_ready=2)

            async def last(message: Message) -> None:
                await pool.close()

            await pool.subscribe("c", on_message=last)
            await pool.publish("c", 1)
            await until(lambda: pool.state is State.CLOSED)
            assert not world.network.links

    play(scenario)
