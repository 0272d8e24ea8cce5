"""A client tells what happens to it: records, statistics, and the debug log."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from everwire import DeliveryUnknown, Dropped, Everwire, Identity, Unauthorized
from everwire.client import (
    GapFound,
    HeartbeatSuspect,
    LinkLost,
    LinkOpened,
    PublishDropped,
    Record,
    RetryScheduled,
    StateChanged,
    Token,
    TokenRefreshed,
    observe,
)
from everwire.protocol import messages as m
from everwire.protocol.dialects import BadMessage, all_dialects
from everwire.testing import Network

from .world import FAST, Script, client_to, loop, node_world, play, take, until

WIRE = "everwire.client.wire"


def kinds(records: list[Record]) -> list[str]:
    return [type(record).__name__ for record in records if not isinstance(record, StateChanged)]


# ---- records -----------------------------------------------------------------------------


def test_the_life_of_a_client_is_told_in_order() -> None:
    async def scenario() -> None:
        records: list[Record] = []
        async with node_world() as world:
            async with world.client(on_record=records.append, limits=FAST) as client:
                assert client.on_record is not None
                await asyncio.sleep(5)
                world.network.links[-1].cut()
                await until(lambda: client.stats.reconnects == 1)
        assert kinds(records) == [
            "LinkOpened", "LinkLost", "RetryScheduled", "LinkOpened", "LinkLost",
        ]  # fmt: skip
        opened, lost, retry, again, closed = (
            record for record in records if not isinstance(record, StateChanged)
        )
        assert isinstance(opened, LinkOpened)
        assert (opened.number, opened.url) == (1, "ws://node/ws")
        assert opened.dialect == "everwire.v1.msgpack"
        assert 0.03 < opened.seconds < 0.1
        assert isinstance(lost, LinkLost)
        assert (lost.number, lost.code, lost.by_us) == (1, 1006, False)
        assert lost.held == pytest.approx(5.0, abs=0.1)
        assert isinstance(retry, RetryScheduled)
        assert (retry.attempt, str(retry.cause)) == (1, str(client_error(lost)))
        assert 0 <= retry.delay <= 0.2
        assert isinstance(again, LinkOpened)
        assert again.number == 2
        assert isinstance(closed, LinkLost)
        assert (closed.number, closed.code, closed.by_us) == (2, 1000, True)
        states = [record for record in records if isinstance(record, StateChanged)]
        assert [record.state for record in states] == [
            "authenticating", "ready", "connecting", "authenticating", "ready", "closing",
            "closed",
        ]  # fmt: skip
        assert all(a.state == b.previous for a, b in pairwise(states))

    play(scenario)


def client_error(lost: LinkLost) -> str:
    return f"connection closed: {lost.code} abnormal" + (f" ({lost.reason})" if lost.reason else "")


@pytest.mark.parametrize("kind", [*Record.__subclasses__()])
def test_a_record_is_frozen(kind: type[Record]) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.mark in "=x!"


def test_of_two_links_each_is_told_of_with_its_own_time() -> None:
    """A server that goes away is left for another link, before the first one ends."""

    async def scenario() -> None:
        opened: dict[int, float] = {}
        held: dict[int, float] = {}

        def watch(record: Record) -> None:
            assert not isinstance(record, RetryScheduled)
            if isinstance(record, LinkOpened):
                opened[record.number] = loop().time()
            elif isinstance(record, LinkLost):
                assert record.by_us
                held[record.number] = loop().time() - opened[record.number]
                assert record.held == pytest.approx(held[record.number])

        network = Network(latency=0.01)
        script = Script(network)
        async with client_to(network, on_record=watch) as client:
            await asyncio.sleep(5)
            script.peers[0].send(m.Drain(0, 10_000))
            await until(lambda: client.stats.connects == 2)
            await asyncio.sleep(20)
            assert list(held) == [1]
        assert list(held) == [1, 2]
        assert 5 < held[1] < 15 < 20 <= held[2]

    play(scenario)


def test_a_failed_attempt_is_told_with_its_cause_and_counted() -> None:
    async def scenario() -> None:
        records: list[Record] = []
        client = client_to(Network(), on_record=records.append, timeout=10)
        with pytest.raises(ConnectionRefusedError):
            await client
        retries = [record for record in records if isinstance(record, RetryScheduled)]
        assert [record.attempt for record in retries] == list(range(1, len(retries) + 1))
        assert all(isinstance(record.cause, ConnectionRefusedError) for record in retries)
        assert client.stats.failures == len(retries) >= 2
        assert client.stats.connects == 0

    play(scenario)


def test_a_silent_link_is_told_of_and_counted() -> None:
    async def scenario() -> None:
        network = Network(latency=0.05)
        Script(network)
        records: list[Record] = []
        async with client_to(network, dialect="plain", on_record=records.append) as client:
            await asyncio.sleep(21)
            assert client.stats.suspects == 1
            suspect = next(one for one in records if isinstance(one, HeartbeatSuspect))
            assert (suspect.number, suspect.rtt, suspect.lag) == (1, None, 0.0)

    play(scenario)


def test_a_gap_is_told_as_well() -> None:
    async def scenario() -> None:
        records: list[Record] = []
        async with node_world() as world:
            async with world.client(dialect="plain", on_record=records.append) as client:
                async with client.subscribe("c") as room:
                    client.drop()
                    await take(room, 1)
            found = [record for record in records if isinstance(record, GapFound)]
            assert found == [GapFound(channel="c", reason="dropped", position=None, from_=None)]

    play(scenario)


def test_a_publish_that_is_given_up_is_told_with_its_cause() -> None:
    async def scenario() -> None:
        records: list[Record] = []
        network = Network()
        Script(network)  # which answers no publish
        limits = dataclasses.replace(FAST, outbox_messages=1)
        async with client_to(network, on_record=records.append, limits=limits) as client:
            first = client.publish_nowait("c", 1, ttl=5)
            with pytest.raises(Dropped):
                await client.publish("d", 2, overflow="drop_newest")
            with pytest.raises(DeliveryUnknown):
                await first
        dropped = [record for record in records if isinstance(record, PublishDropped)]
        assert [(one.channel, type(one.cause)) for one in dropped] == [
            ("d", Dropped), ("c", DeliveryUnknown),
        ]  # fmt: skip

    play(scenario)


def test_a_token_that_a_function_returned_is_told_of_but_not_shown() -> None:
    async def scenario() -> None:
        records: list[Record] = []
        async with node_world() as world:
            async with world.client(token=lambda: Token("t-ada", 2e9), on_record=records.append):
                pass
        assert TokenRefreshed(expires_at=2e9) in records
        assert "t-ada" not in repr(records)

    play(scenario)


def test_a_hook_that_raises_is_logged_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        def hook(record: Record) -> None:
            raise ValueError("from the hook")

        async with node_world() as world:
            async with world.client(on_record=hook) as client:
                await client.publish("c", 1)

    play(scenario)
    assert "a hook of the application failed" in caplog.text
    assert "from the hook" in caplog.text


# ---- statistics --------------------------------------------------------------------------


def test_bytes_and_round_trips_are_measured() -> None:
    async def scenario() -> None:
        async with node_world(latency=0.05) as world:
            async with world.client() as client:
                before = client.stats
                assert before.rtt == pytest.approx(0.1)
                for _ in range(3):
                    await client.publish("c", "x" * 1000)
                after = client.stats
                assert after.rtt == pytest.approx(0.1)
                assert after.smoothed_rtt == pytest.approx(0.1)
                assert 3000 < after.bytes_out - before.bytes_out < 3300
                assert 0 < after.bytes_in - before.bytes_in < 600
                assert dataclasses.replace(before) == before, "a snapshot does not change"

    play(scenario)


def test_a_slow_handler_is_no_round_trip() -> None:
    def declare(wire: Everwire) -> None:
        @wire.query
        async def slow(conn: Any) -> None:
            await asyncio.sleep(5)

    async def scenario() -> None:
        async with node_world(declare, latency=0.05) as world:
            async with world.client() as client:
                await client.query("slow")
                assert client.stats.rtt == pytest.approx(0.1)

    play(scenario)


def test_what_waits_is_in_the_statistics() -> None:
    async def scenario() -> None:
        async with node_world(latency=0.1) as world:
            async with world.client() as client, client.subscribe("c") as room:
                await client.publish("c", 1)
                await asyncio.sleep(1)
                futures = [client.publish_nowait("d", "x" * 100) for _ in range(3)]
                asking = asyncio.get_running_loop().create_task(client.query("none"))
                await asyncio.sleep(0)
                stats = client.stats
                assert (stats.outbox, stats.in_flight, stats.calls) == (3, 3, 1)
                assert stats.outbox_bytes > 300
                assert (stats.subscriptions, stats.queued, room.queued) == (1, 1, 1)
                await asyncio.wait([*futures, asking])
                assert asking.exception() is not None
                await take(room, 1)
                stats = client.stats
                assert (stats.outbox, stats.outbox_bytes, stats.calls, stats.queued) == (0, 0, 0, 0)

    play(scenario)


# ---- the debug log -------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == WIRE]


def test_each_message_is_a_line_with_its_direction_and_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            async with world.client() as client:
                await client.publish("c", {"text": "hello\n\x1b[31m" + "x" * 1000})

    with caplog.at_level(logging.DEBUG, WIRE):
        play(scenario)
    marks = [line.partition("link 1 ")[2][:1] for line in lines(caplog) if "link 1 " in line]
    assert marks == ["<", ">", "<", ">", "<"]  # hello, auth, response, publish, response
    [published] = [line for line in lines(caplog) if "> publish" in line]
    assert "channel='c'" in published
    assert re.search(r"… \[10\d\d bytes\]$", published)
    assert len(published) < 120
    assert any(line.startswith("= StateChanged state=ready") for line in lines(caplog))
    assert any(line.startswith("x LinkLost number=1 code=1000") for line in lines(caplog))
    assert all(line.isprintable() for line in lines(caplog))


@pytest.mark.parametrize("dialect", ["msgpack", "json", "plain"])
def test_nothing_secret_gets_into_a_log_a_record_or_a_repr(
    caplog: pytest.LogCaptureFixture, dialect: str
) -> None:
    """Not the token, not the credentials, not what the URL carries."""

    def declare(wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str, credentials: Any) -> Identity:
            if token != "S3CRET-token":
                raise Unauthorized("unknown token")
            return Identity("ada")

    async def scenario() -> None:
        records: list[Record] = []
        async with node_world(declare) as world:
            client = world.client(
                url="ws://ada:S3CRET-url@node/ws?token=S3CRET-query",
                token="S3CRET-token",
                credentials=None if dialect == "plain" else {"password": "S3CRET-password"},
                dialect=dialect,
                on_record=records.append,
                limits=FAST,
            )
            async with client:
                client.drop()
                await until(lambda: client.stats.reconnects == 1)
                assert "S3CRET" not in repr(client)
            bad = world.client(token="S3CRET-refused", dialect=dialect)
            with pytest.raises(Unauthorized) as error:
                await bad
            assert "S3CRET" not in repr(error.value)
        assert "S3CRET" not in repr(records)

    with caplog.at_level(logging.DEBUG, "everwire"):
        play(scenario)
    assert "S3CRET" not in caplog.text
    assert sum("> auth" in line and "***" in line for line in lines(caplog)) >= 2


def test_without_a_reader_nothing_is_formatted() -> None:
    async def scenario() -> None:
        def defect(payload: object) -> str:
            raise AssertionError("formatted")

        async with node_world() as world:
            async with world.client() as client:
                link = client._core.session.link
                assert link is not None
                link.describe = defect  # type: ignore[method-assign]
                await client.publish("c", 1)

    logging.getLogger(WIRE).setLevel(logging.INFO)
    try:
        play(scenario)
    finally:
        logging.getLogger(WIRE).setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"type": "auth", "token": "abc def"}', '{"type": "auth", "token": ***}'),
        ('{"password":"ab\\"c","n":1}', '{"password":***,"n":1}'),
        ("wss://h/ws?access_token=abc&n=1", "wss://h/ws?access_token=***&n=1"),
        ("{'api_key': 'abc', 'n': 1}", "{'api_key': ***, 'n': 1}"),
        ('"token": "cut off', '"token": ***'),
        ("a tokenless text", "a tokenless text"),
    ],
)
def test_what_follows_the_name_of_a_secret_is_masked(text: str, shown: str) -> None:
    assert observe.masked(text) == shown


DATA: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(DATA)
def test_whatever_the_data_a_message_is_shown_without_what_is_secret(data: Any) -> None:
    message = m.Publish("1", "c", {"token": "S3CRET", "data": data})
    text = observe.of_message(message)
    assert "S3CRET" not in text
    assert len(text) < 20_000


@given(st.binary(max_size=300))
def test_whatever_came_can_be_shown(payload: bytes) -> None:
    assert observe.of_payload(payload)[:1] != "" or payload == b""
    for dialect in all_dialects():
        with suppress(BadMessage):
            observe.of_message(dialect.decode(payload))
