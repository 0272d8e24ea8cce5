"""Our client, dialect ``plain``, against the Node.js and Redis server of the pattern
document, as it stands there, with a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from everwire import Client, Gap, Message, connect


def test_the_plain_client_subscribes_publishes_and_unsubscribes(
    node_server: Callable[[], Any],
) -> None:
    url = node_server().url

    async def main() -> None:
        async with (
            connect(url, dialect="plain") as one,
            connect(url, dialect="plain") as two,
            one.subscribe("news") as news,
            two.subscribe("news") as also,
            two.subscribe("other") as other,
        ):
            for room in (news, also, other):
                await until_heard(one, room)
            sent = [{"n": n, "text": "ä" * n} for n in range(50)]
            for data in sent:
                await one.publish("news", data)
            await one.publish("other", "o")
            for room in (news, also):
                got = [item async for item in take(room, 50)]
                assert got == sent
            assert [item async for item in take(other, 1)] == ["o"]

    asyncio.run(main())


def test_the_plain_client_comes_back_and_says_that_it_may_have_missed_something(
    node_server: Callable[[], Any],
) -> None:
    child = node_server()

    async def main() -> None:
        async with connect(child.url, dialect="plain") as client:
            async with client.subscribe("news") as room:
                await until_heard(client, room)
                child.kill()
                await asyncio.sleep(0.5)
                await asyncio.to_thread(node_server)
                item = await anext(aiter(room))
                while isinstance(item, Message):  # a probe that came late
                    assert "probe" in item.data
                    item = await anext(aiter(room))
                assert isinstance(item, Gap)
                assert item.reason == "dropped"
                await until_heard(client, room)

    asyncio.run(main())


async def until_heard(client: Client, room: Any) -> None:
    """Publish until it comes back: that server confirms before Redis has subscribed it."""
    for n in range(50):
        await client.publish(room.channel, {"probe": n})
        try:
            async with asyncio.timeout(0.3):
                item = await anext(aiter(room))
        except TimeoutError:
            continue
        assert "probe" in item.data
        return
    raise AssertionError(f"nothing comes back on {room.channel!r}")


async def take(room: Any, count: int) -> Any:
    """Yield the data of the next messages, without probes."""
    async with asyncio.timeout(15):
        async for item in room:
            assert isinstance(item, Message), item
            if isinstance(item.data, dict) and "probe" in item.data:
                continue
            yield item.data
            count -= 1
            if count == 0:
                return
