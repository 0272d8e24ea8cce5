"""Dialects: how the messages look on the wire, one module each.

The WebSocket subprotocol picks the dialect. Each maps to the same messages, so that
everything above sees one model. To add one: write a subclass of :class:`Dialect` in a
module of its own and name it in :data:`_MODULES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ..errors import ProtocolError
from . import messages as m
from .deflate import deflated_frame
from .frames import Opcode, frame, small_heads


class BadMessage(ProtocolError):
    """A frame that is no message of the dialect.

    Attributes:
        request_id: of the request that it wanted to be, where that can be told.
        unknown_type: it is a message, but of a type that nobody knows.
        strike: whether it counts towards the limit of bad messages.
        channel: the channel it spoke of, where that can be told.
    """

    def __init__(
        self,
        text: str,
        *,
        request_id: m.RequestId | None = None,
        unknown_type: bool = False,
        strike: bool = True,
        channel: str | None = None,
    ) -> None:
        super().__init__(text)
        self.request_id = request_id
        self.unknown_type = unknown_type
        self.strike = strike
        self.channel = channel


class Dialect(ABC):
    """Turns messages into payloads of WebSocket messages and back. Stateless, shared."""

    name: str
    """what logs and ``--dialect`` call it"""
    subprotocol: str | None
    """the WebSocket subprotocol that picks it; None for none"""
    opcode: Opcode
    """the kind of WebSocket message it sends and takes"""
    needs_auth: bool = True
    """whether ``auth`` must come first, after a ``hello``"""
    acknowledges: bool = True
    """whether publishes are answered and positions exist"""
    stamps: bool = False
    """whether every message says the time at which it was written"""

    @abstractmethod
    def decode(self, payload: bytes | memoryview) -> m.Message:
        """Read one message. The result holds no reference to ``payload``.

        Payload fields are not checked yet; see :func:`everwire.protocol.data.check_data`.

        Raises:
            BadMessage: it is none.
        """

    @abstractmethod
    def has_more_than(self, payload: bytes | memoryview, most: int) -> bool:
        """Tell whether a message has more than ``most`` values and keys, without decoding it."""

    @abstractmethod
    def request_id(self, payload: bytes | memoryview) -> m.RequestId | None:
        """Read no more than a message's request id, None if there is none to be found.

        For messages that are too big to be decoded whole.
        """

    @abstractmethod
    def encode(self, message: m.Message, now: int = 0) -> bytes:
        """Write one message; payload fields must be checked data.

        ``now`` is the time in milliseconds, for a dialect that :attr:`stamps`.

        Returns an empty result for a message that the dialect cannot say.
        """

    def encode_published(
        self, request_id: m.RequestId, epoch: str, offset: int, duplicate: bool
    ) -> bytes:
        """Write the answer to a publish: the one response that comes with every message.

        For dialects that acknowledge.
        """
        payload = {"epoch": epoch, "offset": offset, "duplicate": duplicate}
        return self.encode(m.Response(request_id, payload))

    @abstractmethod
    def message_prefix(self, sid: int, channel: str) -> Any:
        """What all messages of a channel have in common, made once for a lane."""

    @abstractmethod
    def encode_message(
        self,
        prefix: Any,
        offset: int,
        prev: int | None,
        message_id: str,
        time: int,
        data: bytes,
        publisher: str | None,
        trace: str | None,
    ) -> bytes:
        """Write a channel's message from packed data (:func:`pack_data`).

        Called once a message and dialect, whatever the number of readers.
        """


class Wire:
    """A dialect as it goes over some connections: with compressed frames, or without.

    Connections of one wire are written the same bytes.
    """

    __slots__ = ("_heads", "_small", "compressed", "dialect", "opcode")

    def __init__(self, dialect: Dialect, compressed: bool) -> None:
        self.dialect = dialect
        self.compressed = compressed
        self.opcode = int(dialect.opcode)
        self._heads = () if compressed else small_heads(self.opcode)
        self._small = len(self._heads)

    def frame(self, payload: bytes) -> bytes:
        """Put an encoded message into a finished frame, as a server writes it."""
        size = len(payload)
        if size < self._small:
            return self._heads[size] + payload
        if self.compressed:
            return deflated_frame(self.opcode, payload)
        return frame(self.opcode, payload)

    def __repr__(self) -> str:
        return f"<Wire {self.dialect.name}{' compressed' if self.compressed else ''}>"


_wires: dict[tuple[str, bool], Wire] = {}


def wire_for(dialect: Dialect, compressed: bool) -> Wire:
    """Return the one wire of a dialect with or without compression."""
    key = (dialect.name, compressed)
    if key not in _wires:
        _wires[key] = Wire(dialect, compressed)
    return _wires[key]


_MODULES: dict[str, str] = {
    "everwire.v1.msgpack": "msgpack_v1",
    "everwire.v1.json": "json_v1",
    "plain": "plain",
}

# Dialects people may call by a shorter name.
ALIASES = {"msgpack": "everwire.v1.msgpack", "json": "everwire.v1.json", "v1.msgpack": "everwire.v1.msgpack",
           "v1.json": "everwire.v1.json"}  # fmt: skip

_loaded: dict[str, Dialect] = {}
_by_subprotocol: dict[str, Dialect] = {}


def dialect(name: str) -> Dialect:
    """Return the dialect called ``name``: a subprotocol, ``plain``, ``json`` or ``msgpack``.

    Raises:
        ProtocolError: there is none; the text names those that exist.
    """
    name = ALIASES.get(name, name)
    found = _loaded.get(name)
    if found is None:
        if name not in _MODULES:
            raise ProtocolError(f"there is no dialect {name!r}; there are {', '.join(_MODULES)}")
        found = import_module(f".{_MODULES[name]}", __package__).DIALECT
        _loaded[name] = found
    return found


def all_dialects() -> list[Dialect]:
    """Every dialect, the preferred one first."""
    return [dialect(name) for name in _MODULES]


def subprotocols() -> list[str]:
    """The WebSocket subprotocols that pick a dialect, the preferred one first."""
    return [one.subprotocol for one in all_dialects() if one.subprotocol]


def negotiate(offered: Sequence[str]) -> Dialect | None:
    """Pick the dialect for what a client offers, in the client's order.

    No offer is ``plain``; None if nothing that was offered is known.
    """
    if not offered:
        return dialect("plain")
    if not _by_subprotocol:
        _by_subprotocol.update((one.subprotocol, one) for one in all_dialects() if one.subprotocol)
    for name in offered:
        if name in _by_subprotocol:
            return _by_subprotocol[name]
    return None


def payload_field(message: m.Message) -> str | None:
    """The name of the field that holds an application's payload, None where there is none."""
    if isinstance(message, (m.Publish, m.ChannelMessage, m.Event)):
        return "data"
    if isinstance(message, (m.Command, m.Query, m.Response)):
        return "payload"
    return None


__all__ = ["BadMessage", "Dialect", "all_dialects", "dialect", "negotiate"]
