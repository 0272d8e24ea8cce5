"""A channel's state comes from the server: its position first, then the state, then what follows.

So nothing is missing that is not in the state; what is in it may come again, unless the state
says how far it reaches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import combinations_with_replacement
from random import Random
from typing import Any

import pytest

from everwire import (
    ConfigError,
    Connection,
    Everwire,
    Gap,
    Grant,
    Message,
    Position,
    RequestError,
    Snapshot,
    connect,
)
from everwire.limits import Limits
from everwire.testing import Network, VirtualLoop, run

from ..contracts.stepped import STEP, LateBroker, SteppedBroker
from .world import World, node_world, play

URL = "ws://node/ws"


class Board:
    """The application's own state: what was put on it. It changes before the message goes out."""

    def __init__(self, wire: Everwire, *, exact: bool) -> None:
        self.wire = wire
        self.exact = exact
        self.notes: list[int] = []
        self.position: Position | None = None
        self.asked = 0

    async def put(self, note: int) -> None:
        await asyncio.sleep(STEP / 3)
        self.notes.append(note)
        await asyncio.sleep(STEP / 3)
        position = await self.wire.publish("board", note)
        if self.exact:  # known together: as one transaction would have it
            self.position = position

    async def load(self, conn: Connection) -> Any:
        self.asked += 1
        await asyncio.sleep(STEP)
        if self.exact:
            notes = self.notes[: self.position.offset] if self.position is not None else []
            found: Any = Snapshot(notes, self.position)
        else:
            found = list(self.notes)
        await asyncio.sleep(STEP)  # more is put on the board while this travels
        return found


class Reader:
    """What the board comes to for somebody who reads it."""

    def __init__(self) -> None:
        self.notes: list[int] = []
        self.stale = True
        self.gaps = 0

    def take(self, item: Message | Gap | Snapshot) -> None:
        if isinstance(item, Gap):
            self.stale = True
            self.gaps += 1
        elif isinstance(item, Snapshot):
            self.stale = False
            self.notes = list(item.data)
        else:
            assert not self.stale
            self.notes.append(item.data)


