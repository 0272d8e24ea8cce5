"""A server of the package websockets: echoes, and adds what it was told to."""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def echo(connection: ServerConnection) -> None:
    try:
        async for message in connection:
            if message == "!close":
                await connection.close(1012, "restart")
            else:
                await connection.send(message)
                for last in sys.argv[2:]:
                    await connection.send(last)
    except ConnectionClosed:
        pass


async def main() -> None:
    async with serve(echo, "127.0.0.1", int(sys.argv[1])) as server:
        print("up", flush=True)
        await server.serve_forever()


asyncio.run(main())
