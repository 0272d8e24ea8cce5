"""The first bytes of a connection, on real sockets: each request gets its answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from everwire.limits import Limits
from everwire.server.native.request import parse_request
from everwire.server.running import Server

from .peer import open_app

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3


def request(
    first: str = "GET /ws HTTP/1.1", *, drop: tuple[str, ...] = (), **headers: str | None
) -> bytes:
    """A good handshake, with some headers changed, added or dropped."""
    fields: dict[str, str] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items() if value})
    lines = [first] + [f"{name}: {value}" for name, value in fields.items() if name not in drop]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@asynccontextmanager
async def listening(**limits: Any) -> AsyncIterator[Server]:
    wire = open_app(limits=Limits(**limits))
    async with wire.listen("127.0.0.1", 0, page=b"<h1>hello</h1>") as server:
        yield server


async def exchange(server: Server, data: bytes, *, wait: float = 5) -> bytes:
    """Send bytes; return everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(data)
        async with asyncio.timeout(wait):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


def on_sockets(scenario: Callable[[Server], Coroutine[Any, Any, None]], **limits: Any) -> None:
    async def main() -> None:
        async with listening(**limits) as server:
            await scenario(server)
            assert server.node.counters["defects"] == 0
        await asyncio.sleep(0.01)  # the ends of our own connections

    asyncio.run(main())


