"""What the tests of the protocol share: messages as vectors write them, strategies, equality."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
from hypothesis import HealthCheck, settings, strategies as st

from everwire.limits import MAX_ID, MAX_INTEGER
from everwire.protocol import messages as m
from everwire.protocol.dialects import dialect

JSON, MSGPACK, PLAIN = dialect("json"), dialect("msgpack"), dialect("plain")
V1 = (JSON, MSGPACK)
DIALECTS = (*V1, PLAIN)
NOW = 1_700_000_000_000

VECTORS = Path(__file__).parent.parent / "vectors"
BY_TYPE: dict[str, type[m.Message]] = {str(cls.__struct_config__.tag): cls for cls in m.MESSAGES}

# The same examples in every run. EVERWIRE_EXAMPLES=20000 looks for new ones instead.
_more = int(os.environ.get("EVERWIRE_EXAMPLES", "0"))


def examples(count: int) -> settings:
    """The profile of all property tests here."""
    return settings(
        max_examples=_more or count,
        derandomize=not _more,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


# ---- vectors ------------------------------------------------------------------


def vectors(file: str, part: str = "vectors") -> list[Any]:
    found: list[Any] = json.loads((VECTORS / file).read_text(encoding="utf-8"))[part]
    return found


def names(several: list[Any]) -> list[str]:
    """Ids of parametrized tests."""
    return [f"{one.get('dialect', '')} {one['name']}".strip() for one in several]


def payload_of(vector: dict[str, Any]) -> bytes:
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    if "text" in vector:
        return str(vector["text"]).encode()
    pieces = [(piece, times) for piece, times in vector["parts"]]
    if vector["dialect"] == MSGPACK.name:
        return b"".join(bytes.fromhex(piece) * times for piece, times in pieces)
    return "".join(piece * times for piece, times in pieces).encode()


def value_of(written: Any) -> Any:
    """Data as vectors write it: what JSON cannot say is ``$bytes`` and ``$int``."""
    if isinstance(written, dict):
        if set(written) == {"$bytes"}:
            return bytes.fromhex(written["$bytes"])
        if set(written) == {"$int"}:
            return int(written["$int"])
        return {name: value_of(item) for name, item in written.items()}
    if isinstance(written, list):
        return [value_of(item) for item in written]
    return written


def message_of(written: dict[str, Any]) -> m.Message:
    """A message as vectors write it: with JSON names, without what has its default."""
    cls = BY_TYPE[written["type"]]
    known = {field.encode_name: field for field in msgspec.structs.fields(cls)}
    assert set(written) - {"type"} <= set(known), "a vector has a field that no message has"
    return cls(
        **{
            known[name].name: value_of(value)
            if name in m.DATA_FIELDS or (name, value) == ("id", "")  # plain has no ids
            else msgspec.convert(value, known[name].type)
            for name, value in written.items()
            if name != "type"
        }
    )


# ---- equality -------------------------------------------------------------------


def shape(value: Any) -> Any:
    """A form in which equal means equal: 1 is not 1.0 nor True, 0.0 is not -0.0.

    Messages compare by name and fields, for each dialect may have classes of its own.
    """
    if isinstance(value, msgspec.Struct):
        fields = {name: shape(getattr(value, name)) for name in value.__struct_fields__}
        return type(value).__name__, fields
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__, repr(value)


# ---- strategies -----------------------------------------------------------------

texts = st.text(max_size=20)  # never a lone surrogate
int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | int64s | floats | texts
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
data = nested | st.binary(max_size=40)

u53s = st.integers(0, MAX_INTEGER) | st.sampled_from([0, 1, 127, 128, 2**32, MAX_INTEGER])
ids = st.text(min_size=1, max_size=12) | st.just("x" * MAX_ID) | st.just("é" * MAX_ID)


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Legal values of a field's type, as messages.py writes it."""
    if kind == m.U53:
        return u53s
    if kind == m.Id:
        return ids
    if kind == m.RequestId:
        return u53s | ids
    if kind is str:
        return texts
    if kind is bool:
        return st.booleans()
    if kind is type(None):
        return st.none()
    origin, args = get_origin(kind), get_args(kind)
    if origin is list:
        return st.lists(of_type(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(of_type(args[0]), of_type(args[1]), max_size=3)
    if origin is Literal:
        return st.sampled_from(args)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return structs(kind)
    # U53 | Id | None: flattened, with what Annotated says of each
    assert args, f"no strategy for {kind}"
    return st.one_of(*map(of_type, args))


def structs(cls: type[Any]) -> st.SearchStrategy[Any]:
    fields = {}
    for field in msgspec.structs.fields(cls):
        if field.encode_name == "encoding":
            continue  # in memory a payload of bytes is bytes
        if field.encode_name in ("data", "payload"):
            fields[field.name] = data
        elif field.encode_name in m.DATA_FIELDS:
            fields[field.name] = nested  # there is no encoding for these
        else:
            fields[field.name] = of_type(field.type)
    return st.builds(cls, **fields)


messages: st.SearchStrategy[m.Message] = st.one_of(*map(structs, m.MESSAGES))
