"""Whatever the application, the server and the network do in between, both agree in the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings, strategies as st

from everwire import ClientLimits, ConfigError, Everwire, Grant, RequestError
from everwire.client import Client, Gap, Message, Subscription
from everwire.codes import ErrorCode
from everwire.protocol import messages as m
from everwire.server import subscribing

from .world import World, loop, node_world, play

CHANNELS = ("a", "b", "c")
LIMITS = ClientLimits(
    first_retry=0.2, backoff_base=0.2, backoff_cap=0.5, queue_messages=8, subscribe_batch=2
)


def declare(wire: Everwire) -> None:
    wire.channel("c", history=4, grant=Grant(publish=True))
    wire.channel("{name}", history=10_000, grant=Grant(publish=True))


@dataclass
class Reader:
    """One subscription, and what it was handed."""

    room: Subscription
    start: int | None = None  # what was published before it began; None: it has not
    items: list[Message | Gap] = field(default_factory=list)
    slow: bool = False
    task: asyncio.Task[None] | None = None

    async def read(self) -> None:
        try:
            await self.room
            assert self.room.position is not None
            self.start = self.room.position.offset
            async for item in self.room:
                self.items.append(item)
                if self.slow:
                    await asyncio.sleep(0.2)
        except (RequestError, ConfigError):
            pass


class Application:
    """Wants channels and wants them no more, at any moment."""

    def __init__(self, world: World, client: Client) -> None:
        self.world = world
        self.client = client
        self.wanted: dict[str, Reader] = {}
        self.past: list[Reader] = []
        self.published: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
        self.tasks: list[asyncio.Task[Any]] = []

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.append(task)
        return task

    async def do(self, action: str, channel: str, pause: float) -> None:
        match action:
            case "sub" | "sub slowly":
                if channel not in self.wanted:
                    room = self.client.subscribe(channel)
                    reader = Reader(room, slow="slowly" in action)
                    self.wanted[channel] = reader
                    reader.task = self.start(reader.read())
                    await asyncio.sleep(0)  # it has said so
            case "unsub":
                old = self.wanted.pop(channel, None)
                if old is not None:
                    self.past.append(old)
                    self.start(old.room.unsubscribe())
                    await asyncio.sleep(0)
            case "again":
                await self.do("unsub", channel, 0)
                await self.do("sub", channel, 0)
            case "thrice":
                for _ in range(3):
                    await self.do("again", channel, 0)
            case "publish" | "flood":
                data = self.published[channel]
                for _ in range(2 if action == "publish" else 20):
                    data.append(len(data))
                    await self.world.wire.publish(channel, data[-1])
            case "drop":
                self.client.drop()
            case "cut":
                self.world.network.cut()
            case "thrown out":
                for connection in list(self.world.node.connections.values()):
                    known = connection.subscriptions.get(channel)
                    if known is not None:
                        sid = known.channel.sid
                        subscribing.unsubscribe(self.world.node, connection, channel)
                        connection.send(m.Unsubscribed(sid, ErrorCode.UNAVAILABLE, True))
        if pause:
            await asyncio.sleep(pause)

    async def settle(self) -> None:
        """Nothing happens any more: everybody has what there is."""
        for reader in self.wanted.values():
            reader.slow = False
        await asyncio.sleep(60)

    def check(self) -> None:
        (connection,) = self.world.node.connections.values()
        assert sorted(connection.subscriptions) == sorted(self.wanted)
        for channel, reader in self.wanted.items():
            assert reader.room.state == "subscribed"
            self.check_reader(channel, reader, complete=True)
        for reader in self.past:
            self.check_reader(reader.room.channel, reader, complete=False)

    def check_reader(self, channel: str, reader: Reader, *, complete: bool) -> None:
        """What it was handed follows the one before, unless a gap stands in between."""
        count = reader.start
        for item in reader.items:
            assert item.position is not None
            if isinstance(item, Gap):
                assert channel == "c", "history reaches back"
                assert item.position.offset >= (count or 0)
                count = item.position.offset
            else:
                assert item.data == count
                count += 1
        if complete:
            assert count == len(self.published[channel])


ACTIONS = st.tuples(
    st.sampled_from(
        ("sub", "sub", "sub slowly", "unsub", "again", "thrice", "publish", "publish", "flood",
         "drop", "cut", "thrown out")
    ),
    st.sampled_from(CHANNELS),
    st.sampled_from((0.0, 0.0, 0.005, 0.011, 0.03, 0.3)),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(ACTIONS, min_size=3, max_size=40), st.sampled_from((0.0, 0.01, 0.1)))
def test_in_the_end_the_server_has_what_is_wanted_and_nobody_missed_or_got_anything_twice(
    actions: list[tuple[str, str, float]], latency: float
) -> None:
    async def scenario() -> None:
        async with (
            node_world(declare, latency=latency) as world,
            world.client(limits=LIMITS) as client,
        ):
            application = Application(world, client)
            for action, channel, pause in actions:
                await application.do(action, channel, pause)
            await application.settle()
            for channel in CHANNELS:
                await application.do("publish", channel, 0.0)
            await asyncio.sleep(5)
            application.check()
        await asyncio.sleep(0.1)
        for task in application.tasks:
            assert task.done()
            await task
        assert loop().time() < 200

    play(scenario)
