"""A link that dies at any moment of subscribing, against a stream that goes on meanwhile.

The broker answers in steps; three messages are published at every choice of steps, and
the connection is killed at every step between "subscribe was sent" and "live". Whatever
happens, what the application is handed is contiguous, or says where it is not.
"""

from __future__ import annotations

import asyncio
from itertools import combinations_with_replacement
from random import Random

import pytest

from everwire import Everwire, Gap, Grant, Message, Position, connect
from everwire.limits import Limits
from everwire.testing import Network, VirtualLoop, run

from .stepped import STEP, LateBroker, LossyBroker, SteppedBroker

URL = "ws://node/ws"
STEPS = 12  # from the opening of the link until the subscription is live
BEFORE = 3  # messages that are there already


async def one(
    name: str,
    broker: SteppedBroker,
    moments: tuple[int, ...],
    kill: int,
    *,
    recover: bool,
    history: int,
) -> None:
    """Run one interleaving and check what the application saw."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    network = Network(latency=STEP / 2, trace_limit=0)
    wire = Everwire(broker, limits=Limits(page=1), wall=loop.wall)
    wire.channel("c", history=history, grant=Grant(publish=True))
    node = await wire.start()
    listener = network.listen(URL, node.accept)
    positions = [await wire.publish("c", n) for n in range(BEFORE)]
    client = connect(URL, dialect=name, network=network, random=Random(1), wall=loop.wall)
    seen: list[Message | Gap] = []

    async def publisher() -> None:
        start = loop.time()
        for n, moment in enumerate(moments):
            await asyncio.sleep(start + (moment + 0.5) * STEP - loop.time())
            positions.append(await wire.publish("c", BEFORE + n))

    async def killer() -> None:
        await asyncio.sleep((kill + 0.25) * STEP)
        network.cut()

    async def reader(since: Position | None) -> None:
        async with client, client.subscribe("c", since=since) as room:
            async for item in room:
                seen.append(item)
                if isinstance(item, Message) and item.data == "end":
                    return

    since = positions[0] if recover else None
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(reader(since))
        group.create_task(publisher())
        group.create_task(killer())
        await asyncio.sleep(10)  # longer than any reconnection
        positions.append(await wire.publish("c", "end"))
        await asyncio.sleep(5)
        assert reading.done(), f"the end never came: {seen}"
    listener.close()
    await wire.stop()
    check(seen, since, positions, history)


def check(
    seen: list[Message | Gap], since: Position | None, positions: list[Position], history: int
) -> None:
    """The contract: nothing skipped, repeated or reordered in silence."""
    at = since
    gaps: list[Gap] = []
    for item in seen:
        assert item.position is not None
        if isinstance(item, Gap):
            # At the same place: the message there is no longer held to vouch for it.
            assert at is None or item.position.offset >= at.offset
            gaps.append(item)
        else:
            assert item.position == positions[item.position.offset - 1]
            if at is not None:
                assert item.position.offset == at.offset + 1, f"after {at.offset}: {item}"
        at = item.position
    assert at == positions[-1]
    if len(positions) <= history:
        assert not gaps, "a gap where history reaches back"


INTERLEAVINGS = [
    (moments, kill)
    for kill in range(STEPS + 1)
    for moments in combinations_with_replacement(range(0, STEPS, 2), 3)
]
BROKERS = {"stepped": SteppedBroker, "late": LateBroker, "lossy": LossyBroker}


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("name", ["msgpack", "json"])
@pytest.mark.parametrize(("recover", "history"), [(True, 100), (False, 100), (True, 1), (False, 1)])
def test_the_application_sees_the_contract_in_every_interleaving(
    broker: str, name: str, recover: bool, history: int
) -> None:
    # The second dialect takes the same path, and so does a second broker: samples.
    stride = (1 if name == "msgpack" else 17) * (1 if broker == "stepped" else 5)
    for moments, kill in INTERLEAVINGS[::stride]:
        try:
            run(one(name, BROKERS[broker](), moments, kill, recover=recover, history=history))
        except BaseException as error:
            error.add_note(f"messages at steps {moments}, killed at step {kill}")
            raise


@pytest.mark.parametrize("broker", BROKERS)
def test_a_link_that_dies_again_and_again_loses_and_doubles_nothing(broker: str) -> None:
    """A hundred messages while the link is cut every few steps."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        network = Network(latency=STEP / 2, trace_limit=0)
        wire = Everwire(BROKERS[broker](), limits=Limits(page=3), wall=loop.wall)
        wire.channel("c", history=1000, grant=Grant(publish=True))
        node = await wire.start()
        listener = network.listen(URL, node.accept)
        client = connect(URL, network=network, random=loop.random, wall=loop.wall)
        seen: list[object] = []

        async def reader() -> None:
            async with client.subscribe("c") as room:
                async for item in room:
                    assert isinstance(item, Message), item
                    seen.append(item.data)
                    if len(seen) == 101:  # the last is one that even the lossy broker tells of
                        return

        async with client, asyncio.TaskGroup() as group:
            reading = group.create_task(reader())
            await asyncio.sleep(1)
            for n in range(101):
                if n % 7 == 3:
                    loop.call_later(loop.random.uniform(0, 6 * STEP), network.cut)
                await client.publish("c", n)
            await reading
        assert seen == list(range(101))
        listener.close()
        await wire.stop()

    for seed in range(5):
        run(main, seed=seed)
