"""A pool while members fail: what is published stays in order, what is read has no holes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, strategies as st

from everwire import (
    BadData,
    ClientLimits,
    ClosedError,
    Everwire,
    Grant,
    NotSent,
    OutboxFull,
    Pool,
)
from everwire.client.pool_strategies import rendezvous
from everwire.protocol.states import ConnectionState as State
from everwire.testing import Direction

from .pool_world import addresses
from .test_pool import ready
from .world import data_of, loop, play, quiet, take, until


def keep_all(wire: Everwire) -> None:
    wire.channel("{name}", history=10_000, grant=Grant(publish=True))


class Numbered:
    load = (0, 0)

    def __init__(self, number: int) -> None:
        self.number = number

    def record(self) -> Any:
        return self


def member_of(key: str, *numbers: int) -> int:
    """The member of those that belongs to a key."""
    return rendezvous([Numbered(number) for number in numbers], key).number


def key_of(number: int, size: int, but: str = "") -> str:
    """A channel that belongs to a member."""
    names = (f"c{n}" for n in range(1_000))
    return next(one for one in names if member_of(one, *range(size)) == number and one != but)


# ---- rendezvous hashing ---------------------------------------------------------------


@given(
    keys=st.sets(st.text(min_size=1, max_size=20), min_size=1, max_size=200),
    size=st.integers(2, 16),
    data=st.data(),
)
def test_only_the_keys_of_a_member_that_goes_move(
    keys: set[str], size: int, data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, size - 1))
    every = range(size)
    left = [number for number in every if number != gone]
    for key in keys:
        before = member_of(key, *every)
        after = member_of(key, *left)
        assert after != gone
        if before != gone:
            assert after == before


def test_keys_are_spread_evenly_and_alike_in_every_process() -> None:
    counts = [0] * 5
    for n in range(5_000):
        counts[member_of(f"room:{n}", *range(5))] += 1
    assert max(counts) - min(counts) < 200  # more than five standard deviations apart
    assert [member_of(key, 0, 1, 2) for key in ("a", "b", "c", "d", "e", "ü")] == [2, 2, 1, 1, 2, 1]


# ---- quarantine -----------------------------------------------------------------------


def test_a_member_that_fails_five_times_is_quarantined_and_comes_back() -> None:
    async def scenario() -> None:
        async with addresses(3) as world, world.pool(min_ready=3) as pool:
            channel = key_of(1, 3)
            other = key_of(2, 3)
            heir = member_of(channel, 0, 2)
            await pool.publish(channel, 0)
            assert [one.stats.acknowledged for one in pool.members] == [0, 1, 0]
            world.down(1)
            await until(lambda: pool.members[1].failures == 4)
            assert not pool.members[1].quarantined
            await until(lambda: pool.members[1].quarantined)
            assert pool.members[1].failures == 5
            assert "member 1 quarantined (ConnectionRefusedError" in repr(pool)
            await pool.publish(channel, 1)
            assert pool.members[heir].stats.acknowledged == 1
            await pool.publish(other, 1)
            assert pool.members[2].stats.acknowledged == 1 + (heir == 2)
            world.up(1)
            await until(lambda: not pool.members[1].quarantined, within=2.0)
            assert pool.members[1].state is State.READY and pool.members[1].failures == 0
            await pool.publish(channel, 2)
            assert pool.members[1].stats.acknowledged == 2

    play(scenario)


def test_the_loss_of_a_link_that_was_ready_is_no_failure() -> None:
    async def scenario() -> None:
        async with addresses(1) as world, world.pool() as pool:
            for _ in range(10):
                pool.drop()
                await until(lambda: pool.state is not State.READY)
                await until(lambda: pool.state is State.READY)
            assert pool.members[0].failures == 0 and not pool.members[0].quarantined

    play(scenario)


def test_all_quarantined_what_waits_goes_over_the_first_that_is_back() -> None:
    async def scenario() -> None:
        async with addresses(3, keep_all) as world, world.pool(min_ready=3) as pool:
            channel = key_of(1, 3)
            room = await pool.subscribe(channel).__aenter__()
            for number in range(3):
                world.down(number)
            await until(lambda: all(one.quarantined for one in pool.members))
            futures = [pool.publish_nowait(channel, n, ttl=1_000) for n in range(20)]
            await asyncio.sleep(10)
            assert not any(future.done() for future in futures)
            world.up(2)
            for future in futures:
                await future
            assert data_of(await take(room, 20)) == list(range(20))
            assert [one.stats.acknowledged for one in pool.members] == [0, 0, 20]
            await room.unsubscribe()

    play(scenario)


# ---- order ----------------------------------------------------------------------------


def test_a_channel_stays_on_a_member_while_anything_is_not_acknowledged() -> None:
    """Round robin would send each message of a channel over another member."""

    async def scenario() -> None:
        async with addresses(3, keep_all) as world:
            async with world.pool(min_ready=3, strategy="round_robin") as pool:
                for link in world.links(0):
                    link.freeze(Direction.TO_SERVER)
                first = pool.publish_nowait("c", 0)
                rest = [pool.publish_nowait("c", n) for n in range(1, 5)]
                await asyncio.sleep(1.0)
                assert not any(future.done() for future in (first, *rest))
                for link in world.links(0):
                    link.thaw()
                positions = [(await future).position.offset for future in (first, *rest)]
                assert positions == [1, 2, 3, 4, 5]
                await pool.publish("c", 5)
                assert [one.stats.acknowledged for one in pool.members] == [5, 1, 0]

    play(scenario)


def test_who_no_longer_waits_for_a_message_does_not_let_later_ones_overtake_it() -> None:
    async def scenario() -> None:
        async with addresses(2, keep_all) as world:
            async with world.pool(min_ready=2, strategy="round_robin") as pool:
                for link in world.links(0):
                    link.freeze(Direction.TO_SERVER)
                pool.publish_nowait("c", 0).cancel()
                later = pool.publish_nowait("c", 1)
                await asyncio.sleep(0.5)
                for link in world.links(0):
                    link.thaw()
                assert (await later).position.offset == 2

    play(scenario)


@pytest.mark.parametrize("how", ["quarantine", "end"])
def test_what_is_not_acknowledged_goes_over_another_member_with_the_same_ids(how: str) -> None:
    """Half of it had arrived: its acknowledgements are what was lost."""

    async def scenario() -> None:
        async with addresses(3, keep_all) as world, world.pool(min_ready=3) as pool:
            channel = key_of(0, 3)
            for link in world.links(0):
                link.freeze(Direction.TO_CLIENT)
            futures = [pool.publish_nowait(channel, n) for n in range(10)]
            await until(lambda: len(world.broker.published) == 10)
            for link in world.links(0):
                link.freeze(Direction.TO_SERVER)
            futures += [pool.publish_nowait(channel, n) for n in range(10, 20)]
            await asyncio.sleep(0.1)
            if how == "quarantine":
                world.down(0)
                await until(lambda: pool.members[0].quarantined)
            else:
                end_member(pool, 0)
            futures.append(pool.publish_nowait(channel, 20))
            acks = [await future for future in futures]
            assert [ack.position.offset for ack in acks] == list(range(1, 22))
            assert [ack.duplicate for ack in acks] == [True] * 10 + [False] * 11
            assert len({ack.id for ack in acks}) == 21
            assert len({ack.id.rpartition("-")[0] for ack in acks[:20]}) == 1
            room = await pool.history(channel, limit=100)
            assert [one.data for one in room] == list(range(21))

    play(scenario)


def end_member(pool: Pool, number: int) -> None:
    """As if the server had turned this member away for good."""
    core = list(pool._pool.members)[number].connection
    core._finish(ClosedError(4504, "out"))
    core._tasks.cancel_all()


def test_who_waits_for_room_in_an_outbox_moves_with_the_others() -> None:
    limits = ClientLimits(
        first_retry=0.2, backoff_base=0.2, backoff_cap=1.0, outbox_messages=5, outbox_block=60.0
    )

    async def scenario() -> None:
        async with addresses(2, keep_all) as world:
            async with world.pool(min_ready=2, limits=limits) as pool:
                channel = key_of(0, 2)
                for link in world.links(0):
                    link.freeze()
                first = [pool.publish_nowait(channel, n) for n in range(5)]
                waiting = [asyncio.ensure_future(pool.publish(channel, n)) for n in range(5, 8)]
                await asyncio.sleep(1)
                assert pool.members[0].queued == pool.members[0].stats.outbox == 5
                world.down(0)
                for future in (*first, *waiting):
                    await future
                assert pool.members[0].quarantined
                held = await pool.history(channel)
                assert [one.data for one in held] == list(range(8))

    play(scenario)


def test_what_moved_still_has_its_time_to_live() -> None:
    async def scenario() -> None:
        async with addresses(2, keep_all) as world, world.pool(min_ready=2) as pool:
            channel = key_of(0, 2)
            world.down(0)
            world.down(1)
            await asyncio.sleep(0.1)
            began = loop().time()
            future = pool.publish_nowait(channel, 1, ttl=3.0)
            end_member(pool, 0)
            with pytest.raises(NotSent):
                await future
            assert loop().time() - began == pytest.approx(3.0, abs=0.01)

    play(scenario)


def test_a_publish_that_never_got_in_leaves_nothing_behind() -> None:
    limits = ClientLimits(outbox_messages=1, outbox_block=1.0)

    async def scenario() -> None:
        async with addresses(2) as world, world.pool(min_ready=2, limits=limits) as pool:
            for link in world.network.links:
                link.freeze()
            pending = pool.publish_nowait("c", 0)
            with pytest.raises(OutboxFull):
                pool.publish_nowait("c", 1)
            with pytest.raises(OutboxFull):
                await pool.publish("c", 1)
            cancelled = asyncio.ensure_future(pool.publish("c", 2))
            await asyncio.sleep(0.1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            routes = pool._pool.members._routes
            assert routes["c"].pending == 1
            for link in world.network.links:
                link.thaw()
            await pending
            assert not routes
            for bad in (object(), float("nan")):
                with pytest.raises(BadData):
                    pool.publish_nowait("d", bad)
            assert not routes

    play(scenario)


# ---- subscriptions ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["quarantine", "end"])
def test_a_subscription_moves_with_its_position(how: str) -> None:
    async def scenario() -> None:
        async with addresses(3, keep_all) as world, world.pool(min_ready=3) as pool:
            channel = key_of(0, 3)
            async with pool.subscribe(channel) as room:
                for n in range(3):
                    await world.world.wire.publish(channel, n)
                assert data_of(await take(room, 2)) == [0, 1]
                if how == "quarantine":
                    world.down(0)
                    await until(lambda: pool.members[0].quarantined)
                else:
                    end_member(pool, 0)
                for n in range(3, 6):
                    await world.world.wire.publish(channel, n)
                assert data_of(await take(room, 4)) == [2, 3, 4, 5]
                if how == "quarantine":
                    world.up(0)
                    await until(lambda: ready(pool) == 3)
                    await world.world.wire.publish(channel, 6)
                    assert data_of(await take(room, 1)) == [6]
                await quiet(room)
            await asyncio.sleep(1)
            left = world.world.node.hub.channels.values()
            assert not any(channel.subscriptions for channel in left)

    play(scenario)


def test_a_subscription_that_moves_is_told_of_what_history_no_longer_has() -> None:
    def declare(wire: Everwire) -> None:
        wire.channel("{name}", history=2, grant=Grant(publish=True))

    async def scenario() -> None:
        async with addresses(2, declare) as world, world.pool(min_ready=2) as pool:
            channel = key_of(0, 2)
            async with pool.subscribe(channel) as room:
                await world.world.wire.publish(channel, 0)
                assert data_of(await take(room, 1)) == [0]
                world.down(0)
                for n in range(1, 6):
                    await world.world.wire.publish(channel, n)
                assert data_of(await take(room, 3)) == ["<expired>", 4, 5]

    play(scenario)


def test_entering_goes_on_elsewhere_when_the_member_is_lost_meanwhile() -> None:
    async def scenario() -> None:
        async with addresses(2) as world, world.pool(min_ready=2) as pool:
            channel = key_of(0, 2)
            for link in world.links(0):
                link.freeze()
            entering = asyncio.ensure_future(pool.subscribe(channel).__aenter__())
            await asyncio.sleep(0.5)
            world.down(0)
            room = await entering
            await pool.publish(channel, 1)
            assert data_of(await take(room, 1)) == [1]
            await room.unsubscribe()

    play(scenario)


def test_callbacks_and_states_go_on_over_another_member() -> None:
    def declare(wire: Everwire) -> None:
        wire.channel("{name}", history=2, grant=Grant(publish=True))

    async def scenario() -> None:
        async with addresses(3, declare) as world, world.pool(min_ready=3) as pool:
            channel = key_of(0, 3)
            total = 0
            seen: list[Any] = []

            async def state() -> int:
                return total

            await pool.subscribe(
                channel,
                get_state=state,
                on_message=lambda message: seen.append(message.data),
                on_snapshot=lambda snapshot: seen.append(f"total {snapshot.data}"),
            )
            for n in range(2):
                total += 1
                await world.world.wire.publish(channel, n)
            await until(lambda: seen == [0, 1])
            world.down(0)
            for n in range(2, 8):
                total += 1
                await world.world.wire.publish(channel, n)
            await until(lambda: pool.members[0].quarantined)
            await until(lambda: "total 8" in seen)
            await world.world.wire.publish(channel, "next")
            await until(lambda: seen[-1] == "next")
            assert seen == [0, 1, "total 8", "next"]

    play(scenario)


def test_in_plain_order_is_kept_and_a_move_is_a_gap() -> None:
    async def scenario() -> None:
        async with addresses(2, keep_all) as world:
            async with world.pool(min_ready=2, dialect="plain") as pool:
                channel = key_of(0, 2)
                async with pool.subscribe(channel) as room:
                    for n in range(5):
                        assert (await pool.publish(channel, n)).position is None
                    assert data_of(await take(room, 5)) == [0, 1, 2, 3, 4]
                    world.down(0)
                    await until(lambda: pool.members[0].quarantined)
                    assert data_of(await take(room, 1)) == ["<dropped>"]
                    await pool.publish(channel, 5)
                    assert data_of(await take(room, 1)) == [5]

    play(scenario)
