"""The same contract inside a FastAPI application under a real uvicorn."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from everwire import ClientLimits, ClosedError, Forbidden, Gap, Message, connect

APP = """
import asyncio
from fastapi import FastAPI
from everwire import Everwire, Forbidden, Grant, Identity, Limits

wire = Everwire(allow_anonymous=True, limits=Limits(history=1000, history_bytes=2**26))

@wire.authenticate
async def who(token: str) -> Identity:
    return Identity(token)

@wire.channel("chat:{room}", presence=True)
async def chat(conn, room: str) -> Grant:
    if room == "staff":
        raise Forbidden("staff only")
    return Grant(publish=True)

@wire.query
def twice(conn, n: int) -> int:
    return 2 * n

api = FastAPI()

@api.get("/drain")
async def drain() -> None:
    wire.node.draining = True

@api.get("/hello")
async def hello() -> str:
    return "hello"

wire.attach(api, "/ws")
"""


@pytest.fixture
def uvicorn(start: Callable[..., Any], tmp_path: Path, free_port: int) -> Callable[[], Any]:
    (tmp_path / "hosted.py").write_text(APP)

    def uvicorn() -> Any:
        child = start(
            [sys.executable, "-m", "uvicorn", "hosted:api", "--port", str(free_port)], cwd=tmp_path
        )
        child.line("Uvicorn running on", stream="err")
        child.url = f"ws://127.0.0.1:{free_port}/ws"
        return child

    return uvicorn


@pytest.mark.parametrize("name", ["msgpack", "json", "plain"])
def test_channels_queries_and_refusals_work_as_on_the_native_listener(
    uvicorn: Callable[[], Any], name: str
) -> None:
    url = uvicorn().url

    async def main() -> None:
        async with connect(url + "/", token="ada", dialect=name) as client:
            assert await client.query("twice", {"n": 21}) == 42
            async with client.subscribe("chat:x") as room:
                for n in range(200):
                    await client.publish("chat:x", {"n": n})
                items = aiter(room)
                for n in range(200):
                    item = await anext(items)
                    assert isinstance(item, Message)
                    assert item.data == {"n": n}
            with pytest.raises(Forbidden):
                async with client.subscribe("chat:staff"):
                    pass

    asyncio.run(main())


def test_a_restart_of_the_host_ends_quickly_and_the_client_comes_back(
    uvicorn: Callable[[], Any],
) -> None:
    child = uvicorn()

    async def main() -> None:
        nonlocal child
        soon = ClientLimits(backoff_base=0.2, backoff_cap=0.5)
        async with (
            connect(child.url, token="ada", limits=soon) as client,
            client.subscribe("chat:x") as room,
        ):
            await client.publish("chat:x", 1)
            items = aiter(room)
            assert isinstance(await anext(items), Message)
            began = time.monotonic()
            child.signal(signal.SIGINT)
            await asyncio.to_thread(child.wait)
            assert time.monotonic() - began < 2
            child = await asyncio.to_thread(uvicorn)
            gap = await anext(items)
            assert isinstance(gap, Gap)
            await client.publish("chat:x", 2)
            item = await anext(items)
            assert isinstance(item, Message)
            assert item.data == 2

    asyncio.run(main())


def test_who_comes_while_it_drains_is_told_to_come_back(uvicorn: Callable[[], Any]) -> None:
    """A refused upgrade says 403 here, which would be final."""

    server = uvicorn()
    with urlopen(server.url.replace("ws:", "http:").replace("/ws", "/drain"), timeout=10):
        pass

    async def main() -> None:
        with pytest.raises(ClosedError) as caught:
            await connect(server.url, timeout=1)
        assert caught.value.code == 4440

    asyncio.run(main())


def test_a_reader_that_stands_still_is_not_buffered_without_end(
    uvicorn: Callable[[], Any],
) -> None:
    url = uvicorn().url

    async def main() -> None:
        async with connect(url, token="ada") as client, connect(url, token="bob") as reader:
            async with reader.subscribe("chat:x") as room:
                for n in range(300):
                    await client.publish("chat:x", [n, "x" * 20_000])
                items = aiter(room)
                for n in range(300):
                    item = await anext(items)
                    assert isinstance(item, Message)
                    assert item.data[0] == n

    asyncio.run(main())
