"""A client that says whatever it is told to, byte by byte, on a blocking socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from ..net.model import BINARY, CLOSE, TEXT, Frame, masked
from ..net.wire import REQUEST

PING = 17  # the tag of a ping in MessagePack

JSON = "everwire.v1.json"
MSGPACK = "everwire.v1.msgpack"


def request(**headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return REQUEST[:-2] + lines.encode("latin-1") + b"\r\n"


class Peer:
    """One connection, from its handshake on.

    Attributes:
        head: the handshake's answer.
    """

    def __init__(
        self, port: int, dialect: str | None = None, *, buffer: int = 0, **headers: str
    ) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(5)
        if buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.text = dialect != MSGPACK
        if dialect is not None:
            headers["Sec_WebSocket_Protocol"] = dialect
        self.sock.sendall(request(**headers))
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            if not piece:
                break
            data += piece
        self.head, _, self._data = data.partition(b"\r\n\r\n")
        self._serial = 100

    @property
    def accepted(self) -> bool:
        return self.head.startswith(b"HTTP/1.1 101 ")

    # ---- writing ----------------------------------------------------------------

    def raw(self, data: bytes) -> None:
        """Send bytes; that the other side has hung up shows when reading."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send(self, *frames: Frame) -> None:
        self.raw(b"".join(frame.encode() for frame in frames))

    def say(self, *messages: bytes | str | dict[str, Any]) -> None:
        """Send messages: text or bytes as they are, objects as JSON."""
        frames = []
        for message in messages:
            if isinstance(message, dict):
                message = json.dumps(message)
            data = message.encode() if isinstance(message, str) else message
            frames.append(Frame(TEXT if self.text else BINARY, data))
        self.send(*frames)

    # ---- reading ----------------------------------------------------------------

    def _need(self, size: int) -> None:
        while len(self._data) < size:
            piece = self.sock.recv(1 << 18)
            if not piece:
                raise EOFError
            self._data += piece

    def frame(self) -> Frame:
        """The next frame.

        Raises:
            EOFError: the connection has ended.
        """
        try:
            self._need(2)
            size, at = self._data[1] & 0x7F, 2
            if size >= 126:
                at += 2 if size == 126 else 8
                self._need(at)
                size = int.from_bytes(self._data[2:at], "big")
            self._need(at + size)
        except ConnectionResetError:
            raise EOFError from None
        frame = Frame(self._data[0] & 15, self._data[at : at + size], masked=False)
        self._data = self._data[at + size :]
        return frame

    def message(self) -> Any:
        """The next message, as JSON; pings of the server are passed over."""
        while True:
            frame = self.frame()
            assert frame.opcode != CLOSE, frame
            if frame.opcode == TEXT:
                found = json.loads(frame.payload)
                if found.get("type") not in ("ping", "hello"):
                    return found

    def packed(self) -> list[Any]:
        """The next message, out of MessagePack; pings of the server are passed over."""
        while True:
            found: list[Any] = msgspec.msgpack.decode(self.frame().payload)
            if found[0] != PING:
                return found

    def messages(self, count: int) -> list[Any]:
        return [self.message() for _ in range(count)]

    def ask(self, message: dict[str, Any]) -> Any:
        """Send a request and take the next message that answers it."""
        self.say(message)
        while True:
            found = self.message()
            if found.get("requestId") == message["id"]:
                return found

    def query(self, name: str, payload: Any = None) -> Any:
        self._serial += 1
        return self.ask({"type": "query", "id": self._serial, "name": name, "payload": payload})

    def auth(self, **fields: Any) -> Peer:
        """Authenticate, in JSON."""
        answer = self.ask({"type": "auth", "id": 1, **fields})
        assert answer["type"] == "response", answer
        return self

    def code(self, within: float = 5) -> int | None:
        """Read to the end; return the code it was closed with, 1006 if there was none."""
        deadline = time.monotonic() + within
        while True:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                frame = self.frame()
            except EOFError:
                return 1006
            if frame.opcode == CLOSE:
                self.close()
                return int.from_bytes(frame.payload[:2], "big") if frame.payload else None

    def ended(self) -> bytes:
        """Read to the end of the connection; return the rest."""
        try:
            while piece := self.sock.recv(65536):
                self._data += piece
        except ConnectionResetError:
            pass
        return self._data

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def repeated(frame: Frame, count: int) -> bytes:
    return frame.encode() * count


def mask_key(data: bytes) -> bytes:
    return masked(data, b"\x01\x02\x03\x04")


def close_all(peers: Sequence[Peer]) -> None:
    for peer in peers:
        peer.close()
