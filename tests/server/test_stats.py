"""What a node says of itself: every number is that of what happened, and cheap to take."""

from __future__ import annotations

import asyncio
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from everwire import BrokerUnavailable, ConfigError, Connection, Limits, NodeStats
from everwire.brokers.base import Completion, Page, Publication, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.protocol import messages as m
from everwire.testing import run

from .peer import Peer, open_app, serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_messages_deliveries_and_bytes_are_counted_one_by_one() -> None:
    async def main() -> None:
        wire = open_app()
        async with serving(wire) as (net, _):
            first, second, plain = Peer(net), Peer(net, "msgpack"), Peer(net, "plain")
            for peer in (first, second):
                await peer.auth()
                await peer.subscribe("a")
            await plain.open()
            plain.send(m.Subscribe("", [m.ChannelRequest("a")]))
            await plain.next(m.Subscribed)
            before = wire.stats()
            assert before.connections == 3
            assert before.dialects == {"json": 1, "msgpack": 1, "plain": 1}
            assert (before.subscriptions, before.channels) == (3, 1)

            await first.publish("i-1", "a", "x" * 1000)
            await first.publish("i-1", "a", "x" * 1000)
            for peer in (first, second, plain):
                await peer.next(m.ChannelMessage)
            after = wire.stats()
            assert after.messages_in - before.messages_in == 2
            assert after.deliveries - before.deliveries == 3
            assert after.messages_out - before.messages_out == 5
            assert after.published == 2
            assert after.duplicates == 1
            assert 2_000 < after.bytes_in - before.bytes_in < 2_500
            assert 3_000 < after.bytes_out - before.bytes_out < 4_000
            assert before.deliveries == 0, "a snapshot does not change"

            second.transport.close()
            await second.until_closed()
            gone = wire.stats()
            assert gone.connections == 2
            assert gone.dialects == {"json": 1, "msgpack": 0, "plain": 1}
            assert gone.subscriptions == 2
            assert gone.closes == {1000: 1}

    run(main())


def test_history_that_is_sent_counts_as_deliveries_and_messages() -> None:
    async def main() -> None:
        wire = open_app()
        async with serving(wire) as (net, _):
            for n in range(250):
                await wire.publish("a", n)
            peer = Peer(net)
            await peer.auth()
            before = wire.stats()
            result = await peer.subscribe("a", m.Position("another", 0))
            assert result["recovered"] is False
            await peer.next(m.ChannelMessage, lambda one: one.offset == 250)
            after = wire.stats()
            assert after.deliveries - before.deliveries == 100
            # the answer, the gap, and what history holds
            assert after.messages_out - before.messages_out == 102
            assert after.gaps == 1

    run(main())


def test_a_subscription_taken_up_anew_is_one_still() -> None:
    async def main() -> None:
        wire = open_app()
        async with serving(wire) as (net, _):
            peer = Peer(net)
            await peer.auth()
            await peer.subscribe("a")
            await peer.subscribe("a")
            assert wire.stats().subscriptions == 1
            await peer.ask(m.Unsubscribe(7, ["a"]))
            assert wire.stats().subscriptions == 0

    run(main())


def test_refusals_are_counted_by_name_and_closes_by_code() -> None:
    async def main() -> None:
        wire = open_app(limits=Limits(subscriptions=1))
        async with serving(wire) as (net, _):
            peer = Peer(net)
            await peer.auth()
            await peer.ask(m.Query(5, "nothing"))
            await peer.ask(m.Query(6, "nothing"))
            await peer.subscribe("a")
            assert "error" in await peer.subscribe("b")
            assert wire.stats().refused == {"unknown_type": 2, "subscriptions": 1}
            other = Peer(net)
            await other.open()
            other.send(m.Query(1, "x"))
            assert await other.until_closed() == 4502
            assert wire.stats().closes == {4502: 1}
            assert wire.stats().events["violations"] == 1

    run(main())


def test_close_codes_that_a_peer_makes_up_are_one() -> None:
    """What a peer says never makes a new name among the metrics."""

    async def main() -> None:
        wire = open_app()
        async with serving(wire) as (net, _):
            for code in (3000, 3001, 4999):
                peer = await Peer(net).open()
                peer.transport.close(code)
                await peer.until_closed()
            assert wire.stats().closes == {0: 3}

    run(main())


class Absent(MemoryBroker):
    """A broker that can be out of reach."""

    absent = False

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome:
        if self.absent:
            return BrokerUnavailable("not now")
        return super().publish(publication, done)

    async def read(self, channel: str, since: m.Position | None, **options: Any) -> Page:
        if self.absent:
            raise BrokerUnavailable("not now")
        return await super().read(channel, since, **options)


@pytest.mark.parametrize("verb", ["publish", "subscribe", "wire.publish"])
def test_a_broker_that_does_not_answer_is_failing_for_ten_seconds(verb: str) -> None:
    async def main() -> None:
        broker = Absent(Limits())
        wire = open_app(broker=broker)
        async with serving(wire) as (net, _):
            peer = Peer(net)
            await peer.auth()
            await peer.subscribe("a")
            assert not wire.stats().broker_failing
            broker.absent = True
            if verb == "publish":
                assert (await peer.publish("i-1", "a", 1)).name == "unavailable"
            elif verb == "subscribe":
                assert (await peer.subscribe("b"))["error"]["name"] == "unavailable"
            else:
                with pytest.raises(BrokerUnavailable):
                    await wire.publish("a", 1)
            assert wire.stats().broker_failing
            assert wire.stats().events["broker_failures"] == 1
            await asyncio.sleep(12)
            assert not wire.stats().broker_failing

    run(main())


def test_a_snapshot_is_frozen_and_needs_a_node_that_runs() -> None:
    async def main() -> None:
        wire = open_app()
        async with serving(wire):
            stats = await asyncio.to_thread(wire.stats)
            assert stats.node == wire.node.id
            with pytest.raises(FrozenInstanceError):
                stats.gaps = 5  # type: ignore[misc]
        with pytest.raises(ConfigError, match="does not run"):
            wire.stats()

    run(main())


def test_what_clients_answer_makes_no_counters() -> None:
    async def main() -> None:
        wire = open_app()

        @wire.query
        async def relay(conn: Connection) -> Any:
            return await conn.query("x")

        async with serving(wire) as (net, node):
            peer = Peer(net)
            await peer.auth()
            for code in range(70_000, 70_020):
                peer.send(m.Query(code, "relay"))
                asked = await peer.next(m.Query)
                peer.send(m.Error(asked.id, code, "mine", "of the client's own"))
                assert isinstance(await peer.answer(code), m.Error)
            assert wire.stats().refused == {"other": 20}
            assert len(node.tally.refused) == 1

    run(main)


def test_each_name_is_explained_and_no_other() -> None:
    tables = PAGE.split("`events` has")
    names = [re.findall(r"^\| (.*?) \|", table, re.M) for table in tables]
    listed = [re.findall(r"`(\w+)`", " ".join(rows)) for rows in names]
    assert listed[0] == [field.name for field in fields(NodeStats)]
    counted = {
        name
        for path in (ROOT / "src" / "everwire" / "server").rglob("*.py")
        for name in re.findall(r"(?:\.count\(|counters\[)\"(\w+)\"", path.read_text())
    }
    assert set(listed[1]) == counted
