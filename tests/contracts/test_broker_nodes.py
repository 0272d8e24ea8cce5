"""What every broker must do for several nodes: leases, presence, commands and signals."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

from everwire.brokers.base import Broker, ChannelOptions, Claim
from everwire.brokers.memory import MemoryBroker
from everwire.codes import ErrorCode
from everwire.errors import RequestError
from everwire.protocol.messages import Member, Position

from .test_broker import BROKERS, Seen, neighbour, on, on_two, published, read

LEASE = 15.0
ADA, ADA2, BOB = Member("1", "ada"), Member("2", "ada"), Member("3", "bob")


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def who(broker: Broker, channel: str = "c") -> list[str]:
    return [one.connection for one in (await broker.presence(channel, 100)).members]


attempts = count()


async def claim(
    broker: Broker, key: str = "k", digest: bytes = b"d", *, owner: str = "ada", **more: Any
) -> Claim:
    """Claim by a new attempt, unless one is named."""
    more = {"attempt": f"a{next(attempts)}", "again": False, **more}
    return await broker.claim(owner, key, digest, **more)


# ---- channels ------------------------------------------------------------------------


def test_each_node_is_told_of_its_own_channels_whoever_publishes(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.subscribe(["c"])
        await two.broker.subscribe(["c", "d"])
        for broker in (one.broker, two.broker):
            await published(broker, "c")
            await published(broker, "d")
        await asyncio.sleep(0.1)
        assert [record.offset for record in one.records["c"]] == [1, 2]
        assert one.records["c"] == two.records["c"]
        assert (list(one.records), len(two.records["d"])) == (["c"], 2)
        await one.broker.unsubscribe(["c"])
        await published(one.broker, "c")
        await asyncio.sleep(0.1)
        assert (len(one.records["c"]), len(two.records["c"])) == (2, 3)

    on_two(url, scenario)


def test_a_resent_message_is_known_on_every_node(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        first = await published(one.broker, "c", b"\x01", "m-1")
        assert await published(two.broker, "c", b"\x01", "m-1") == first
        page = await read(two.broker, "c", Position(first.epoch, 0, ""))
        assert (page.recovered, len(page.records)) == (True, 1)

    on_two(url, scenario)


def test_a_node_that_stopped_is_told_nothing_and_the_other_goes_on(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        for node in (one, two):
            await node.broker.subscribe(["c"])
        await one.broker.stop()
        await published(two.broker, "c")
        await two.broker.signal(None, b"x")
        await asyncio.sleep(0.1)
        assert not one.records
        assert not one.signals
        assert len(two.records["c"]) == 1
        assert await two.broker.nodes() == ["two"]

    on_two(url, scenario)


def test_tops_are_the_last_messages_of_channels(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.subscribe(["c", "d"])
        positions = [await published(one.broker, "c") for _ in range(3)]
        d = await published(one.broker, "d", options=ChannelOptions(history=0))
        assert list(await two.broker.tops(["c", "d", "nothing"]))[:2] == [positions[-1], d]
        assert (await two.broker.tops(["nothing"]))[0].offset == 0
        assert list(await two.broker.tops([])) == []

    on_two(url, scenario)


def test_a_channel_that_is_restarted_has_another_epoch_and_what_it_held(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.subscribe(["c"])
        positions = [await published(one.broker, "c", b"\x01", f"m-{n}") for n in range(3)]
        await two.broker.restart("c", "another")
        assert list(await one.broker.tops(["c"])) == [positions[-1]]
        await two.broker.restart("c", positions[0].epoch)
        await one.broker.restart("c", positions[0].epoch)  # it is not that any more
        [top] = await one.broker.tops(["c"])
        assert (top.offset, top.id) == (positions[-1].offset, "m-2")
        assert top.epoch != positions[0].epoch
        page = await read(one.broker, "c", positions[1])
        assert (page.recovered, page.reason) == (False, "epoch")
        assert [record.id for record in page.records] == ["m-0", "m-1", "m-2"]
        assert {record.epoch for record in page.records} == {top.epoch}
        assert await published(one.broker, "c", b"\x01", "m-1") == Position(
            top.epoch, positions[1].offset, "m-1"
        )
        new = await published(two.broker, "c")
        assert (new.epoch, new.offset > top.offset) == (top.epoch, True)
        await two.broker.restart("nothing", "e")

    on_two(url, scenario)


# ---- signals -------------------------------------------------------------------------


def test_a_signal_reaches_the_node_that_it_is_for_or_all_others(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        three = Seen("three", neighbour(one.broker))
        await three.broker.start(three)
        await one.broker.signal("two", b"for two")
        await one.broker.signal(None, b"for all")
        await one.broker.signal("one", b"for me")
        await one.broker.signal("nobody", b"lost")
        await asyncio.sleep(0.1)
        assert one.signals == [b"for me"]
        assert two.signals == [b"for two", b"for all"]
        assert three.signals == [b"for all"]
        await three.broker.stop()

    on_two(url, scenario)


# ---- leases --------------------------------------------------------------------------


def test_a_node_is_known_while_its_lease_holds(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        assert sorted(await one.broker.nodes()) == ["one", "two"]
        await asyncio.sleep(LEASE - 1)
        assert await one.broker.renew(LEASE)
        assert sorted(await two.broker.nodes()) == ["one", "two"]
        await asyncio.sleep(1.1)
        assert list(await one.broker.nodes()) == ["one"]
        assert await two.broker.renew(LEASE)
        assert sorted(await one.broker.nodes()) == ["one", "two"]

    on_two(url, scenario)


def test_the_members_of_a_node_stay_as_long_as_its_lease_and_no_longer(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.subscribe(["c"])
        await one.broker.presence_add("c", ADA)
        await two.broker.presence_add("c", BOB)
        await two.broker.presence_add("d", BOB)
        for _ in range(4):
            await asyncio.sleep(LEASE / 4 - 0.1)
            assert await one.broker.renew(LEASE)
            assert await who(one.broker) == ["1", "3"]
        await asyncio.sleep(LEASE / 4)
        await one.broker.renew(LEASE)
        assert await who(one.broker) == ["1"]
        assert await who(one.broker, "d") == []
        await asyncio.sleep(0.1)
        assert one.left == ["3"]
        assert one.changes[-1].count == 1

    on_two(url, scenario)


def test_a_node_whose_lease_ran_out_is_told_so_once_when_it_renews_it(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await two.broker.presence_add("c", BOB)
        await asyncio.sleep(LEASE + 1)
        await one.broker.renew(LEASE)
        assert not await two.broker.renew(LEASE)
        await two.broker.presence_add("c", BOB)
        assert await two.broker.renew(LEASE)
        assert await who(one.broker) == ["3"]

    on_two(url, scenario)


def test_what_a_node_adds_after_its_lease_ran_out_does_not_stay_for_ever(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await asyncio.sleep(LEASE + 1)
        await one.broker.renew(LEASE)
        await two.broker.presence_add("c", BOB)  # and then it dies
        for _ in range(4):
            await asyncio.sleep(LEASE / 3)
            await one.broker.renew(LEASE)
        assert await who(one.broker) == []

    on_two(url, scenario)


def test_a_node_that_stops_takes_its_members_along(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.subscribe(["c"])
        await two.broker.presence_add("c", BOB)
        await two.broker.presence_add("c", ADA)
        await two.broker.presence_remove("c", "1", 5.0)
        await two.broker.stop()
        await asyncio.sleep(0.1)
        assert await who(one.broker) == ["1"]
        assert one.left == ["3"]
        await asyncio.sleep(5)
        await one.broker.renew(LEASE)
        await asyncio.sleep(0.1)
        assert await who(one.broker) == []
        assert one.left == ["3", "1"]

    on_two(url, scenario)


# ---- presence ------------------------------------------------------------------------


def test_presence_tells_each_change_once_and_counts(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        for node in (one, two):
            await node.broker.subscribe(["c"])
        await one.broker.presence_add("c", ADA)
        await one.broker.presence_add("c", ADA)
        await two.broker.presence_add("c", BOB)
        few = await one.broker.presence("c", 1)
        assert (len(few.members), few.count) == (1, 2)
        await one.broker.presence_remove("c", "1")
        await one.broker.presence_remove("c", "1")
        assert await who(two.broker) == ["3"]
        await asyncio.sleep(0.1)
        for node in (one, two):
            assert (node.joined, node.left) == ([ADA, BOB], ["1"])
            assert [change.count for change in node.changes] == [1, 2, 1]

    on_two(url, scenario)


def test_versions_grow_name_the_one_before_and_are_zero_when_nobody_is_there(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await broker.subscribe(["c"])
        known = [0]
        nobody = await broker.presence("c", 9)
        assert (len(nobody.members), nobody.count, nobody.version) == (0, 0, 0)
        for _ in range(2):
            await broker.presence_add("c", ADA)
            await broker.presence_add("c", BOB)
            known.append((await broker.presence("c", 9)).version)
            assert list(await broker.presence_versions(["x", "c"])) == [0, known[-1]]
            await broker.presence_remove("c", "1")
            await broker.presence_remove("c", "3")
            known.append((await broker.presence("c", 9)).version)
        assert known[2] == known[4] == 0
        assert 0 < known[1] < known[3]
        await asyncio.sleep(0.1)
        at = 0
        for change in seen.changes:
            assert change.before == at
            at = change.version

    on(url, scenario)


def test_presence_passes_from_one_connection_to_another_in_one_step(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.subscribe(["c"])
        await one.broker.presence_add("c", ADA)
        await two.broker.presence_add("c", ADA2, instead="1")
        await two.broker.presence_add("c", ADA2, instead="1")
        await one.broker.presence_remove("c", "1")
        assert await who(one.broker) == ["2"]
        await asyncio.sleep(0.1)
        assert [(c.joined, list(c.left), c.count) for c in one.changes] == [
            ((ADA,), [], 1),
            ((ADA2,), ["1"], 1),
        ]

    on_two(url, scenario)


def test_nobody_takes_the_place_of_another_user(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.presence_add("c", ADA, "i")
        await one.broker.presence_remove("c", "1", 5.0)
        await two.broker.presence_add("c", BOB, "i", "1")
        assert await who(one.broker) == ["1", "3"]

    on_two(url, scenario)


@pytest.mark.parametrize("back", [True, False])
def test_a_member_stays_for_its_grace_and_the_same_client_takes_its_place(
    url: str, back: bool
) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.subscribe(["c"])
        await one.broker.presence_add("c", ADA, "i")
        await one.broker.presence_remove("c", "1", 5.0)
        await asyncio.sleep(4)
        assert await who(one.broker) == ["1"]
        if back:
            await two.broker.presence_add("c", ADA2, "i")
        await asyncio.sleep(2)
        await two.broker.renew(LEASE)
        await asyncio.sleep(0.1)
        assert await who(one.broker) == (["2"] if back else [])
        [_, change] = one.changes
        assert (len(change.joined), list(change.left)) == (int(back), ["1"])

    on_two(url, scenario)


def test_a_connection_that_is_there_keeps_its_place_beside_another_of_its_instance(
    url: str,
) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.presence_add("c", ADA, "i")
        await two.broker.presence_add("c", ADA2, "i")
        assert await who(one.broker) == ["1", "2"]
        await one.broker.presence_remove("c", "1", 5.0)
        await one.broker.presence_add("c", ADA, "i")  # it was not lost after all
        await asyncio.sleep(6)
        await two.broker.renew(LEASE)
        assert sorted(await who(one.broker)) == ["1", "2"]

    on_two(url, scenario)


def test_a_grace_that_begins_anew_ends_later(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await one.broker.presence_add("c", ADA, "i")
        await one.broker.presence_remove("c", "1", 2.0)
        await one.broker.presence_add("c", ADA, "i")
        await one.broker.presence_remove("c", "1", 8.0)
        await asyncio.sleep(3)
        await two.broker.renew(LEASE)
        assert await who(two.broker) == ["1"]
        await asyncio.sleep(6)
        await two.broker.renew(LEASE)
        assert await who(two.broker) == []

    on_two(url, scenario)


# ---- commands ------------------------------------------------------------------------


def test_a_command_is_claimed_once_and_answered_alike_everywhere(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        assert (await claim(one.broker, attempt="1")).state == "claimed"
        assert (await claim(one.broker)).state == "running"
        assert (await claim(two.broker)).state == "running"
        await one.broker.finish("ada", "k", "1", b"answer")
        for broker in (one.broker, two.broker):
            assert await claim(broker) == Claim("done", b"answer")

    on_two(url, scenario)


def test_a_key_with_another_digest_is_reused_at_every_time(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await claim(one.broker, attempt="1")
        assert (await claim(two.broker, digest=b"e")).state == "reused"
        await one.broker.finish("ada", "k", "1", b"")
        assert (await claim(two.broker, digest=b"e")).state == "reused"
        assert (await claim(two.broker)).state == "done"

    on_two(url, scenario)


def test_the_keys_of_different_owners_are_different_and_cannot_be_confused(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for owner, key in [("a", "b:c"), ("a:b", "c"), ("", "a:b:c"), ("a", "b"), ("ab", "")]:
            assert (await claim(broker, key, owner=owner)).state == "claimed"

    on(url, scenario)


def test_a_claim_that_is_made_twice_is_one_and_another_attempt_cannot_end_it(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        for _ in range(2):  # the answer to the first got lost
            assert (await claim(one.broker, attempt="1")).state == "claimed"
        await one.broker.finish("ada", "k", "2", None)
        await two.broker.finish("ada", "k", "2", b"x")
        assert (await claim(two.broker)).state == "running"
        await one.broker.finish("ada", "k", "1", b"first")
        await one.broker.finish("ada", "k", "1", b"second")
        await one.broker.finish("ada", "k", "1", None)
        assert await claim(two.broker) == Claim("done", b"first")

    on_two(url, scenario)


def test_a_command_that_had_no_effect_can_be_claimed_again(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await claim(one.broker, attempt="1")
        await one.broker.finish("ada", "k", "1", None)
        assert (await claim(two.broker, digest=b"e")).state == "claimed"

    on_two(url, scenario)


def test_a_command_of_a_node_that_is_no_more_is_lost_until_the_window_ends(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await claim(one.broker, attempt="1")
        for _ in range(3):
            assert (await claim(two.broker)).state == "running"
            await asyncio.sleep(LEASE / 3)
            await two.broker.renew(LEASE)
        await asyncio.sleep(0.1)
        for _ in range(16):
            assert (await claim(two.broker)).state == "lost"
            await asyncio.sleep(5)
            await two.broker.renew(LEASE)
        await asyncio.sleep(20)
        assert (await claim(two.broker)).state == "claimed"

    on_two(url, scenario, dedupe_window=100.0)


def test_who_may_do_it_again_claims_what_was_lost(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await claim(one.broker, attempt="1")
        assert (await claim(two.broker, again=True)).state == "running"
        await asyncio.sleep(LEASE + 1)
        await two.broker.renew(LEASE)
        assert (await claim(two.broker, again=True, attempt="2")).state == "claimed"
        await one.broker.finish("ada", "k", "1", b"late")  # it is no longer its own to answer
        await two.broker.finish("ada", "k", "2", b"mine")
        assert await claim(two.broker) == Claim("done", b"mine")

    on_two(url, scenario)


def test_a_node_that_was_given_up_and_still_answers_is_believed(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        await claim(one.broker, attempt="1")
        await asyncio.sleep(LEASE + 1)
        await two.broker.renew(LEASE)
        assert (await claim(two.broker)).state == "lost"
        await one.broker.finish("ada", "k", "1", b"after all")
        assert await claim(two.broker) == Claim("done", b"after all")

    on_two(url, scenario)


def test_an_answer_is_remembered_for_the_window_from_the_end_and_then_forgotten(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await claim(broker, attempt="1")
        for _ in range(30):  # it takes three windows
            await asyncio.sleep(10)
            await broker.renew(LEASE)
            assert (await claim(broker)).state == "running"
        await broker.finish("ada", "k", "1", b"x")
        await asyncio.sleep(99)
        assert (await claim(broker)).state == "done"
        await asyncio.sleep(60)
        assert (await claim(broker)).state == "claimed"

    on(url, scenario, dedupe_window=100.0)


def test_the_window_of_an_answer_begins_when_it_is_given(url: str) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        await claim(broker, attempt="1")
        for _ in range(9):
            await asyncio.sleep(10)
            await broker.renew(LEASE)
        await broker.finish("ada", "k", "1", b"x")
        await asyncio.sleep(60)
        assert (await claim(broker)).state == "done"

    on(url, scenario, dedupe_window=100.0)


@pytest.mark.parametrize(
    "limit", [{"command_keys_user": 5}, {"command_keys": 5}, {"command_bytes": 5_000}]
)
def test_remembered_commands_are_bounded_and_none_is_forgotten_early(
    url: str, limit: dict[str, int]
) -> None:
    async def scenario(seen: Seen, broker: Broker) -> None:
        for n in range(5):
            assert (await claim(broker, f"k{n}", attempt="1")).state == "claimed"
            await broker.finish("ada", f"k{n}", "1", b"x" * 700)
        with pytest.raises(RequestError) as refused:
            await claim(broker, "k5")
        assert (refused.value.code, refused.value.temporary) == (ErrorCode.DEDUPE_FULL, True)
        assert (await claim(broker, "k0")).state == "done"
        if "command_keys_user" in limit:
            assert (await claim(broker, "k5", owner="bob")).state == "claimed"
        await asyncio.sleep(160)
        await broker.renew(LEASE)
        assert (await claim(broker, "k5")).state == "claimed"

    on(url, scenario, dedupe_window=100.0, **limit)


def test_what_ran_out_is_let_go_of(url: str) -> None:
    async def scenario(one: Seen, two: Seen) -> None:
        for n in range(100):
            await one.broker.presence_add("c", Member(str(n), "u"), "i")
            await one.broker.presence_remove("c", str(n), 1.0)
            await claim(one.broker, str(n), attempt="1")
            await one.broker.finish("ada", str(n), "1", b"x")
        await asyncio.sleep(160)
        await two.broker.renew(LEASE)
        await claim(two.broker, "last")
        assert isinstance(one.broker, MemoryBroker)
        memory = one.broker.memory
        assert not memory.rosters._rosters
        assert not memory.rosters._leaving
        assert len(memory.claims._commands) == 1
        assert memory.claims._bytes == 0
        assert list(memory.leases) == ["two"]

    on_two(url, scenario, dedupe_window=100.0)
