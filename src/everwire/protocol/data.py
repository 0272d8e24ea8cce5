"""What a payload may be, checked once at the edge.

Null, booleans, 64-bit integers, finite floats, text, arrays, maps with text keys,
nested at most :data:`everwire.limits.MAX_DEPTH` deep; or bytes as the whole payload.
Everything else would be refused, or read differently, by somebody else's reader: so it
is refused here, before anybody else is sent it.
"""

from __future__ import annotations

import base64
import binascii
from math import isfinite
from typing import Any

import msgspec

from ..errors import BadData
from ..limits import MAX_DEPTH

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1

_pack = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder()
_json = msgspec.json.Encoder()


class TooDeep(BadData):
    """A payload nests deeper than is allowed."""


def check_data(value: Any) -> None:
    """Raise :exc:`BadData` unless ``value`` may be a payload."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is dict or kind is list:
        _check_nested(value, MAX_DEPTH)
    elif kind is not bytes:
        _check_number(value)


def _check_nested(value: Any, depth: int) -> None:
    if depth == 0:
        raise TooDeep(f"nested deeper than {MAX_DEPTH} levels")
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                raise BadData(f"a map's keys must be text, not {type(key).__name__}")
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int and _INT_MIN <= item <= _INT_MAX:
            continue
        if kind is dict or kind is list:
            _check_nested(item, depth - 1)
        else:
            _check_number(item)


def _check_number(value: Any) -> None:
    kind = type(value)
    if kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise BadData("an integer beyond 64 bits")
    elif kind is float:
        if not isfinite(value):
            raise BadData("a number that is not finite")
    elif kind is bytes:
        raise BadData("bytes may only be the whole payload")
    else:
        raise BadData(f"{kind.__name__} is not a kind of data that goes over the wire")


def plain_data(value: Any) -> Any:
    """Turn what an application publishes into plain data.

    Structs, dataclasses, tuples, enums, dates and the like become what msgspec makes of
    them, and a model of pydantic what it would be as JSON; text that is not valid Unicode is
    refused.

    Raises:
        BadData: it cannot be put on the wire; the text says why.
    """
    kind = type(value)
    if kind is bytes or kind is bytearray or kind is memoryview:
        return bytes(value)
    try:
        built = msgspec.to_builtins(value, str_keys=True, builtin_types=(bytes,), enc_hook=_dump)
        # Lone surrogates show here, not at a reader; tuples become what a reader will see.
        built = _unpack.decode(_pack.encode(built))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BadData(f"cannot be put on the wire: {error}") from None
    check_data(built)
    return built


def _dump(value: Any) -> Any:
    if hasattr(type(value), "__pydantic_serializer__"):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


pack_data = _pack.encode
"""Encodes checked data in the one form in which brokers keep it (MessagePack)."""


def unpack_data(packed: bytes) -> Any:
    """Undo :func:`pack_data`."""
    return _unpack.decode(packed)


def json_data(packed: bytes) -> tuple[bytes, bool]:
    """Turn packed data into JSON text; say whether it is base64 for bytes."""
    value = _unpack.decode(packed)
    return _json.encode(value), type(value) is bytes


def from_base64(text: Any) -> bytes:
    """Decode the JSON form of a bytes payload.

    Raises:
        BadData: it is not base64 text.
    """
    if not isinstance(text, str):
        raise BadData("with encoding base64 the payload must be text")
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadData("the payload is not valid base64") from None
    # The library takes padding that is too much, and other readers do not.
    if len(text) % 4 or len(value) != len(text) // 4 * 3 - text.count("="):
        raise BadData("the payload is not valid base64")
    return value