async def one(
    broker: SteppedBroker, moments: tuple[int, ...], kill: int | None, *, exact: bool, history: int
) -> int:
    """Publish at these steps while a client subscribes; return how often the state was asked."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    network = Network(latency=STEP / 2, trace_limit=0)
    wire = Everwire(broker, limits=Limits(page=1), wall=loop.wall)
    board = Board(wire, exact=exact)
    wire.channel("board", history=history, grant=Grant(), state=board.load)
    node = await wire.start()
    listener = network.listen(URL, node.accept)
    for n in range(2):
        await board.put(n)
    reader = Reader()

    async def put() -> None:
        start = loop.time()
        for n, moment in enumerate(moments):
            await asyncio.sleep(start + (moment + 0.5) * STEP - loop.time())
            await board.put(2 + n)

    async def read() -> None:
        client = connect(URL, network=network, random=Random(1), wall=loop.wall)
        async with client, client.subscribe("board", get_state=True, state_first=True) as room:
            async for item in room:
                reader.take(item)
                if reader.notes and reader.notes[-1] == 99:
                    return

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        group.create_task(put())
        if kill is not None:
            loop.call_later((kill + 0.25) * STEP, network.cut)
        await asyncio.sleep(10)
        await board.put(99)
        await asyncio.sleep(30)
        assert reading.done(), f"the end never came: {reader.notes}"
    listener.close()
    await wire.stop()
    if exact:
        assert reader.notes == board.notes  # each once, in order
    else:
        assert set(reader.notes) == set(board.notes)  # no hole
        first = [note for n, note in enumerate(reader.notes) if note not in reader.notes[:n]]
        assert first == board.notes
    if kill is None and history:
        assert not reader.gaps
    return board.asked


STEPS = 16  # from the opening of the link until the state has come


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "as of the call"])
@pytest.mark.parametrize("history", [100, 0], ids=["history", "none"])
@pytest.mark.parametrize("broker", [SteppedBroker, LateBroker])
def test_publishes_that_race_the_state_are_in_it_or_follow_it_at_every_step(
    broker: Callable[[], SteppedBroker], history: int, exact: bool
) -> None:
    for moments in combinations_with_replacement(range(STEPS), 2):
        try:
            asked = run(one(broker(), moments, None, exact=exact, history=history))
        except BaseException as error:
            error.add_note(f"messages at steps {moments}")
            raise
        if not exact:
            assert asked == 1


@pytest.mark.parametrize("history", [100, 0], ids=["history", "none"])
def test_so_are_those_that_race_it_while_the_link_dies(history: int) -> None:
    for kill in range(STEPS + 2):
        for moments in list(combinations_with_replacement(range(0, STEPS + 4, 2), 3))[::7]:
            try:
                run(one(SteppedBroker(), moments, kill, exact=False, history=history))
            except BaseException as error:
                error.add_note(f"messages at steps {moments}, killed at step {kill}")
                raise


def in_world(declare: Callable[[Everwire], None], scenario: Callable[[World], Any]) -> None:
    async def main() -> None:
        async with node_world(declare) as world:
            await scenario(world)

    play(main)


def test_a_snapshot_is_asked_for_alone_and_says_where_it_is() -> None:
    def declare(wire: Everwire) -> None:
        @wire.channel("total:{name}")
        async def total(conn: Connection, name: str) -> Grant | None:
            if name == "closed":
                return Grant(publish=True, subscribe=False)
            return Grant(publish=True)

        @wire.state("total:{name}")
        def load(conn: Connection, name: str) -> Any:  # in a thread
            return {"bytes": name.encode()}["bytes"] if name == "raw" else {"of": name}

    async def scenario(world: World) -> None:
        async with world.client() as client:
            ack = await client.publish("total:a", 1)
            assert await client.snapshot("total:a") == Snapshot(
                {"of": "a"}, ack.position, "total:a"
            )
            assert (await client.snapshot("total:raw")).data == b"raw"
            async with client.subscribe("total:a", since=ack.position) as room:
                later = await client.publish("total:a", 2)
                item = await anext(room)
                assert item.position == later.position
            for channel, name in (("total:closed", "forbidden"), ("none:x", "bad_request")):
                with pytest.raises(RequestError) as refused:
                    await client.snapshot(channel)
                assert refused.value.name == name

    in_world(declare, scenario)


def test_after_a_gap_the_servers_state_takes_over() -> None:
    board: list[int] = []

    def declare(wire: Everwire) -> None:
        wire.channel("board", history=2, grant=Grant(), state=lambda conn: list(board))

    async def scenario(world: World) -> None:
        async with world.client() as client, client.subscribe("board", get_state=True) as room:
            world.network.refuse = True
            world.network.cut()
            for n in range(5):
                board.append(n)
                await world.wire.publish("board", n)
            world.network.refuse = False
            gap, snapshot = await anext(room), await anext(room)
            assert isinstance(gap, Gap)
            assert isinstance(snapshot, Snapshot)
            assert (snapshot.data, snapshot.position) == ([0, 1, 2, 3, 4], room.position)
            board.append(5)
            await world.wire.publish("board", 5)
            item = await anext(room)
            assert isinstance(item, Message)
            assert item.data == 5

    in_world(declare, scenario)


def test_a_state_is_declared_for_a_channel_and_once() -> None:
    wire = Everwire()
    with pytest.raises(ConfigError, match="declare the channel"):
        wire.state("board:{id}")
    wire.channel("board:{id}", grant=Grant())

    with pytest.raises(ConfigError, match="parameters must be"):

        @wire.state("board:{id}")
        async def without(conn: Connection) -> None: ...

    @wire.state("board:{id}")
    async def load(conn: Connection, id: str) -> str:  # noqa: A002
        return id

    with pytest.raises(ConfigError, match="twice"):
        wire.state("board:{id}")
    wire.channel("other", grant=Grant(), state=lambda conn: 1)
    with pytest.raises(ConfigError, match="twice"):
        wire.state("other")
