"""Hostile frames: each gets its close code, and nobody else notices.

Every combination of bits is walked in ``tests/net``; here it is about what they cost.
"""

from __future__ import annotations

import contextlib
import socket
import time
import zlib
from collections.abc import Callable

import pytest

from ..conftest import eventually
from ..net.model import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame
from .conftest import Target
from .peer import JSON, Peer, close_all, repeated, request

MiB = 2**20


def code_if_closed(peer: Peer) -> int | None:
    try:
        return peer.code(within=0.05)
    except TimeoutError:
        return None


def close(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big") + reason)


REFUSED: dict[str, tuple[list[Frame], int]] = {
    "not masked": ([Frame(TEXT, b"x", masked=False)], 1002),
    "RSV1 without compression": ([Frame(TEXT, b"x", rsv=4)], 1002),
    "RSV2": ([Frame(TEXT, b"x", rsv=2)], 1002),
    "opcode 3": ([Frame(3)], 1002),
    "opcode 11": ([Frame(11)], 1002),
    "a ping of 126 bytes": ([Frame(PING, b"x" * 126)], 1002),
    "a ping in fragments": ([Frame(PING, b"x", fin=False)], 1002),
    "a continuation of nothing": ([Frame(CONTINUATION, b"x")], 1002),
    "a message inside a message": ([Frame(TEXT, b"x", fin=False), Frame(TEXT, b"y")], 1002),
    "bad UTF-8": ([Frame(TEXT, b"\xff")], 1007),
    "a surrogate in UTF-8": ([Frame(TEXT, b"\xed\xa0\x80")], 1007),
    "UTF-8 that ends too soon": ([Frame(TEXT, b"\xe2\x80")], 1007),
    "a close of one byte": ([Frame(CLOSE, b"\x03")], 1002),
    "close 999": ([close(999)], 1002),
    "close 1005": ([close(1005)], 1002),
    "close 1006": ([close(1006)], 1002),
    "close 2999": ([close(2999)], 1002),
    "a close whose reason is no UTF-8": ([close(1000, b"\xff")], 1007),
    "a claim of 5 MiB": ([Frame(TEXT, b"x", length="64", claims=5 * MiB)], 1009),
    "a claim of 2^62": ([Frame(BINARY, b"x", length="64", claims=2**62)], 1009),
    "a negative length": ([Frame(TEXT, b"x", length="msb")], 1002),
    "a length in too many bytes": ([Frame(TEXT, b"x", length="64")], 1002),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_frame_that_may_not_be_gets_its_close_code(target: Target, name: str) -> None:
    frames, code = REFUSED[name]

    def case() -> None:
        for dialect in (None, JSON):
            with Peer(target.port, dialect) as peer:
                peer.send(*frames)
                assert peer.code() == code

    target.attack(case)


def test_compressed_frames_are_refused_where_compression_was_not_agreed_upon(
    target: Target,
) -> None:
    """A bomb (256 MiB from 255 KiB) is not inflated; nor is garbage."""
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(b"\x00" * (64 * MiB)) + packer.flush(zlib.Z_SYNC_FLUSH)

    def case() -> None:
        for data in (bomb, b"\xff" * 1000):
            with Peer(target.port, Sec_WebSocket_Extensions="permessage-deflate") as peer:
                assert b"permessage-deflate" not in peer.head
                peer.send(Frame(TEXT, data, rsv=4))
                assert peer.code() == 1002

    target.attack(case)


DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}


def deflated(data: bytes, times: int = 1) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(data) for _ in range(times))
    return (packed + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("dialect", [None, JSON])
@pytest.mark.parametrize("step", [0, 16_000])
def test_a_bomb_of_256_mib_is_closed_with_1009_before_it_is_inflated(
    compressing: Target, dialect: str | None, step: int
) -> None:
    """Also of one who is not authenticated yet, and in fragments."""
    bomb = deflated(bytes(MiB), 256)
    parts = [bomb[at : at + step] for at in range(0, len(bomb), step)] if step else [bomb]
    frames = [
        Frame(CONTINUATION if n else TEXT, part, fin=n == len(parts) - 1, rsv=0 if n else 4)
        for n, part in enumerate(parts)
    ]

    def case() -> None:
        before = compressing.cpu()
        for _ in range(10):
            with Peer(compressing.port, dialect, **DEFLATE) as peer:
                assert b"permessage-deflate" in peer.head
                peer.send(*frames)
                assert peer.code() in (1009, 1006)  # 1006: what was unread killed the close frame
        assert compressing.cpu() - before < 2

    compressing.attack(case)


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 1000, deflated(b'{"type":"ping"}' * 50)[:-10], deflated(b"\xff\xfe"), b"\x07" * 50],
)
def test_a_corrupt_deflate_stream_is_closed_with_1007(compressing: Target, data: bytes) -> None:
    def case() -> None:
        for dialect in (None, JSON):
            with Peer(compressing.port, dialect, **DEFLATE) as peer:
                peer.send(Frame(TEXT, data, rsv=4))
                assert peer.code() == 1007

    compressing.attack(case)


