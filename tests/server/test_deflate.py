"""permessage-deflate, with an independent client, and with what hostile ones send."""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import websockets
from hypothesis import given, strategies as st

from everwire.limits import Limits, MiB
from everwire.protocol.assembly import Refused
from everwire.protocol.deflate import (
    ACCEPTED,
    THRESHOLD,
    MalformedExtensions,
    deflated_frame,
    inflate,
    negotiate_deflate,
)
from everwire.protocol.frames import Opcode, split_frames
from everwire.server.running import Server

from .peer import open_app
from .test_handshake import request

OFFER = "permessage-deflate; client_max_window_bits"


@asynccontextmanager
async def listening(**limits: Any) -> AsyncIterator[Server]:
    wire = open_app(limits=Limits(**limits))
    async with wire.listen("127.0.0.1", 0, compression=True) as server:
        yield server
    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "offer",
    [
        OFFER,
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=12",
        "permessage-deflate; server_max_window_bits=15; client_no_context_takeover",
        'permessage-deflate; server_max_window_bits="13"',
        "x-unknown; a=b, permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=9, permessage-deflate",
        "permessage-deflate ;client_max_window_bits = 8",
        'permessage-deflate; server_max_window_bits="1\\3"',  # RFC 6455 section 9.1
        ", permessage-deflate",
        " ,\t,x,,permessage-deflate , ",
    ],
)
def test_an_offer_that_can_be_met_is_met_the_same_way_for_everybody(offer: str) -> None:
    assert negotiate_deflate(offer) == ACCEPTED


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; server_max_window_bits=11",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=012",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; novel",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    ],
)
def test_an_offer_that_cannot_be_met_is_declined(offer: str) -> None:
    assert negotiate_deflate(offer) is None


@pytest.mark.parametrize(
    "header",
    ["permessage-deflate;", "permessage-deflate; =1", "a b", ";", "a; b=", 'a; b="', 'a; b="\\"'],
)
def test_a_malformed_header_is_refused(header: str) -> None:
    with pytest.raises(MalformedExtensions):
        negotiate_deflate(header)

    async def main() -> None:
        async with listening() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request(Sec_WebSocket_Extensions=header))
            assert b" 400 " in await reader.readuntil(b"\r\n")
            writer.transport.abort()

    asyncio.run(main())


@given(st.text(alphabet='permsag-dflt;=," 0123456789', max_size=60))
def test_reading_the_header_never_fails_otherwise_and_takes_linear_time(header: str) -> None:
    with suppress(MalformedExtensions):
        assert negotiate_deflate(header) in (None, ACCEPTED)


@given(st.binary(max_size=5000))
def test_what_is_deflated_inflates_to_the_same(data: bytes) -> None:
    ((opcode, payload),) = split_frames(deflated_frame(Opcode.BINARY, data * 3))
    frame = deflated_frame(Opcode.BINARY, data * 3)
    assert opcode == Opcode.BINARY
    if frame[0] & 0x40:
        assert inflate(payload, 1 * MiB) == data * 3
        # The window that was promised is enough to read it.
        inflater = zlib.decompressobj(-12)
        assert inflater.decompress(payload + b"\x00\x00\xff\xff") == data * 3
    else:
        assert payload == data * 3


def test_small_and_incompressible_messages_are_left_alone() -> None:
    assert not deflated_frame(Opcode.TEXT, b"a" * (THRESHOLD - 1))[0] & 0x40
    assert deflated_frame(Opcode.TEXT, b"a" * THRESHOLD)[0] & 0x40
    assert not deflated_frame(Opcode.BINARY, os.urandom(5000))[0] & 0x40


