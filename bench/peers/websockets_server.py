"""A stock broadcast server on `websockets`, in the plain dialect: websockets_server.py PORT."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve

channels: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def handle(socket: ServerConnection) -> None:
    mine: set[str] = set()
    try:
        async for text in socket:
            message = json.loads(text)
            channel = message["channel"]
            if message["action"] == "subscribe":
                mine.add(channel)
                channels[channel].add(socket)
                data = {"type": "subscription_confirm", "channel": channel}
                answer = {"channel": "system", "data": data}
                await socket.send(json.dumps(answer, separators=(",", ":")))
            elif message["action"] == "publish":
                text = {"channel": channel, "data": message["data"]}
                broadcast(channels[channel], json.dumps(text, separators=(",", ":")))
    finally:
        for channel in mine:
            channels[channel].discard(socket)


async def main(port: int) -> None:
    options = {"backlog": 4096, "compression": None, "max_queue": None}
    async with serve(handle, "127.0.0.1", port, **options) as server:
        print("listening", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop as loop
    except ImportError:
        loop = asyncio
    loop.run(main(int(sys.argv[1])))
