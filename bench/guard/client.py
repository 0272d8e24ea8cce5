"""The client's end of a connection: a blocking socket, and as little work as can be."""

from __future__ import annotations

import json
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept-Language: en-US,en;q=0.5\r\nCookie: session=0123456789abcdef\r\n{subprotocol}\r\n"
)
DATA = "~" + "x" * 63
TEXT, BINARY = 1, 2
_pack = msgspec.msgpack.encode


class Dialect(ABC):
    """What a client says."""

    opcode = BINARY
    subprotocol = ""
    answers = 1
    """to a publish"""
    greets = False

    @abstractmethod
    def opening(self, channel: str | None, token: str | None, epoch: str = "") -> bytes:
        """The first message: authenticate and subscribe."""

    @abstractmethod
    def publish(self, channel: str, number: int) -> bytes:
        """A message to a channel."""


class Plain(Dialect):
    opcode = TEXT
    answers = 0

    def opening(self, channel: str | None, token: str | None, epoch: str = "") -> bytes:
        return json.dumps({"action": "subscribe", "channel": channel}).encode()

    def publish(self, channel: str, number: int) -> bytes:
        return json.dumps({"action": "publish", "channel": channel, "data": DATA}).encode()


def _channels(channel: str | None, epoch: str) -> list[dict[str, Any]]:
    if channel is None:
        return []
    position = {"position": {"epoch": epoch, "offset": 0, "id": ""}} if epoch else {}
    return [{"channel": channel, **position}]


class Json(Dialect):
    opcode = TEXT
    subprotocol = "everwire.v1.json"
    greets = True

    def opening(self, channel: str | None, token: str | None, epoch: str = "") -> bytes:
        auth = {"type": "auth", "id": 1, "token": token, "client": {"instance": "guard"}}
        return json.dumps({**auth, "subscribe": _channels(channel, epoch)}).encode()

    def publish(self, channel: str, number: int) -> bytes:
        message = {"type": "publish", "id": f"guard-{number}", "channel": channel, "data": DATA}
        return json.dumps(message, separators=(",", ":")).encode()


class Msgpack(Dialect):
    subprotocol = "everwire.v1.msgpack"
    greets = True

    def opening(self, channel: str | None, token: str | None, epoch: str = "") -> bytes:
        client = {"instance": "guard"}
        return _pack((1, 1, token, None, client, None, [], _channels(channel, epoch)))

    def publish(self, channel: str, number: int) -> bytes:
        return _pack((4, f"guard-{number}", channel, DATA, None, 0, None))


class Client:
    """One connection; made in the kernel at once, whether or not the server has accepted it.

    Attributes:
        calls: system calls so far, of all clients: callgrind counts them with the server's.
    """

    calls: ClassVar[int] = 0

    def __init__(self, port: int, dialect: Dialect) -> None:
        self.dialect = dialect
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setblocking(False)
        self._in = bytearray()
        self._open = False
        name = dialect.subprotocol
        header = f"Sec-WebSocket-Protocol: {name}\r\n" if name else ""
        self._sock.sendall(HANDSHAKE.format(subprotocol=header).encode())

    def send(self, *payloads: bytes) -> None:
        """Send messages in one write."""
        Client.calls += 1
        self._sock.sendall(b"".join(self._frame(payload) for payload in payloads))

    def _frame(self, payload: bytes) -> bytes:
        # A mask of zeros is a mask: the server does the same work for any.
        size = len(payload)
        long = size.to_bytes(2, "big") if size > 125 else b""
        head = bytes((0x80 | self.dialect.opcode, 0x80 | (126 if long else size)))
        return head + long + b"\0\0\0\0" + payload

    def receive(self) -> list[bytes]:
        """What messages have come by now.

        Raises:
            ConnectionError: the server refused the connection, or ended it.
        """
        Client.calls += 1
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return []
        self._in += data
        if not self._open:
            head, separator, rest = self._in.partition(b"\r\n\r\n")
            if not separator and data:
                return []
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(f"the handshake was refused: {bytes(head)!r}")
            self._open, self._in = True, rest
        if not data:
            raise ConnectionError("the server closed the connection")
        return list(self._messages())

    def _messages(self) -> Iterator[bytes]:
        at, data = 0, self._in
        while len(data) >= at + 2:
            size, begin = data[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if len(data) < begin + size:
                break
            if data[at] & 0x0F == 8:
                raise ConnectionError(f"the server closes: {bytes(data[begin : begin + size])!r}")
            yield bytes(data[begin : begin + size])
            at = begin + size
        del data[:at]

    @property
    def is_open(self) -> bool:
        """Whether the handshake was answered; look after :meth:`receive`."""
        return self._open

    def close(self) -> None:
        self._sock.close()
