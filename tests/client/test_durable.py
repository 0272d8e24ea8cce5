"""The durable outbox: what is published survives the process, and takes effect once."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from everwire import (
    ClientLimits,
    ConfigError,
    DeliveryUnknown,
    Dropped,
    Everwire,
    Forbidden,
    Grant,
    NotSent,
    NotStored,
    OutboxFull,
    SqliteOutbox,
    StillQueued,
    Superseded,
    Undelivered,
)
from everwire.client import Ack
from everwire.client.journal import Journal
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.protocol.dialects import dialect
from everwire.testing import Direction
from everwire.testing.link import Link

from .world import FAST, World, data_of, loop, node_world, play, take, until

PATIENT = ClientLimits(
    first_retry=0.2, backoff_base=0.2, backoff_cap=1.0, outbox_ttl=86_400.0, close_timeout=0.2
)
MSGPACK = dialect("msgpack")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def rows(path: Path, columns: str = "id", table: str = "entries") -> list[Any]:
    """What the file holds, as another process sees it."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        found = db.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
    finally:
        db.close()
    return [row[0] if len(row) == 1 else row for row in found]


def killed(path: Path, name: str = "killed") -> Path:
    """What a process that is killed now leaves: a copy of its files."""
    copy = path.parent / name
    copy.mkdir()
    for file in path.parent.glob("outbox.db*"):
        if file.suffix != ".lock":
            shutil.copy(file, copy / file.name)
    return copy / path.name


def offline(world: World) -> None:
    world.network.refuse = True
    world.network.cut()


async def failed(futures: list[asyncio.Future[Ack]], kind: type[Exception]) -> None:
    for future in futures:
        with pytest.raises(kind):
            await future


async def left(world: World, path: Path, *items: Any) -> list[str]:
    """A process publishes without a connection, and ends; return the ids."""
    async with world.client(outbox=path, limits=PATIENT) as client:
        offline(world)
        await until(lambda: client.state == "connecting")
        futures = [client.publish_nowait("c", item) for item in items]
    await failed(futures, StillQueued)
    world.network.refuse = False
    return rows(path)


def scene(
    story: Callable[[World, Path], Coroutine[Any, Any, None]],
    path: Path,
    declare: Callable[[Everwire], None] | None = None,
    **options: Any,
) -> None:
    async def scenario() -> None:
        async with node_world(declare, **options) as world:
            await story(world, path)

    play(scenario)


def test_what_is_acknowledged_leaves_the_file(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path) as client:
            futures = [client.publish_nowait("c", n) for n in range(300)]
            acks = [await future for future in futures]
            assert [ack.position.offset for ack in acks if ack.position] == [*range(1, 301)]
            await until(lambda: rows(path) == [])
            assert client.stats.sent == 300

    scene(story, path)


@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_sent_before_it_and_the_time_of_it_are_in_the_file(
    path: Path, again: bool
) -> None:
    """Whether there is a link when it is published, or only later."""

    async def story(world: World, path: Path) -> None:
        sent: list[str] = []

        def look(link: Link, direction: Direction, payload: bytes) -> None:
            message = MSGPACK.decode(bytes(payload)) if direction == "to_server" else None
            if isinstance(message, m.Publish):
                known = dict(rows(path, "id, first_sent"))
                assert known[message.id] is not None
                assert known[message.id] <= loop().wall()
                sent.append(message.id)

        world.network.on_message = look
        async with world.client(outbox=path, limits=PATIENT) as client:
            if again:
                offline(world)
                await until(lambda: client.state == "connecting")
            futures = [client.publish_nowait("c", n) for n in range(20)]
            if again:
                await until(lambda: len(rows(path)) == 20)
                assert set(rows(path, "first_sent")) == {None}
                world.network.refuse = False
            for future in futures:
                await future
        assert len(sent) == 20

    scene(story, path, latency=0.0)


