"""Who is really there: the PROXY protocol and X-Forwarded-For."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from everwire.limits import Limits
from everwire.server.native.proxied import (
    NotProxied,
    client_address,
    networks,
    parse_proxy_header,
)
from everwire.server.native.tls import Tls

from .peer import open_app
from .test_handshake import request
from .test_listener import certificate, listening, trusting

V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2 + bytes([0x20 | command, family << 4 | 1]) + struct.pack("!H", len(body)) + body


PROXIED = {
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n": "192.0.2.7:4711",
    b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n": "2001:db8::7:4711",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN anything goes here\r\n": None,
    v2(1, 1, bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 4711, 443)): (
        "192.0.2.7:4711"
    ),
    v2(1, 1, bytes(8) + struct.pack("!HH", 1, 2) + b"\x03\x00\x04abcd"): "0.0.0.0:1",
    v2(1, 2, socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + b"\x12\x67\x01\xbb"): (
        "2001:db8::7:4711"
    ),
    v2(0, 0, b""): None,
    v2(1, 3, bytes(216)): None,
}


@pytest.mark.parametrize("header", PROXIED)
def test_a_proxy_header_tells_the_client_however_it_is_cut(header: bytes) -> None:
    for cut in range(len(header)):
        assert parse_proxy_header(header[:cut]) is None
    assert parse_proxy_header(header + b"GET /") == (PROXIED[header], len(header))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 nobody 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 99999 443\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXYING TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
        b"PROXYING UNKNOWN\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 192.0.2.7 nobody 4711 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 99999\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
        b"PROXY TCP6 fe80::1%x fe80::2 4711 443\r\n",
        V2 + b"\x31\x11\x00\x0c" + bytes(12),
        V2 + b"\x22\x11\x00\x0c" + bytes(12),
        V2 + b"\x21\x11\xff\xff",
        V2 + b"\x21\x11\x00\x04" + bytes(4),
        b"\x16\x03\x01",
    ],
)
def test_what_is_no_proxy_header_is_refused(data: bytes) -> None:
    with pytest.raises(NotProxied):
        parse_proxy_header(data)


@given(st.binary(max_size=300))
def test_reading_a_proxy_header_never_fails_otherwise(data: bytes) -> None:
    for start in (b"", b"PROXY ", V2, V2 + b"\x21\x11"):
        with suppress(NotProxied):
            parse_proxy_header(start + data)


def test_behind_the_proxy_protocol_handlers_see_the_client_and_others_are_dropped() -> None:
    async def main() -> None:
        async with listening(proxy_protocol=True) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n" + request())
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            (connection,) = server.node.connections.values()
            assert connection.remote == "192.0.2.7:4711"
            writer.transport.abort()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request())
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.transport.abort()

    asyncio.run(main())


@pytest.mark.parametrize("header", PROXIED)
def test_a_proxy_header_stands_before_the_tls_handshake(tmp_path: Path, header: bytes) -> None:
    pair = certificate(tmp_path, "one")

    async def main() -> None:
        async with listening(proxy_protocol=True, tls=Tls(*pair)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(header)
            await writer.start_tls(trusting(pair[0]), server_hostname="127.0.0.1")
            writer.write(request())
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            (connection,) = server.node.connections.values()
            ours = "{}:{}".format(*writer.get_extra_info("sockname"))
            assert connection.remote == (PROXIED[header] or ours)
            writer.transport.abort()

    asyncio.run(main())


def test_a_proxy_header_that_does_not_come_is_waited_for_no_longer_than_a_handshake() -> None:
    async def main() -> None:
        wire = open_app(limits=Limits(handshake_timeout=0.2))
        async with wire.listen("127.0.0.1", 0, proxy_protocol=True) as server:
            for start in (b"", b"PROXY TCP4", V2 + b"\x21\x11\x00\x0c1"):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(start)
                async with asyncio.timeout(5):
                    assert await reader.read() == b""
                writer.transport.abort()

    asyncio.run(main())


def test_whoever_may_connect_to_the_unix_socket_is_a_trusted_proxy_if_any_is(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "wire.sock")

    async def main() -> None:
        for trusted, expected in (((), "unix"), (("10.0.0.0/8",), "192.0.2.7:0")):
            async with listening(unix=path, trusted_proxies=trusted) as server:
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(request(X_Forwarded_For="6.6.6.6, 192.0.2.7"))
                await reader.readuntil(b"\r\n\r\n")
                (connection,) = server.node.connections.values()
                assert connection.remote == expected
                writer.transport.abort()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("remote", "forwarded", "expected"),
    [
        ("10.0.0.1:5", "192.0.2.7", "192.0.2.7:0"),
        ("10.0.0.1:5", "6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7:0"),
        ("10.0.0.1:5", "10.0.0.3, 10.0.0.2", "10.0.0.3:0"),
        ("10.0.0.1:5", "nonsense", "10.0.0.1:5"),
        ("10.0.0.1:5", "192.0.2.7:4711", "192.0.2.7:0"),  # some proxies add the port
        ("10.0.0.1:5", "[2001:db8::7]:4711, 10.0.0.2:80", "2001:db8::7:0"),
        ("10.0.0.1:5", "192.0.2.7, ::ffff:10.0.0.2", "192.0.2.7:0"),
        ("10.0.0.1:5", "fe80::1%what\x1bever", "10.0.0.1:5"),
        ("unix", "192.0.2.7", "192.0.2.7:0"),
        ("10.0.0.1:5", "unix", "10.0.0.1:5"),
        ("10.0.0.1:5", None, "10.0.0.1:5"),
        ("192.0.2.9:5", "6.6.6.6", "192.0.2.9:5"),  # not a proxy of ours: its own invention
    ],
)
def test_x_forwarded_for_is_believed_of_trusted_proxies_only(
    remote: str, forwarded: str | None, expected: str
) -> None:
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    assert client_address(remote, headers, networks(["10.0.0.0/8"])) == expected
    assert client_address(remote, headers, ()) == remote