def test_a_megabyte_of_tiny_values_out_of_a_kilobyte_is_refused_like_any_other(
    compressing: Target,
) -> None:
    small = deflated(b"[" + b"[]," * 340_000 + b"[]]")
    assert len(small) < 2000

    def case() -> None:
        with Peer(compressing.port, **DEFLATE) as peer:
            peer.send(*[Frame(TEXT, small, rsv=4)] * 11)
            assert peer.code() == 4400

    compressing.attack(case)


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_three_hundred_thousand_fragments_are_refused_early(target: Target, payload: bytes) -> None:
    flood = repeated(Frame(CONTINUATION, payload, fin=False), 300_000)

    def case() -> None:
        before = target.cpu()
        with Peer(target.port) as peer:
            peer.send(Frame(TEXT, payload, fin=False))
            peer.raw(flood)
            assert peer.code() in (1009, 1006)  # 1006: what was unread killed the close frame
        assert target.cpu() - before < 2

    target.attack(case)


def test_a_flood_of_pings_from_one_who_does_not_read_costs_next_to_nothing(
    brief: Target,
) -> None:
    flood = repeated(Frame(PING, b"x" * 125), 1000)

    def case() -> None:
        with Peer(brief.port, buffer=4096) as peer:
            peer.sock.settimeout(0.2)
            before = brief.rss()
            with contextlib.suppress(TimeoutError):
                for _ in range(100):
                    peer.sock.sendall(flood)
            assert brief.rss() - before < 8
            peer.sock.settimeout(15)
            # It reads them, late, or is sent away: both are right.
            assert peer.code(within=10) in (1000, 1006, 4408, 4429, 4430)

    brief.attack(case, lines=1)


def test_a_flood_of_pings_is_not_answered_one_by_one(target: Target) -> None:
    count = 100_000

    def case() -> None:
        with Peer(target.port) as peer:
            peer.raw(repeated(Frame(PING, b"x" * 100), count))
            peer.send(Frame(PING, b"last"))
            pongs = 1
            while peer.frame().payload != b"last":
                pongs += 1
            assert pongs < count / 5

    target.attack(case)


def test_messages_that_are_never_finished_have_a_time_limit(brief: Target) -> None:
    """However often more of it comes, and pings between."""

    def case() -> None:
        with Peer(brief.port) as peer:
            peer.send(Frame(TEXT, b"a", fin=False))
            began = time.monotonic()
            peer.sock.settimeout(0.5)
            code: int | None = None
            while time.monotonic() - began < 8:
                peer.send(Frame(CONTINUATION, b"a", fin=False), Frame(PING))
                with contextlib.suppress(TimeoutError):
                    code = peer.code(within=0.3)
                    break
            assert code == 4408
            assert time.monotonic() - began >= 2

    brief.attack(case)


@pytest.mark.parametrize("piece", [2048, 8], ids=["progress", "a drip"])
def test_a_large_message_that_comes_slowly_is_a_sign_of_life_and_a_drip_is_not(
    brief: Target, piece: int
) -> None:
    def case() -> None:
        text = b'{"action":"publish","channel":"slow","data":"' + b"x" * 60_000 + b'"}'
        data = Frame(TEXT, text).encode()
        with Peer(brief.port) as peer:
            code: int | None = None
            for sent in range(0, 14 * piece, piece):
                peer.raw(data[sent : sent + piece])
                with contextlib.suppress(TimeoutError):
                    code = peer.code(within=0.35)
                    break
            if piece == 8:
                assert code in (4408, 1006)
                return
            assert code is None
            peer.raw(data[14 * piece :])
            peer.send(Frame(PING, b"last"))
            while peer.frame().payload != b"last":
                pass

    brief.attack(case)


