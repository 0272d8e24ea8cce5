"""A real server in a thread of its own, as the blocking client needs one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest

from everwire import Connection, Everwire, Grant, Identity


@dataclass
class Server:
    """What a test looks at: ``began`` and ``cancelled`` tell of the handler ``forever``."""

    url: str = ""
    tokens: list[str] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)


def application(server: Server) -> Everwire:
    wire = Everwire(allow_anonymous=True)
    wire.channel("{name:path}", history=5000, presence=True, grant=Grant(publish=True))

    @wire.authenticate
    async def who(token: str) -> Identity:
        server.tokens.append(token)
        return Identity(token)

    @wire.query
    async def double(conn: Connection, n: int) -> int:
        return 2 * n

    @wire.query
    async def count(conn: Connection, n: int) -> AsyncIterator[int]:
        try:
            for each in range(n):
                yield each
        finally:
            server.cancelled.set()

    @wire.query
    async def forever(conn: Connection) -> None:
        server.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.cancelled.set()

    return wire


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    up = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with application(server).listen(port=0) as listening:
            server.url = f"ws://127.0.0.1:{listening.port}/ws"
            up.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
