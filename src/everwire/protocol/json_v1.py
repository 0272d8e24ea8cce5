"""The dialect ``everwire.v1.json``: text frames, for browsers and debugging."""

from __future__ import annotations

from typing import Any, Union

import msgspec

from ..errors import BadData
from . import json_scan, messages as m
from .data import from_base64, json_data
from .dialects import BadMessage, Dialect, payload_field
from .frames import Opcode

_encoder = msgspec.json.Encoder()
_Any: Any = Union[m.MESSAGES]  # noqa: UP007
_decoder: msgspec.json.Decoder[m.Message] = msgspec.json.Decoder(_Any)
_any = msgspec.json.Decoder()
_CLASSES = frozenset(m.MESSAGES)
_CLASS_OF = {cls.__name__: cls for cls in m.MESSAGES}
_TYPES = {cls.__struct_config__.tag for cls in m.MESSAGES}
_REQUESTS = {cls.__struct_config__.tag for cls in m.REQUESTS}


class _Head(msgspec.Struct, gc=False):
    id: m.RequestId | None = None


_head = msgspec.json.Decoder(_Head)


def request_id_of(payload: bytes | memoryview) -> m.RequestId | None:
    """Read no more than the ``id`` of a JSON object."""
    try:
        return _head.decode(payload).id
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


class JsonV1(Dialect):
    """JSON objects with a ``type``; bytes payloads as base64 text with ``encoding``."""

    name = "everwire.v1.json"
    subprotocol: str | None = name
    opcode = Opcode.TEXT

    def decode(self, payload: bytes | memoryview) -> m.Message:
        try:
            try:
                message = _decoder.decode(payload)
            except msgspec.ValidationError as error:
                message = _decode_again(payload, str(error))
            if getattr(message, "encoding", None) is not None:
                field = payload_field(message)
                assert field is not None
                setattr(message, field, from_base64(getattr(message, field)))
                message.encoding = None  # type: ignore[attr-defined]
            return message
        except RecursionError:
            raise BadMessage("nested too deep") from None
        except BadData as error:
            raise BadMessage(str(error), request_id=_request_id(payload)) from None
        except (msgspec.DecodeError, ValueError) as error:
            raise BadMessage(f"not JSON: {error}") from None

    def has_more_than(self, payload: bytes | memoryview, most: int) -> bool:
        return json_scan.has_more_than(bytes(payload), most)

    def request_id(self, payload: bytes | memoryview) -> m.RequestId | None:
        return request_id_of(payload)

    def encode(self, message: m.Message, now: int = 0) -> bytes:
        if type(message) not in _CLASSES:  # it was read in MessagePack, and would become an array
            message = _CLASS_OF[type(message).__name__](*msgspec.structs.astuple(message))
        field = payload_field(message)
        if field and type(getattr(message, field)) is bytes:
            message = msgspec.structs.replace(message, encoding="base64")
        return _encoder.encode(message)

    def encode_published(
        self, request_id: m.RequestId, epoch: str, offset: int, duplicate: bool
    ) -> bytes:
        result = m.PublishResult(epoch, offset, duplicate)
        return _encoder.encode(m.Response(request_id, result))

    def message_prefix(self, sid: int, channel: str) -> Any:
        return b'{"type":"message","sid":%d,"offset":' % sid

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
        text, base64 = json_data(data)
        rest = b""
        if prev is not None:
            rest += b',"prev":%d' % prev
        if publisher is not None:
            rest += b',"publisher":' + _encoder.encode(publisher)
        if trace is not None:
            rest += b',"trace":' + _encoder.encode(trace)
        if base64:
            rest += b',"encoding":"base64"'
        return b'%b%d,"id":%b,"time":%d,"data":%b%b}' % (
            prefix, offset, _encoder.encode(message_id), time, text, rest,
        )  # fmt: skip


def _request_id(payload: bytes | memoryview) -> m.RequestId | None:
    """The id of the request that a frame wanted to be, if it has one."""
    try:
        value = _any.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return usable_id(value.get("id")) if isinstance(value, dict) else None


def usable_id(value: object) -> m.RequestId | None:
    """Return ``value`` if it can be a request id, None otherwise."""
    try:
        return msgspec.convert(value, m.RequestId | None)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        return None


def without_nulls(value: Any) -> Any:
    """Leave out the fields that are null: the same as absent, except where data may stand."""
    if type(value) is dict:
        return {
            name: item if name in m.DATA_FIELDS else without_nulls(item)
            for name, item in value.items()
            if item is not None or name in m.DATA_FIELDS
        }
    if type(value) is list:
        return [without_nulls(item) for item in value]
    return value


def _decode_again(payload: bytes | memoryview, why: str) -> m.Message:
    """Read a message in which null stands for absent fields; otherwise say what is wrong."""
    value = _any.decode(payload)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise BadMessage("a message is an object with a type")
    kind, request_id = value["type"], usable_id(value.get("id"))
    if kind not in _TYPES:
        raise BadMessage(
            f"unknown type {kind[:40]!r}", request_id=request_id, unknown_type=True, strike=False
        )
    value = without_nulls(value)
    if kind == "error":
        value.setdefault("requestId", None)
    try:
        return msgspec.convert(value, _Any)  # type: ignore[no-any-return]
    except msgspec.ValidationError:
        raise BadMessage(why, request_id=request_id if kind in _REQUESTS else None) from None


DIALECT = JsonV1()