@pytest.mark.parametrize(("count", "size"), [(100, 3 * MiB), (1000, 150_000)])
def test_what_all_connections_hold_unfinished_is_bounded(
    target: Target, count: int, size: int
) -> None:
    """In fragments: of 100 connections with 3 MiB each, those beyond the budget are sent away."""
    part = Frame(BINARY, b"x" * size, fin=False).encode()

    def case() -> None:
        before = target.rss()
        peers = [Peer(target.port) for _ in range(count)]
        try:
            for peer in peers:
                peer.raw(part)
                time.sleep(min(size / (50 * MiB), 0.003))  # it is not about the rate of bytes
            assert eventually(lambda: not target.unread())
            assert target.rss() - before < 200
            codes = [code_if_closed(peer) for peer in peers[:: count // 100]]
            assert set(codes) <= {None, 1013, 1006}  # 1006: what was unread killed the close frame
            assert codes.count(None) <= 75 * MiB * 100 // (count * size)
        finally:
            close_all(peers)

    target.attack(case)


@pytest.mark.parametrize("dialect", [None, JSON])
def test_what_all_connections_hold_of_unfinished_frames_is_bounded(
    target: Target, dialect: str | None
) -> None:
    """A frame that lacks its last byte is in memory, too: and before auth it is 64 KiB at most."""
    frame = Frame(TEXT, b"x" * (3 * MiB)).encode()[:-1]

    def case() -> None:
        before = target.rss()
        peers = [Peer(target.port, dialect) for _ in range(100)]
        try:
            for peer in peers:
                peer.raw(frame)
            assert eventually(lambda: not target.unread())
            assert target.rss() - before < (200 if dialect is None else 30)
        finally:
            close_all(peers)

    target.attack(case)


def test_a_large_message_costs_its_connection_nothing_afterwards(target: Target) -> None:
    """Sixty connections that were once sent, or sent, three megabytes, and are idle now."""
    frame = Frame(TEXT, b'{"type":"' + b"x" * (3 * MiB) + b'"}').encode()

    def case() -> None:
        before = target.rss()
        peers = [Peer(target.port) for _ in range(60)]
        try:
            for peer in peers:
                peer.raw(frame)
                assert peer.message()["data"]["type"] == "error"
            assert eventually(lambda: target.rss() - before < 20, within=1)
        finally:
            close_all(peers)

    target.attack(case)


def test_messages_of_a_middling_size_cost_their_connections_nothing_afterwards(
    target: Target,
) -> None:
    """The first comes in several reads, the others in one each: picows' buffer has grown."""
    frame = Frame(TEXT, b'{"type":"ping","x":"' + b"x" * 60_000 + b'"}').encode()

    def case() -> None:
        before = target.rss()
        peers = [Peer(target.port) for _ in range(600)]
        try:
            for _ in range(3):
                for peer in peers:
                    peer.raw(frame)
                    assert peer.message() == {"type": "pong"}
            assert eventually(lambda: target.rss() - before < 25, within=3)
        finally:
            close_all(peers)

    target.attack(case)


def test_what_unfinished_frames_took_comes_back_with_their_connections(
    special: Callable[..., Target],
) -> None:
    """On a server of its own: one that was attacked before has free memory to use again."""
    fresh = special("app:wire")
    data = request() + Frame(TEXT, b"x" * 64_000).encode()[:-1]
    before = fresh.rss()
    socks = [socket.create_connection(("127.0.0.1", fresh.port)) for _ in range(1000)]
    for sock in socks:
        sock.sendall(data)
    assert eventually(lambda: fresh.rss() - before > 50)
    for sock in socks:
        sock.close()
    assert eventually(lambda: fresh.rss() - before < 25)


def test_a_valid_frame_in_one_byte_segments_is_served(target: Target) -> None:
    data = Frame(TEXT, b'{"type":"ping","x":"' + b"x" * 65_536 + b'"}').encode()

    def case() -> None:
        with Peer(target.port) as peer:
            for at in range(len(data)):
                peer.raw(data[at : at + 1])
            assert peer.message() == {"type": "pong"}

    target.attack(case)


def test_frames_after_the_close_frame_cost_nothing(target: Target) -> None:
    def case() -> None:
        with Peer(target.port) as peer:
            peer.send(close(1000), *[Frame(TEXT, b"{")] * 2000, *[Frame(3)] * 2000)
            assert peer.code() in (1000, 1002)

    target.attack(case)


def test_unasked_pongs_are_taken_without_a_word(target: Target) -> None:
    def case() -> None:
        with Peer(target.port) as peer:
            peer.raw(repeated(Frame(PONG, b"x" * 100), 20_000))
            peer.say('{"type":"ping"}')
            assert peer.message() == {"type": "pong"}

    target.attack(case)
