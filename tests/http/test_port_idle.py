"""Connections to the HTTP port on which nothing gets on: real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from everwire.server.http import port
from everwire.server.http.port import MAX_REQUESTS, HttpPort

from .conftest import KEY, make_wire

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    wire = make_wire()
    await wire.start()
    served = HttpPort(wire.http(api_key=KEY))
    await served.start("127.0.0.1", 0)
    try:
        yield served.port
    finally:
        await served.stop()
        await wire.stop()


@pytest.mark.parametrize(
    ("said", "drip"),
    [
        (b"", b""),
        (b"GET /heal", b"x"),
        (GET, b"x"),
        (b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", b" "),
    ],
    ids=["nothing", "half a head", "half a second head", "no end of a body"],
)
def test_who_takes_up_a_connection_and_asks_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch, said: bytes, drip: bytes
) -> None:
    """There are so many connections, and health checks need one."""

    async def main() -> None:
        async with listening() as number, asyncio.timeout(20):
            held = []
            for _ in range(MAX_REQUESTS - 2):
                reader, writer = await asyncio.open_connection("127.0.0.1", number, limit=10)
                writer.write(said)
                held.append(writer)
            await asyncio.sleep(0.5)
            held += [(await asyncio.open_connection("127.0.0.1", number))[1] for _ in range(10)]
            answer = b""
            while not answer.startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(0.1)
                for writer in held:
                    writer.write(drip)
                reader, writer = await asyncio.open_connection("127.0.0.1", number)
                writer.write(GET)
                answer = await reader.read(100)
                writer.close()
            for writer in held:
                writer.transport.abort()

    monkeypatch.setattr(port, "IDLE", 1.0)
    asyncio.run(main())


def test_who_reads_no_answers_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with listening() as number, asyncio.timeout(20):
            with socket.create_connection(("127.0.0.1", number)) as peer:
                peer.setblocking(False)
                loop = asyncio.get_running_loop()
                asking = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000
                with pytest.raises(ConnectionError):
                    while True:
                        await loop.sock_sendall(peer, asking)

    monkeypatch.setattr(port, "IDLE", 1.0)
    asyncio.run(main())


def test_a_request_that_takes_its_time_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with listening() as number:
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            head = f"POST /api/presence HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n"
            body = b'{"channel": "chat:x"}'
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode())
            for byte in body:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
            assert (await reader.read(100)).startswith(b"HTTP/1.1 200")
            writer.close()

    monkeypatch.setattr(port, "IDLE", 0.1)
    asyncio.run(main())
