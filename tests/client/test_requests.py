"""Queries are safe and asked again; commands run once; both end in time."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from everwire import (
    BadData,
    ClosedError,
    ClosedOK,
    Connection,
    DeliveryUnknown,
    Everwire,
    Forbidden,
    Identity,
    NotSent,
    RequestError,
    RequestTimeout,
)
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Direction, Network

from .world import FAST, Peer, Script, client_to, loop, node_world, play, until, welcome

RUNS: list[Any] = []


def declare(wire: Everwire) -> None:
    RUNS.clear()

    @wire.query
    async def double(conn: Connection, n: int) -> int:
        return 2 * n

    @wire.query
    async def slow(conn: Connection, seconds: float) -> str:
        RUNS.append(seconds)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            RUNS.append("cancelled")
            raise
        return "done"

    @wire.query
    async def nothing(conn: Connection) -> dict[str, Any]:
        return {"at": datetime(2026, 1, 2, tzinfo=UTC), "names": ["a"]}

    @wire.query
    async def refuses(conn: Connection) -> None:
        raise Forbidden("not you", details={"why": 1}, retry_after=1.5)

    @wire.command
    async def add(conn: Connection, n: int, seconds: float = 0.0) -> int:
        RUNS.append(n)
        await asyncio.sleep(seconds)
        return len(RUNS)


def by_name(wire: Everwire) -> None:
    declare(wire)

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token)


class Answer(msgspec.Struct):
    at: datetime
    names: list[str]


@pytest.mark.parametrize("dialect", ["msgpack", "json", "plain"])
def test_an_answer_comes_back_as_the_type_asked_for(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(dialect=dialect) as client:
            assert await client.query("double", {"n": 21}) == 42
            assert await client.query("double", {"n": 21}, type=int) == 42
            answer = await client.query("nothing", type=Answer)
            assert answer == Answer(datetime(2026, 1, 2, tzinfo=UTC), ["a"])
            assert await client.command("add", {"n": 1}, type=int) == 1
            with pytest.raises(BadData, match="query 'double' is no"):
                await client.query("double", {"n": 1}, type=list[str])

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_an_error_keeps_what_the_server_said(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(dialect=dialect) as client:
            with pytest.raises(Forbidden) as error:
                await client.query("refuses")
            said = error.value
            assert (said.message, said.details, said.retry_after, said.temporary) == (
                "not you", {"why": 1}, 1.5, False,
            )  # fmt: skip
            with pytest.raises(RequestError) as unknown:
                await client.query("no such thing")
            assert unknown.value.code == ErrorCode.UNKNOWN_TYPE

    play(scenario)


def test_a_query_is_asked_again_once_when_the_link_drops() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(limits=FAST) as client:
            asking = asyncio.get_running_loop().create_task(client.query("slow", {"seconds": 2}))
            await asyncio.sleep(0.5)
            client.drop()
            assert await asking == "done"
            assert RUNS.count(2) == 2

            asking = asyncio.get_running_loop().create_task(client.query("slow", {"seconds": 3}))
            for _ in range(2):
                await asyncio.sleep(1.5)
                client.drop()
            with pytest.raises(ClosedError):
                await asking

    play(scenario)


def test_a_command_runs_once_over_a_drop() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(limits=FAST) as client:
            asking = asyncio.get_running_loop().create_task(
                client.command("add", {"n": 7, "seconds": 3}, timeout=20)
            )
            await asyncio.sleep(0.5)
            client.drop()
            await asyncio.sleep(1)
            client.drop()
            assert await asking == 1
            assert RUNS == [7]

    play(scenario)


def test_each_command_has_a_key_of_its_own_and_a_given_one_is_used() -> None:
    async def scenario() -> None:
        async with node_world(by_name) as world, world.client(token="ada") as client:
            await client.command("add", {"n": 1})
            await client.command("add", {"n": 1})
            assert RUNS == [1, 1]
            first = await client.command("add", {"n": 2}, key="mine")
            assert await client.command("add", {"n": 2}, key="mine") == first
            assert RUNS == [1, 1, 2]
            with pytest.raises(RequestError) as error:
                await client.command("add", {"n": 3}, key="mine")
            assert error.value.code == ErrorCode.KEY_REUSED

    play(scenario)


def test_without_a_key_a_drop_is_delivery_unknown_and_it_is_not_repeated() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(limits=FAST) as client:
            asking = asyncio.get_running_loop().create_task(
                client.command("add", {"n": 1, "seconds": 1}, key=False)
            )
            await asyncio.sleep(0.5)
            client.drop()
            with pytest.raises(DeliveryUnknown):
                await asking
            await asyncio.sleep(5)
            assert RUNS == [1]

    play(scenario)


def test_a_query_without_an_answer_is_a_timeout() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            began = loop().time()
            with pytest.raises(RequestTimeout):
                await client.query("slow", {"seconds": 60}, timeout=1.5)
            assert loop().time() - began == pytest.approx(1.5, abs=0.05)
            await asyncio.sleep(0.1)
            assert RUNS == [60, "cancelled"]
            world.network.refuse = True
            world.network.cut()
            await asyncio.sleep(0.1)
            with pytest.raises(RequestTimeout):
                await client.query("double", {"n": 1}, timeout=2)

    play(scenario)


def test_a_command_out_of_time_says_what_may_have_happened() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            world.network.links[0].freeze(Direction.TO_CLIENT)
            with pytest.raises(DeliveryUnknown):
                await client.command("add", {"n": 1}, timeout=2)
            assert RUNS == [1]
            world.network.refuse = True
            world.network.cut()
            await asyncio.sleep(0.1)
            with pytest.raises(NotSent):
                await client.command("add", {"n": 2}, timeout=2)

    play(scenario)


def test_the_servers_own_timeout_is_told_the_same_way() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, (m.Query, m.Command)):
                error = m.Error(message.id, 102, "timeout", "late", True)
                if message.name == "u":
                    error.outcome = "unknown"
                peer.send(error)
            else:
                welcome(peer, message)

        Script(network, handle)
        async with client_to(network) as client:
            with pytest.raises(RequestTimeout):
                await client.query("q")
            with pytest.raises(RequestTimeout):
                await client.command("n")
            with pytest.raises(DeliveryUnknown):
                await client.command("u")

    play(scenario)


def test_the_time_left_goes_over_the_wire_and_shrinks() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Query):
                if len(script.peers) > 1:
                    peer.respond(message, None)
            else:
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network, limits=FAST) as client:
            asking = asyncio.get_running_loop().create_task(client.query("q", timeout=9.0))
            await asyncio.sleep(4)
            client.drop()
            await asking
            first, second = (peer.of(m.Query)[0].timeout for peer in script.peers)
            assert first == 9_000
            assert second is not None
            assert 4_000 < second < 5_100

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_cancelling_reaches_the_handler(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(dialect=dialect) as client:
            asking = asyncio.get_running_loop().create_task(client.query("slow", {"seconds": 9}))
            await asyncio.sleep(1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.sleep(1)
            assert RUNS == [9, "cancelled"]
            assert await client.query("double", {"n": 1}) == 2

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await client.query("slow", {"seconds": 8})
            await asyncio.sleep(1)
            assert RUNS == [9, "cancelled", 8, "cancelled"]

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_cancelling_stops_a_command_without_a_key_and_leaves_one_with_a_key_to_its_end(
    dialect: str,
) -> None:
    async def scenario() -> None:
        ends: list[str] = []

        def with_command(wire: Everwire) -> None:
            @wire.command
            async def work(conn: Connection, name: str) -> str:
                try:
                    await asyncio.sleep(5)
                except asyncio.CancelledError:
                    ends.append(f"{name} stopped")
                    raise
                ends.append(f"{name} done")
                return name

        async with node_world(with_command) as world, world.client(dialect=dialect) as client:
            for name in ("bare", "keyed"):
                key: Any = "k" if name == "keyed" else False
                call = client.command("work", {"name": name}, key=key)
                asking = asyncio.get_running_loop().create_task(call)
                await asyncio.sleep(1)
                asking.cancel()
                await asyncio.wait([asking])
            await asyncio.sleep(0.1)
            assert ends == ["bare stopped"]
            await asyncio.sleep(10)
            assert ends == ["bare stopped", "keyed done"]
            assert await client.command("work", {"name": "keyed"}, key="k") == "keyed"
            assert ends == ["bare stopped", "keyed done"]

    play(scenario)


def test_late_answers_are_dropped_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        network = Network()
        asked: list[m.Query] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Query):
                asked.append(message)
            elif isinstance(message, m.Cancel):
                peer.send(m.Response(message.id, "late"), m.Error(message.id, 103, "cancelled", ""))
            else:
                welcome(peer, message)

        Script(network, handle)
        async with client_to(network) as client:
            for _ in range(200):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await client.query("q")
            assert len(asked) == 200
            assert not caplog.records
            link = client._core.session.link
            assert link is not None
            assert not link._waiting
            assert not client._core.calls

    play(scenario)


def test_an_answer_that_comes_too_late_reaches_nobody() -> None:
    async def scenario() -> None:
        network = Network()
        asked: list[m.Query] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Query):
                asked.append(message)
                if len(asked) == 2:
                    peer.respond(asked[0], "first")
                    peer.respond(asked[1], "second")
            else:
                welcome(peer, message)

        Script(network, handle)
        async with client_to(network) as client:
            with pytest.raises(RequestTimeout):
                await client.query("q", timeout=1)
            link = client._core.session.link
            assert link is not None
            assert not link._waiting
            assert await client.query("q", timeout=1) == "second"
            assert client.stats.reconnects == 0

    play(scenario)


def test_too_big_is_refused_here() -> None:
    async def scenario() -> None:
        async with node_world(declare, limits=Limits(message=2_000)) as world:
            async with world.client() as client:
                with pytest.raises(RequestError) as error:
                    await client.query("double", {"n": "x" * 3_000})
                assert error.value.code == ErrorCode.TOO_BIG
                with pytest.raises(RequestError):
                    await client.event("e", "x" * 3_000)

    play(scenario)


def test_the_end_of_the_client_ends_them() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world:
            client = await world.client()
            query = asyncio.get_running_loop().create_task(client.query("slow", {"seconds": 9}))
            sent = asyncio.get_running_loop().create_task(
                client.command("add", {"n": 1, "seconds": 9})
            )
            await asyncio.sleep(1)
            await client.close()
            with pytest.raises(ClosedOK):
                await query
            with pytest.raises(DeliveryUnknown):
                await sent
            with pytest.raises(ClosedOK):
                await client.query("double", {"n": 1})

    play(scenario)


def test_events_go_both_ways_and_wait_for_a_connection() -> None:
    async def scenario() -> None:
        seen: list[Any] = []

        def with_event(wire: Everwire) -> None:
            @wire.event
            async def clicked(conn: Connection, x: int) -> None:
                seen.append(x)
                conn.send(m.Event("seen", {"x": x}))

        async with node_world(with_event) as world, world.client(limits=FAST) as client:
            heard: list[Any] = []
            client.on_event = lambda name, data: heard.append((name, data))
            await client.event("clicked", {"x": 1})
            await until(lambda: heard)
            client.drop()
            await client.event("clicked", {"x": 2})
            await until(lambda: len(heard) == 2)
            assert seen == [1, 2]
            assert heard == [("seen", {"x": 1}), ("seen", {"x": 2})]
            world.network.refuse = True
            world.network.cut()
            await asyncio.sleep(0.1)
            with pytest.raises(NotSent):
                await client.event("clicked", {"x": 3})

    play(scenario)


def test_what_the_server_asks_and_nobody_serves_is_answered_with_an_error() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network):
            script.peers[0].send(m.Query(77, "who"))
            await asyncio.sleep(0.1)
            (error,) = script.peers[0].of(m.Error)
            assert (error.request_id, error.code) == (77, ErrorCode.UNKNOWN_TYPE)

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_history_and_presence(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(dialect=dialect) as client:
            for n in (1, b"\x00\xff", "drei"):
                await client.publish("c", n)
            assert [one.data for one in await client.history("c")] == [1, b"\x00\xff", "drei"]
            (last,) = await client.history("c", limit=1)
            assert last.position is not None
            assert (last.position.offset, last.channel, last.id) == (3, "c", last.position.id)
            assert last.time == pytest.approx(loop().wall(), abs=1)
            async with client.subscribe("c"):
                await asyncio.sleep(0.1)
                present = await client.presence("c")
                assert (present.count, len(present.members)) == (1, 1)

    play(scenario)
