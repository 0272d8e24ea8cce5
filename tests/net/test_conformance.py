"""Against the echo: large messages in fragments of all sizes, and permessage-deflate.

The cases follow the sections on limits, fragments and compression of conformance suites.
"""

from __future__ import annotations

import random
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from ..conftest import Child
from .conftest import port_of, start_echo
from .model import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame
from .wire import REQUEST, code_of, dial

MiB = 2**20
GOODBYE = Frame(CLOSE, (1000).to_bytes(2, "big"))
RSV1 = 4


@pytest.fixture(scope="module")
def deflating() -> Iterator[Child]:
    """An echo that agrees to compression."""
    yield from start_echo("--deflate")


@pytest.fixture
def fresh() -> Iterator[Child]:
    """An echo that nobody has talked to."""
    yield from start_echo()


class Talk:
    """One connection to an echo, which is written to and read from at the same time."""

    def __init__(self, port: int, offer: str = "") -> None:
        self.sock = dial(port)
        self.sock.settimeout(20)
        extension = f"Sec-WebSocket-Extensions: {offer}\r\n".encode() if offer else b""
        self.sock.sendall(REQUEST[:-2] + extension + b"\r\n")
        self._data = bytearray()
        while b"\r\n\r\n" not in self._data:
            self._data += self.sock.recv(65536)
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        self.head = head.decode()
        self._data = bytearray(rest)

    def exchange(self, data: bytes, messages: int) -> list[Frame]:
        """Write bytes; return so many frames that come back."""
        writer = threading.Thread(target=self._write, args=(data,), daemon=True)
        writer.start()
        frames = [self._frame() for _ in range(messages)]
        writer.join(20)
        return frames

    def _write(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:  # closed from there, and rightly perhaps: what was read says it
            pass

    def _need(self, size: int) -> None:
        while len(self._data) < size:
            piece = self.sock.recv(1 << 20)
            if not piece:
                raise EOFError
            self._data += piece

    def _frame(self) -> Frame:
        self._need(2)
        first, size, at = self._data[0], self._data[1], 2
        if size >= 126:
            at += 2 if size == 126 else 8
            self._need(at)
            size = int.from_bytes(self._data[2:at], "big")
        self._need(at + size)
        payload = bytes(self._data[at : at + size])
        del self._data[: at + size]
        return Frame(first & 15, payload, bool(first >> 7), first >> 4 & 7, masked=False)

    def goodbye(self) -> None:
        (frame,) = self.exchange(GOODBYE.encode(), 1)
        assert code_of(frame) == 1000
        assert self.sock.recv(10) == b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def fragments(opcode: int, data: bytes, step: int, *, rsv: int = 0) -> bytes:
    """A message in fragments; a mask for all of them is right as well."""
    count = max(1, -(-len(data) // step))
    frames = [
        Frame(
            CONTINUATION if n else opcode,
            data[n * step : (n + 1) * step],
            fin=n == count - 1,
            rsv=0 if n else rsv,
        ).encode()
        for n in range(count)
    ]
    return b"".join(frames)


def text_of(size: int) -> bytes:
    """Text in which characters of one to four bytes are cut by every step."""
    unit = "aß–😀".encode()
    return (unit * (size // len(unit) + 1))[: size // len(unit) * len(unit)]


# ---- large messages ------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [64 * 1024, 256 * 1024, MiB, 4 * MiB, 16 * MiB])
def test_a_message_in_one_frame_comes_back_up_to_the_limit(
    echo: int, opcode: int, size: int
) -> None:
    data = text_of(size) if opcode == TEXT else random.Random(size).randbytes(size)
    with Talk(echo) as talk:
        (frame,) = talk.exchange(Frame(opcode, data).encode(), 1)
        assert (frame.opcode, frame.payload) == (opcode, data)
        talk.goodbye()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("step", [64, 256, 1024, 4096, 16384, 65536, 262144, MiB, 4 * MiB])
def test_four_megabytes_in_fragments_of_64_bytes_and_more_come_back(
    echo: int, opcode: int, step: int
) -> None:
    data = text_of(4 * MiB) if opcode == TEXT else bytes(range(256)) * (4 * MiB // 256)
    with Talk(echo) as talk:
        (frame,) = talk.exchange(fragments(opcode, data, step), 1)
        assert (frame.opcode, frame.payload) == (opcode, data)
        talk.goodbye()


def test_sixteen_megabytes_in_fragments_of_64_bytes_come_back_and_nothing_is_kept_for_each(
    fresh: Child,
) -> None:
    data = b"0123456789abcdef" * MiB
    with Talk(port_of(fresh)) as talk:
        before = peak(fresh)
        (frame,) = talk.exchange(fragments(BINARY, data, 64), 1)
        assert frame.payload == data
        talk.goodbye()
    # The message, as it is put together, as it is whole, and as it is written.
    assert peak(fresh) - before < 45


def peak(child: Child) -> float:
    """The most memory that a process has ever had, in MiB."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.parametrize("step", [1, 16, 63])
def test_far_too_many_small_fragments_are_refused_with_1009(echo: int, step: int) -> None:
    count = 70_000
    with Talk(echo) as talk:
        (frame,) = talk.exchange(
            Frame(BINARY, b"x" * step, fin=False).encode()
            + Frame(CONTINUATION, b"x" * step, fin=False).encode() * count,
            1,
        )
        assert code_of(frame) == 1009


@pytest.mark.parametrize("step", [5, 16, 1000])
def test_a_ping_in_the_middle_of_a_message_is_answered_at_once(echo: int, step: int) -> None:
    data = text_of(5000)
    frames = fragments(TEXT, data, step)
    half = len(Frame(TEXT, data[:step]).encode()) * (2500 // step)
    with Talk(echo) as talk:
        (pong,) = talk.exchange(frames[:half] + Frame(PING, b"half").encode(), 1)
        assert (pong.opcode, pong.payload) == (PONG, b"half")
        (frame,) = talk.exchange(frames[half:], 1)
        assert frame.payload == data
        talk.goodbye()


@pytest.mark.parametrize(
    ("size", "count"), [(0, 2000), (16, 2000), (125, 2000), (126, 1000), (65535, 50), (65536, 50)]
)
def test_many_messages_of_one_size_come_back_in_order(echo: int, size: int, count: int) -> None:
    payloads = [
        n.to_bytes(4, "big")[-size:] + b"x" * (size - 4) if size else b"" for n in range(count)
    ]
    data = b"".join(Frame(BINARY, payload).encode() for payload in payloads)
    with Talk(echo) as talk:
        assert [frame.payload for frame in talk.exchange(data, count)] == payloads
        talk.goodbye()


# ---- compression ----------------------------------------------------------------------------

OFFERS = [
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=9",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=15",
    "permessage-deflate; server_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=12; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=15; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits, permessage-deflate",
]
DECLINED = [
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits",
]


def deflated(data: bytes, *, bits: int = 15, level: int = 6, strategy: int = 0) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, -bits, 8, strategy)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(frame: Frame, bits: int = 15) -> bytes:
    if not frame.rsv:
        return frame.payload
    assert frame.rsv == RSV1
    return zlib.decompressobj(-bits).decompress(frame.payload + b"\x00\x00\xff\xff")


def some(size: int, seed: int = 0) -> bytes:
    """Text that is neither random nor monotonous."""
    chance = random.Random(seed)
    words = [bytes(chance.choices(b"abcdefgh", k=chance.randint(1, 9))) for _ in range(50)]
    data = b" ".join(chance.choices(words, k=size // 2 + 1))
    return data[:size]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("step", [0, 256, 1024])
def test_compressed_messages_of_all_sizes_come_back_whatever_was_offered(
    deflating: Child, offer: str, step: int
) -> None:
    bits = 9 if "client_max_window_bits=9" in offer else 15
    with Talk(port_of(deflating), offer) as talk:
        assert "permessage-deflate" in talk.head
        assert "server_no_context_takeover" in talk.head
        assert "server_max_window_bits=12" in talk.head
        for n, size in enumerate([0, 1, 16, 64, 256, 511, 512, 1024, 4096, 8192, 16384, 131072]):
            message = some(size, n)
            small = deflated(message, bits=bits)
            data = fragments(TEXT, small, step or len(small) or 1, rsv=RSV1)
            (frame,) = talk.exchange(data, 1)
            assert inflated(frame, 12) == message
            assert bool(frame.rsv) is (size >= 512)
        talk.goodbye()


@pytest.mark.parametrize("offer", DECLINED)
def test_what_cannot_be_agreed_upon_is_declined_and_the_talk_is_uncompressed(
    deflating: Child, offer: str
) -> None:
    with Talk(port_of(deflating), offer) as talk:
        assert "permessage-deflate" not in talk.head
        (frame,) = talk.exchange(Frame(TEXT, some(5000)).encode(), 1)
        assert (frame.rsv, frame.payload) == (0, some(5000))
        (frame,) = talk.exchange(Frame(TEXT, deflated(b"x"), rsv=RSV1).encode(), 1)
        assert code_of(frame) == 1002


FORMS: dict[str, bytes] = {
    "stored blocks": deflated(some(70_000), level=0),
    "fixed codes": deflated(some(5000), strategy=zlib.Z_FIXED),
    "codes without matches": deflated(some(5000), strategy=zlib.Z_HUFFMAN_ONLY),
    "best": deflated(some(70_000), level=9),
    "a final block": zlib.compressobj(6, zlib.DEFLATED, -15).flush(zlib.Z_FINISH) + b"\x00",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_deflate_stream_is_read(deflating: Child, name: str) -> None:
    inflater = zlib.decompressobj(-15)
    message = inflater.decompress(FORMS[name] + b"\x00\x00\xff\xff")
    with Talk(port_of(deflating), OFFERS[0]) as talk:
        for _ in range(3):
            (frame,) = talk.exchange(Frame(BINARY, FORMS[name], rsv=RSV1).encode(), 1)
            assert inflated(frame) == message
        # A message may as well come uncompressed, and compressed ones go on after it.
        (frame,) = talk.exchange(Frame(BINARY, message).encode(), 1)
        assert inflated(frame) == message
        talk.goodbye()


def test_several_flushes_in_one_message_are_read(deflating: Child) -> None:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    parts = [some(1000, n) for n in range(5)]
    stream = b"".join(deflater.compress(part) + deflater.flush(zlib.Z_SYNC_FLUSH) for part in parts)
    with Talk(port_of(deflating), OFFERS[0]) as talk:
        (frame,) = talk.exchange(fragments(BINARY, stream[:-4], 333, rsv=RSV1), 1)
        assert inflated(frame) == b"".join(parts)
        talk.goodbye()


def test_no_context_is_kept_from_message_to_message(deflating: Child) -> None:
    """It was said so in the handshake: who refers to what was before sends no deflate stream."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    message = random.Random(1).randbytes(2000)
    first = deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH)
    second = deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert len(second) < 100
    with Talk(port_of(deflating), OFFERS[0]) as talk:
        (frame,) = talk.exchange(Frame(BINARY, first[:-4], rsv=RSV1).encode(), 1)
        assert inflated(frame) == message
        (frame,) = talk.exchange(Frame(BINARY, second[:-4], rsv=RSV1).encode(), 1)
        assert code_of(frame) == 1007


def bad(name: str) -> Sequence[Frame]:
    good = deflated(b"x" * 600)
    return {
        "no deflate stream": [Frame(TEXT, b"\xff" * 10, rsv=RSV1)],
        "a stream that is cut": [Frame(BINARY, deflated(some(5000))[:-100], rsv=RSV1)],
        "no UTF-8 in it": [Frame(TEXT, deflated(b"\xff"), rsv=RSV1)],
        "RSV1 on a continuation": [
            Frame(TEXT, good[:3], fin=False, rsv=RSV1), Frame(CONTINUATION, good[3:], rsv=RSV1)
        ],
        "RSV1 on a ping": [Frame(PING, b"x", rsv=RSV1)],
        "RSV2": [Frame(TEXT, good, rsv=RSV1 | 2)],
        "RSV3": [Frame(TEXT, good, rsv=1)],
        "larger than the limit": [Frame(BINARY, deflated(bytes(17 * MiB)), rsv=RSV1)],
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("no deflate stream", 1007),
        ("a stream that is cut", 1007),
        ("no UTF-8 in it", 1007),
        ("RSV1 on a continuation", 1002),
        ("RSV1 on a ping", 1002),
        ("RSV2", 1002),
        ("RSV3", 1002),
        ("larger than the limit", 1009),
    ],
)
def test_what_is_wrong_with_compression_gets_its_code(
    deflating: Child, name: str, code: int
) -> None:
    with Talk(port_of(deflating), OFFERS[0]) as talk:
        (frame,) = talk.exchange(b"".join(frame.encode() for frame in bad(name)), 1)
        assert code_of(frame) == code
