"""Queries, commands and events: deadlines, cancelling, turns, and what failures say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everwire import (
    BrokerUnavailable,
    ConfigError,
    Connection,
    Everwire,
    Forbidden,
    Limits,
    RequestTimeout,
)
from everwire.protocol import messages as m
from everwire.server.node import Node
from everwire.testing import Network, run

from .peer import Peer, open_app, serving

LOG: list[Any] = []


def application(**limits: Any) -> Everwire:
    LOG.clear()
    wire = open_app(limits=Limits(**limits))

    @wire.query
    async def sleep(conn: Connection, seconds: float) -> str:
        LOG.append("begun")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            LOG.append(("cancelled", now()))
            raise
        return "slept"

    @wire.query
    async def stubborn(conn: Connection) -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "all the same"

    @wire.query(timeout=60)
    async def patient(conn: Connection, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @wire.query(concurrency=2)
    async def narrow(conn: Connection, n: int, seconds: float = 1.0) -> int:
        LOG.append(("in", n))
        try:
            await asyncio.sleep(seconds)
            if n < 0:
                raise RuntimeError("negative")
        finally:
            LOG.append(("out", n))
        return n

    @wire.command(concurrency=1)
    async def alone(conn: Connection, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @wire.event(concurrency=1, timeout=5)
    async def tick(conn: Connection, n: int) -> None:
        LOG.append(n)
        await asyncio.sleep(1 if n else 3600)

    @wire.query(concurrency=1, timeout=3)
    async def stream(conn: Connection, n: int) -> AsyncIterator[int]:
        try:
            for number in range(n):
                yield number
        finally:
            LOG.append("closed")

    return wire


def now() -> float:
    return asyncio.get_running_loop().time()


async def opened(network: Network, dialect: str = "json") -> Peer:
    peer = Peer(network, dialect)
    await peer.auth()
    return peer


async def error(peer: Peer, message: m.Query | m.Command) -> m.Error:
    answer = await peer.ask(message)
    assert isinstance(answer, m.Error), answer
    return answer


# ---- deadlines -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("sleep", None, 10.0),
        ("sleep", 2_500, 2.5),
        ("sleep", 2**53 - 1, 300.0),
        ("patient", None, 60.0),
        ("patient", 2_500, 2.5),
        ("patient", 90_000, 60.0),
    ],
)
def test_a_request_has_the_time_it_asks_for_within_what_the_server_allows(
    name: str, asked: int | None, expected: float
) -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peer = await opened(network)
            began = now()
            late = await error(peer, m.Query(2, name, {"seconds": 9999}, asked))
            assert (late.name, late.temporary, late.outcome) == ("timeout", True, "none")
            assert expected <= now() - began < expected + 0.05

    run(main)


def test_a_handler_that_outlives_its_time_is_answered_with_timeout_when_it_ends() -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peer = await opened(network)
            assert (await error(peer, m.Query(2, "stubborn", None, 1000))).name == "timeout"

    run(main)


def test_a_timeout_of_the_handlers_own_is_its_failure_and_one_of_somebody_it_asked_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = open_app()

    @wire.query
    async def own(conn: Connection) -> None:
        raise TimeoutError("of a database")

    @wire.query
    async def asks(conn: Connection) -> None:
        raise RequestTimeout("a client did not answer")

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await opened(network)
            assert (await error(peer, m.Query(2, "own"))).name == "internal"
            assert (await error(peer, m.Query(3, "asks"))).name == "timeout"

    run(main)
    assert [record.getMessage() for record in caplog.records] == ["a defect in query 'own'"]


# ---- cancelling ------------------------------------------------------------------------


def test_a_cancelled_query_stops_its_handler_within_50_milliseconds() -> None:
    async def main() -> None:
        async with serving(application()) as (network, node):
            peer = await opened(network)
            peer.send(m.Query(2, "sleep", {"seconds": 9}))
            await asyncio.sleep(1)
            began = now()
            peer.send(m.Cancel(2))
            answer = await peer.answer(2)
            assert isinstance(answer, m.Error)
            assert answer.name == "cancelled"
            assert LOG[0] == "begun"
            assert LOG[1][0] == "cancelled"
            assert LOG[1][1] - began < 0.05
            assert len(node.working) == 0
            await asyncio.sleep(1)
            assert not [one for one in peer.inbox if isinstance(one, (m.Error, m.Response))]
            assert node.app.stats().refused == {"cancelled": 1}

    run(main)


def test_a_query_that_waits_for_its_turn_is_cancelled_without_having_begun() -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peer = await opened(network)
            for n in (1, 2, 3, 4):
                peer.send(m.Query(n, "narrow", {"n": n}))
            await asyncio.sleep(0.5)
            peer.send(m.Cancel(3))
            answer = await peer.answer(3)
            assert isinstance(answer, m.Error)
            assert answer.name == "cancelled"
            await peer.answer(4)
            assert ("in", 3) not in LOG

    run(main)


# ---- turns -----------------------------------------------------------------------------


def test_so_many_calls_of_a_handler_run_at_a_time_and_the_others_in_their_order() -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peers = [await opened(network), await opened(network, "msgpack")]
            began = now()
            for n in range(6):
                # One of them fails, and gives its turn back all the same.
                peers[n % 2].send(m.Query(n + 2, "narrow", {"n": -n if n == 3 else n}))
                await asyncio.sleep(0.01)
            for n in range(6):
                await peers[n % 2].answer(n + 2)
            assert 3.0 <= now() - began < 3.1
            order = [n for what, n in LOG if what == "in"]
            assert [abs(n) for n in order] == [0, 1, 2, 3, 4, 5]
            running = most = 0
            for what, _ in LOG:
                running += 1 if what == "in" else -1
                most = max(most, running)
            assert (running, most) == (0, 2)

    run(main)


def test_waiting_for_a_turn_is_part_of_the_time_and_has_no_outcome() -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peer = await opened(network)
            peer.send(m.Command(2, "alone", {"seconds": 5}, 3000))
            waiting = await error(peer, m.Command(3, "alone", {"seconds": 0}, 1000))
            assert (waiting.name, waiting.outcome) == ("timeout", "none")
            begun = await peer.answer(2)
            assert isinstance(begun, m.Error)
            assert (begun.name, begun.outcome) == ("timeout", "unknown")
            # The turn that was waited for in vain was not lost.
            assert await peer.ask(m.Command(4, "alone", {"seconds": 0}, 1000)) is None

    run(main)


def test_what_does_not_fit_is_refused_before_it_waits() -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peer = await opened(network)
            peer.send(m.Command(2, "alone", {"seconds": 5}))
            began = now()
            assert (
                await error(peer, m.Command(3, "alone", {"seconds": "x"}))
            ).name == "bad_request"
            assert now() - began < 0.1

    run(main)


def test_events_take_turns_and_have_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(application()) as (network, node):
            peer = await opened(network)
            for n in (1, 0):
                peer.send(m.Event("tick", {"n": n}))
            await asyncio.sleep(3)
            peer.send(m.Event("tick", {"n": 2}))
            await asyncio.sleep(1.9)
            assert LOG == [1, 0]
            await asyncio.sleep(2)
            assert LOG == [1, 0, 2]
            assert len(node.working) == 0

    run(main)
    assert [record.getMessage() for record in caplog.records] == ["a defect in event 'tick'"]


def test_a_stream_keeps_its_turn_until_its_handler_is_closed() -> None:
    async def main() -> None:
        async with serving(application()) as (network, _):
            peer = await opened(network)
            peer.send(m.Query(2, "stream", {"n": 100}, stream=True))
            await asyncio.sleep(1)  # it waits for credit, which is no fault
            late = await error(peer, m.Query(3, "stream", {"n": 1}, stream=True))
            assert (late.name, LOG) == ("timeout", [])
            peer.send(m.Query(4, "stream", {"n": 1}, stream=True))
            await asyncio.sleep(1)
            peer.send(m.Cancel(2))
            assert await peer.answer(4) == m.Response(4, 0, more=True)
            assert LOG[0] == "closed"

    run(main)


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "2"])
def test_a_setting_that_makes_no_sense_is_refused_where_it_is_written(concurrency: Any) -> None:
    async def handler(conn: Connection) -> None: ...

    with pytest.raises(ConfigError, match="'handler': concurrency"):
        Everwire().query(concurrency=concurrency)(handler)
    with pytest.raises(ConfigError, match="'handler': timeout"):
        Everwire().command(timeout=-1)(handler)
    with pytest.raises(ConfigError, match="'handler': timeout"):
        Everwire().event(timeout="5")(handler)  # type: ignore[call-overload]


def test_a_decorated_function_stays_what_it_was() -> None:
    wire = Everwire()

    @wire.query(concurrency=1)
    async def double(conn: Connection, n: int) -> int:
        return 2 * n

    @wire.command
    def plain(conn: Connection, n: int) -> int:
        return 3 * n

    async def main() -> None:
        conn: Any = None
        assert await double(conn, 2) == 4
        assert plain(conn, 2) == 6

    asyncio.run(main())


# ---- the node's limit ------------------------------------------------------------------


def test_a_node_works_on_so_many_requests_of_everybody_and_refuses_more_for_a_moment() -> None:
    async def main() -> None:
        async with serving(application(handlers=5)) as (network, node):
            greedy, other = await opened(network), await opened(network)
            for n in range(4):
                greedy.send(m.Query(n + 2, "sleep", {"seconds": 5}))
            greedy.send(m.Query(9, "stream", {"n": 100}, stream=True))
            await asyncio.sleep(1)
            refused = [
                await error(other, m.Query(20, "sleep", {"seconds": 0})),
                await error(other, m.Query(21, "stream", {"n": 1}, stream=True)),
                await error(other, m.Command(22, "alone", {"seconds": 0})),
                await error(other, m.Query(23, "everwire.presence", {"channel": "c"})),
                await other.ask(m.Subscribe(24, [m.ChannelRequest("c")])),
            ]
            other.send(m.Event("tick", {"n": 1}))
            refused.append(await other.next(m.Error))
            for one in refused:
                assert (one.name, one.temporary, one.outcome) == ("unavailable", True, "none")
                assert one.retry_after == 1000
                assert "handlers" in one.message
            assert node.counters["handlers_full"] == 6
            assert node.app.stats().working == 5
            # Publishing and heartbeats are no such work.
            assert (await other.publish("i-1", "c", 1))["offset"] == 1
            await asyncio.sleep(5)
            assert await other.ask(m.Query(30, "sleep", {"seconds": 0})) == "slept"
            assert (await other.subscribe("c"))["offset"] == 1

    run(main)


def test_ten_thousand_connections_start_no_more_tasks_than_the_limit() -> None:
    async def main() -> None:
        async with serving(application(handlers=300)) as (network, node):
            peers = [await opened(network) for _ in range(20)]
            for peer in peers:
                for n in range(100):
                    peer.send(m.Query(n + 2, "sleep", {"seconds": 50}, 100_000))
            await asyncio.sleep(1)
            assert 250 < len(node.working) <= 300
            assert node.counters["handlers_full"] == 2000 - len(node.working)
            # Who came late was not shut out by those who asked for much.
            for conn in node.connections.values():
                assert len(conn.inflight) >= 8
            for peer in peers:
                peer.link.cut()
            await asyncio.sleep(1)
            assert len(node.working) == 0

    run(main)


# ---- what failures say -----------------------------------------------------------------


def failing() -> Everwire:
    wire = open_app(limits=Limits(message=10_000, hard_cap=20_000))

    @wire.query
    async def breaks(conn: Connection) -> None:
        raise RuntimeError("the password is s3cret")

    @wire.command
    async def breaks_too(conn: Connection) -> None:
        raise KeyError("s3cret")

    @wire.query
    async def odd(conn: Connection, how: str) -> Any:
        deep: Any = 1
        for _ in range(40):
            deep = [deep]
        return {
            "object": object(),
            "deep": {"s3cret": deep},
            "nan": [float("nan")],
            "nested": [b"x"],
        }[how]

    @wire.query
    async def large(conn: Connection, size: int) -> str:
        return "x" * size

    @wire.command
    async def large_too(conn: Connection, size: int) -> str:
        return "x" * size

    @wire.command
    async def refuses(conn: Connection) -> None:
        raise Forbidden("staff only", details={"who": "you"})

    @wire.query
    async def away(conn: Connection) -> None:
        raise BrokerUnavailable("tcp://s3cret:6379 does not answer")

    return wire


@pytest.mark.parametrize("dialect", ["json", "msgpack", "plain"])
@pytest.mark.parametrize(
    ("message", "name", "logged"),
    [
        (m.Query(2, "breaks"), "internal", "query 'breaks'"),
        (m.Command(2, "breaks_too"), "internal", "command 'breaks_too'"),
        (m.Command(2, "breaks_too", key="k"), "internal", "command 'breaks_too'"),
        (m.Query(2, "odd", {"how": "object"}), "internal", "query 'odd'"),
        (m.Query(2, "odd", {"how": "deep"}), "internal", "query 'odd'"),
        (m.Query(2, "odd", {"how": "nan"}), "internal", "query 'odd'"),
        (m.Query(2, "odd", {"how": "nested"}), "internal", "query 'odd'"),
        (m.Query(2, "away"), "unavailable", ""),
    ],
)
def test_what_a_handler_raises_is_logged_once_with_its_name_and_its_text_stays_here(
    dialect: str,
    message: m.Query | m.Command,
    name: str,
    logged: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving(failing()) as (network, node):
            peer = Peer(network, dialect)
            await (peer.open() if dialect == "plain" else peer.auth())
            for _ in range(3):
                answer = await error(peer, message)
                assert answer.code == {"internal": 500, "unavailable": 501}[name]
                assert "s3cret" not in repr(answer)
                if dialect != "plain":
                    ran = isinstance(message, m.Command)
                    assert answer.outcome == ("unknown" if ran else "none")
            assert node.app.stats().refused == {name: 3}, "each is answered once"

    run(main)
    lines = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert len(lines) == bool(logged)
    for line in lines:
        assert logged in line.getMessage()
        assert line.exc_info


@pytest.mark.parametrize("dialect", ["json", "msgpack", "plain"])
@pytest.mark.parametrize("kind", [m.Query, m.Command])
def test_an_answer_that_is_too_big_is_an_error_that_says_so(
    dialect: str, kind: type[m.Query | m.Command], caplog: pytest.LogCaptureFixture
) -> None:
    name = "large" if kind is m.Query else "large_too"

    async def main() -> None:
        async with serving(failing()) as (network, _):
            peer = Peer(network, dialect)
            await (peer.open() if dialect == "plain" else peer.auth())
            assert await peer.ask(kind(2, name, {"size": 9_000})) == "x" * 9_000
            for n in (3, 4):
                answer = await error(peer, kind(n, name, {"size": 10_000}))
                assert answer.code == 400
                assert "a message may have 10000" in answer.message
                if dialect != "plain":
                    assert answer.outcome == ("unknown" if kind is m.Command else "none")

    run(main)
    assert [name in one.getMessage() for one in caplog.records] == [True]


def test_what_a_handler_refuses_reaches_the_caller_whole() -> None:
    async def main() -> None:
        async with serving(failing()) as (network, _):
            peer = await opened(network)
            answer = await error(peer, m.Command(2, "refuses"))
            assert (answer.name, answer.message) == ("forbidden", "staff only")
            assert (answer.details, answer.outcome) == ({"who": "you"}, "none")

    run(main)


def test_a_keyed_command_whose_caller_is_gone_is_logged_all_the_same_and_has_an_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = open_app()

    @wire.command(timeout=20)
    async def job(conn: Connection, fails: bool) -> None:
        await asyncio.sleep(5 if fails else 3600)
        raise RuntimeError("late")

    async def main() -> None:
        async with serving(wire) as (network, node):
            for fails in (True, False):
                peer = await opened(network)
                peer.send(m.Command(2, "job", {"fails": fails}, key=f"k-{fails}"))
                await asyncio.sleep(1)
                peer.link.cut()
            await asyncio.sleep(30)
            again = await opened(network)
            for fails, name in ((True, "internal"), (False, "timeout")):
                answer = await error(again, m.Command(2, "job", {"fails": fails}, key=f"k-{fails}"))
                assert (answer.name, answer.outcome) == (name, "unknown")
            assert len(node.working) == 0

    run(main)
    assert [one.getMessage() for one in caplog.records] == ["a defect in command 'job'"]


def test_a_keyed_command_without_a_time_of_its_own_has_the_longest_that_is_allowed() -> None:
    wire = open_app(limits=Limits(request_timeout_max=30))
    ended: list[float] = []

    @wire.command
    async def job(conn: Connection) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(now())

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer, retry = await opened(network), await opened(network)
            began = now()
            peer.send(m.Command(2, "job", None, 1000, "k"))
            await asyncio.sleep(0.5)
            # Whoever only waits for it does not know what became of it either.
            for one, number in ((retry, 3), (peer, 2)):
                if one is retry:
                    one.send(m.Command(3, "job", None, 1000, "k"))
                late = await one.answer(number)
                assert isinstance(late, m.Error)
                assert (late.name, late.outcome) == ("timeout", "unknown")
            assert not ended
            await asyncio.sleep(60)
            assert 30 <= ended[0] - began < 30.1

    run(main)


def test_keyed_commands_whose_callers_are_gone_count_to_the_nodes_limit() -> None:
    """They run on: else whoever reconnects again and again could start any number."""
    wire = open_app(limits=Limits(handlers=20))

    @wire.command
    async def job(conn: Connection) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with serving(wire) as (network, node):
            for visit in range(10):
                peer = await opened(network)
                for n in range(5):
                    peer.send(m.Command(n + 2, "job", None, key=f"{visit}-{n}"))
                await asyncio.sleep(0.5)
                peer.link.cut()
                await asyncio.sleep(0.5)
            assert len(node.commands) == node.app.stats().working == 20
            assert node.counters["handlers_full"] == 30
            await asyncio.sleep(90)
            assert node.app.stats().working == 0

    run(main)


# ---- hostile parameters ------------------------------------------------------------------


def nested(depth: int, inner: Any = 1) -> Any:
    for level in range(depth):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


@pytest.mark.parametrize("dialect", ["json", "msgpack", "plain"])
def test_parameters_nested_too_deep_never_reach_a_handler(dialect: str) -> None:
    wire = open_app()
    seen: list[Any] = []

    @wire.query
    async def echo(conn: Connection, payload: Any) -> Any:
        seen.append(payload)
        return payload

    async def scenario(node: Node, peer: Peer) -> None:
        assert await peer.ask(m.Query(2, "echo", nested(32))) == nested(32)
        for depth in (33, 34, 100):
            refused = await error(peer, m.Query(depth, "echo", nested(depth)))
            assert refused.code == 100
        assert len(seen) == 1
        assert node.counters["defects"] == 0

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = Peer(network, dialect)
            await (peer.open() if dialect == "plain" else peer.auth())
            await scenario(node, peer)

    run(main)
