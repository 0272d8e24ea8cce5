"""The same client over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from typing import Any

import pytest
import uvloop

from everwire import (
    Client,
    ConfigError,
    Connection,
    Everwire,
    Handlers,
    HandshakeRefused,
    Identity,
    Socket,
    StreamInterrupted,
    Token,
    connect,
)
from everwire.protocol import messages as m

from .world import FAST, application, data_of, take, until

Scenario = Callable[[str, Everwire], Coroutine[Any, Any, None]]


def served(scenario: Scenario, run: Callable[..., None]) -> None:
    async def main() -> None:
        wire = application()

        @wire.query
        async def double(conn: Connection, n: int) -> int:
            return 2 * n

        async with wire.listen(port=0) as server:
            async with asyncio.timeout(20):
                await scenario(f"ws://127.0.0.1:{server.port}/ws", wire)

    run(main())


LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@LOOPS
@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_everything_over_a_drop(dialect: str, run: Callable[..., None]) -> None:
    async def scenario(url: str, wire: Everwire) -> None:
        limits = FAST
        async with connect(url, dialect=dialect, limits=limits) as client:
            async with client.subscribe("c") as room:
                first = [client.publish_nowait("c", n) for n in range(50)]
                await asyncio.sleep(0)
                client.drop()
                for future in first:
                    await future
                await client.publish("c", b"\x00" * 300_000)
                items = await take(room, 51, within=10)
                assert data_of(items) == [*range(50), b"\x00" * 300_000]
            assert await client.query("double", {"n": 4}, type=int) == 8
            assert client.stats.reconnects == 1

    served(scenario, run)


@LOOPS
def test_requests_in_both_directions_streams_and_tokens(run: Callable[..., None]) -> None:
    handlers = Handlers()
    tokens: list[str] = []
    closed: list[int] = []

    @handlers.query
    async def name(client: Client, greeting: str) -> str:
        return f"{greeting} from {await client.query('double', {'n': 4})}"

    async def provide() -> Token:
        tokens.append(f"t{len(tokens)}")
        return Token(tokens[-1], time.time() + 3)

    async def scenario(url: str, wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str) -> Identity:
            return Identity("ada", expires=time.time() + 3)

        @wire.query
        async def ask_back(conn: Connection) -> str:
            return await conn.query("name", {"greeting": "hi"}, type=str)

        @wire.query
        async def chunks(conn: Connection, n: int, size: int) -> AsyncIterator[bytes]:
            try:
                for _ in range(n):
                    yield bytes(size)
            finally:
                closed.append(n)

        wire.node.lets_anonymous_in = False
        async with connect(url, limits=FAST, handlers=handlers, token=provide) as client:
            assert await client.query("ask_back", type=str) == "hi from 8"
            assert await wire.request("ada", "name", {"greeting": "ho"}) == "ho from 8"
            stream = client.stream("chunks", {"n": 300, "size": 100_000}, type=bytes)
            assert sum([len(part) async for part in stream]) == 30_000_000
            async with client.stream("chunks", {"n": 1_000, "size": 10}) as stream:
                await anext(stream)
            await until(lambda: closed == [300, 1_000], within=5)
            with pytest.raises(StreamInterrupted):
                async for _ in client.stream("chunks", {"n": 1_000, "size": 10}):
                    client.drop()
            await until(lambda: len(closed) == 3, within=5)
            await until(lambda: client.stats.reconnects == 1, within=5)
            count = len(tokens)
            await until(lambda: len(tokens) > count, within=10)
            assert client.stats.reconnects == 1  # tokens are renewed on the link


@LOOPS
@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_everything_over_a_move(dialect: str, run: Callable[..., None]) -> None:
    async def scenario(url: str, wire: Everwire) -> None:
        async with connect(url, dialect=dialect) as client, client.subscribe("c") as room:
            states: list[str] = []
            client.on_state = states.append
            publishes = []
            for n in range(300):
                if n % 100 == 50:
                    for connection in wire.node.connections.values():
                        connection.send(m.Drain(0, 10_000))
                publishes.append(client.publish_nowait("c", n))
                assert await client.query("double", {"n": n}, type=int) == 2 * n
                await asyncio.sleep(0.01)
            assert [(await one).duplicate for one in publishes] == [False] * 300
            assert data_of(await take(room, 300, within=10)) == list(range(300))
            assert client.stats.gaps == 0
            assert states[:2] == ["draining", "ready"]
            assert set(states) == {"draining", "ready"}
            await until(lambda: len(wire.node.connections) == 1, within=10)

    served(scenario, run)


@LOOPS
def test_plain(run: Callable[..., None]) -> None:
    async def scenario(url: str, wire: Everwire) -> None:
        async with connect(url, dialect="plain", limits=FAST) as client:
            async with client.subscribe("c") as room:
                await client.publish("c", {"n": 1})
                assert data_of(await take(room, 1)) == [{"n": 1}]
                client.drop()
                await until(lambda: client.stats.reconnects == 1, within=5)
                assert data_of(await take(room, 1)) == ["<dropped>"]

    served(scenario, run)


@LOOPS
def test_what_does_not_work_says_so(run: Callable[..., None], deaf_port: int) -> None:
    async def scenario(url: str, wire: Everwire) -> None:
        with pytest.raises(HandshakeRefused) as error:
            await connect(url.replace("/ws", "/nowhere"))
        assert error.value.status == 404
        with pytest.raises(OSError, match=r"Connect call failed|refused"):
            await connect(f"ws://127.0.0.1:{deaf_port}/ws", timeout=0.3)
        with pytest.raises(ConfigError):
            connect("http://127.0.0.1")

    served(scenario, run)


@LOOPS
@pytest.mark.parametrize("kind", [connect, Socket])
@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n"], ids=["nothing", "no HTTP"])
def test_who_is_hung_up_on_before_an_answer_tries_again(
    said: bytes, kind: Callable[..., Any], run: Callable[..., None]
) -> None:
    calls = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        with closing(writer):  # also when the test ends first
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)

    async def main() -> None:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(HandshakeRefused, match=r"without an answer.*wss://") as error:
                await kind(f"ws://127.0.0.1:{port}/", limits=FAST, timeout=0.5)
            assert error.value.temporary
            assert calls > 1

    run(main())


@pytest.mark.parametrize("kind", [connect, Socket])
@pytest.mark.parametrize("wrong", [False, True, "cert.pem"])
def test_nothing_goes_out_where_ssl_is_no_context(kind: Callable[..., Any], wrong: Any) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="SSLContext"):
            await kind("wss://127.0.0.1:1/", ssl=wrong)

    asyncio.run(main())
