"""Ways to listen: TLS, Unix sockets, behind proxies, with others on the same port."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from everwire import Message, connect
from everwire.errors import ConfigError
from everwire.server.identity.origins import normal_origin, read_origin
from everwire.server.native.listener import bind
from everwire.server.native.tls import Tls
from everwire.server.running import Server

from .peer import open_app
from .test_handshake import request

EC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("rsa:2048",)


def certificate(folder: Path, name: str, kind: tuple[str, ...] = EC) -> tuple[Path, Path]:
    """Make a certificate of our own for 127.0.0.1."""
    crt, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", *kind,
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", crt],
        check=True, capture_output=True,
    )  # fmt: skip
    return crt, key


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[Server]:
    async with open_app().listen("127.0.0.1", 0, **options) as server:
        yield server
    await asyncio.sleep(0.01)


async def chat(url: str, **options: Any) -> None:
    """Publish and receive through a listener."""
    async with connect(url, **options) as client, client.subscribe("c") as room:
        for n in range(3):
            await client.publish("c", [n, "x" * 100_000])
        items = aiter(room)
        for n in range(3):
            item = await anext(items)
            assert isinstance(item, Message)
            assert item.data[0] == n


def trusting(crt: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(crt))


def test_tls_is_served_and_a_new_certificate_is_taken_up_without_dropping_anybody(
    tmp_path: Path,
) -> None:
    one, two = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    current = (tmp_path / "current.crt", tmp_path / "current.key")

    def install(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, current, strict=True):
            target.write_bytes(source.read_bytes())

    async def main() -> None:
        install(one)
        async with listening(tls=Tls(*current)) as server:
            url = f"wss://127.0.0.1:{server.port}/ws"
            async with connect(url, ssl=trusting(one[0])) as old:
                assert (await old.publish("c", 1)).position is not None
                install(two)
                server.reload_tls()
                await chat(url, ssl=trusting(two[0]))
                assert (await old.publish("c", 2)).position is not None
                assert old.stats.reconnects == 0
                current[0].write_text("no certificate")
                with pytest.raises(ConfigError, match="PEM"):
                    server.reload_tls()
                await chat(url, ssl=trusting(two[0]))

    asyncio.run(main())


def test_a_new_certificate_takes_the_place_of_one_with_a_key_of_another_kind(
    tmp_path: Path,
) -> None:
    pairs = [certificate(tmp_path, "ec"), certificate(tmp_path, "rsa", RSA)]
    current = (tmp_path / "current.crt", tmp_path / "current.key")

    async def main() -> None:
        for source, target in zip(pairs[0], current, strict=True):
            target.write_bytes(source.read_bytes())
        async with listening(tls=Tls(*current)) as server:
            for pair in (pairs[1], pairs[0], pairs[1]):
                for source, target in zip(pair, current, strict=True):
                    target.write_bytes(source.read_bytes())
                server.reload_tls()
                await chat(f"wss://127.0.0.1:{server.port}/ws", ssl=trusting(pair[0]))

    asyncio.run(main())


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x05\x01", b"GET / "])
def test_who_hangs_up_in_the_tls_handshake_leaves_no_line_in_the_log(
    tmp_path: Path, hello: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    pair = certificate(tmp_path, "one")

    async def main() -> None:
        async with listening(tls=Tls(*pair)) as server:
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(hello)
                writer.write_eof()
                async with asyncio.timeout(5):
                    with suppress(ConnectionResetError):
                        await reader.read()
                writer.transport.abort()
            await chat(f"wss://127.0.0.1:{server.port}/ws", ssl=trusting(pair[0]))
            handler = asyncio.get_running_loop().get_exception_handler()
            assert handler is not None
            handler(asyncio.get_running_loop(), {"message": "something else"})
            assert [record.getMessage() for record in caplog.records] == ["something else"]

    asyncio.run(main())


def test_a_tls_handshake_that_stalls_ends_and_plain_words_on_a_tls_port_are_dropped(
    tmp_path: Path,
) -> None:
    pair = certificate(tmp_path, "one")

    async def main() -> None:
        async with listening(tls=Tls(*pair)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            async with asyncio.timeout(5):
                assert b"200" not in await reader.read()
            writer.transport.abort()

    asyncio.run(main())


def test_a_certificate_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        Tls(tmp_path / "nowhere.pem").context()


def test_a_unix_socket_is_served_replaced_when_abandoned_and_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "wire.sock")
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(path)
    abandoned.close()

    async def main() -> None:
        async with listening(unix=path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request() + b"\x81\x8f\x00\x00\x00\x00" + b'{"type":"ping"}')
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(17) == b'\x81\x0f{"type":"pong"}'
            subscribe = b'{"action":"subscribe","channel":"c"}'
            writer.write(b"\x81" + bytes([0x80 | len(subscribe)]) + b"\x00\x00\x00\x00" + subscribe)
            assert b"subscription_confirm" in await reader.readuntil(b"}}")
            with pytest.raises(ConfigError):
                async with listening(unix=path):
                    pass
            writer.transport.abort()

    asyncio.run(main())
    assert not Path(path).exists()


def test_what_is_no_abandoned_socket_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    link = tmp_path / "link"
    link.symlink_to(precious)

    async def main() -> None:
        for path in (precious, link, tmp_path):
            with pytest.raises(ConfigError, match="cannot listen on"):
                async with listening(unix=str(path)):
                    pass
        for path, why in ((tmp_path / ("x" * 120), "too long"), ("", "without a path")):
            with pytest.raises(ConfigError, match=why):
                async with listening(unix=str(path)):
                    pass

    asyncio.run(main())
    assert precious.read_text() == "data"
    assert link.is_symlink()


def test_a_unix_socket_that_others_have_made_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"

    async def main() -> None:
        async with listening(unix=str(path)):
            path.unlink()
            (tmp_path / "keeps_the_number").write_text("of the one before from being used again")
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
        assert path.exists()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [
        ("127.0.0.1", 65536 + 8000, "0 to 65535"),
        ("127.0.0.1", -1, "0 to 65535"),
        ("a" * 64, 0, "no host"),
        ("a..b", 0, "no host"),
        ("203.0.113.9", 0, "--host"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_refused_with_a_reason(
    host: str, port: int, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        bind(host, port)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://example.org", 101),
        ("https://EXAMPLE.org:443", 101),
        ("http://example.org:8080", 101),
        (None, 101),
        ("https://evil.example", 403),
        ("null", 403),
        ("https://example.org.evil.example", 403),
        ("https://evilexample.org", 403),
        ("http://example.org", 403),
        ("https://example.org:444", 403),
        ("https://example.org@evil.example", 403),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str | None, status: int) -> None:
    async def main() -> None:
        allowed = ["https://Example.org", "http://example.org:8080"]
        async with listening(origins=allowed) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request(Origin=origin))
            assert b" %d " % status in await reader.readuntil(b"\r\n")
            writer.transport.abort()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("configured", "sent"),
    [
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
        ("https://B\u00dcCHER.example:8443", "https://xn--bcher-kva.example:8443"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("null", "null"),
    ],
)
def test_an_origin_may_be_written_as_people_write_it(configured: str, sent: str) -> None:
    assert read_origin(configured) == normal_origin(sent)


@pytest.mark.parametrize(
    "origin",
    [
        "", "*", "example.org", "https://", "https://example.org/", "https://example.org/app",
        "https://*.example.org", "https://u@example.org", "wss://example.org", "ws://example.org",
        "https://example.org:x", "https://a, https://b", "https://\u00fc..example",
    ],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(origin: str) -> None:
    """Else every page would be refused, and nobody would know why."""

    async def main() -> None:
        with pytest.raises(ConfigError, match="not an origin"):
            async with listening(origins=[origin]):
                pass

    asyncio.run(main())


def test_two_listeners_share_a_port_only_if_both_agree() -> None:
    async def main() -> None:
        async with listening(reuse_port=True) as server:
            other = open_app()
            with pytest.raises(ConfigError, match="--port"):
                async with other.listen("127.0.0.1", server.port):
                    pass
            async with other.listen("127.0.0.1", server.port, reuse_port=True):
                pass

    asyncio.run(main())


def test_accepted_sockets_have_small_buffers_and_keepalive() -> None:
    async def main() -> None:
        async with listening() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request())
            await reader.readuntil(b"\r\n\r\n")
            (connection,) = server.node.connections.values()
            transport: Any = connection.transport
            sock = transport._picows.underlying_transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * 64 * 1024
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 64 * 1024
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            writer.transport.abort()

    asyncio.run(main())
