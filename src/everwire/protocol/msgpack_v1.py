"""The dialect ``everwire.v1.msgpack``: binary frames, for services and high rates.

A message is a MessagePack array: the number of its type, then its fields in order; nil
or a shorter array for what is absent.
"""

from __future__ import annotations

from typing import Any, Union

import msgspec

from . import messages as m, msgpack_scan
from .dialects import BadMessage, Dialect
from .frames import Opcode
from .json_v1 import usable_id, without_nulls

_encode = msgspec.msgpack.Encoder().encode
_TAGS: dict[type[m.Message], int] = {cls: tag for tag, cls in enumerate(m.MESSAGES)}
_ARRAYS = tuple(
    msgspec.defstruct(
        cls.__name__, [], bases=(cls,), tag=tag, array_like=True, module=__name__, gc=False
    )
    for cls, tag in _TAGS.items()
)
_TAGS.update({array: tag for tag, array in enumerate(_ARRAYS)})  # type: ignore[misc]
_Any: Any = Union[_ARRAYS]  # noqa: UP007
_decoder: msgspec.msgpack.Decoder[m.Message] = msgspec.msgpack.Decoder(_Any)
_any = msgspec.msgpack.Decoder()
_message_tag = _TAGS[m.ChannelMessage]
_Response: Any = _ARRAYS[_TAGS[m.Response]]
_astuple = msgspec.structs.astuple
_Raw = msgspec.Raw


class _Head(msgspec.Struct, array_like=True, gc=False):
    tag: int
    id: m.RequestId | None = None


_head = msgspec.msgpack.Decoder(_Head)


class MsgpackV1(Dialect):
    """MessagePack arrays; bytes payloads as they are."""

    name = "everwire.v1.msgpack"
    subprotocol: str | None = name
    opcode = Opcode.BINARY

    def decode(self, payload: bytes | memoryview) -> m.Message:
        if len(payload) > msgpack_scan.SMALL and msgpack_scan.has_odd_keys(bytes(payload)):
            raise BadMessage("a map's keys must be text", request_id=self.request_id(payload))
        try:
            try:
                message = _decoder.decode(payload)
            except msgspec.ValidationError as error:
                message = _decode_again(payload, str(error))
            if getattr(message, "encoding", None) is not None:
                message.encoding = None  # type: ignore[attr-defined]
            return message
        except RecursionError:
            raise BadMessage("nested too deep") from None
        except (msgspec.DecodeError, ValueError) as error:
            raise BadMessage(f"not MessagePack: {error}") from None

    def has_more_than(self, payload: bytes | memoryview, most: int) -> bool:
        return msgpack_scan.has_more_than(bytes(payload), most)

    def request_id(self, payload: bytes | memoryview) -> m.RequestId | None:
        try:
            return _head.decode(payload).id
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None

    def encode(self, message: m.Message, now: int = 0) -> bytes:
        return _encode((_TAGS[type(message)], *_astuple(message)))

    def encode_published(
        self, request_id: m.RequestId, epoch: str, offset: int, duplicate: bool
    ) -> bytes:
        return _encode(_Response(request_id, m.PublishResult(epoch, offset, duplicate)))

    def message_prefix(self, sid: int, channel: str) -> Any:
        return sid

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
        if trace is not None:
            return _encode(
                (_message_tag, prefix, offset, message_id, time, _Raw(data), prev, publisher, trace)
            )
        if prev is not None or publisher is not None:
            return _encode(
                (_message_tag, prefix, offset, message_id, time, _Raw(data), prev, publisher)
            )
        return _encode((_message_tag, prefix, offset, message_id, time, _Raw(data)))


# Of each type the names of the fields, and what each is when it is absent.
_FIELDS = [
    [
        (
            field.encode_name,
            None
            if field.required
            else field.default
            if field.default is not msgspec.NODEFAULT
            else field.default_factory(),
        )
        for field in msgspec.structs.fields(cls)
    ]
    for cls in m.MESSAGES
]


def _decode_again(payload: bytes | memoryview, why: str) -> m.Message:
    """Read a message in which nil stands for absent fields; otherwise say what is wrong."""
    value = _any.decode(payload)
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        raise BadMessage("a message is an array that begins with the number of its type")
    tag, request_id = value[0], usable_id(value[1]) if len(value) > 1 else None
    if not 0 <= tag < len(m.MESSAGES):
        raise BadMessage(
            f"unknown type {tag}", request_id=request_id, unknown_type=True, strike=False
        )
    for index, (name, default) in enumerate(_FIELDS[tag][: len(value) - 1], start=1):
        if value[index] is None:
            value[index] = default
        elif name not in m.DATA_FIELDS:
            value[index] = without_nulls(value[index])
    try:
        return msgspec.convert(value, _Any)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        answered = m.MESSAGES[tag] in m.REQUESTS
        raise BadMessage(why, request_id=request_id if answered else None) from None


DIALECT = MsgpackV1()
