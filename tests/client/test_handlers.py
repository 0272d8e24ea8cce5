"""What a server asks of its clients: each once, answered, bounded, cancelled; nothing re-entrant
is forbidden."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from everwire import (
    BadData,
    BadRequest,
    Client,
    ClientLimits,
    ClosedError,
    ConfigError,
    Connection,
    DeliveryUnknown,
    Everwire,
    Forbidden,
    Handlers,
    Identity,
    NotSent,
    RequestError,
    RequestTimeout,
    Unavailable,
    connect,
    from_thread,
)
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Direction, Network

from .world import FAST, Script, client_to, loop, node_world, play, until

LOG: list[Any] = []


class Point(msgspec.Struct):
    x: int
    y: int = 0


def serving() -> Handlers:
    LOG.clear()
    handlers = Handlers()

    @handlers.query
    async def double(client: Client, n: int) -> int:
        return 2 * n

    @handlers.query
    async def move(client: Client, payload: Point) -> Point:
        return Point(payload.x + 1, payload.y + 1)

    @handlers.query
    async def slow(client: Client, seconds: float) -> str:
        LOG.append("began")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            LOG.append("cancelled")
            raise
        LOG.append("done")
        return "done"

    @handlers.query
    async def fails(client: Client, how: str) -> Any:
        if how == "refuses":
            raise Forbidden("not me", details={"why": 1})
        if how == "times out":
            raise TimeoutError("of its own")
        if how == "odd":
            return object()
        if how == "big":
            return "x" * 2_000_000
        raise ValueError("s3cret")

    @handlers.command
    async def store(client: Client, n: int, seconds: float = 0.0) -> int:
        LOG.append(n)
        await asyncio.sleep(seconds)
        return len(LOG)

    @handlers.event
    async def told(client: Client, n: int, seconds: float = 0.0) -> None:
        LOG.append(n)
        await asyncio.sleep(seconds)
        if n < 0:
            raise ValueError("s3cret")

    return handlers


def authenticating(wire: Everwire) -> None:
    @wire.authenticate
    async def who(token: str) -> Identity:
        tenant, _, user = token.rpartition("/")
        return Identity(user, tenant=tenant)


# ---- to a connection -----------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_a_connection_is_asked_and_answers(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            async with world.client(dialect=dialect, handlers=serving()):
                conn = world.connection()
                assert await conn.query("double", {"n": 21}) == 42
                assert await conn.query("double", {"n": 21}, type=int) == 42
                assert await conn.query("move", Point(1), type=Point) == Point(2, 1)
                assert await conn.command("store", {"n": 5}) == 1
                assert await world.wire.request(conn, "double", {"n": 1}, type=int) == 2
                assert await world.wire.request(conn, "store", {"n": 5}, kind="command") == 2
                await conn.event("told", {"n": 7})
                await until(lambda: LOG == [5, 5, 7])
                with pytest.raises(BadData, match="query 'double' is no"):
                    await conn.query("double", {"n": 1}, type=str)
                with pytest.raises(BadData):
                    await conn.query("double", object())

    play(scenario)


def test_an_error_of_the_client_is_told_whole_only_if_it_was_meant_to_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(handlers=serving()):
            conn = world.connection()
            with pytest.raises(Forbidden, match="not me") as refused:
                await conn.query("fails", {"how": "refuses"})
            assert refused.value.details == {"why": 1}
            for how in ("raises", "odd", "times out"):
                with pytest.raises(RequestError) as error:
                    await conn.query("fails", {"how": how})
                assert error.value.code == ErrorCode.INTERNAL
                assert "s3cret" not in str(error.value)
            with pytest.raises(RequestError) as error:
                await conn.query("fails", {"how": "big"})
            assert error.value.code == ErrorCode.TOO_BIG
            with pytest.raises(BadRequest, match="'m'"):
                await conn.query("double", {"m": 1})
            for ask in (conn.query, conn.command):
                with pytest.raises(RequestError, match="serves no") as unknown:
                    await ask("nothing")
                assert unknown.value.code == ErrorCode.UNKNOWN_TYPE
            assert "s3cret" in caplog.text  # here, and nowhere else

    play(scenario)


def test_the_time_is_enforced_by_both_sides() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(handlers=serving()) as client:
            conn = world.connection()
            began = loop().time()
            with pytest.raises(RequestTimeout):
                await conn.query("slow", {"seconds": 60.0}, timeout=1.5)
            assert loop().time() - began == pytest.approx(1.5, abs=0.1)
            await until(lambda: LOG == ["began", "cancelled"], within=1)
            with pytest.raises(DeliveryUnknown):
                await conn.command("store", {"n": 1, "seconds": 60.0}, timeout=1)
            await until(lambda: not client._core.answering, within=1)

            world.network.links[0].freeze(Direction.TO_SERVER)  # nothing is heard of it
            LOG.clear()
            with pytest.raises(RequestTimeout):
                await conn.query("slow", {"seconds": 0.0}, timeout=2)
            with pytest.raises(DeliveryUnknown):
                await conn.command("store", {"n": 2}, timeout=2)
            assert LOG == ["began", "done", 2]
            assert not conn.asked
            world.network.links[0].thaw()
            await asyncio.sleep(1)  # the late answers reach nobody
            assert await conn.query("double", {"n": 2}) == 4

    play(scenario)


def test_a_handler_is_stopped_in_time_even_if_the_server_says_nothing_more() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        limits = ClientLimits(request_timeout=3.0)
        async with client_to(network, handlers=serving(), limits=limits):
            script.peers[0].send(
                m.Query(1, "slow", {"seconds": 60.0}, 1_000),
                m.Command(2, "store", {"n": 1, "seconds": 60.0}),
            )
            await asyncio.sleep(1.5)
            (error,) = script.peers[0].of(m.Error)
            assert (error.request_id, error.code, error.outcome) == (1, ErrorCode.TIMEOUT, "none")
            await asyncio.sleep(2)
            error = script.peers[0].of(m.Error)[1]
            assert (error.request_id, error.code, error.outcome) == (2, 102, "unknown")
            assert LOG == ["began", 1, "cancelled"]

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_cancelling_on_the_server_cancels_the_clients_handler(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            async with world.client(dialect=dialect, handlers=serving()) as client:
                conn = world.connection()
                ask = conn.query("slow", {"seconds": 60.0}, timeout=100)
                task = asyncio.get_running_loop().create_task(ask)
                await asyncio.sleep(1)
                task.cancel()
                await until(lambda: LOG == ["began", "cancelled"], within=1)
                assert not client._core.answering
                assert not conn.asked

    play(scenario)


def test_a_drop_is_an_end_for_a_query_and_unknown_for_a_command() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            async with world.client(handlers=serving(), limits=FAST) as client:
                conn = world.connection()
                create = asyncio.get_running_loop().create_task
                query = create(conn.query("slow", {"seconds": 5.0}))
                command = create(conn.command("store", {"n": 1, "seconds": 5.0}))
                await asyncio.sleep(1)
                client.drop()
                with pytest.raises(ClosedError, match="lost before query 'slow'"):
                    await query
                with pytest.raises(DeliveryUnknown, match="may have run"):
                    await command
                await until(lambda: client.stats.reconnects == 1)
                await asyncio.sleep(10)
                assert LOG == ["began", 1, "cancelled"]  # neither is tried again
                with pytest.raises(NotSent):
                    await conn.query("double", {"n": 1})
                assert await world.connection().query("double", {"n": 1}) == 2

    play(scenario)


def test_more_handlers_than_are_allowed_are_refused_as_unavailable() -> None:
    async def scenario() -> None:
        limits = ClientLimits(handlers=3)
        async with node_world() as world:
            async with world.client(handlers=serving(), limits=limits) as client:
                conn = world.connection()
                create = asyncio.get_running_loop().create_task
                running = [create(conn.query("slow", {"seconds": 5.0})) for _ in range(3)]
                await asyncio.sleep(1)
                with pytest.raises(Unavailable, match="most allowed") as error:
                    await conn.query("double", {"n": 1})
                assert error.value.temporary
                await conn.event("told", {"n": 1})
                assert [await each for each in running] == ["done"] * 3
                assert 1 not in LOG  # an event is dropped
                assert await conn.query("double", {"n": 1}) == 2
                assert not client._core.answering

    play(scenario)


def test_the_server_keeps_only_so_many_unanswered() -> None:
    async def scenario() -> None:
        async with node_world(limits=Limits(asked=3)) as world:
            async with world.client(handlers=serving()):
                conn = world.connection()
                create = asyncio.get_running_loop().create_task
                asked = [create(conn.query("slow", {"seconds": 5.0})) for _ in range(3)]
                await asyncio.sleep(1)
                with pytest.raises(Unavailable, match="later"):
                    await conn.query("double", {"n": 1})
                assert [await each for each in asked] == ["done"] * 3

    play(scenario)


def test_handlers_that_ask_the_client_back_cannot_block_its_connection() -> None:
    """At the limit of requests in flight nothing is read: its answers would never come."""

    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            @wire.query
            async def ask_back(conn: Connection, n: int) -> int:
                return await conn.query("double", {"n": n}, type=int)

        async with node_world(declare, limits=Limits(inflight=8)) as world:
            async with world.client(handlers=serving()) as client:
                began = loop().time()

                async def one(n: int) -> int:
                    try:
                        return await client.query("ask_back", {"n": n}, type=int)
                    except Unavailable:
                        return -1

                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(n)) for n in range(100)]
                answers = [task.result() for task in tasks]
                assert loop().time() - began < 5
                assert all(got in (2 * n, -1) for n, got in enumerate(answers))
                assert sum(got >= 0 for got in answers) >= 4

    play(scenario)


def test_a_plain_connection_is_asked_nothing() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(dialect="plain", handlers=serving()):
            with pytest.raises(RequestError, match="plain"):
                await world.connection().query("double", {"n": 1})
            await world.connection().event("told", {"n": 1})
            await until(lambda: LOG == [1])

    play(scenario)


def test_an_id_in_flight_is_refused_and_an_answer_to_nothing_is_ignored() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network, handlers=serving()):
            query = m.Query(7, "slow", {"seconds": 1.0})
            script.peers[0].send(query, query, m.Cancel(99), m.Response(99, 1))
            await asyncio.sleep(0.1)
            (error,) = script.peers[0].of(m.Error)
            assert (error.request_id, error.code) == (7, ErrorCode.DUPLICATE_ID)
            await asyncio.sleep(2)
            (response,) = script.peers[0].of(m.Response)
            assert response.payload == "done"
        async with node_world() as world, world.client(handlers=serving()) as client:
            link = client._core.session.link
            assert link is not None
            link.send(m.Response(99, 1))
            link.send(m.Error(99, 500, "internal", "?"))
            link.send(m.Error(None, 500, "internal", "?"))
            assert await world.connection().query("double", {"n": 1}) == 2
            assert world.node.counters["unexpected_messages"] == 3

    play(scenario)


# ---- to a user -----------------------------------------------------------------------------


def by_name(name: str, seconds: float = 0.0, refuse: bool = False) -> Handlers:
    handlers = Handlers()

    @handlers.query
    async def which(client: Client) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            LOG.append(f"{name} cancelled")
            raise
        if refuse:
            raise Forbidden(name)
        return name

    @handlers.command
    async def do(client: Client) -> str:
        LOG.append(name)
        return name

    return handlers


def test_of_a_query_to_a_user_the_first_answer_wins_and_the_others_are_cancelled() -> None:
    async def scenario() -> None:
        LOG.clear()
        async with node_world(authenticating) as world:
            async with (
                world.client(token="t/ada", handlers=by_name("slow", 5.0)),
                world.client(token="t/ada", handlers=by_name("no", 0.1, refuse=True)),
                world.client(token="t/ada", handlers=by_name("quick", 1.0)),
                world.client(token="t/ada"),
                world.client(token="t/bob", handlers=by_name("bob")),
                world.client(token="other/ada", handlers=by_name("other")),
            ):
                assert await world.wire.request("ada", "which", tenant="t") == "quick"
                await until(lambda: LOG == ["slow cancelled"], within=1)
                assert await world.wire.request("ada", "which", tenant="other") == "other"
                with pytest.raises(Unavailable, match="no connection"):
                    await world.wire.request("ada", "which")

    play(scenario)


def test_where_all_fail_the_failure_of_one_who_knows_the_query_is_raised() -> None:
    async def scenario() -> None:
        async with node_world(authenticating) as world:
            async with (
                world.client(token="ada"),
                world.client(token="ada", handlers=by_name("no", 0.5, refuse=True)),
            ):
                with pytest.raises(Forbidden, match="no"):
                    await world.wire.request("ada", "which")
                with pytest.raises(RequestError) as error:
                    await world.wire.request("ada", "nothing")
                assert error.value.code == ErrorCode.UNKNOWN_TYPE

    play(scenario)


def test_a_command_to_a_user_needs_exactly_one_connection() -> None:
    async def scenario() -> None:
        LOG.clear()
        async with node_world(authenticating) as world:

            async def command() -> Any:
                return await world.wire.request("ada", "do", kind="command")

            async def ambiguous() -> None:
                with pytest.raises(RequestError) as error:
                    await command()
                assert error.value.code == ErrorCode.AMBIGUOUS_TARGET

            await ambiguous()
            async with world.client(token="ada", handlers=by_name("one")):
                assert await command() == "one"
                async with world.client(token="ada", handlers=by_name("two")):
                    await ambiguous()
                await until(lambda: len(world.node.connections) == 1)
                assert await command() == "one"
            await until(lambda: not world.node.connections)
            await ambiguous()
            assert not world.node.users._found  # nobody is kept who is gone
            assert LOG == ["one", "one"]
            with pytest.raises(ConfigError, match="whom"):
                await world.wire.request("", "which")

    play(scenario)


# ---- inside a handler ----------------------------------------------------------------------


def test_any_method_of_the_client_may_be_called_in_a_handler() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            @wire.query
            async def depth(conn: Connection, n: int) -> int:
                return 1 + (await conn.query("depth", {"n": n - 1}, type=int) if n else 0)

        handlers = Handlers()

        @handlers.query
        async def depth(client: Client, n: int) -> int:
            return 1 + (await client.query("depth", {"n": n - 1}, type=int) if n else 0)

        @handlers.query
        async def everything(client: Client) -> list[Any]:
            ack = await client.publish("c", 1)
            assert ack.position is not None
            await client.event("nobody", 1)
            async with client.subscribe("c") as room:
                await client.publish("c", 2)
                item = await anext(room)
            return [ack.position.offset, item.data, str(client.state)]  # type: ignore[union-attr]

        @handlers.command
        async def leave(client: Client) -> None:
            LOG.append("leaving")
            await client.close()
            LOG.append("left")

        @handlers.event
        async def again(client: Client) -> None:
            client.drop()
            LOG.append(await client.query("depth", {"n": 0}))

        async with node_world(declare) as world:
            LOG.clear()
            async with world.client(handlers=handlers, limits=FAST) as client:
                assert await client.query("depth", {"n": 20}) == 21
                assert await world.connection().query("everything") == [1, 2, "ready"]
                await world.connection().event("again", {})
                await until(lambda: LOG == [1])
                LOG.clear()
                with pytest.raises(DeliveryUnknown):
                    await world.connection().command("leave")
                await until(lambda: LOG == ["leaving", "left"])
                assert str(client.state) == "closed"

    play(scenario)


def test_a_plain_handler_runs_in_a_thread_and_reaches_the_loop() -> None:
    threads: list[threading.Thread] = []
    handlers = Handlers()

    @handlers.query
    def blocking(client: Client, n: int) -> int:
        threads.append(threading.current_thread())
        with pytest.raises(RuntimeError, match="from_thread"):
            client.query("twice", {"n": n})  # type: ignore[unused-coroutine]
        return from_thread.run(client.query, "twice", {"n": n}) + 1  # type: ignore[no-any-return]

    async def main() -> None:
        wire = Everwire()

        @wire.query
        async def twice(conn: Connection, n: int) -> int:
            return 2 * n

        async with wire.listen(port=0) as server:
            url = f"ws://127.0.0.1:{server.port}/ws"
            async with connect(url, handlers=handlers):
                (conn,) = wire.node.connections.values()
                assert await conn.query("blocking", {"n": 4}) == 9
                assert threads[0] is not threading.current_thread()

    asyncio.run(main(), debug=True)


# ---- events, declarations, ends ------------------------------------------------------------


def test_an_event_reaches_its_handler_and_the_hook() -> None:
    async def scenario() -> None:
        heard: list[Any] = []
        async with node_world() as world, world.client(handlers=serving()) as client:
            client.on_event = lambda name, data: heard.append((name, data))
            for n in (1, -1, 2):
                await world.connection().event("told", {"n": n})
            await world.connection().event("nobody", None)
            await world.connection().event("told", {"m": 1})
            await until(lambda: len(heard) == 5)
            await asyncio.sleep(0.1)
            assert LOG == [1, -1, 2]
            assert [name for name, _ in heard] == ["told", "told", "told", "nobody", "told"]
            with pytest.raises(RequestError, match="too big"):
                await world.connection().event("told", "x" * 2_000_000)

    play(scenario)


def test_the_end_of_the_client_ends_its_handlers() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client(handlers=serving())
            conn = world.connection()
            asked = asyncio.get_running_loop().create_task(conn.query("slow", {"seconds": 60.0}))
            await asyncio.sleep(1)
            await client.close()
            assert LOG == ["began", "cancelled"]
            with pytest.raises((ClosedError, RequestError)):
                await asked

    play(scenario)


def test_what_cannot_be_a_handler_is_refused_where_it_is_declared() -> None:
    handlers = serving()
    with pytest.raises(ConfigError, match="client: Client"):

        @handlers.query
        async def no_client(x: int) -> int:
            return x

    with pytest.raises(ConfigError, match="client as its first"):

        @handlers.event
        async def nothing() -> None: ...

    with pytest.raises(ConfigError, match="twice"):

        @handlers.query
        async def double(client: Client) -> None: ...

    with pytest.raises(ConfigError, match="yields"):

        @handlers.query
        async def stream(client: Client) -> Any:
            yield 1

    assert "double" in repr(handlers)


def test_what_a_node_announces_is_what_it_can() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            link = client._core.session.link
            assert link is not None
            assert link.hello is not None
            assert {"streams", "requests"} <= set(link.hello.features)
            assert link.hello.limits["streams"] == world.node.limits.streams

    play(scenario)