def test_inflating_stops_at_the_limit() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(bomb.compress(bytes(MiB)) for _ in range(64)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(Refused) as refused:
        inflate(data[:-4], 4 * MiB)
    assert refused.value.code == 1009
    with pytest.raises(Refused) as refused:
        inflate(b"\xff\xff\xff", 4 * MiB)
    assert refused.value.code == 1007


def test_a_limit_of_what_comes_out_is_one_to_the_byte() -> None:
    assert inflate(deflate(bytes(1000)), 1000) == bytes(1000)
    with pytest.raises(Refused) as refused:
        inflate(deflate(bytes(1000)), 999)
    assert refused.value.code == 1009


def test_a_message_may_end_with_a_last_block() -> None:
    """RFC 7692 sections 7.2.3.4 and 7.2.3.5."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = deflater.compress(b"Hello") + deflater.flush()
    assert inflate(last + b"\0", 5) == b"Hello"
    assert inflate(last, 5) == b"Hello"
    assert inflate(b"\0", 5) == b""


@pytest.mark.parametrize("end", [zlib.Z_SYNC_FLUSH, zlib.Z_FINISH])
def test_a_part_of_a_message_or_more_than_one_is_refused(end: int) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    whole = deflater.compress(bytes(range(200)) * 2) + deflater.flush(end)
    if end == zlib.Z_SYNC_FLUSH:
        whole = whole[:-4]
    wrong = [whole[:cut] for cut in range(len(whole))]
    if end == zlib.Z_FINISH:
        wrong += [whole + whole, whole + b"\0" + whole, whole + b"\xff"]
    for data in wrong:
        with pytest.raises(Refused) as refused:
            inflate(data, MiB)
        assert refused.value.code == 1007


def test_an_independent_client_is_understood_both_ways() -> None:
    async def main() -> None:
        async with listening() as server:
            url = f"ws://127.0.0.1:{server.port}/ws"
            async with (
                websockets.connect(url) as one,
                websockets.connect(url) as two,
                websockets.connect(url, compression=None) as plain,
            ):
                assert one.protocol.extensions
                assert not plain.protocol.extensions
                for reader in (one, two, plain):
                    await reader.send(json.dumps({"action": "subscribe", "channel": "c"}))
                    await reader.recv()
                for data in ("short", "long " * 10_000, {"k": ["ä" * 999] * 50}):
                    publish = {"action": "publish", "channel": "c", "data": data}
                    await one.send(json.dumps(publish))
                    for reader in (one, two, plain):
                        assert json.loads(await reader.recv()) == {"channel": "c", "data": data}
                # In fragments, each of them compressed as one stream:
                text = json.dumps({"action": "publish", "channel": "c", "data": "f" * 5000})
                await two.send(iter([text[:100], text[100:3000], text[3000:]]))
                assert json.loads(await one.recv())["data"] == "f" * 5000

    asyncio.run(main())


def masked(first: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


def deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([masked(0xC1, deflate(bytes(8 * MiB)))], 1009),
        ([masked(0xC1, b"\xff\xff\xff\xff")], 1007),
        ([masked(0xC1, deflate(b"\xff\xfe"))], 1007),
        ([masked(0x41, deflate(b"{")), masked(0xC0, b"")], 1002),  # RSV1 on a continuation
        ([masked(0xC9, b"")], 1002),  # RSV1 on a ping
        ([masked(0xA1, b"{}")], 1002),  # RSV2
        ([masked(0x41, deflate(b"\xff\xfe")[:2]), masked(0x80, deflate(b"\xff\xfe")[2:])], 1007),
    ],
)
def test_what_is_wrong_closes_with_the_code_that_says_how(frames: list[bytes], code: int) -> None:
    async def main() -> None:
        async with listening() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request(Sec_WebSocket_Extensions=OFFER) + b"".join(frames))
            head = await reader.readuntil(b"\r\n\r\n")
            assert f"Sec-WebSocket-Extensions: {ACCEPTED}".encode() in head
            answer = await reader.read()
            assert answer[0] == 0x88
            assert int.from_bytes(answer[2:4], "big") == code
            writer.transport.abort()

    asyncio.run(main())
