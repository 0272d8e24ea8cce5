"""What every broker must do; each test runs over each of them (see ``brokers.py``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from everwire.brokers import open_broker
from everwire.brokers.base import (
    Broker,
    ChannelOptions,
    Page,
    PresenceChange,
    Publication,
    Published,
    PublishOutcome,
    Record,
)
from everwire.brokers.memory import MemoryBroker
from everwire.codes import ErrorCode
from everwire.errors import BrokerUnavailable, RequestError
from everwire.limits import Limits
from everwire.protocol.messages import Member, Position
from everwire.testing import VirtualLoop, run

BROKERS = ["memory://"]
Scenario = Callable[["Seen", Broker], Coroutine[Any, Any, None]]
Together = Callable[["Seen", "Seen"], Coroutine[Any, Any, None]]


class Seen:
    """A node, as a broker knows it: what it was told, and its own broker."""

    def __init__(self, name: str, broker: Broker) -> None:
        self.id = name
        self.broker = broker
        self.records: dict[str, list[Record]] = {}
        self.changes: list[PresenceChange] = []
        self.signals: list[bytes] = []

    def on_record(self, channel: str, record: Record) -> None:
        self.records.setdefault(channel, []).append(record)

    def on_presence(self, channel: str, change: PresenceChange) -> None:
        self.changes.append(change)

    def on_signal(self, payload: bytes) -> None:
        self.signals.append(payload)

    def on_degraded(self) -> None:
        raise AssertionError("a broker that can be reached")

    on_restored = on_degraded

    @property
    def joined(self) -> list[Member]:
        return [member for change in self.changes for member in change.joined]

    @property
    def left(self) -> list[str]:
        return [connection for change in self.changes for connection in change.left]


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def neighbour(broker: Broker) -> Broker:
    """Another node's access to what a broker holds."""
    assert isinstance(broker, MemoryBroker)
    return MemoryBroker(beside=broker)


def on(url: str, scenario: Scenario, **limits: Any) -> None:
    """Run a scenario with a started broker, in virtual time."""

    async def one(seen: Seen, _: Seen) -> None:
        await scenario(seen, seen.broker)

    on_two(url, one, **limits)


