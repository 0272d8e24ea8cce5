"""Reads ``stream``: says when it is subscribed, at which message it is, and what it got.

Usage: ``reader.py URL LAST``; the messages are ``"1 xxx"``, ``"2 xxx"`` and so on.
"""

from __future__ import annotations

import asyncio
import sys

from everwire import Message, connect


async def main(url: str, last: int) -> None:
    async with connect(url) as client, client.subscribe("stream") as room:
        print("subscribed", flush=True)
        expected = 0
        async for item in room:
            expected += 1
            if not isinstance(item, Message):
                sys.exit(f"instead of {expected}: {item}")
            if int(item.data.partition(" ")[0]) != expected:
                sys.exit(f"instead of {expected}: {item.data[:20]}")
            if expected % 100 == 0:
                print("at", expected, flush=True)
            if expected == last:
                print("all", flush=True)
                return


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
