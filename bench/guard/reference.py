"""The measure that the guard's figures are multiples of. Never change it.

A fixed piece of work of the same sort as the server's: calls and attributes, dicts and lists,
joining bytes, msgspec decoding and encoding, a write to a socket and a read. How many
instructions Python and its libraries need for that differs from build to build; how the
server's work compares with it differs far less.
"""

from __future__ import annotations

import socket

import msgspec

_decode = msgspec.msgpack.Decoder(tuple[int, str, str, str, None, int, None]).decode
_encode = msgspec.msgpack.Encoder().encode
PARTS = 32  # of one run; a figure is a multiple of one of them
_PUBLISH = _encode((4, "0123456789ab0001-17", "reference:00017", "x" * 64, None, 0, None))


class _Reader:
    __slots__ = ("name", "out", "taken")

    def __init__(self, name: str) -> None:
        self.name = name
        self.out: list[bytes] = []
        self.taken = 0

    def queue(self, data: bytes) -> bool:
        self.out.append(data)
        return len(self.out) == 1

    def take(self) -> bytes:
        out, self.out = self.out, []
        self.taken += len(out)
        return out[0] if len(out) == 1 else b"".join(out)


class Reference:
    """Its state; :meth:`run` does the work once."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._readers = {f"reference:{number:05}": _Reader(str(number)) for number in range(PARTS)}
        self._offsets: dict[str, int] = {}
        self._known: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def run(self) -> None:
        touched: list[_Reader] = []
        self._known.clear()
        for name, reader in self._readers.items():
            _, key, _, data, _, _, _ = _decode(_PUBLISH)
            offset = self._offsets[name] = self._offsets.get(name, 0) + 1
            self._known[name, key] = offset
            payload = _encode((5, 1, offset, key, 1_700_000_000_000, data))
            frame = bytes((0x82, len(payload))) + payload
            for _ in range(4):
                if reader.queue(frame):
                    touched.append(reader)  # noqa: PERF401 - as the server does
        for reader in touched:
            self._near.send(reader.take())
            self._far.recv(65536)
