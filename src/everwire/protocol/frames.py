"""Finished WebSocket frames, unfragmented (RFC 6455 section 5.2): a server's, and a client's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct


class Opcode(IntEnum):
    """RFC 6455 section 11.8."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_pack16 = Struct("!BBH").pack
_pack64 = Struct("!BBQ").pack


def small_heads(opcode: int) -> tuple[bytes, ...]:
    """The headers of frames of 0 to 125 bytes, as nearly all frames are."""
    return tuple(bytes((0x80 | opcode, size)) for size in range(126))


def frame(opcode: int, payload: bytes) -> bytes:
    """Put ``payload`` into one finished, unmasked frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return _pack16(0x80 | opcode, 126, size) + payload
    return _pack64(0x80 | opcode, 127, size) + payload


def masked_frames(opcode: int, payloads: Sequence[bytes], keys: bytes) -> bytes:
    """Put each of ``payloads`` into a finished frame as a client writes it.

    Args:
        opcode: of all of them.
        payloads: what to frame.
        keys: four bytes a payload, which nobody can foresee (RFC 6455 section 5.3).
    """
    parts: list[bytes] = []
    masks: list[bytes] = []  # what the parts are combined with: nothing under the headers
    for index, payload in enumerate(payloads):
        size = len(payload)
        key = keys[4 * index : 4 * index + 4]
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size)) + key
        elif size < 65536:
            head = _pack16(0x80 | opcode, 0x80 | 126, size) + key
        else:
            head = _pack64(0x80 | opcode, 0x80 | 127, size) + key
        parts += (head, payload)
        masks += (bytes(len(head)), (key * (size // 4 + 1))[:size])
    data = b"".join(parts)
    whole = int.from_bytes(data, "little") ^ int.from_bytes(b"".join(masks), "little")
    return whole.to_bytes(len(data), "little")


def may_be_sent(code: int) -> bool:
    """Tell whether a close frame may carry ``code`` (RFC 6455 section 7.4)."""
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999


def close_payload(code: int, reason: str = "") -> bytes:
    """The body of a close frame: at most 125 bytes, cut between characters."""
    text = reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore").encode()
    return code.to_bytes(2, "big") + text


def split_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Take whole frames that :func:`frame` made apart: ``(opcode, payload)`` each.

    Where a WebSocket is not ours to write to (ASGI, the in-memory network), what was
    framed once for all is unpacked here.
    """
    position, end = 0, len(data)
    while position < end:
        opcode = data[position] & 0x0F
        size = data[position + 1]
        position += 2
        if size == 126:
            size = int.from_bytes(data[position : position + 2], "big")
            position += 2
        elif size == 127:
            size = int.from_bytes(data[position : position + 8], "big")
            position += 8
        yield opcode, data[position : position + size]
        position += size
