"""The heartbeats that a :class:`~everwire.Socket` can have with servers of any kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec

from ..errors import ConfigError
from ..limits import KiB
from ..protocol.frames import Opcode

LONGEST_PONG = 4 * KiB  # bytes; what is larger is not read to see whether it is one

Frame: TypeAlias = tuple[int, bytes]


class Ping(Protocol):
    """What a heartbeat sends, what answers it, and when silence is too long.

    Attributes:
        interval: seconds between pings.
        timeout: seconds for which an answer, or anything else, is waited for after one.
    """

    @property
    def interval(self) -> float: ...

    @property
    def timeout(self) -> float: ...

    def frame(self) -> Frame | None:
        """The message to send; None stands for the WebSocket's own ping."""

    def is_pong(self, message: str | bytes) -> bool:
        """Whether a message that came is an answer, and so not the application's."""


class _Times:
    """Intervals and time-outs are above zero."""

    interval: float
    timeout: float

    def __post_init__(self) -> None:
        if not (self.interval > 0 and self.timeout > 0):
            raise ConfigError("a heartbeat's interval and timeout are seconds above zero")


@dataclass(frozen=True, kw_only=True)
class NativePing(_Times):
    """The ping of RFC 6455, which every server answers by itself.

    Attributes:
        interval: seconds between pings.
        timeout: seconds for which an answer, or anything else, is waited for after one.
    """

    interval: float = 20.0
    timeout: float = 10.0

    def frame(self) -> Frame | None:
        """The WebSocket's own ping."""
        return None

    def is_pong(self, message: str | bytes) -> bool:
        """Pongs are no messages."""
        return False


@dataclass(frozen=True, kw_only=True)
class JsonPing(_Times):
    """A JSON text that the server answers with another: for servers that want to see them.

    Attributes:
        send: what is sent.
        expect: what answers it: if an object, one that has all of these keys and values,
            whatever it has besides. Answers are taken out of the stream.
        interval: seconds between pings.
        timeout: seconds for which an answer, or anything else, is waited for after one.
    """

    send: Any = field(default_factory=lambda: {"type": "ping"})
    expect: Any = field(default_factory=lambda: {"type": "pong"})
    interval: float = 30.0
    timeout: float = 5.0

    def frame(self) -> Frame | None:
        """``send`` as text."""
        return Opcode.TEXT, msgspec.json.encode(self.send)

    def is_pong(self, message: str | bytes) -> bool:
        """Whether it is JSON that fits ``expect``."""
        if not isinstance(message, str) or len(message) > LONGEST_PONG:
            return False
        try:
            found = msgspec.json.decode(message)
        except msgspec.DecodeError:
            return False
        if isinstance(self.expect, Mapping) and isinstance(found, dict):
            return all(key in found and found[key] == want for key, want in self.expect.items())
        return bool(found == self.expect)


@dataclass(frozen=True, kw_only=True)
class CustomPing(_Times):
    """Any message that any other answers.

    Attributes:
        send: text or bytes, or a function that returns them, called for each ping.
        expect: tells whether a message (text or bytes) is an answer; these are taken out of
            the stream. If it raises, that is logged, and the message is none.
        interval: seconds between pings.
        timeout: seconds for which an answer, or anything else, is waited for after one.
    """

    send: str | bytes | Callable[[], str | bytes]
    expect: Callable[[str | bytes], bool]
    interval: float = 30.0
    timeout: float = 5.0

    def frame(self) -> Frame | None:
        """``send``, or what it returns."""
        return frame_of(self.send() if callable(self.send) else self.send)

    def is_pong(self, message: str | bytes) -> bool:
        """What ``expect`` says."""
        return self.expect(message)


def frame_of(data: str | bytes | bytearray | memoryview) -> Frame:
    """Text or bytes as they are sent.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(data, str):
        return Opcode.TEXT, data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Opcode.BINARY, bytes(data)
    raise TypeError(f"a message is str or bytes, not {type(data).__name__}; see send_json()")
