"""Sockets as users write them: checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import assert_type

from everwire import (
    ClientLimits,
    ConnectionClosed,
    CustomPing,
    Dropped,
    Failure,
    JsonPing,
    NativePing,
    Retry,
    Socket,
    SocketStats,
    Stop,
    Superseded,
)
from everwire.client import ConnectionState


async def headers() -> Mapping[str, str]:
    return {"Authorization": "Bearer t"}


def decide(failure: Failure) -> Retry | Stop | float | None:
    if isinstance(failure.error, ConnectionClosed) and failure.error.code == 1000:
        return Stop()
    return 1.0 if failure.retries < 3 else None


async def everything() -> None:
    async with Socket(
        lambda: "wss://host/path",
        subprotocols=["a", "b"],
        headers=headers,
        ssl=ssl.create_default_context(),
        proxy="environment",
        heartbeat=JsonPing(send={"op": "ping"}, expect={"op": "pong"}, interval=10.0, timeout=5.0),
        overflow="coalesce",
        ttl=10.0,
        decide=decide,
        max_attempts=10,
        limits=ClientLimits(backoff_growth=1.5),
        on_drop=lambda data, error: print(data, error),
    ) as socket:
        assert_type(await socket.send("text", ttl=1.0, key="k"), None)
        assert_type(socket.send_nowait(b"bytes"), asyncio.Future[None])
        await socket.send_json({"n": 1})
        assert_type(await socket.recv(), str | bytes)
        async for message in socket:
            assert_type(message, str | bytes)
        assert_type(socket.stats, SocketStats)
        assert_type(socket.subprotocol, str | None)
        socket.on_message = print
        socket.on_close = None
    Socket("ws://host", heartbeat=NativePing(interval=5.0))
    Socket("ws://host", heartbeat=CustomPing(send="?", expect=lambda message: message == "!"))
    Socket("ws://host", heartbeat=None)


async def url() -> str:
    return "ws://127.0.0.1:8000/?token=t"


def told(data: str | bytes, error: Exception) -> None:
    print(len(data), isinstance(error, (Dropped, Superseded)))


async def the_rest() -> None:
    socket = await Socket(url, heartbeat=JsonPing(), on_drop=told)
    assert_type(socket, Socket)
    assert_type(socket.state, ConnectionState)
    assert_type(socket.stats.bytes_in, int)
    assert_type(socket.error, Exception | None)
    assert_type(socket.waiting, int)
    socket.on_open = None
    socket.on_error = print
    socket.on_state = print
    socket.on_drop = told
    socket.drop()
    socket.hurry()
    Socket("ws://127.0.0.1:8000/", overflow="drop")  # type: ignore[arg-type]
    await socket.close(1001, "going")
