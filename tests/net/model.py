"""RFC 6455 as it is seen from outside: what a list of frames leads to. No I/O, nothing of ours.

Where the RFC leaves open which of several faults is named, all codes are admitted.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEFINED = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
MASK = b"\x37\xfa\x21\x3d"


@dataclass(frozen=True)
class Frame:
    """One frame, as right or as wrong as a test wants it.

    Attributes:
        length: how the length is written: "7", "16", "64", or "" for the shortest form;
            "msb" for 64 bits with the highest one set.
        claims: the length that is claimed, if it is not the payload's.
    """

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = True
    length: str = ""
    claims: int | None = None

    @property
    def size(self) -> int:
        return len(self.payload) if self.claims is None else self.claims

    @property
    def form(self) -> str:
        return self.length or shortest(self.size)

    @property
    def control(self) -> bool:
        return bool(self.opcode & 8)

    def encode(self) -> bytes:
        first = self.fin << 7 | self.rsv << 4 | self.opcode
        bit = self.masked << 7
        match self.form:
            case "7":
                head = bytes((first, bit | self.size))
            case "16":
                head = bytes((first, bit | 126)) + self.size.to_bytes(2, "big")
            case "64":
                head = bytes((first, bit | 127)) + self.size.to_bytes(8, "big")
            case _:
                head = bytes((first, bit | 127)) + (self.size | 1 << 63).to_bytes(8, "big")
        if not self.masked:
            return head + self.payload
        return head + MASK + masked(self.payload, MASK)


def masked(data: bytes, mask: bytes) -> bytes:
    """Mask or unmask."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def shortest(size: int) -> str:
    return "7" if size < 126 else "16" if size < 1 << 16 else "64"


@dataclass
class Reaction:
    """What a right endpoint does.

    Attributes:
        delivered: whole messages, ``(opcode, payload)``, in order.
        pongs: what pings are answered with.
        close: codes of which one is in the close frame that it sends: None for a close frame
            without a code; an empty set: it sends none.
        peer: the code and the reason that it was closed with, if it was.
        consumed: frames that were processed before the end.
        in_order: deliveries and pongs as they follow each other.
    """

    delivered: list[tuple[int, bytes]] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    close: frozenset[int | None] = frozenset()
    peer: tuple[int, str] | None = None
    consumed: int = 0
    in_order: list[tuple[int, bytes]] = field(default_factory=list)


def legal_close_code(code: int) -> bool:
    """Whether a close code may be in a frame (section 7.4 and IANA's registry)."""
    return code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code <= 4999


def react(
    frames: Iterable[Frame], *, from_client: bool, max_message: int, max_fragments: int = 1024
) -> Reaction:
    """Tell what an endpoint does that gets ``frames``."""
    reaction = Reaction()
    kind: int | None = None
    parts: list[bytes] = []
    size = 0
    decoder: Any = None
    for frame in frames:
        faults: set[int | None] = set()
        if (
            frame.rsv
            or frame.opcode not in DEFINED
            or (frame.control and (not frame.fin or frame.form != "7"))
            or frame.masked is not from_client
            or frame.form != shortest(frame.size)
        ):
            faults.add(1002)
        if not frame.control and frame.opcode in DEFINED:
            if (frame.opcode == CONTINUATION) is (kind is None):
                faults.add(1002)
            size += frame.size
            if size > max_message or len(parts) >= max_fragments + size // 64:
                faults.add(1009)
        text = frame.opcode == TEXT or (frame.opcode == CONTINUATION and kind == TEXT)
        if text and frame.opcode in DEFINED and frame.claims is None:
            if frame.opcode == TEXT and kind is None:
                decoder = codecs.getincrementaldecoder("utf-8")()
            try:
                (decoder or codecs.getincrementaldecoder("utf-8")()).decode(
                    frame.payload, frame.fin
                )
            except UnicodeDecodeError:
                faults.add(1007)
        answer: frozenset[int | None] = frozenset()
        peer = None
        if frame.opcode == CLOSE:
            code: int | None = None
            reason = ""
            if len(frame.payload) == 1:
                faults.add(1002)
            elif frame.payload:
                code = int.from_bytes(frame.payload[:2], "big")
                if not legal_close_code(code):
                    faults.add(1002)
                try:
                    reason = frame.payload[2:].decode()
                except UnicodeDecodeError:
                    faults.add(1007)
            answer, peer = frozenset([code]), (1005 if code is None else code, reason)
        if faults:
            reaction.close = frozenset(faults)
            return reaction
        reaction.consumed += 1
        if frame.opcode == CLOSE:
            reaction.close, reaction.peer = answer, peer
            return reaction
        if frame.opcode == PING:
            reaction.pongs.append(frame.payload)
            reaction.in_order.append((PONG, frame.payload))
        elif not frame.control:
            kind = frame.opcode if kind is None else kind
            parts.append(frame.payload)
            if frame.fin:
                reaction.delivered.append((kind, b"".join(parts)))
                reaction.in_order.append(reaction.delivered[-1])
                kind, parts, size, decoder = None, [], 0, None
    return reaction


def parse(data: bytes, *, unmask: bool = False) -> list[Frame]:
    """Read whole frames; what is no frame, or unfinished, fails."""
    frames = []
    while data:
        first, second = data[0], data[1]
        size, at = second & 0x7F, 2
        form = {126: "16", 127: "64"}.get(size, "7")
        if form != "7":
            at += 2 if form == "16" else 8
            size = int.from_bytes(data[2:at], "big")
        is_masked = bool(second & 0x80)
        assert is_masked is unmask, data[:20]
        mask = b""
        if is_masked:
            mask, at = data[at : at + 4], at + 4
        payload = data[at : at + size]
        assert len(payload) == size, (size, data[:20])
        if mask:
            payload = masked(payload, mask)
        data = data[at + size :]
        frames.append(Frame(first & 15, payload, bool(first >> 7), first >> 4 & 7, is_masked, form))
        assert form == shortest(size)
    return frames
