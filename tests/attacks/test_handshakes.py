"""Before there is a WebSocket, or a user: time limits and origins."""

from __future__ import annotations

import socket
import time

import pytest

from ..net.model import TEXT, Frame
from ..server.test_handshake import REFUSALS, request as changed
from .conftest import Target
from .peer import JSON, Peer, close_all, request


def said(port: int, data: bytes) -> bytes:
    """Send bytes; return everything until the server closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        try:
            sock.sendall(data)
            while piece := sock.recv(65536):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
    return answer


PING = Frame(TEXT, b'{"type":"ping"}').encode()


@pytest.mark.parametrize("name", sorted(REFUSALS.keys() - {"POST of a page"}))  # there is none here
def test_a_request_that_is_wrong_gets_its_status_and_nothing_behind_it_is_read(
    target: Target, name: str
) -> None:
    """A body, or what is sent as one, is never taken for frames."""
    data, status = REFUSALS[name]

    def case() -> None:
        answer = said(target.port, data + PING)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}\r\n" in head.decode().lower() + "\r\n"
        assert b"pong" not in answer
        assert b"Traceback" not in answer
        if status == 426 and "version" in name:
            assert b"Sec-WebSocket-Version: 13" in head

    target.attack(case)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
        b"\x00" * 1000,
        b"\xff" * 1000,
        PING,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n",
    ],
)
def test_what_is_no_http_is_dropped_without_a_word_in_the_log(target: Target, data: bytes) -> None:
    def case() -> None:
        answer = said(target.port, data + b"\r\n\r\n")
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")

    target.attack(case)


@pytest.mark.parametrize("compression", [False, True])
def test_a_malformed_extension_is_refused_and_an_impossible_one_is_not_agreed_upon(
    target: Target, compressing: Target, compression: bool
) -> None:
    chosen = compressing if compression else target

    def case() -> None:
        for header in ("permessage-deflate; =1", "a b", ";", "a; b=", 'a; b="', "a=b"):
            with Peer(chosen.port, Sec_WebSocket_Extensions=header) as peer:
                assert peer.head.startswith(b"HTTP/1.1 400 "), header
        for value in ("99", "7", "-1", "12.5", '"99"', "1" * 5000):
            header = f"permessage-deflate; server_max_window_bits={value}"
            with Peer(chosen.port, Sec_WebSocket_Extensions=header) as peer:
                assert peer.accepted
                assert b"permessage-deflate" not in peer.head
                peer.say('{"type":"ping"}')
                assert peer.message() == {"type": "pong"}

    chosen.attack(case)


LONG = 7900  # bytes: what makes careless patterns try again and again
SLOW_HEADERS = [
    {"Sec_WebSocket_Protocol": "b" + " " * LONG + "x"},
    {"Sec_WebSocket_Protocol": "b," * (LONG // 2)},
    {"Sec_WebSocket_Extensions": "a" + " " * LONG + "b"},
    {"Sec_WebSocket_Extensions": "a;" + "b;" * (LONG // 2)},
    {"Sec_WebSocket_Extensions": "permessage-deflate," * (LONG // 20)},
    {"Sec_WebSocket_Extensions": "a;b=" + '"' * LONG},
    {"Sec_WebSocket_Extensions": "a;b=" + "c" * LONG + '"'},
    {"Connection": "Upgrade" + " ," * (LONG // 2)},
    {"Origin": "https://" + "a." * (LONG // 2)},
    {"X_Forwarded_For": "1," * (LONG // 2)},
]


def test_headers_made_to_be_read_slowly_are_read_in_linear_time(compressing: Target) -> None:
    requests = [changed(**headers) for headers in SLOW_HEADERS]  # type: ignore[arg-type]

    def case() -> None:
        before = compressing.cpu()
        for data in requests * 20:
            with socket.create_connection(("127.0.0.1", compressing.port), timeout=10) as sock:
                sock.sendall(data)
                assert sock.recv(65536).startswith(b"HTTP/1.1 ")
        assert compressing.cpu() - before < len(requests) * 20 * 0.01

    compressing.attack(case)


def test_five_hundred_unfinished_requests_are_dropped_at_their_time_limit(brief: Target) -> None:
    def case() -> None:
        socks = [socket.create_connection(("127.0.0.1", brief.port)) for _ in range(500)]
        began = time.monotonic()
        try:
            for sock in socks:
                sock.sendall(b"GET /ws HTTP/1.1\r\nHo")
            for sock in socks:
                sock.settimeout(8)
                assert sock.recv(100) == b""
            assert time.monotonic() - began < 5
        finally:
            for sock in socks:
                sock.close()

    brief.attack(case)


def test_a_request_that_dribbles_in_is_dropped_at_its_time_limit(brief: Target) -> None:
    def case() -> None:
        with socket.create_connection(("127.0.0.1", brief.port), timeout=10) as sock:
            began = time.monotonic()
            try:
                for byte in request() * 9:
                    sock.sendall(bytes((byte,)) if byte not in b"\r\n" else b"x")
                    time.sleep(0.02)  # it dribbles
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


def test_only_pages_that_are_on_the_list_may_connect(compressing: Target) -> None:
    """Others get 403; a program, which sends no Origin, is let in."""

    def case() -> None:
        wrong = []
        for origin, allowed in ORIGINS:
            headers = {} if origin is None else {"Origin": origin}
            with Peer(compressing.port, **headers) as peer:
                status = int(peer.head.split()[1])
            if status != (101 if allowed else 403):
                wrong.append((origin, status))
        assert not wrong

    compressing.attack(case)


def test_without_a_list_every_page_may_connect(target: Target) -> None:
    with Peer(target.port, Origin="https://any.example") as peer:
        assert peer.accepted
