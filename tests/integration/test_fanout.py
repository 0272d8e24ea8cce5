"""The demo server under its main job, on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everwire import Gap, Message, connect

READERS, MESSAGES = 1_000, 400


def test_a_thousand_subscribers_get_four_hundred_messages_each_in_order(demo: Any) -> None:
    ready = 0

    async def read(gate: asyncio.Semaphore, start: asyncio.Event, wanted: int) -> int:
        nonlocal ready
        async with gate:
            client = await connect(demo.url)
            room = client.subscribe("fan")
            await room.__aenter__()
            ready += 1
            if ready == READERS:
                start.set()
        expected = 0
        async for item in room:
            assert isinstance(item, Message), item
            assert item.data == expected
            expected += 1
            if expected == wanted:
                break
        await client.close()
        return expected

    async def main() -> None:
        gate, start = asyncio.Semaphore(50), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(gate, start, MESSAGES)) for _ in range(READERS)]
            await start.wait()
            async with connect(demo.url) as publisher:
                acks = [publisher.publish_nowait("fan", n) for n in range(MESSAGES)]
                offsets = [(await ack).position.offset for ack in acks]
            assert offsets == list(range(1, MESSAGES + 1))
        assert sum(reader.result() for reader in readers) == READERS * MESSAGES

    asyncio.run(main())


def test_a_subscriber_killed_and_restarted_with_its_position_gets_exactly_what_it_missed(
    demo: Any, everwire: Callable[..., Any], tmp_path: Path
) -> None:
    position = tmp_path / "position.json"

    async def publish(numbers: range) -> None:
        async with connect(demo.url) as client:
            for n in numbers:
                await client.publish("c", n)

    def lines(child: Any) -> list[dict[str, Any]]:
        return [json.loads(line) for line in child.out]

    reader = everwire("sub", demo.url, "c", "--position", position)
    reader.until(position.exists, "the position where it begins")
    asyncio.run(publish(range(30)))
    reader.until(lambda: len(reader.out) == 30, "30 messages")
    reader.until(lambda: json.loads(position.read_text())["c"]["offset"] == 30, "its position")
    os.kill(reader.pid, signal.SIGKILL)
    reader.wait()
    asyncio.run(publish(range(30, 80)))
    again = everwire("sub", demo.url, "c", "--position", position, "--count", "50")
    assert again.wait() == 0
    got = lines(again)
    assert not [line for line in got if "gap" in line]
    assert [line["data"] for line in got] == list(range(30, 80))
    assert [line["offset"] for line in got] == list(range(31, 81))


def test_a_restarted_server_says_that_its_history_does_not_reach_back(
    serve: Callable[..., Any],
) -> None:
    served = serve("demo")

    async def main() -> None:
        async with connect(served.url) as client, client.subscribe("c") as room:
            await client.publish("c", 1)
            items = aiter(room)
            assert isinstance(await anext(items), Message)
            served.child.kill()
            await asyncio.to_thread(serve, "demo", port=served.port)
            gap = await anext(items)
            assert isinstance(gap, Gap)
            assert gap.reason == "epoch"
            await client.publish("c", 2)
            item = await anext(items)
            assert isinstance(item, Message)
            assert item.data == 2

    asyncio.run(main())