def on_two(url: str, scenario: Together, **limits: Any) -> None:
    """Run a scenario with two nodes on one broker, in virtual time."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        first = open_broker(url, Limits(**limits), wall=loop.wall)
        one, two = Seen("one", first), Seen("two", neighbour(first))
        for node in (one, two):
            await node.broker.start(node)
            await node.broker.renew(15.0)
        try:
            await scenario(one, two)
        finally:
            for node in (one, two):
                await node.broker.stop()

    run(main, limit=200_000)


async def publish(
    broker: Broker, channel: str, data: bytes = b"\x01", message_id: str = "", **more: Any
) -> PublishOutcome:
    """Publish and wait for the answer, whichever way it comes."""
    answer: asyncio.Future[PublishOutcome] = asyncio.get_running_loop().create_future()
    outcome = broker.publish(Publication(channel, message_id, data, **more), answer.set_result)
    return outcome if outcome is not None else await answer


async def published(broker: Broker, channel: str, *args: Any, **more: Any) -> Position:
    outcome = await publish(broker, channel, *args, **more)
    assert isinstance(outcome, Published), outcome
    return outcome.position


async def read(broker: Broker, channel: str, since: Position | None, **more: Any) -> Page:
    options = {"limit": 100, "limit_bytes": 10**9, "options": ChannelOptions(), **more}
    return await broker.read(channel, since, **options)


def offsets(page: Page) -> list[int]:
    return offsets_of(page.records)


def offsets_of(records: Sequence[Record]) -> list[int]:
    return [record.offset for record in records]


def test_offsets_grow_and_what_is_acknowledged_is_in_history(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await broker.subscribe(["c"])
        empty = (await read(broker, "c", None)).top
        assert (empty.offset, empty.id) == (0, "")
        positions = [await published(broker, "c", b"\x01", f"m-{n}") for n in range(5)]
        page = await read(broker, "c", empty)
        assert page.recovered
        assert page.complete
        assert [(r.epoch, r.offset, r.id) for r in page.records] == [
            (p.epoch, p.offset, p.id) for p in positions
        ]
        assert sorted(p.offset for p in positions) == [p.offset for p in positions]
        assert page.top == positions[-1]

    on(url, scenario)


def test_subscribers_are_told_once_in_order_and_nobody_else_is(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await published(broker, "c")
        await broker.subscribe(["c"])
        positions = [await published(broker, "c") for _ in range(3)]
        await published(broker, "other")
        assert [r.offset for r in seen.records["c"]] == [p.offset for p in positions]
        assert list(seen.records) == ["c"]
        await broker.unsubscribe(["c"])
        await published(broker, "c")
        assert len(seen.records["c"]) == 3

    on(url, scenario)


def test_a_resent_id_gets_the_first_answer_and_is_stored_once(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await broker.subscribe(["c"])
        first = await published(broker, "c", b"\x01", "a-1")
        await published(broker, "c", b"\x02", "a-2")
        again = await publish(broker, "c", b"\x01", "a-1")
        assert again == Published(first, True)
        assert [r.id for r in seen.records["c"]] == ["a-1", "a-2"]

    on(url, scenario)


def test_ids_of_other_scopes_and_channels_are_other_messages(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for scope, channel, message_id in [
            ("u", "c", "x"), ("v", "c", "x"), ("u", "d", "x"), ("", "c", "x"),
            ("ux", "c", ""), ("a", "c", "b:c"), ("a:b", "c", "c"),
        ]:  # fmt: skip
            outcome = await publish(broker, channel, b"\x01", message_id, scope=scope)
            assert isinstance(outcome, Published)
            assert not outcome.duplicate, (scope, channel, message_id)

    on(url, scenario)


def test_an_id_is_remembered_for_the_whole_window_and_forgotten_some_time_later(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for wait in (0.0, 7.0, 99.0, 100.0):
            message_id = f"w-{wait}"
            await published(broker, "c", b"\x01", message_id)
            await asyncio.sleep(wait)
            again = await publish(broker, "c", b"\x01", message_id)
            assert isinstance(again, Published)
            assert again.duplicate, wait
        await asyncio.sleep(151)
        again = await publish(broker, "c", b"\x01", "w-100.0")
        assert isinstance(again, Published)
        assert not again.duplicate

    on(url, scenario, dedupe_window=100.0)


def test_too_many_ids_are_refused_for_now_and_none_is_forgotten_early(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for n in range(10):
            await published(broker, "c", b"\x01", f"m-{n}")
        refused = await publish(broker, "c", b"\x01", "m-10")
        assert isinstance(refused, RequestError)
        assert (refused.code, refused.temporary) == (ErrorCode.DEDUPE_FULL, True)
        again = await publish(broker, "c", b"\x01", "m-0")
        assert isinstance(again, Published)
        assert again.duplicate
        await published(broker, "other", b"\x01", "m-10")
        await asyncio.sleep(151)
        await published(broker, "c", b"\x01", "m-10")

    on(url, scenario, dedupe_max=10, dedupe_window=100.0)


def test_history_is_bounded_by_size_and_the_loss_is_told(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        options = ChannelOptions(history=3)
        positions = [
            await published(broker, "c", b"\x01", f"m-{n}", options=options) for n in range(6)
        ]
        page = await read(broker, "c", positions[3], options=options)
        assert (page.recovered, offsets(page)) == (True, [5, 6])
        for lost in positions[:3]:
            page = await read(broker, "c", lost, options=options)
            assert (page.recovered, page.reason, offsets(page)) == (False, "expired", [4, 5, 6])
            assert page.start.offset == 3
        page = await read(broker, "c", positions[5], options=options)
        assert (page.recovered, offsets(page)) == (True, [])

    on(url, scenario)


def test_history_is_bounded_by_age(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        options = ChannelOptions(history_ttl=10.0)
        old = await published(broker, "c", options=options)
        await asyncio.sleep(6)
        new = await published(broker, "c", options=options)
        await asyncio.sleep(6)
        page = await read(broker, "c", old, options=options)
        assert (page.recovered, page.reason, offsets(page)) == (False, "expired", [new.offset])
        await asyncio.sleep(6)
        page = await read(broker, "c", new, options=options)
        assert (page.recovered, offsets(page)) == (True, [])  # it is the top

    on(url, scenario)


def test_history_is_bounded_by_bytes_and_the_last_message_is_kept_whatever_its_size(
    url: str,
) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        options = ChannelOptions(history_bytes=1000)
        for _ in range(5):
            await published(broker, "c", b"x" * 400, options=options)
        assert len((await broker.latest("c", limit=100, options=options)).records) == 2
        await published(broker, "c", b"x" * 5000, options=options)
        assert len((await broker.latest("c", limit=100, options=options)).records) == 1

    on(url, scenario)


def test_all_histories_together_are_bounded_and_the_longest_unused_goes_first(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for n in range(20):
            await published(broker, f"c{n}", b"x" * 1000)
        held = [
            len((await broker.latest(f"c{n}", limit=9, options=ChannelOptions())).records)
            for n in range(20)
        ]
        assert held == sorted(held)
        assert 4 <= sum(held) <= 10

    on(url, scenario, history_total=10_000)


def test_a_channel_that_was_used_lately_keeps_its_history_longer(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        options = ChannelOptions()
        for n in range(20):
            await published(broker, f"c{n}", b"x" * 1000)
            await published(broker, "busy", b"x")
            await broker.latest("read", limit=1, options=options)
            if not n:
                await published(broker, "read", b"x")
            await asyncio.sleep(1)
        for channel in ("busy", "read"):
            assert (await broker.latest(channel, limit=9, options=options)).records

    on(url, scenario, history_total=20_000)


def test_without_history_a_channel_is_numbered_and_recoverable_at_its_top_only(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        options = ChannelOptions(history=0)
        first = await published(broker, "c", b"\x01", "m-1", options=options)
        second = await published(broker, "c", b"\x01", "m-2", options=options)
        again = await publish(broker, "c", b"\x01", "m-2", options=options)
        assert again == Published(second, True)
        assert (await read(broker, "c", second, options=options)).recovered
        page = await read(broker, "c", first, options=options)
        assert (page.recovered, page.reason, page.start) == (False, "expired", second)

    on(url, scenario)


@pytest.mark.parametrize("change", ["epoch", "id", "above", "top id"])
def test_a_position_that_is_not_of_this_history_is_never_recovered(url: str, change: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        positions = [await published(broker, "c", b"\x01", f"m-{n}") for n in range(3)]
        wrong = {
            "epoch": Position("another", positions[1].offset, positions[1].id),
            "id": Position(positions[1].epoch, positions[1].offset, "m-9"),
            "above": Position(positions[1].epoch, positions[2].offset + 1, "m-3"),
            "top id": Position(positions[1].epoch, positions[2].offset, "m-9"),
        }[change]
        page = await read(broker, "c", wrong)
        assert (page.recovered, page.reason, offsets(page)) == (False, "epoch", [1, 2, 3])
        assert page.start.offset == 0

    on(url, scenario)


def test_pages_are_bounded_by_count_and_bytes_and_hold_at_least_one_message(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await broker.subscribe(["c"])
        empty = (await read(broker, "c", None)).top
        for _ in range(10):
            await published(broker, "c", b"x" * 100)
        assert offsets(await read(broker, "c", empty, limit=4)) == [1, 2, 3, 4]
        page = await read(broker, "c", empty, limit_bytes=250)
        assert (offsets(page), page.complete) == ([1, 2], False)
        assert offsets(await read(broker, "c", empty, limit_bytes=5)) == [1]

    on(url, scenario)


def test_pages_follow_each_other_without_a_hole_or_an_overlap(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        options = ChannelOptions(history=1000)
        await broker.subscribe(["c"])
        place = (await read(broker, "c", None)).top
        for _ in range(300):
            await published(broker, "c", options=options)
        seen_offsets: list[int] = []
        while True:
            page = await read(broker, "c", place, limit=7, options=options)
            assert page.recovered
            if not page.records:
                break
            last = page.records[-1]
            place = Position(last.epoch, last.offset, last.id)
            seen_offsets += offsets(page)
        assert seen_offsets == list(range(1, 301))

    on(url, scenario)


def test_latest_returns_the_last_messages(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        assert (await broker.latest("c", limit=5, options=ChannelOptions())).records == []
        for _ in range(10):
            await published(broker, "c")
        page = await broker.latest("c", limit=3, options=ChannelOptions())
        assert (offsets(page), page.start.offset, page.complete) == ([8, 9, 10], 7, True)

    on(url, scenario)


def test_an_unused_channel_loses_its_numbering_and_gets_another_epoch(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        before = await published(broker, "c", b"\x01", "m-1")
        await asyncio.sleep(1200)
        after = await published(broker, "c", b"\x01", "m-2")
        assert after.epoch != before.epoch
        page = await read(broker, "c", before)
        assert (page.recovered, page.reason) == (False, "epoch")

    on(url, scenario, meta_ttl=1000.0)


def test_a_subscribed_channel_keeps_its_numbering(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await broker.subscribe(["c"])
        before = await published(broker, "c", b"\x01", "m-1")
        await asyncio.sleep(1200)
        assert (await published(broker, "c", b"\x01", "m-2")).epoch == before.epoch

    on(url, scenario, meta_ttl=1000.0)


def test_asking_about_a_channel_does_not_make_it_and_channels_are_bounded(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for n in range(50):
            await read(broker, f"asked-{n}", None)
            await broker.latest(f"asked-{n}", limit=1, options=ChannelOptions())
        for n in range(10):
            await published(broker, f"c-{n}")
        refused = await publish(broker, "one too many")
        assert isinstance(refused, BrokerUnavailable)
        await broker.subscribe(["c-0"])
        await asyncio.sleep(301)  # unused for longer than ids are remembered
        await published(broker, "one more")
        again = await published(broker, "c-0")
        assert again.offset == 2  # not the one that is subscribed

    on(url, scenario, channels=10)


def test_remembered_ids_are_let_go_without_another_publish(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for n in range(1000):
            await published(broker, "c", b"\x01", f"m-{n}")
        await asyncio.sleep(600)
        assert isinstance(broker, MemoryBroker)
        assert broker.memory.streams["c"].dedupe is None
        assert await published(broker, "c", b"\x01", "m-0")

    on(url, scenario, dedupe_window=100.0)


def test_who_watches_a_beginning_is_told_of_all_that_begin_so_once_and_of_no_other(
    url: str,
) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await published(one.broker, "chat:before")  # there before it is watched
        await one.broker.watch(["chat:", "a*"])
        await one.broker.subscribe(["chat:a"])
        names = ["chat:before", "chat:a", "chat:new", "chat:*", "a*", "chat", "chAt:a", "ab", "x"]
        for name in names:
            await published(two.broker, name)
            await published(two.broker, name)
        await asyncio.sleep(1)
        assert {name: offsets_of(told) for name, told in one.records.items()} == {
            "chat:before": [2, 3], "chat:a": [1, 2], "chat:new": [1, 2], "chat:*": [1, 2],
            "a*": [1, 2],
        }  # fmt: skip
        assert not two.records
        one.records.clear()
        await one.broker.unwatch(["chat:"])
        for name in names:
            await published(two.broker, name)
        await asyncio.sleep(1)
        assert {name: offsets_of(told) for name, told in one.records.items()} == {
            "chat:a": [3], "a*": [3],
        }  # fmt: skip
        await one.broker.stop()
        await published(two.broker, "a*")
        assert len(one.records["a*"]) == 1

    on_two(url, scenario)


def test_to_be_watched_does_not_keep_a_channel_in_memory(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await broker.watch([""])
        before = await published(broker, "c", b"\x01", "m-1")
        await asyncio.sleep(1200)
        after = await published(broker, "c", b"\x01", "m-2")
        assert after.epoch != before.epoch
        assert [record.epoch for record in seen.records["c"]] == [before.epoch, after.epoch]

    on(url, scenario, meta_ttl=1000.0)
