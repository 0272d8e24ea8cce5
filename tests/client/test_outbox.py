"""The outbox: bounded, in order, and nothing leaves it in silence."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from everwire import DeliveryUnknown, NotSent, OutboxFull, RequestError
from everwire.client.entry import Ack, Entry
from everwire.client.outbox import Lane, Outbox
from everwire.testing import run

ACK = Ack(None)


class Owner:
    """Remembers what an outbox tells."""

    def __init__(self) -> None:
        self.settled_channels: list[str] = []
        self.fates: list[tuple[str, str]] = []

    def settled(self, channel: str, lane: Lane) -> None:
        self.settled_channels.append(channel)

    def taken(self, entry: Entry, replaced: Entry | None) -> None:
        self.fates.append((entry.id, "taken" if replaced is None else f"for {replaced.id}"))

    def ended(self, entry: Entry, error: Exception | None, told: bool) -> None:
        self.fates.append((entry.id, "acknowledged" if error is None else type(error).__name__))


class Box(Outbox):
    """With entries made of a number and a channel."""

    def __init__(self, messages: int = 100, size: int = 10_000) -> None:
        self.owner = Owner()
        super().__init__(messages=messages, size=size, owner=self.owner)

    @property
    def settled(self) -> list[str]:
        return self.owner.settled_channels

    @staticmethod
    def entry(name: str, channel: str = "c", size: int = 1, expires: float = 60.0) -> Entry:
        future = asyncio.get_running_loop().create_future()
        return Entry(name, channel, None, b"x" * size, expires, future)

    def add(self, name: str, channel: str = "c", **options: Any) -> Entry:
        entry = self.entry(name, channel, **options)
        self.put(entry)
        return entry

    async def when_room(self, entry: Entry) -> None:
        if not self.offer(entry, "block"):
            await self.wait(entry, 60.0)

    def sent(self, window: int = 100) -> list[tuple[str, int]]:
        """Send what can be sent; (id, run) each."""
        out = []
        for entry, number in self.take_ready(window, 10_000):
            if entry.first_sent is None:
                entry.first_sent = 0.0
            out.append((entry.id, number))
        return out


def test_what_is_put_goes_out_once_in_order() -> None:
    async def scenario() -> None:
        box = Box()
        for name in "abc":
            box.add(name)
        assert box.sent() == [("a", 0), ("b", 0), ("c", 0)]
        assert box.sent() == []
        assert (len(box), box.in_flight) == (3, 3)

    run(scenario)


def test_no_more_are_in_flight_than_the_window() -> None:
    async def scenario() -> None:
        box = Box()
        entries = [box.add(str(n)) for n in range(5)]
        assert [name for name, _ in box.sent(2)] == ["0", "1"]
        box.acknowledge(entries[0], ACK)
        assert [name for name, _ in box.sent(2)] == ["2"]

    run(scenario)


def test_an_acknowledgement_resolves_and_frees() -> None:
    async def scenario() -> None:
        box = Box()
        entry = box.add("a", size=7)
        box.sent()
        assert (len(box), box.size) == (1, 7)
        assert box.acknowledge(entry, ACK)
        assert (len(box), box.size, box.in_flight) == (0, 0, 0)
        assert await entry.future is ACK
        assert not box.acknowledge(entry, ACK)

    run(scenario)


def test_a_new_link_sends_all_again_first_with_the_next_run_of_each_channel() -> None:
    async def scenario() -> None:
        box = Box()
        first = box.add("a1", "a")
        box.add("b1", "b")
        box.add("a2", "a")
        box.sent()
        box.acknowledge(first, ACK)
        box.add("n1", "n")
        box.relink()
        box.add("a3", "a")
        assert box.sent() == [("b1", 1), ("a2", 1), ("n1", 0), ("a3", 1)]
        box.relink()
        assert box.sent() == [("b1", 2), ("a2", 2), ("n1", 1), ("a3", 2)]

    run(scenario)


def test_nothing_overtakes_what_may_not_be_sent_yet() -> None:
    async def scenario() -> None:
        box = Box()
        box.add("a")
        later = box.entry("b")
        later.stored = False
        box.put(later)
        box.add("c")
        box.add("o", "other")
        assert box.sent() == [("a", 0)]
        box.relink()
        assert box.sent() == [("a", 1)]
        later.stored = True
        assert box.sent() == [("b", 1), ("c", 1), ("o", 0)]

    run(scenario)


def test_a_replacement_is_sent_in_its_place_and_again_in_its_place() -> None:
    async def scenario() -> None:
        box = Box()
        for name, key in (("a", None), ("b", "k"), ("c", None)):
            entry = box.entry(name)
            entry.key = key
            box.put(entry)
        newer = box.entry("n")
        newer.key = "k"
        box.put(newer, "coalesce")
        assert box.owner.fates[-2:] == [("n", "for b"), ("b", "Superseded")]
        assert box.sent() == [("a", 0), ("n", 0), ("c", 0)]
        box.relink()
        assert box.sent() == [("a", 1), ("n", 1), ("c", 1)]
        assert box.acknowledge(newer, ACK)
        assert (len(box), box.size) == (2, 2)

    run(scenario)


def test_a_refusal_for_now_holds_the_channel_until_all_of_it_is_answered() -> None:
    async def scenario() -> None:
        box = Box()
        a, b = box.add("a"), box.add("b")
        other = box.add("o", "other")
        box.sent()
        error = RequestError(code=501)
        box.hold(a, error, None)
        assert box.settled == []
        box.add("c")
        assert box.sent() == []
        box.hold(b, RequestError(code=502), 2.0)
        assert box.settled == ["c"]
        box.acknowledge(other, ACK)
        box.release("c")
        assert box.sent() == [("a", 1), ("b", 1), ("c", 1)]

    run(scenario)


@pytest.mark.parametrize("tried", [True, False])
def test_what_was_not_sent_yet_waits_with_the_channel(tried: bool) -> None:
    async def scenario() -> None:
        box = Box()
        a = box.add("a")
        box.add("b")
        assert box.sent(1) == [("a", 0)]
        box.hold(a, RequestError(code=501), None)
        if tried:
            assert box.sent() == []
        box.release("c")
        assert box.sent() == [("a", 1), ("b", 1)]

    run(scenario)


def test_the_run_is_remembered_for_a_channel_that_was_emptied_while_held() -> None:
    async def scenario() -> None:
        box = Box()
        entry = box.add("a")
        box.sent()
        box.hold(entry, RequestError(code=501), None)
        box.expire(60.0)
        with pytest.raises(DeliveryUnknown):
            await entry.future
        box.release("c")
        box.add("b")
        assert box.sent() == [("b", 1)]

    run(scenario)


def test_an_error_for_good_fails_that_one_and_the_others_go_on() -> None:
    async def scenario() -> None:
        box = Box()
        a, b = box.add("a"), box.add("b")
        box.sent()
        box.fail(a, RequestError(code=202))
        box.acknowledge(b, ACK)
        with pytest.raises(RequestError):
            await a.future
        assert await b.future is ACK

    run(scenario)


def test_what_expires_says_whether_it_was_sent() -> None:
    async def scenario() -> None:
        box = Box()
        sent = box.add("a", expires=10.0)
        box.sent()
        box.hold(sent, RequestError("busy", code=501), None)
        unsent = box.add("b", expires=11.0)
        assert box.next_expiry() == 10.0
        box.expire(10.0)
        with pytest.raises(DeliveryUnknown) as unknown:
            await sent.future
        assert isinstance(unknown.value.__cause__, RequestError)
        assert not unsent.future.done()
        box.expire(11.0)
        with pytest.raises(NotSent):
            await unsent.future
        assert box.next_expiry() is None

    run(scenario)


def test_expiring_what_is_in_flight_does_not_block_the_channel() -> None:
    async def scenario() -> None:
        box = Box()
        a = box.add("a", expires=1.0)
        b = box.add("b", expires=9.0)
        box.sent()
        box.hold(b, RequestError(code=502), None)
        box.expire(1.0)
        assert box.settled == ["c"]
        box.release("c")
        assert box.sent() == [("b", 1)]
        assert isinstance(a.future.exception(), DeliveryUnknown)

    run(scenario)


def test_it_is_full_by_number_and_by_bytes() -> None:
    async def scenario() -> None:
        box = Box(messages=2, size=10)
        box.add("a", size=4)
        with pytest.raises(OutboxFull):
            box.add("b", size=7)
        box.add("c", size=6)
        with pytest.raises(OutboxFull):
            box.add("d", size=0)

    run(scenario)


def test_who_waits_for_room_gets_it_in_order_and_nobody_overtakes() -> None:
    async def scenario() -> None:
        box = Box(messages=1)
        first = box.add("a")
        second, third = box.entry("b"), box.entry("c")
        async with asyncio.TaskGroup() as group:
            group.create_task(box.when_room(second))
            group.create_task(box.when_room(third))
            await asyncio.sleep(0)
            box.acknowledge(first, ACK)
            with pytest.raises(OutboxFull):
                box.add("d")
            assert second.taken
            box.acknowledge(second, ACK)
        assert box.sent() == [("c", 0)]

    run(scenario)


def test_giving_up_waiting_lets_a_smaller_one_in() -> None:
    async def scenario() -> None:
        box = Box(size=10)
        box.add("a", size=8)
        large, small = box.entry("b", size=5), box.entry("c", size=2)
        waits = asyncio.get_running_loop().create_task(box.when_room(large))
        await asyncio.sleep(0)
        behind = asyncio.get_running_loop().create_task(box.when_room(small))
        await asyncio.sleep(0)
        assert not small.taken
        waits.cancel()
        await behind
        assert (small.taken, large.taken) == (True, False)

    run(scenario)


def test_a_message_larger_than_the_outbox_does_not_wait() -> None:
    async def scenario() -> None:
        with pytest.raises(OutboxFull):
            await Box(size=10).when_room(Box.entry("a", size=11))

    run(scenario)


def test_the_end_fails_everything_as_fits() -> None:
    async def scenario() -> None:
        box = Box(messages=2)
        sent = box.add("a")
        box.sent()
        unsent = box.add("b")
        blocked = box.entry("c")
        waits = asyncio.get_running_loop().create_task(box.when_room(blocked))
        await asyncio.sleep(0)
        box.end(ValueError("why"))
        assert isinstance(sent.future.exception(), DeliveryUnknown)
        assert isinstance(unsent.future.exception(), NotSent)
        with pytest.raises(NotSent):
            await waits
        await box.drained()

    run(scenario)


class Server:
    """Applies rule 2 of the delivery contract, and de-duplicates."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.known: set[str] = set()
        self.failed_runs: dict[str, int] = {}
        self.queue: deque[tuple[Entry, int]] = deque()

    def reconnect(self) -> None:
        self.failed_runs.clear()
        self.queue.clear()

    def answer(self, box: Box, fails: bool, stored: bool, refuses: bool) -> None:
        if not self.queue:
            return
        entry, run = self.queue.popleft()
        channel = entry.channel
        if run <= self.failed_runs.get(channel, -1):
            box.hold(entry, RequestError(code=502), None)
        elif refuses and entry.id not in self.known:
            box.fail(entry, RequestError(code=202))
        elif fails:
            if stored:
                self.store(entry)
            self.failed_runs[channel] = run
            box.hold(entry, RequestError(code=501), None)
        else:
            self.store(entry)
            box.acknowledge(entry, ACK)

    def store(self, entry: Entry) -> None:
        if entry.id not in self.known:
            self.known.add(entry.id)
            self.log.append((entry.channel, entry.id))


step = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc")),
    st.tuples(st.just("pump"), st.integers(1, 5)),
    st.tuples(st.just("answer"), st.tuples(st.booleans(), st.booleans(), st.just(False))),
    st.tuples(st.just("answer"), st.tuples(st.just(False), st.just(False), st.booleans())),
    st.tuples(st.just("release"), st.none()),
    st.tuples(st.just("drop"), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=80))
def test_whatever_fails_each_channel_is_stored_once_and_in_order(steps: list[Any]) -> None:
    async def scenario() -> None:
        box, server = Box(), Server()
        entries: list[Entry] = []

        def pump(window: int) -> None:
            for entry, number in box.take_ready(window, 10_000):
                entry.first_sent = 0.0
                server.queue.append((entry, number))

        def release() -> None:
            settled, box.owner.settled_channels = box.settled, []
            for channel in settled:
                box.release(channel)

        for kind, value in steps:
            if kind == "put":
                entries.append(box.add(f"{len(entries)}", value))
            elif kind == "pump":
                pump(value)
            elif kind == "answer":
                server.answer(box, *value)
            elif kind == "release":
                release()
            else:
                server.reconnect()
                box.relink()
        for _ in range(300):
            pump(100)
            server.answer(box, False, False, False)
            release()
        assert len(box) == 0
        accepted = [entry for entry in entries if entry.future.exception() is None]
        for channel in "abc":
            stored = [name for where, name in server.log if where == channel]
            assert stored == [entry.id for entry in accepted if entry.channel == channel]

    run(scenario)


def test_what_is_handed_over_goes_on_in_another_outbox_in_order() -> None:
    async def scenario() -> None:
        old, new = Box(messages=3), Box(messages=3)
        entries = [old.add(name) for name in "abc"]
        late = old.entry("d")
        assert not old.offer(late, "block")
        waiting = asyncio.ensure_future(old.wait(late, 60.0))
        await asyncio.sleep(0)
        assert old.sent() == [("a", 0), ("b", 0), ("c", 0)]
        new.add("x", "other")
        new.adopt(old.hand_over())
        await waiting
        assert (len(old), old.size, old.in_flight) == (0, 0, 0)
        await old.drained()
        assert not any(entry.future.done() for entry in (*entries, late))
        new.fail(entries[0], NotSent("given up before the other outbox sent it"))
        assert isinstance(entries[0].future.exception(), NotSent)
        assert new.in_flight == 0
        assert [name for name, _ in new.sent()] == ["x", "b", "c", "d"]
        assert new.in_flight == 4
        old.add("e")
        assert old.sent() == [("e", 0)]

    run(scenario)
