"""Whatever arrives: a message, or BadMessage with a verdict. Nothing else."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from everwire.errors import BadData
from everwire.protocol import messages as m, plain
from everwire.protocol.data import check_data
from everwire.protocol.dialects import BadMessage, Dialect, dialect, payload_field

from .wire import DIALECTS, MSGPACK, NOW, V1, examples, messages, of_type, shape


def verdict(one: Dialect, payload: bytes) -> m.Message | None:
    """Decode as a node does, and hold what both outcomes promise."""
    try:
        message = one.decode(payload)
    except BadMessage as bad:
        assert str(bad)
        assert not (bad.unknown_type and bad.strike), "what is only unknown is no strike"
        if bad.request_id is not None:
            msgspec.convert(bad.request_id, m.RequestId)
        return None
    assert isinstance(message, m.MESSAGES)
    assert getattr(message, "encoding", None) is None
    for field in msgspec.structs.fields(message):
        if field.encode_name not in m.DATA_FIELDS and getattr(message, field.name) != "":
            msgspec.convert(msgspec.to_builtins(getattr(message, field.name)), field.type)
    field_of_payload = payload_field(message)
    if field_of_payload is None:
        return message
    try:
        check_data(getattr(message, field_of_payload))
    except BadData:
        return None
    # What passed is what everybody else can be sent.
    if getattr(message, "id", "x") != "":
        for other in V1:
            assert shape(other.decode(other.encode(message, NOW))) == shape(message)
    return message


@pytest.mark.parametrize("one", DIALECTS, ids=lambda one: one.name)
def test_arbitrary_bytes(one: Dialect) -> None:
    @examples(150)
    @given(st.binary(max_size=60))
    def check(payload: bytes) -> None:
        verdict(one, payload)

    check()


@st.composite
def mutated(draw: st.DrawFn, one: Dialect) -> bytes:
    """A valid message in which some bytes were changed, left out, doubled, moved or put in."""
    plain._serial = count(1)  # ids that are made up must be the same in every run
    payload = bytearray(one.encode(draw(messages), NOW) or b"{}")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(payload)))
        end = at + draw(st.integers(0, 6))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            payload[at:end] = b""
        elif kind == 1:
            payload[at:end] = draw(st.binary(max_size=4))
        elif kind == 2:
            payload[at:at] = payload[at:end]
        elif kind == 3:
            payload[at:end] = draw(
                st.sampled_from(
                    [b"null", b"-1", b"1e400", b"{}", b"[]", b'""', b"true", b'"\\ud800"', b"\xc0"]
                )
            )
        else:
            payload = payload[at:] + payload[:at]
    return bytes(payload)


@pytest.mark.parametrize("one", DIALECTS, ids=lambda one: one.name)
def test_mutated_messages(one: Dialect) -> None:
    @examples(150)
    @given(mutated(one))
    def check(payload: bytes) -> None:
        verdict(one, payload)

    check()


words = st.sampled_from(
    sorted(
        {name for cls in m.MESSAGES for name in cls.__struct_encode_fields__}
        | {str(cls.__struct_config__.tag) for cls in m.MESSAGES}
        | {"type", "action", "resource", "parameters", "event", "system", "timestamp"}
        | {"subscription_confirm", "unsubscription_confirm", "epoch", "instance", "base64", "c"}
    )
)
odd_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 2**53 - 1, 2**53, 2**63, 2**64 - 1]),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
    st.text(max_size=3),
)
odd_json = st.recursive(
    odd_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
odd_objects = st.dictionaries(words, odd_json, max_size=6)


@pytest.mark.parametrize("name", ["json", "plain"])
def test_objects_that_nearly_are_messages(name: str) -> None:
    @examples(150)
    @given(odd_objects, st.none() | words)
    def check(value: dict[str, Any], kind: str | None) -> None:
        if kind is not None:
            value["type"] = kind
        verdict(dialect(name), json.dumps(value).encode())

    check()


odd_msgpack = st.recursive(
    odd_scalars
    | st.binary(max_size=3)
    | st.just(msgspec.msgpack.Ext(5, b"x"))
    | st.just(datetime(2020, 1, 1, tzinfo=UTC))
    | st.sampled_from([float("nan"), float("inf")]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.integers(0, 3) | st.none() | st.binary(max_size=1), inner)
    ),
    max_leaves=12,
)


@examples(150)
@given(st.integers(-1, len(m.MESSAGES)), st.lists(odd_msgpack, max_size=9))
def test_arrays_that_nearly_are_messages(tag: int, places: list[Any]) -> None:
    verdict(MSGPACK, msgspec.msgpack.encode([tag, *places]))


def json_type_of_each_place(cls: type[m.Message]) -> st.SearchStrategy[list[Any]]:
    fields = msgspec.structs.fields(cls)
    return st.tuples(
        *(
            odd_msgpack
            if field.encode_name in m.DATA_FIELDS
            else st.just(None) | of_type(field.type).map(msgspec.to_builtins)
            for field in fields
        )
    ).map(list)


@pytest.mark.parametrize("tag", range(len(m.MESSAGES)))
def test_arrays_with_one_place_wrong(tag: int) -> None:
    @examples(25)
    @given(json_type_of_each_place(m.MESSAGES[tag]), st.integers(0, 9), odd_msgpack)
    def check(places: list[Any], at: int, value: Any) -> None:
        places[at % len(places)] = value
        verdict(MSGPACK, msgspec.msgpack.encode([tag, *places]))

    check()


@pytest.mark.parametrize("one", DIALECTS, ids=lambda one: one.name)
@pytest.mark.parametrize("depth", [31, 32, 33, 200, 900, 950, 980, 1000, 3000, 200_000])
def test_deep_nesting_never_breaks_the_reader(one: Dialect, depth: int) -> None:
    """Wherever it is put, and however much of the stack is used already."""
    if one is MSGPACK:
        deep = b"\x91" * (depth - 1) + b"\x90"
        payloads = [deep, b"\x94\x04\xa1i\xa1c" + deep, b"\x93\x02\x01" + deep, b"\x92\x7f" + deep]
    else:
        deep = b"[" * depth + b"]" * depth
        payloads = [
            deep,
            b'{"type":"publish","id":"i","channel":"c","data":' + deep + b"}",
            b'{"type":"subscribe","id":1,"channels":' + deep + b"}",
            b'{"type":' + deep + b"}",
            b'{"action":' + deep + b"}",
            b'{"type":"nope","id":' + deep + b"}",
            b'{"channel":"system","data":{"type":"error","message":' + deep + b"}}",
            b'{"type":"error","id":1,"error":' + deep + b"}",
            b'{"type":"query","id":1,"payload":{"resource":"r","parameters":' + deep + b"}}",
        ]

    def at_stack_depth(more: int) -> None:
        if more:
            at_stack_depth(more - 1)
            return
        for payload in payloads:
            verdict(one, payload)

    at_stack_depth(0)
    at_stack_depth(sys.getrecursionlimit() // 3)


def test_an_error_about_a_long_message_is_short() -> None:
    for payload in (b'{"type":"%s"}' % (b"x" * 100_000), b'{"action":"%s"}' % (b"x" * 100_000)):
        for one in DIALECTS:
            with pytest.raises(BadMessage) as caught:
                one.decode(payload)
            assert len(str(caught.value)) < 300