def test_what_a_process_left_goes_out_first_in_order_with_its_ids(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        ids = await left(world, path, "a", b"b", {"c": [1.5, None]})
        async with world.client() as reader, reader.subscribe("c") as room:
            async with world.client(outbox=path) as client:
                ack = await client.publish("c", "new")
                items = await take(room, 4)
            assert data_of(items) == ["a", b"b", {"c": [1.5, None]}, "new"]
            assert sorted(world.broker.published[:3]) == sorted(ids)
            assert ack.id not in ids
            assert ack.id.rpartition("-")[0] != ids[0].rpartition("-")[0]
        assert rows(path) == []

    scene(story, path)


@pytest.mark.parametrize("after", [0.0, 0.001, 0.015, 0.021, 0.03])
def test_after_a_kill_at_any_moment_each_is_stored_once_and_in_order(
    path: Path, after: float
) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client() as reader, reader.subscribe("c") as room:
            client = world.client(outbox=path, limits=PATIENT)
            async with client:
                futures = [client.publish_nowait("c", n) for n in range(20)]
                await until(lambda: futures[-1].done() or len(rows(path)) == 20)
                await asyncio.sleep(after)
                copy = killed(path)
                told = [n for n, future in enumerate(futures) if future.done()]
                offline(world)
            world.network.refuse = False
            async with world.client(outbox=copy) as successor:
                await successor.publish("c", "new")
            await until(lambda: rows(copy) == [])
            items = await take(room, 21)
            assert data_of(items) == [*range(20), "new"]
            assert told == sorted(told)

    scene(story, path, latency=0.01)


def test_what_was_sent_too_long_ago_is_reported_and_never_sent(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        heard: list[Undelivered] = []
        async with world.client(outbox=path, limits=PATIENT) as client:
            world.network.links[-1].freeze()
            client.publish_nowait("c", "lost", key="k")
            await until(lambda: client.stats.sent == 1)
            copy = killed(path)
        offline(world)
        await asyncio.sleep(271)
        world.network.refuse = False
        successor = world.client(outbox=copy)
        successor.on_undelivered = heard.append
        async with successor:
            await successor.publish("c", "new")
            kept = await successor.undelivered()
            assert [(one.data, one.channel, one.key, one.sent) for one in kept] == [
                ("lost", "c", "k", True)
            ]
            assert [(one.id, one.sent) for one in heard] == [(kept[0].id, True)]
            assert kept[0].id not in world.broker.published
            assert "time to live" in kept[0].reason
        async with world.client(outbox=copy) as third:
            assert await third.undelivered() == kept
            third.forget_undelivered(kept)
            assert await third.undelivered() == []
        assert rows(copy, table="undelivered") == []

    scene(story, path)


def test_just_within_the_window_it_is_sent_again(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=PATIENT) as client:
            client.publish_nowait("c", 1)
            await until(lambda: len(world.broker.published) == 1)
            copy = killed(path)
        await asyncio.sleep(269)
        async with world.client() as reader, reader.subscribe("c") as room:
            async with world.client(outbox=copy) as successor:
                await successor.publish("c", 2)
                assert data_of(await take(room, 1)) == [2]
                assert await successor.undelivered() == []

    scene(story, path)


def test_what_was_never_sent_may_wait_as_long_as_it_is_allowed_to(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=PATIENT) as client:
            offline(world)
            await until(lambda: client.state == "connecting")
            client.publish_nowait("c", "early")
            client.publish_nowait("c", "short", ttl=100.0)
        await asyncio.sleep(3_000)
        world.network.refuse = False
        async with world.client() as reader, reader.subscribe("c") as room:
            async with world.client(outbox=path) as client:
                assert data_of(await take(room, 1)) == ["early"]
                kept = await client.undelivered()
                assert [(one.data, one.sent) for one in kept] == [("short", False)]

    scene(story, path)


def test_a_clock_that_went_back_makes_nobody_send_twice(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=PATIENT) as client:
            client.publish_nowait("c", 1)
            await until(lambda: len(world.broker.published) == 1)
            copy = killed(path)
        async with world.client(outbox=copy, wall=lambda: loop().wall() - 3_600) as successor:
            assert [one.sent for one in await successor.undelivered()] == [True]
        assert len(world.broker.published) == 1

    scene(story, path)


def test_stored_is_enough_for_who_says_so_and_a_later_failure_is_reported(path: Path) -> None:
    def declare(wire: Everwire) -> None:
        wire.channel("read:{x}", grant=Grant(publish=False))

    async def story(world: World, path: Path) -> None:
        heard: list[Undelivered] = []
        async with world.client(outbox=path, limits=PATIENT) as client:
            client.on_undelivered = heard.append
            offline(world)
            await until(lambda: client.state == "connecting")
            ack = await client.publish("c", 1, wait="stored")
            refused = await client.publish("read:only", 2, wait="stored")
            assert (ack.position, ack.id) == (None, rows(path)[0])
            world.network.refuse = False
            await until(lambda: heard)
            assert [(one.id, one.data) for one in heard] == [(refused.id, 2)]
            assert "forbidden" in heard[0].reason
            assert [one.id for one in await client.undelivered()] == [refused.id]
            assert rows(path) == []

    scene(story, path, declare)


def test_a_refusal_of_what_a_process_left_is_reported(path: Path) -> None:
    def declare(wire: Everwire) -> None:
        wire.channel("read:{x}", grant=Grant(publish=False))

    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=PATIENT) as client:
            with pytest.raises(Forbidden):
                await client.publish("read:only", "told")
            assert await client.undelivered() == []
            offline(world)
            await until(lambda: client.state == "connecting")
            futures = [client.publish_nowait("read:only", "untold")]
        await failed(futures, StillQueued)
        world.network.refuse = False
        async with world.client(outbox=path) as client:
            await until(lambda: rows(path) == [])
            assert [one.data for one in await client.undelivered()] == ["untold"]

    scene(story, path, declare)


def test_what_nobody_waits_for_any_more_is_reported_when_it_is_given_up(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=FAST) as client:
            offline(world)
            await until(lambda: client.state == "connecting")
            publishing = asyncio.get_running_loop().create_task(client.publish("c", 1, ttl=5.0))
            await asyncio.sleep(1)
            publishing.cancel()
            await asyncio.sleep(5)
            assert [(one.data, one.sent) for one in await client.undelivered()] == [(1, False)]

    scene(story, path)


def test_a_full_disk_is_told_and_the_client_lives(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        outbox = SqliteOutbox(path, max_bytes=64 * 1024)
        async with world.client(outbox=outbox, limits=PATIENT) as client:
            await client.publish("c", "small")
            with pytest.raises(NotStored, match="full"):
                await client.publish("c", "x" * 200_000)
            with pytest.raises(NotStored):
                await client.publish("c", "x" * 200_000, wait="stored")
            await client.publish("c", "small again")
            assert len(world.broker.published) == 2
            await until(lambda: rows(path) == [])
            assert await client.undelivered() == []

    scene(story, path)


def test_what_is_acknowledged_while_the_disk_is_full_is_deleted_later(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=PATIENT) as client:
            await client.publish("c", 1)
            await until(lambda: rows(path) == [])
            # Somebody else's transaction keeps us from writing for longer than we wait.
            other = sqlite3.connect(path, isolation_level=None)
            client.publish_nowait("c", 2)
            await until(lambda: len(rows(path)) == 1)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(NotStored, match="locked"):
                await client.publish("c", 3)
            other.execute("ROLLBACK")
            other.close()
            await client.publish("c", 4)
            await until(lambda: rows(path) == [])
            assert len(world.broker.published) == 3

    scene(story, path)


def test_whoever_gives_up_at_any_moment_of_its_opening_can_close_it(path: Path) -> None:
    async def main() -> None:
        for moment in range(300):
            journal = Journal(SqliteOutbox(path.with_name(f"{moment}.db")), ClientLimits())
            opening = asyncio.create_task(journal.open())
            await asyncio.sleep(moment / 50_000)
            opening.cancel()
            await asyncio.wait([opening])
            await journal.close()

    asyncio.run(main())


def test_one_owner_at_a_time(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path):
            with pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
                await world.client(outbox=path)
        async with world.client(outbox=path):
            pass

    scene(story, path)


def test_a_file_that_cannot_be_used_ends_the_opening_and_leaves_nothing_behind(
    path: Path,
) -> None:
    async def story(world: World, path: Path) -> None:
        path.write_text("a letter " * 100)
        for _ in range(2):
            with pytest.raises(ConfigError, match="file is not a database"):
                await world.client(outbox=path)
        path.unlink()
        offline(world)
        with pytest.raises(OSError, match="nobody listens"):
            await world.client(outbox=path, timeout=0.5)
        world.network.refuse = False
        async with world.client(outbox=path) as client:
            await client.publish("c", 1)

    scene(story, path)


def test_what_a_full_outbox_drops_or_replaces_is_out_of_the_file_too(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        limits = ClientLimits(outbox_messages=2, outbox_ttl=600.0, close_timeout=0.2)
        dropped: list[Any] = []
        async with world.client(outbox=path, limits=limits) as client:
            client.on_drop = lambda message: dropped.append(message.data)
            offline(world)
            await until(lambda: client.state == "connecting")
            first = client.publish_nowait("c", "first", key="k")
            second = client.publish_nowait("c", "second")
            newer = client.publish_nowait("c", "newer", key="k", overflow="coalesce")
            await failed([first], Superseded)
            third = client.publish_nowait("c", "third", overflow="drop_oldest")
            await failed([newer], Dropped)
            with pytest.raises(OutboxFull):
                client.publish_nowait("c", "fourth")
            again = client.publish_nowait("c", "last", key="k", overflow="drop_oldest")
            await failed([second], Dropped)
            await asyncio.sleep(0.1)
            assert len(rows(path)) == 2
            assert dropped == ["first", "newer", "second"]
            assert (client.stats.dropped, client.stats.superseded) == (2, 1)
        await failed([third, again], StillQueued)
        world.network.refuse = False
        async with world.client() as reader, reader.subscribe("c") as room:
            async with world.client(outbox=path):
                assert data_of(await take(room, 2)) == ["third", "last"]

    scene(story, path)


def test_a_replacement_keeps_its_place_over_a_restart(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=PATIENT) as client:
            offline(world)
            await until(lambda: client.state == "connecting")
            client.publish_nowait("c", "old", key="k")
            client.publish_nowait("c", "x")
            await until(lambda: len(rows(path)) == 2)
            await client.publish("c", "new", key="k", overflow="coalesce", wait="stored")
            copy = killed(path)
        world.network.refuse = False
        async with world.client() as reader, reader.subscribe("c") as room:
            async with world.client(outbox=copy):
                assert data_of(await take(room, 2)) == ["new", "x"]

    scene(story, path)


def test_closing_waits_as_long_as_it_is_told_and_the_rest_stays(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        client = await world.client(outbox=path, limits=PATIENT)
        world.network.links[-1].freeze(Direction.TO_CLIENT)
        sent = client.publish_nowait("c", 1)
        began = loop().time()
        await client.close(drain=2.0)
        assert 2.0 <= loop().time() - began <= 3.0
        await failed([sent], StillQueued)
        assert len(rows(path)) == 1
        assert client.drain_queued() == []

    scene(story, path)


def test_what_is_taken_back_is_out_of_the_file(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        await left(world, path, "former")
        async with world.client(outbox=path, limits=PATIENT) as client:
            await until(lambda: rows(path) == [])
            offline(world)
            await until(lambda: client.state == "connecting")
            futures = [client.publish_nowait("c", n) for n in range(3)]
            await until(lambda: len(rows(path)) == 3)
            assert [one.data for one in client.drain_queued()] == [0, 1, 2]
            await failed(futures, NotSent)
            await until(lambda: rows(path) == [])
            assert await client.undelivered() == []

    scene(story, path)


def test_without_a_file_what_was_not_sent_is_returned_after_closing() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            async with world.client(limits=PATIENT) as client:
                offline(world)
                await until(lambda: client.state == "connecting")
                futures = [client.publish_nowait("c", n) for n in range(3)]
            await failed(futures, NotSent)
            assert [(one.data, one.sent) for one in client.drain_queued()] == [
                (0, False), (1, False), (2, False)
            ]  # fmt: skip
            assert client.drain_queued() == []

    play(scenario)


def test_what_cannot_be_is_told_at_once(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        with pytest.raises(ConfigError, match="'plain' has none"):
            world.client(outbox=path, dialect="plain")
        with pytest.raises(ConfigError, match="overflow must be one of"):
            world.client(overflow="sometimes")
        async with world.client() as client:
            with pytest.raises(ConfigError, match="durable outbox"):
                await client.publish("c", 1, wait="stored")
            with pytest.raises(ConfigError, match="'acknowledged' or 'stored'"):
                await client.publish("c", 1, wait="sent")  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="cannot block"):
                client.publish_nowait("c", 1, overflow="block")  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="overflow must be"):
                await client.publish("c", 1, overflow="later")  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match=r"connect\(outbox"):
                await client.undelivered()

    scene(story, path)


def test_a_short_window_is_kept_to_over_a_restart(path: Path) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=PATIENT) as client:
            client.publish_nowait("c", 1)
            await until(lambda: len(world.broker.published) == 1)
            copy = killed(path)
        await asyncio.sleep(6)  # of 10, of which half is the margin
        async with world.client(outbox=copy) as successor:
            await successor.publish("c", 2)
            assert [one.data for one in await successor.undelivered()] == [1]

    scene(story, path, limits=Limits(dedupe_window=10.0))


def test_in_the_living_process_a_message_that_was_sent_is_tried_for_the_window(
    path: Path,
) -> None:
    async def story(world: World, path: Path) -> None:
        async with world.client(outbox=path, limits=FAST) as client:
            world.network.links[-1].freeze(Direction.TO_CLIENT)
            sent = client.publish_nowait("c", 1)
            await until(lambda: client.stats.sent == 1)
            offline(world)
            unsent = client.publish_nowait("c", 2)
            began = loop().time()
            await failed([unsent], NotSent)
            assert loop().time() - began == pytest.approx(60.0, abs=1.0)
            await failed([sent], DeliveryUnknown)
            assert loop().time() - began == pytest.approx(270.0, abs=1.0)

    scene(story, path)
