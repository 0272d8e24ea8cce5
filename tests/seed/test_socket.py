"""``Socket`` against the Node.js and Redis server of the pattern document, as it stands there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from everwire import Socket
from everwire.limits import ClientLimits

QUICK = ClientLimits(first_retry=0.1, backoff_base=0.1, backoff_cap=0.5)


def test_connect_exchange_kill_restart_and_on(node_server: Callable[[], Any]) -> None:
    child = node_server()

    async def main() -> None:
        lost = asyncio.Event()

        def subscribe() -> None:
            socket.send_nowait(json.dumps({"action": "subscribe", "channel": "news"}))

        def publish(data: Any) -> None:
            socket.send_nowait(json.dumps({"action": "publish", "channel": "news", "data": data}))

        async def message() -> Any:
            async with asyncio.timeout(10):
                return json.loads(await socket.recv())

        async def subscribed() -> None:
            """The server confirms before Redis does: probe until a probe comes through."""
            got: list[Any] = []
            while not got:
                publish("probe")
                await asyncio.sleep(0.05)
                while socket.unread:
                    got.append(await message())
            publish("last probe")
            while got[-1]["data"] != "last probe":
                got.append(await message())

        confirmed = {
            "channel": "system",
            "data": {"type": "subscription_confirm", "channel": "news"},
        }
        socket = Socket(
            child.url, limits=QUICK, on_open=subscribe, on_close=lambda error: lost.set()
        )
        async with socket:
            assert await message() == confirmed
            await subscribed()
            for n in range(20):
                publish(n)
            assert [await message() for _ in range(20)] == [
                {"channel": "news", "data": n} for n in range(20)
            ]
            await asyncio.to_thread(child.kill)
            await lost.wait()
            await asyncio.to_thread(node_server)
            assert await message() == confirmed
            await subscribed()
            publish("after")
            assert await message() == {"channel": "news", "data": "after"}
            assert socket.stats.opened == 2

    asyncio.run(main())
