"""Putting a fragmented message together (RFC 6455 sections 5.4 and 8.1). No I/O.

Bounded three ways: bytes of a message, fragments of a message beside its bytes, and bytes
of all unfinished messages of the process, however many connections hold them.
"""

from __future__ import annotations

import codecs
from typing import Any

from ..codes import CloseCode
from ..errors import ProtocolError
from .frames import Opcode

MAX_FRAGMENTS = 1024
FRAGMENT = 64  # bytes of a message that pay for one fragment more: so is the work bounded by them


class Refused(ProtocolError):
    """The connection must be closed with ``code``."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Budget:
    """Bytes that unfinished messages may take together."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Assembly:
    """One message on its way in, from its first fragment.

    Attributes:
        opcode: text or binary.
        compressed: the first fragment had RSV1 set (RFC 7692 section 6.2).
        since: when it began, as the caller measures time.
    """

    __slots__ = (
        "_budget", "_data", "_fragments", "_max", "_size", "_utf8", "compressed", "opcode", "since",
    )  # fmt: skip

    def __init__(
        self, opcode: int, max_message: int, budget: Budget, *, compressed: bool, since: float
    ) -> None:
        self.opcode = Opcode(opcode)
        self.compressed = compressed
        self.since = since
        self._max = max_message
        self._budget = budget
        self._data = bytearray()
        self._fragments = 0
        self._size = 0
        self._utf8: Any = None
        if opcode == Opcode.TEXT and not compressed:
            self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def add(self, payload: bytes, fin: bool) -> bytes | None:
        """Take a fragment; return the message when it is whole.

        Raises:
            Refused: it is too big, in too many fragments, or more than the process holds.
            UnicodeDecodeError: text that is not UTF-8, told as soon as it shows.
        """
        self._size += len(payload)
        self._budget.used += len(payload)
        self._fragments += 1
        if self._size > self._max:
            raise Refused(CloseCode.TOO_BIG, f"a message may have {self._max} bytes")
        if self._fragments > MAX_FRAGMENTS + self._size // FRAGMENT:
            raise Refused(CloseCode.TOO_BIG, "too many small fragments")
        if self._budget.used > self._budget.limit:
            raise Refused(CloseCode.TRY_AGAIN_LATER, "too many unfinished messages; later")
        if self._utf8 is not None:
            self._utf8.decode(payload, fin)
        self._data += payload
        return bytes(self._data) if fin else None

    def release(self) -> None:
        """Give back what was taken of the budget; twice is once."""
        self._budget.used -= self._size
        self._size = 0
        self._data = bytearray()
