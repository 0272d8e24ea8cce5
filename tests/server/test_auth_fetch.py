"""How a published set of keys is read: over a real connection, with bounds on all of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from everwire import JWT, Unavailable
from everwire.server.identity import jwks

from .test_auth_jwks import ONE, TWO, jwk
from .test_auth_jwt import NOW, signed

Serve = Callable[[bytes], str]
KEYS = json.dumps({"keys": [jwk(ONE)]}).encode()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Length: {len(body)}", *headers))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


class Server:
    """Sends the same bytes to whoever asks, in pieces if it is told to, and keeps what was asked."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.asked: list[bytes] = []
        self.data = b""
        self.piece = 1 << 20
        self.pause = threading.Event()  # never set: to wait for a while, or until the end
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sock.getsockname()[1]}/jwks"

    def _run(self) -> None:
        while not self._ended:
            client, _ = self.sock.accept()
            with client:
                client.settimeout(5)
                try:
                    if not (request := client.recv(65536)):
                        continue
                    self.asked.append(request)
                    for at in range(0, len(self.data), self.piece):
                        client.sendall(self.data[at : at + self.piece])
                        if self.piece < 1 << 20 and self.pause.wait(0.1):
                            break
                except OSError:
                    continue

    def stop(self) -> None:
        self._ended = True
        self.pause.set()
        socket.create_connection(self.sock.getsockname()).close()
        self._thread.join(10)
        self.sock.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def test_a_set_is_read_from_its_address_and_verifies(server: Server) -> None:
    server.data = answer(KEYS)
    made = JWT(jwks=server.url, issuer="me", algorithms=["ES256"], wall=lambda: NOW)

    async def scenario() -> str:
        return (await made(_token())).user

    assert asyncio.run(scenario()) == "ada"
    assert len(server.asked) == 1
    assert server.asked[0].startswith(b"GET /jwks HTTP/1.1\r\n")


def _token() -> str:
    return signed(iss="me", key=ONE, algorithm="ES256", headers={"kid": "k"})


def test_an_answer_that_is_none_leaves_the_issuer_without_keys(server: Server) -> None:
    server.data = b"SSH-2.0-OpenSSH_9\r\n"
    made = JWT(jwks=server.url, issuer="me", algorithms=["ES256"], wall=lambda: NOW)

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await made(_token())

    asyncio.run(scenario())
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temp", "308 Perm"])
def test_a_redirection_is_not_followed(server: Server, status: str) -> None:
    other = Server()
    other.data = answer(KEYS)
    try:
        server.data = answer(b"", status, f"Location: {other.url}")
        with pytest.raises(OSError, match=status[:3]):
            jwks.fetch(server.url)
        assert len(server.asked) == 1
        assert other.asked == []
    finally:
        other.stop()


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "401 Who"])
def test_another_status_is_no_set(server: Server, status: str) -> None:
    server.data = answer(KEYS, status)
    with pytest.raises(OSError, match=status[:3]):
        jwks.fetch(server.url)


@pytest.mark.parametrize("announced", [True, False])
def test_a_set_that_is_too_large_is_not_read_to_its_end(server: Server, announced: bool) -> None:
    body = b" " * (jwks.MAX_SIZE + 1)
    server.data = answer(body) if announced else b"HTTP/1.0 200 OK\r\n\r\n" + body * 4
    with pytest.raises(OSError, match="262144 bytes"):
        jwks.fetch(server.url)


def test_a_set_that_dribbles_in_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.5)
    server.data = answer(b" " * 10_000)
    server.piece = 60
    with pytest.raises(TimeoutError, match="too long"):
        jwks.fetch(server.url)


def test_who_says_nothing_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.3)
    silent = socket.create_server(("127.0.0.1", 0))
    try:
        with pytest.raises(OSError, match="timed out"):
            jwks.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/")
    finally:
        silent.close()


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Server()
    proxy.data = answer(json.dumps({"keys": [jwk(TWO)]}).encode())
    try:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        server.data = answer(KEYS)
        assert jwks.fetch(server.url) == KEYS
        assert proxy.asked == []
    finally:
        proxy.stop()


def test_what_is_logged_of_a_failure_is_not_the_address(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.data = answer(b"", "302 Found", "Location: /t0p-s3cret")
    made = JWT(
        jwks=f"{server.url}?key=t0p-s3cret", issuer="me", algorithms=["ES256"], wall=lambda: NOW
    )

    async def scenario() -> None:
        with pytest.raises(Unavailable) as caught:
            await made(_token())
        assert "127.0.0.1" not in str(caught.value)

    asyncio.run(scenario())
    assert "issuer 'me'" in caplog.text
    assert "s3cret" not in caplog.text
