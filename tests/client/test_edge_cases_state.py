"""Requests, links and order: what well-known clients make of them, and we.

Each test shows the straightforward way first, and that it fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import Any

import pytest

from everwire import Connection, Everwire, EverwireError
from everwire.client import Message
from everwire.net.attempts import Attempts
from everwire.net.transport import Receiver, Transport
from everwire.protocol import messages as m
from everwire.testing import Network

from .naive import Wire
from .world import (
    FAST,
    Script,
    client_to,
    data_of,
    loop,
    node_world,
    play,
    quiet,
    take,
    until,
)

# ---- 14 ----------------------------------------------------------------------------------


def answering(wire: Everwire) -> None:
    @wire.query
    async def same(conn: Connection, value: int, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        return value

    @wire.command
    async def run(conn: Connection, value: int, seconds: float = 0.0) -> int:
        RAN.append(value)
        await asyncio.sleep(seconds)
        return value


RAN: list[int] = []


def test_who_is_cancelled_leaves_no_answer_behind_for_another() -> None:
    """Answers that are matched by their place belong to the wrong one after a cancellation.

    redis-py #2624 and #2665 (CVE-2023-28858): users were shown each other's data; asyncpg
    #464 and #547, aiohttp #11725 are of that family.
    """

    class Pipeline:
        """The answers come in the order of the requests."""

        def __init__(self, wire: Wire) -> None:
            self.wire = wire
            self.answers: deque[Any] = deque()
            wire.on_message = lambda message: (
                self.answers.append(message.payload) if isinstance(message, m.Response) else None
            )

        async def query(self, value: int) -> Any:
            self.wire.send(m.Query(self.wire.next_id(), "same", {"value": value}))
            while not self.answers:
                await asyncio.sleep(0.001)
            return self.answers.popleft()

    async def naive() -> None:
        async with node_world(answering) as world:
            pipeline = Pipeline(await Wire().open(world.network))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await pipeline.query(1)
            await asyncio.sleep(1)
            assert await pipeline.query(2) == 1

    async def ours() -> None:
        async with node_world(answering) as world, world.client() as client:
            for value in range(0, 100, 2):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await client.query("same", {"value": value})
                assert await client.query("same", {"value": value + 1}) == value + 1

    play(naive)
    play(ours)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_cancelled_whenever_everything_else_goes_on(seed: int) -> None:
    """The same, at random: publishes, queries, commands, subscriptions and reads are cancelled."""

    async def scenario() -> None:
        random = Random(seed)
        RAN.clear()
        wrong: list[Any] = []
        async with node_world(answering) as world, world.client(limits=FAST) as client:

            async def ask(value: int) -> None:
                seconds = random.choice((0.0, 0.0, 0.1))
                kind = random.choice((client.query, client.command))
                name = "same" if kind == client.query else "run"
                got = await kind(name, {"value": value, "seconds": seconds})
                if got != value:
                    wrong.append((value, got))

            async def say(value: int) -> None:
                await client.publish("said", value)

            async def listen(value: int) -> None:
                async with client.subscribe(f"room:{value % 5}") as room:
                    wrong.extend([item async for item in room])

            async def read() -> None:
                got.append(await anext(said))

            got: list[Any] = []
            async with client.subscribe("said") as said:
                tasks: list[asyncio.Task[None]] = []
                for value in range(200):
                    action = random.choice((ask, ask, say, say, listen))
                    create = asyncio.get_running_loop().create_task
                    task = create(action(value))
                    tasks += [task, create(read())]
                    if action is listen or random.random() < 0.5:
                        delay = random.choice((0.0, 0.001, 0.01, 0.02, 0.05, 0.2))
                        loop().call_later(delay, task.cancel)
                    if random.random() < 0.5:
                        loop().call_later(random.choice((0.0, 0.02, 0.5)), tasks[-1].cancel)
                    if random.random() < 0.03:
                        client.drop()
                    await asyncio.sleep(random.choice((0.0, 0.0, 0.005, 0.05)))
                await asyncio.sleep(30)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                kinds = {
                    type(task.exception())
                    for task in tasks
                    if not task.cancelled() and task.exception()
                }
                assert all(issubclass(kind, EverwireError) for kind in kinds), kinds
                assert not wrong
                while said._feed.inbox:
                    got.append(await anext(said))
                history = await client.history("said", limit=100)
                assert [item.data for item in got][-len(history) :] == [
                    item.data for item in history
                ]
                assert len(RAN) == len(set(RAN))  # commands ran once
                assert len({item.data for item in got}) == len(got)
                assert len(client._core.calls) == 0
                assert len(client._core.publisher.outbox) == 0
                assert len(client._core.subscriptions) == 1
                connection = world.connection()
                await until(lambda: len(connection.subscriptions) == 1)

    play(scenario)


# ---- 18 ----------------------------------------------------------------------------------


class Late:
    """A network whose links still talk after they were dropped, as those of a real one may.

    What the first link is told is told again, a few seconds after it was dropped; then that
    it was closed, for good.
    """

    def __init__(self, network: Network) -> None:
        self.attempts: Attempts = network.attempts
        self.links = 0
        self._network = network

    async def connect(
        self,
        url: str,
        receiver: Receiver,
        *,
        max_message: int,
        **options: Any,
    ) -> Transport:
        self.links += 1
        heard: list[tuple[int, bytes]] = []

        class Recording:
            def __getattr__(self, name: str) -> Any:
                return getattr(receiver, name)

            def received(self, opcode: int, payload: bytes | memoryview) -> None:
                heard.append((opcode, bytes(payload)))
                receiver.received(opcode, payload)

            def closed(self, code: int, reason: str) -> None:
                receiver.closed(code, reason)
                loop().call_later(5, again)

        def again() -> None:
            receiver.heard()
            receiver.pause_writing()
            for opcode, payload in heard:
                receiver.received(opcode, payload)
            receiver.closed(4500, "late")

        recording: Any = Recording() if self.links == 1 else receiver
        return await self._network.connect(url, recording, max_message=max_message, **options)


def test_a_link_that_was_replaced_has_no_say_any_more() -> None:
    """The late ``onclose`` of an old socket is taken for one of the new.

    centrifuge-csharp #21, phoenix #6602, nats.py2 #35: the new connection is torn down, or
    is believed to be down while it works.
    """

    class Naive:
        """One set of callbacks for whatever socket there is."""

        def __init__(self) -> None:
            self.connected = False

        def closed(self, code: int, reason: str) -> None:
            self.connected = False

        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            pass

        def heard(self) -> None:
            pass

        pause_writing = resume_writing = heard

    async def naive() -> None:
        network = Network()
        Script(network)
        late, receiver = Late(network), Naive()
        for _ in range(2):
            await late.connect("ws://node/ws", receiver, max_message=2**20)
            receiver.connected = True
            if late.links == 1:
                network.cut()
                await asyncio.sleep(1)
        await asyncio.sleep(10)
        assert not receiver.connected
        assert len(network.links) == 1

    async def ours() -> None:
        async with node_world() as world:
            late = Late(world.network)
            async with client_to(late, limits=FAST) as client:  # type: ignore[arg-type]
                async with client.subscribe("c") as room:
                    events: list[str] = []
                    client.on_event = lambda name, data: events.append(name)
                    world.connection().send(m.Event("once", None))
                    for n in range(3):
                        await client.publish("c", n)
                    client.drop()
                    await until(lambda: client.state == "ready")
                    states: list[str] = []
                    client.on_state = states.append
                    for n in range(3, 100):
                        await client.publish("c", n)
                        await asyncio.sleep(0.1)
                    assert data_of(await take(room, 100)) == list(range(100))
                    await quiet(room)
                    assert (late.links, states, events) == (2, [], ["once"])

    play(naive)
    play(ours)


# ---- 19 ----------------------------------------------------------------------------------


def test_what_is_published_while_the_old_goes_out_again_stays_behind_it() -> None:
    """New messages go out on the new link at once, what was not acknowledged after them.

    MQTT.js #450, paho.c #807, paho.golang #731; SignalR #50409 loses some of them.
    """

    async def naive() -> None:
        async with node_world() as world:
            wire = await Wire().open(world.network)
            world.network.links[0].freeze(drop=True)
            unacknowledged = [m.Publish(f"x-{n}", "c", n) for n in range(5)]
            for one in unacknowledged:
                wire.send(one)
            world.network.cut()
            again = await Wire().open(world.network)
            for n in range(5, 10):
                again.send(m.Publish(f"x-{n}", "c", n))
            for one in unacknowledged:  # when its timer fires
                again.send(one)
            await asyncio.sleep(1)
            page = await world.wire.history("c")
            assert len(page.records) == 10
            got = [one.offset for one in again.of(m.ChannelMessage)]
            assert not got
            data = [int(record.id.rpartition("-")[2]) for record in page.records]
            assert data == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]

    async def ours() -> None:
        async with node_world() as world, world.client() as reader:
            async with reader.subscribe("c") as room, world.client(limits=FAST) as client:
                acks = []
                for n in range(300):
                    acks.append(client.publish_nowait("c", n))
                    if n % 23 == 5:
                        for link in world.network.links[1:]:
                            link.freeze(drop=True)
                    if n % 23 == 10:
                        client.drop()
                    await asyncio.sleep(0.3 if n % 3 else 0)
                for ack in acks:
                    await ack
                items = await take(room, 300)
                assert [one.data for one in items if isinstance(one, Message)] == list(range(300))
                assert client.stats.reconnects >= 5

    play(naive)
    play(ours)
