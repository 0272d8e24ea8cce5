"""Sockets over TLS with an authority of their own, and through proxies."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from everwire import HandshakeRefused, Pool, Socket, connect
from everwire.limits import ClientLimits
from everwire.net.attempts import Attempts
from everwire.net.websocket import PicowsNetwork

from ..world import FAST, application

QUICK = ClientLimits(first_retry=0.1, backoff_base=0.1, backoff_cap=0.3, backoff_floor=0.05)
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


def socket_to(url: Any, **options: Any) -> Socket:
    options.setdefault("limits", QUICK)
    return Socket(url, network=PicowsNetwork(Attempts()), **options)


def play(
    scenario: Callable[[], Coroutine[Any, Any, None]], run: Callable[..., Any] = asyncio.run
) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await scenario()

    run(main())


@asynccontextmanager
async def echoing(**options: Any) -> AsyncIterator[int]:
    async def echo(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, **options) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def tls(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's context and the client's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    return server, ssl.create_default_context(cafile=certificate.parent / "ca.pem")


# ---- TLS -----------------------------------------------------------------------------


@LOOPS
def test_over_tls_with_an_authority_of_our_own(
    authority: Callable[[str], Path], run: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        theirs, ours = tls(authority("127.0.0.1"))
        async with echoing(ssl=theirs, max_size=None) as port:
            async with socket_to(f"wss://127.0.0.1:{port}/", ssl=ours) as socket:
                for message in ("text", b"\x00", "x" * 900_000):
                    await socket.send(message)
                    assert await socket.recv() == message
                for n in range(500):
                    socket.send_nowait(f"{n}".ljust(10_000))
                assert [int(await socket.recv()) for _ in range(500)] == list(range(500))
                socket.drop()
                await socket.send("again")
                assert await socket.recv() == "again"

    play(scenario, run)


@LOOPS
def test_a_certificate_that_is_not_trusted_or_for_another_name_is_final(
    authority: Callable[[str], Path], run: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        theirs, _ = tls(authority("127.0.0.1"))
        async with echoing(ssl=theirs) as port:
            with pytest.raises(HandshakeRefused, match="not trusted"):
                await socket_to(f"wss://127.0.0.1:{port}/")
        theirs, ours = tls(authority("other.test"))
        async with echoing(ssl=theirs) as port:
            with pytest.raises(HandshakeRefused, match="IP address mismatch"):
                await socket_to(f"wss://127.0.0.1:{port}/", ssl=ours)

    play(scenario, run)


# ---- what goes into the handshake --------------------------------------------------------


def test_headers_subprotocols_query_user_and_password_reach_the_server() -> None:
    async def scenario() -> None:
        seen: list[Request] = []

        def look(connection: ServerConnection, request: Request) -> Response | None:
            seen.append(request)
            return None

        async with echoing(process_request=look, subprotocols=[Subprotocol("b")]) as port:
            async with socket_to(
                f"ws://me:p%40ss@127.0.0.1:{port}/path?token=t#part",
                headers={"X-Mine": "1"},
                subprotocols=["a", "b"],
            ) as socket:
                assert socket.subprotocol == "b"
            (request,) = seen
            assert request.path == "/path?token=t"
            assert request.headers["X-Mine"] == "1"
            assert request.headers["Host"] == f"127.0.0.1:{port}"
            assert request.headers["Sec-WebSocket-Protocol"] == "a, b"
            basic = base64.b64encode(b"me:p@ss").decode()
            assert request.headers["Authorization"] == f"Basic {basic}"

    play(scenario)


def test_a_subprotocol_that_was_not_offered_is_final() -> None:
    async def scenario() -> None:
        def impose(connection: ServerConnection, request: Request, response: Response) -> None:
            response.headers["Sec-WebSocket-Protocol"] = "other"

        async with echoing(process_response=impose) as port:
            with pytest.raises(HandshakeRefused, match="not offered"):
                await socket_to(f"ws://127.0.0.1:{port}/", subprotocols=["mine"])

    play(scenario)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 426])
def test_an_http_refusal_is_final_with_its_status(status: int) -> None:
    async def scenario() -> None:
        tries: list[int] = []

        def refuse(connection: ServerConnection, request: Request) -> Response:
            tries.append(1)
            return connection.respond(status, "no\n")

        async with echoing(process_request=refuse) as port:
            with pytest.raises(HandshakeRefused) as error:
                await socket_to(f"ws://127.0.0.1:{port}/")
            assert error.value.status == status
            assert len(tries) == 1

    play(scenario)


@pytest.mark.parametrize("status", [403, 404])
def test_an_http_refusal_without_a_text_says_that_the_path_may_be_wrong(status: int) -> None:
    async def scenario() -> None:
        def refuse(connection: ServerConnection, request: Request) -> Response:
            return connection.respond(status, "")

        async with echoing(process_request=refuse) as port:
            with pytest.raises(HandshakeRefused, match="no WebSocket at this path"):
                await socket_to(f"ws://127.0.0.1:{port}/")

    play(scenario)


# ---- proxies -------------------------------------------------------------------------------


Proxy = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class ConnectProxy:
    """A small HTTP proxy: CONNECT, with a password if it has one."""

    def __init__(self, password: str = "", status: int = 200) -> None:
        self.asked: list[str] = []
        self.status = status
        self._want = f"Basic {base64.b64encode(password.encode()).decode()}" if password else ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            _, target, _ = head[0].split(" ")
            self.asked.append(target)
            given = [line.partition(": ")[2] for line in head if line.startswith("Proxy-Auth")]
            status = 407 if self._want and given != [self._want] else self.status
            writer.write(f"HTTP/1.1 {status} x\r\n\r\n".encode())
            if status == 200:
                host, _, port = target.rpartition(":")
                there, back = await asyncio.open_connection(host, int(port))
                await asyncio.gather(pump(reader, back), pump(there, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer), suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[str]:
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@LOOPS
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_through_a_proxy_with_a_password_also_after_a_drop(
    authority: Callable[[str], Path],
    scheme: str,
    run: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        theirs, ours = tls(authority("127.0.0.1"))
        secure = scheme == "wss"
        proxy = ConnectProxy("me:secret")
        async with echoing(ssl=theirs if secure else None) as port, proxying(proxy) as address:
            async with socket_to(
                f"{scheme}://127.0.0.1:{port}/",
                ssl=ours if secure else None,
                proxy=f"http://me:secret@{address}",
            ) as socket:
                await socket.send("x" * 500_000)
                assert len(await socket.recv()) == 500_000
                socket.drop()
                await socket.send("again")
                assert await socket.recv() == "again"
            assert proxy.asked == [f"127.0.0.1:{port}"] * 2

    with caplog.at_level(logging.INFO):
        play(scenario, run)
    assert "through the proxy http://127.0.0.1:" in caplog.text
    assert "secret" not in caplog.text


@LOOPS
@pytest.mark.parametrize("kind", [connect, Pool])
def test_clients_and_pools_go_through_one_as_well(
    kind: Callable[..., Any], run: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        proxy, wire = ConnectProxy("me:secret"), application()
        async with wire.listen(port=0) as server, proxying(proxy) as address:
            url = f"ws://127.0.0.1:{server.port}/ws"
            async with kind(url, proxy=f"http://me:secret@{address}", limits=FAST) as client:
                await client.publish("c", 1)
                client.drop()
                await client.publish("c", 2)
            assert set(proxy.asked) == {f"127.0.0.1:{server.port}"}
            assert len(proxy.asked) >= 2

    play(scenario, run)


@pytest.mark.parametrize(("status", "final"), [(407, True), (403, True), (502, False)])
def test_a_proxy_that_refuses_is_told_apart_from_the_server(status: int, final: bool) -> None:
    async def scenario() -> None:
        proxy = ConnectProxy(status=status)
        async with echoing() as port, proxying(proxy) as address:
            with pytest.raises(HandshakeRefused, match=f"the proxy refused: .*{status}"):
                await socket_to(f"ws://127.0.0.1:{port}/", proxy=f"http://{address}", timeout=1.0)
            assert (len(proxy.asked) == 1) is final

    play(scenario)


def test_the_environment_is_asked_only_if_that_is_wanted_and_its_exceptions_hold(
    monkeypatch: pytest.MonkeyPatch, deaf_port: int
) -> None:
    async def scenario() -> None:
        proxy = ConnectProxy()
        async with echoing() as port, proxying(proxy) as address:
            url = f"ws://127.0.0.1:{port}/"
            monkeypatch.setenv("http_proxy", f"http://{address}")
            async with socket_to(url):
                assert proxy.asked == []
            async with socket_to(url, proxy="environment"):
                assert len(proxy.asked) == 1
            monkeypatch.setenv(
                "ws_proxy", f"http://127.0.0.1:{deaf_port}"
            )  # goes before http_proxy
            with pytest.raises(OSError, match=r"127\.0\.0\.1"):
                await socket_to(url, proxy="environment", timeout=0.3)
            monkeypatch.setenv("no_proxy", "example.org,127.0.0.1")
            async with socket_to(url, proxy="environment"):
                assert len(proxy.asked) == 1

    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    play(scenario)


def test_a_socks_proxy_carries_it_too() -> None:
    """SOCKS 5 without a password, to an IPv4 address (RFC 1928)."""

    async def socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            _, methods = await reader.readexactly(2)
            await reader.readexactly(methods)
            writer.write(b"\x05\x00")
            head = await reader.readexactly(4)
            assert head == b"\x05\x01\x00\x01"
            host = ".".join(map(str, await reader.readexactly(4)))
            port = int.from_bytes(await reader.readexactly(2), "big")
            there, back = await asyncio.open_connection(host, port)
            writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            used.append(port)
            await asyncio.gather(pump(reader, back), pump(there, writer))

    used: list[int] = []

    async def scenario() -> None:
        async with echoing() as port, proxying(socks) as address:
            proxy = f"socks5://{address}"
            async with socket_to(f"ws://127.0.0.1:{port}/", proxy=proxy) as socket:
                await socket.send("x")
                assert await socket.recv() == "x"
            assert used == [port]

    play(scenario)