REFUSALS: dict[str, tuple[bytes, int]] = {
    "a plain GET": (b"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n", 426),
    "no Upgrade": (request(drop=("Upgrade",)), 426),
    "no Connection": (request(drop=("Connection",)), 426),
    "POST": (request("POST /ws HTTP/1.1"), 405),
    "POST of a page": (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    "HTTP/1.0": (request("GET /ws HTTP/1.0"), 426),
    "HTTP/2.0": (request("GET /ws HTTP/2.0"), 505),
    "no key": (request(drop=("Sec-WebSocket-Key",)), 400),
    "a short key": (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "a key that is not base64": (request(Sec_WebSocket_Key="!" * 24), 400),
    "the key twice": (request()[:-2] + b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n", 400),
    "version 8": (request(Sec_WebSocket_Version="8"), 426),
    "no version": (request(drop=("Sec-WebSocket-Version",)), 426),
    "no Host": (request(drop=("Host",)), 400),
    "a Host with a space": (request(Host="a b"), 400),
    "a Host with a path": (request(Host="h/ws"), 400),
    "a Host with a user": (request(Host="u@h"), 400),
    "a Host with a port that is none": (request(Host="h:x"), 400),
    "an absolute target without a Host": (request("GET http://h/ws HTTP/1.1", drop=("Host",)), 400),
    "an absolute target with a malformed host": (request("GET http://u@h/ws HTTP/1.1"), 400),
    "an absolute target of another kind": (request("GET ftp://h/ws HTTP/1.1"), 404),
    "NUL, encoded, in the target": (request("GET /ws%00 HTTP/1.1"), 404),
    "Host twice": (request()[:-2] + b"Host: other\r\n\r\n", 400),
    "a long request line": (request("GET /" + "x" * 9000 + " HTTP/1.1"), 414),
    "an endless request line": (b"GET /" + b"x" * 20_000, 414),
    "a long header": (request(X_Long="x" * 9000), 431),
    "200 headers": (
        request()[:-2] + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        431,
    ),
    "endless headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000, 431),
    "a folded header": (request()[:-2] + b"X: a\r\n b\r\n\r\n", 400),
    "NUL in a header": (request(X="a\x00b"), 400),
    "a space before the colon": (request()[:-2] + b"X : a\r\n\r\n", 400),
    "a body": (request(Content_Length="5") + b"hello", 400),
    "a chunked body": (request(Transfer_Encoding="chunked") + b"0\r\n\r\n", 400),
    "only unknown subprotocols": (request(Sec_WebSocket_Protocol="graphql-ws, mqtt"), 400),
    "a path where there is nothing": (b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n", 404),
    "a WebSocket where there is none": (request("GET /nope HTTP/1.1"), 404),
    "words": (b"HELLO THERE\r\n\r\n", 400),
    "a control character in the target": (request("GET /w\x01s HTTP/1.1"), 400),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_handshake_that_is_wrong_gets_the_status_that_says_how(name: str) -> None:
    data, status = REFUSALS[name]

    async def scenario(server: Server) -> None:
        answer = await exchange(server, data)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: " in head.lower()
        assert int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) == len(body) > 0
        if status == 426 and "version" in name:
            assert b"Sec-WebSocket-Version: 13" in head
        assert b"Traceback" not in answer

    on_sockets(scenario)


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, b"\x00" * 100]
)
def test_bytes_that_cannot_become_a_request_are_dropped_without_an_answer(data: bytes) -> None:
    async def scenario(server: Server) -> None:
        assert await exchange(server, data) == b""

    on_sockets(scenario)


@pytest.mark.parametrize(
    "data",
    [
        request(),
        request(Connection="keep-alive, Upgrade"),  # as Firefox sends it
        request(Upgrade="WebSocket", Connection="upgrade"),
        request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
        request(Sec_WebSocket_Extensions="nonsense; server_max_window_bits=99"),
        request("GET / HTTP/1.1"),
        request("GET /ws/?token=x HTTP/1.1"),
        request("GET /%77s HTTP/1.1"),
        request("GET http://other.example:80/ws?x HTTP/1.1"),
        request("GET HTTP://[::1] HTTP/1.1"),
        request("GET ws://h?x HTTP/1.1"),
        request("GET /ws HTTP/1.2"),
        request(Host="[::1]:8000"),
        b"\r\n" + request(),
        request(Sec_WebSocket_Extensions=", permessage-deflate,"),
    ],
)
def test_a_good_handshake_is_accepted_without_extensions(data: bytes) -> None:
    async def scenario(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 101 ")
        assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n" in head
        assert "extensions" not in head.lower()
        assert "Sec-WebSocket-Protocol" not in head
        writer.transport.abort()

    assert (
        base64.b64encode(
            hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        ).decode()
        == ACCEPT
    )
    on_sockets(scenario)


def test_the_first_known_subprotocol_of_the_client_is_chosen() -> None:
    async def scenario(server: Server) -> None:
        for offered, chosen in [
            ("everwire.v1.json", "everwire.v1.json"),
            ("x, everwire.v1.msgpack, everwire.v1.json", "everwire.v1.msgpack"),
            ("x," + " " * 8000 + "everwire.v1.json", "everwire.v1.json"),
        ]:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request(Sec_WebSocket_Protocol=offered))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert f"Sec-WebSocket-Protocol: {chosen}\r\n" in head
            writer.transport.abort()

    on_sockets(scenario)


def test_small_pages_are_served() -> None:
    async def scenario(server: Server) -> None:
        for path, kind, part in [
            ("/", b"text/html", b"<h1>hello</h1>"),
            ("/everwire.js", b"text/javascript", b"export"),
            ("/healthz", b"application/json", b'"status":"ok"'),
        ]:
            answer = await exchange(server, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert kind in answer
            assert part in answer
            head = await exchange(server, f"HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert head.endswith(b"\r\n\r\n")

    on_sockets(scenario)


def test_health_checks_of_http_1_0_are_answered() -> None:
    """Balancers send them without a Host."""

    async def scenario(server: Server) -> None:
        answer = await exchange(server, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        answer = await exchange(server, request("GET / HTTP/1.0"))
        assert b"<h1>hello</h1>" in answer

    on_sockets(scenario)


def test_an_answer_to_head_has_no_body_whatever_it_is() -> None:
    async def scenario(server: Server) -> None:
        for path, status in ("/nope", 404), ("/ws", 426), ("/healthz", 200):
            answer = await exchange(server, f"HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.endswith(b"\r\n\r\n")
        answer = await exchange(server, b"HEAD / HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\r\n\r\n")

    on_sockets(scenario)


def test_empty_lines_before_a_request_are_nothing_however_they_come() -> None:
    async def scenario(server: Server) -> None:
        data = b"\r\n\r\n" + request()
        for cut in range(1, 6):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data[:cut])
            await asyncio.sleep(0.01)
            writer.write(data[cut:])
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

    on_sockets(scenario)


def test_the_host_of_an_absolute_target_outdoes_the_header() -> None:
    head = request("GET http://one.example/ws HTTP/1.1", Host="two.example")
    found = parse_request(head[:-4])
    assert (found.path, found.headers["host"]) == ("/ws", "one.example")


def test_an_unfinished_request_ends_at_its_time_limit() -> None:
    async def scenario(server: Server) -> None:
        for data in (b"", b"GET /ws HTTP/1.1\r\nHost: h\r\n"):
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await exchange(server, data) == b""
            assert loop.time() - began < 3

    on_sockets(scenario, handshake_timeout=0.5)


def test_five_hundred_unfinished_requests_do_not_keep_a_good_one_waiting() -> None:
    async def scenario(server: Server) -> None:
        slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(500)]
        for _, writer in slow:
            writer.write(b"GET /ws HTTP/1.1\r\nHo")
        answer = await exchange(server, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", wait=1)
        assert b"200 OK" in answer
        for _, writer in slow:
            writer.transport.abort()

    on_sockets(scenario)


def test_a_request_cut_at_every_byte_is_the_same_request() -> None:
    async def scenario(server: Server) -> None:
        data = request() + b"\x81\x8f\x00\x00\x00\x00" + b'{"type":"ping"}'
        for cut in range(1, len(data)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data[:cut])
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            writer.write(data[cut:])
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(17) == b'\x81\x0f{"type":"pong"}'
            writer.transport.abort()

    on_sockets(scenario)


def test_while_draining_new_websockets_get_503_and_health_says_so() -> None:
    async def scenario(server: Server) -> None:
        await server.drain(0)
        answer = await exchange(server, request())
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in answer
        answer = await exchange(server, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"draining" in answer

    on_sockets(scenario)
