"""Raw bytes over real sockets, many connections at a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from .model import CLOSE, Frame, parse

REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
PATIENCE = 10


def dial(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_all(sock: socket.socket) -> bytes:
    """Everything until the end; a reset is an end too."""
    data = b""
    try:
        while piece := sock.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data


def split_head(data: bytes) -> bytes:
    """What follows the handshake's answer."""
    head, end, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ") and end, data[:200]
    return rest


def exchange_all(
    port: int,
    talks: Sequence[Sequence[bytes]],
    *,
    pause: float = 0.0,
    width: int = 64,
    close: bool = False,
) -> list[list[Frame]]:
    """Hold each talk on a connection of its own: handshake, then its pieces, then read to the end.

    Args:
        port: of the server.
        talks: the pieces of each.
        pause: seconds between the pieces.
        width: connections at a time.
        close: whether to end the talk from here, by half-closing.
    """
    answers = []
    for start in range(0, len(talks), width):
        batch = talks[start : start + width]
        socks = [dial(port) for _ in batch]
        try:
            for sock, (first, *_) in zip(socks, batch, strict=True):
                sock.sendall(REQUEST + first)
            for turn in range(1, max(map(len, batch))):
                time.sleep(pause)  # so that the pieces come in reads of their own
                for sock, pieces in zip(socks, batch, strict=True):
                    if turn < len(pieces):
                        try:
                            sock.sendall(pieces[turn])
                        except OSError:  # it was closed already, and rightly perhaps
                            pass
            if close:
                for sock in socks:
                    sock.shutdown(socket.SHUT_WR)
            answers += [parse(split_head(read_all(sock))) for sock in socks]
        finally:
            for sock in socks:
                sock.close()
    return answers


def code_of(frame: Frame) -> int | None:
    """The code in a close frame."""
    assert frame.opcode == CLOSE
    return int.from_bytes(frame.payload[:2], "big") if frame.payload else None
