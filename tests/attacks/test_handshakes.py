"""Before there is a WebSocket, or a user: time limits and origins."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from everwire.server.running import Server

from ..server.peer import open_app
from .conftest import Target
from .peer import JSON, Peer, close_all, request


def test_a_request_that_dribbles_in_is_dropped_at_its_time_limit(brief: Target) -> None:
    def case() -> None:
        with socket.create_connection(("127.0.0.1", brief.port), timeout=10) as sock:
            began = time.monotonic()
            try:
                for byte in request() * 9:
                    sock.sendall(bytes((byte,)) if byte not in b"\r\n" else b"x")
                    time.sleep(0.02)
                    if time.monotonic() - began > 5:
                        break
            except OSError:
                pass
            assert time.monotonic() - began < 4

    brief.attack(case)


def test_five_hundred_unfinished_requests_keep_nobody_waiting(target: Target) -> None:
    def case() -> None:
        socks = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(500)]
        try:
            for sock in socks:
                sock.sendall(b"GET /ws HTTP/1.1\r\nHo")
            began = time.monotonic()
            with Peer(target.port) as peer:
                peer.say('{"type":"ping"}')
                assert peer.message() == {"type": "pong"}
            assert time.monotonic() - began < 1
        finally:
            for sock in socks:
                sock.close()

    target.attack(case)


@pytest.mark.parametrize("talk", [False, True])
def test_who_never_authenticates_is_closed_with_4401(brief: Target, talk: bool) -> None:
    """Pings before auth are answered, and gain nothing."""

    def case() -> None:
        began = time.monotonic()
        peers = [Peer(brief.port, JSON) for _ in range(20)]
        if talk:
            for peer in peers:
                peer.say(*['{"type":"ping","time":1}'] * 10)
        assert [peer.code() for peer in peers] == [4401] * 20
        assert time.monotonic() - began < 4
        close_all(peers)

    brief.attack(case)


ORIGINS = [
    ("https://ok.example", True),
    ("HTTPS://OK.example", True),
    ("https://ok.example:443", True),
    ("http://local.example:8080", True),
    (None, True),
    ("https://evil.example", False),
    ("null", False),
    ("https://ok.example.evil.com", False),
    ("https://evilok.example", False),
    ("https://ok.example:8443", False),
    ("http://ok.example", False),
    ("https://ok.example@evil.example", False),
    ("https://ok.example, https://evil.example", False),
    ("https://ok.example/", False),
    ("", False),
    ("*", False),
    ("https://ok.example\x09", True),  # white space around a value is no part of it
    ("http://local.example", False),
    ("wss://ok.example", False),
    ("ok.example", False),
]


def test_only_pages_that_are_on_the_list_may_connect() -> None:
    """Others get 403; a program, which sends no Origin, is let in."""

    async def main() -> None:
        wire = open_app()
        origins = ["https://ok.example", "http://local.example:8080"]
        async with wire.listen("127.0.0.1", 0, origins=origins) as server:
            wrong = []
            for origin, allowed in ORIGINS:
                status = await status_of(server, origin)
                if status != (101 if allowed else 403):
                    wrong.append((origin, status))
            assert not wrong

    asyncio.run(main())


async def status_of(server: Server, origin: str | None) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request() if origin is None else request(Origin=origin))
    async with asyncio.timeout(5):
        line = await reader.readline()
    writer.close()
    return int(line.split()[1])


def test_without_a_list_every_page_may_connect(target: Target) -> None:
    with Peer(target.port, Origin="https://any.example") as peer:
        assert peer.accepted
