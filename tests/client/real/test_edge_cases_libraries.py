"""Edge cases on real sockets, with a well-known library beside us.

What is asserted of the library holds for the version that the tests install; if it mends its
ways, the assertion about it goes.
"""

from __future__ import annotations

import asyncio
import sys
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as naive_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from everwire import ClientLimits, ClosedError, Everwire, Grant, NativePing, Socket, connect
from everwire.client.connect import connect_network
from everwire.limits import MAX_ATTEMPTS, Limits
from everwire.net.attempts import Attempts

from ...conftest import Child
from ..world import data_of, take
from .bombs import BOMB, bomb

Handler = Callable[[ServerConnection], Awaitable[None]]


def really(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(50):
            await scenario()

    asyncio.run(main())


@asynccontextmanager
async def served(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """A server made of the library, on a free port."""
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


def own_budget() -> Any:
    """The real network, with a budget that other tests have not spent."""
    return connect_network(Attempts())


# ---- 1 -----------------------------------------------------------------------------------


def test_a_server_that_accepts_and_closes_is_not_hammered() -> None:
    """Whoever forgets its backoff at each open connects to such a server without a pause.

    1 558 connections a second from one client of websockets 17.4, 1 729 from picows.websockets
    2.3.1; likewise centrifuge-js #407 and #408.
    """
    opened: list[str] = []

    async def close_at_once(one: ServerConnection) -> None:
        assert one.request is not None
        opened.append(one.request.path)

    short = ClientLimits(first_retry=0.01, backoff_base=0.01, backoff_cap=0.05, backoff_floor=0.001)

    async def scenario() -> None:
        async with served(close_at_once) as url:
            client = connect(
                f"{url}ours", dialect="plain", network=own_budget(), limits=short, timeout=40
            )
            began = time.monotonic()
            ours = asyncio.get_running_loop().create_task(client.__aenter__())
            async for naive in naive_connect(f"{url}naive"):
                await naive.wait_closed()
                if opened.count("/naive") >= 500:
                    break
            while time.monotonic() - began < 3:
                await asyncio.sleep(0.1)
            assert opened.count("/naive") >= 500
            assert 1 <= opened.count("/ours") <= MAX_ATTEMPTS
            await client.close()
            await asyncio.wait([ours])

    really(scenario)


# ---- 2 and 3 -----------------------------------------------------------------------------


def test_what_send_returned_for_may_never_have_arrived() -> None:
    """``await send()`` returns when the operating system has the bytes: all of these are lost."""

    async def scenario() -> None:
        received: list[Any] = []
        reading = asyncio.Event()

        async def handler(one: ServerConnection) -> None:
            one.transport.pause_reading()
            await reading.wait()
            one.transport.abort()
            received.extend([message async for message in one])

        async with served(handler) as url:
            async with naive_connect(url) as naive:
                for n in range(100):
                    await naive.send(f"{n}" * 1_000)  # no error: "sent"
                reading.set()
                await naive.wait_closed()
        assert len(received) < 100

    really(scenario)


def test_a_send_that_was_cancelled_arrives_all_the_same() -> None:
    """So who sends again after a time-out has it there twice; here the message has an id."""

    async def scenario() -> None:
        received: list[Any] = []
        reading = asyncio.Event()

        async def handler(one: ServerConnection) -> None:
            one.transport.pause_reading()
            await reading.wait()
            one.transport.resume_reading()
            received.extend([message[:5] async for message in one])

        large = "x" * 30_000_000  # more than any socket's buffer
        async with served(handler, max_size=2**26) as url:
            async with naive_connect(url, compression=None) as naive:
                for attempt in range(2):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await naive.send(f"pay {attempt}" + large)
                reading.set()
                await naive.ping()
        assert received == ["pay 0", "pay 1"]

    really(scenario)


# ---- 4 -----------------------------------------------------------------------------------


def test_a_slow_reader_keeps_its_link() -> None:
    """A full queue pauses reading, the pong stays unread, and the live link is given up: 1011."""

    async def flood(one: ServerConnection) -> None:
        try:
            while True:
                await one.send("x" * 65_536)
        except ConnectionClosed:
            pass

    async def naive() -> None:
        async with served(flood, ping_interval=None, compression=None) as url:
            async with naive_connect(
                url,
                compression=None,
                ping_interval=0.3,
                ping_timeout=0.6,
                max_queue=4,
                close_timeout=0.2,
            ) as one:
                await asyncio.sleep(2)  # the application is busy
                with pytest.raises(ConnectionClosedError) as error:
                    for _ in range(1_000):
                        await one.recv()
                assert error.value.sent is not None
                assert error.value.sent.code == 1011

    async def socket() -> None:
        """At the very same server."""
        limits = ClientLimits(queue_messages=4, close_timeout=0.2, probe=0.6)
        ping = NativePing(interval=0.3, timeout=0.6)
        async with served(flood, ping_interval=None, compression=None) as url:
            async with Socket(url, heartbeat=ping, limits=limits, network=own_budget()) as one:
                await asyncio.sleep(2)
                for _ in range(1_000):
                    assert len(await one.recv()) == 65_536
                assert one.stats.attempts == 1

    async def with_acknowledgements() -> None:
        wire = Everwire(limits=Limits(ping_interval=1.0, ping_grace=1.5, history_bytes=2**26))
        wire.channel("c", history=500, grant=Grant())
        limits = ClientLimits(ping_grace=1.5, queue_messages=4)
        async with wire.listen(port=0) as server:
            async with connect(f"ws://127.0.0.1:{server.port}/ws", limits=limits) as client:
                async with client.subscribe("c") as room:
                    for n in range(200):
                        await wire.publish("c", [n, "x" * 65_536])
                        await asyncio.sleep(0.02)
                    got = data_of(await take(room, 200))
                    assert [one[0] for one in got] == list(range(200))
                    assert client.stats.reconnects == 0

    really(naive)
    really(socket)
    really(with_acknowledgements)


# ---- 20 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["compressed", "compressed-in-pieces", "large", "endless"])
def test_a_bomb_is_refused_before_it_is_inflated(kind: str, start: Callable[..., Child]) -> None:
    """A limit on what comes over the wire says nothing of what it becomes.

    websockets #407, tornado #2391, centrifugo #1162; wsproto 1.3.2 inflates with no limit.
    """
    squeezed = bomb()
    assert len(squeezed) < 100_000
    assert len(zlib.decompressobj(-15).decompress(squeezed)) == BOMB  # as it is usually done
    peer = start([sys.executable, Path(__file__).parent / "bombs.py", kind])
    port = peer.line(r"^port (\d+)$")[1]
    events: list[Any] = []

    async def ours() -> None:
        limits = ClientLimits(close_timeout=0.2)
        url = f"ws://127.0.0.1:{port}/"
        client = connect(url, dialect="plain", network=own_budget(), limits=limits)
        client.on_event = lambda name, data: events.append(data)
        with pytest.raises(ClosedError) as error:
            await client
            while True:
                await client.event("more")
                await asyncio.sleep(0.05)
        expected = 1002 if "compressed" in kind else 1009
        assert (error.value.code, "length" in str(error.value)) == (expected, False)
        # Our last word may still wait to be written, to a peer that does not read.
        await asyncio.sleep(2 * limits.close_timeout)

    tracemalloc.start()
    really(ours)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not events
    assert peak < BOMB * 3 / 4  # of which 16 MiB is what a client takes, and is being put together
