"""A full outbox: each publish has one fate, and it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire import ClientLimits, Dropped, OutboxFull, Superseded, Undelivered
from everwire.client import Ack

from .test_durable import failed, offline
from .world import World, data_of, loop, node_world, play, take, until

SMALL = ClientLimits(
    first_retry=0.2, backoff_base=0.2, backoff_cap=1.0, outbox_messages=3, outbox_block=5.0
)


async def online(world: World) -> None:
    world.network.refuse = False
    await asyncio.sleep(0)


def test_publish_waits_for_room_unless_told_otherwise_and_publish_nowait_refuses() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=SMALL) as client:
            offline(world)
            await until(lambda: client.state == "connecting")
            futures = [client.publish_nowait("c", n) for n in range(3)]
            with pytest.raises(OutboxFull):
                client.publish_nowait("c", 3)
            began = loop().time()
            with pytest.raises(OutboxFull, match="within 5 s"):
                await client.publish("c", 3)
            assert loop().time() - began == pytest.approx(5.0)
            with pytest.raises(OutboxFull):
                await client.publish("c", 3, overflow="reject")
            assert loop().time() - began == pytest.approx(5.0)
            await online(world)
            for future in futures:
                await future

    play(scenario)


@pytest.mark.parametrize("per_call", [False, True])
def test_drops_are_counted_told_and_fail(per_call: bool) -> None:
    async def scenario() -> None:
        told: list[Undelivered] = []
        chosen: dict[str, Any] = {} if per_call else {"overflow": "drop_oldest"}
        call: dict[str, Any] = {"overflow": "drop_oldest"} if per_call else {}
        async with node_world() as world, world.client(limits=SMALL, **chosen) as client:
            client.on_drop = told.append
            async with client.subscribe("c") as room:
                offline(world)
                await until(lambda: client.state == "connecting")
                futures = [client.publish_nowait("c", n, **call) for n in range(5)]
                newest = client.publish_nowait("c", 5, overflow="drop_newest")
                await failed([*futures[:2], newest], Dropped)
                assert [(one.data, one.channel, one.sent) for one in told] == [
                    (0, "c", False), (1, "c", False), (5, "c", False)
                ]  # fmt: skip
                assert "oldest" in told[0].reason
                assert "newest" in told[2].reason
                await online(world)
                assert data_of(await take(room, 3)) == [2, 3, 4]
                for future in futures[2:]:
                    await future
                assert client.stats.dropped == 3

    play(scenario)


def test_what_coalesces_is_superseded_in_its_channel_and_sent_in_its_place() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            async with world.client(limits=SMALL, overflow="coalesce") as client:
                async with client.subscribe("c") as room, client.subscribe("d") as other:
                    offline(world)
                    await until(lambda: client.state == "connecting")
                    old = client.publish_nowait("c", "old", key="k")
                    elsewhere = client.publish_nowait("d", "elsewhere", key="k")
                    plain = client.publish_nowait("c", "plain")
                    new: asyncio.Future[Ack] = client.publish_nowait("c", "new", key="k")
                    with pytest.raises(Superseded, match="took its place"):
                        await old
                    with pytest.raises(OutboxFull):
                        client.publish_nowait("c", "unlike", key="l")
                    await online(world)
                    assert data_of(await take(room, 2)) == ["new", "plain"]
                    assert data_of(await take(other, 1)) == ["elsewhere"]
                    for future in (elsewhere, plain, new):
                        assert (await future).position is not None
                    assert (client.stats.superseded, client.stats.dropped) == (1, 0)

    play(scenario)


def test_what_is_on_its_way_is_neither_replaced_nor_dropped() -> None:
    async def scenario() -> None:
        async with node_world(latency=1.0) as world, world.client(limits=SMALL) as client:
            async with client.subscribe("c") as room:
                futures = [client.publish_nowait("c", n, key="k") for n in range(3)]
                await asyncio.sleep(0.5)
                assert client.stats.sent == 3
                with pytest.raises(OutboxFull, match="sent already"):
                    await client.publish("c", 3, overflow="drop_oldest")
                waits = client.publish("c", 4, key="k", overflow="coalesce")
                assert (await waits).position is not None
                for future in futures:
                    await future
                assert data_of(await take(room, 4)) == [0, 1, 2, 4]

    play(scenario)


def test_a_hook_of_drops_that_raises_is_logged_and_one_that_publishes_may() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            async with world.client(limits=SMALL, overflow="drop_oldest") as client:
                async with client.subscribe("c") as room:
                    offline(world)
                    await until(lambda: client.state == "connecting")

                    def again(dropped: Undelivered) -> None:
                        if dropped.data == 0:
                            client.publish_nowait("c", "again")
                        raise ValueError("a defect of the application")

                    client.on_drop = again
                    for n in range(4):
                        client.publish_nowait("c", n)
                    await online(world)
                    assert data_of(await take(room, 3)) == [2, 3, "again"]

    play(scenario)


def test_what_is_published_in_one_turn_is_handed_over_together() -> None:
    """And what is published alone goes out at once."""

    async def scenario() -> None:
        async with node_world(latency=1.0) as world, world.client() as client:
            link = client._core.session.link
            assert link is not None
            handed: list[int] = []
            send_many = link.send_many

            def noted(payloads: Any) -> None:
                handed.append(len(payloads))
                send_many(payloads)

            link.send_many = noted  # type: ignore[method-assign]
            alone = client.publish_nowait("c", 0)
            assert handed == [1]
            await alone
            futures = [client.publish_nowait("c", n) for n in range(100)]
            await asyncio.gather(*futures)
            assert handed == [1, 1, 32, 32, 32, 3]
            futures = [client.publish_nowait("c", n) for n in range(100)]
            await asyncio.gather(*futures)
            assert handed == [1, 1, 32, 32, 32, 3, 32, 32, 32, 4]

    play(scenario)
