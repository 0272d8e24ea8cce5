"""How many values and keys a message has is told before anything is built of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from everwire.protocol.dialects import all_dialects, dialect

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.text('",:[]{}\\ \n', max_size=12),
    st.integers(0, 70_000).map(lambda n: "x" * n),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.dictionaries(st.text('a",:[]{}\\', max_size=5), inner, max_size=20),
    ),
    max_leaves=60,
)
binary = st.recursive(
    st.one_of(scalars, st.binary(max_size=300), st.integers(0, 70_000).map(bytes)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=20), st.dictionaries(st.text(max_size=5), inner, max_size=20)
    ),
    max_leaves=60,
)


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + count(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    return 1


@given(values, st.booleans(), st.booleans())
@example([], True, True)
@example([{"a": []}, {}], False, False)
@example([[[[[0]]]]], True, True)
@example(['\\"', "\\", '"', "]"], True, True)
@pytest.mark.parametrize("name", ["json", "plain"])
def test_values_and_keys_of_json_are_counted_exactly_however_it_is_written(
    name: str, value: Any, ascii_only: bool, spaced: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=2 if spaced else None).encode()
    right = count(value)
    assert not dialect(name).has_more_than(text, right)
    assert dialect(name).has_more_than(text, right - 1)


@given(binary)
@example([[], {}, [[]], {"": {}}])
@example([1.5, b"\xdf" * 300, "x" * 40, -200, 2**40])
@example({str(n): n for n in range(40)})
@example(list(range(70_000)))
def test_values_and_keys_of_messagepack_are_counted_exactly(value: Any) -> None:
    data = msgspec.msgpack.encode(value)
    right = count(value)
    assert not dialect("msgpack").has_more_than(data, right)
    assert dialect("msgpack").has_more_than(data, right - 1)


EXTENSIONS = [
    b"\xd4\x01a", b"\xd5\x01ab", b"\xd6\x01abcd", b"\xd7\x01" + b"a" * 8, b"\xd8\x01" + b"a" * 16,
    b"\xc7\x03\x01abc", b"\xc8\x00\x03\x01abc", b"\xc9\x00\x00\x00\x03\x01abc",
    b"\xda\x00\x01a", b"\xdb\x00\x00\x00\x01a", b"\xc5\x00\x01a", b"\xc6\x00\x00\x00\x01a",
    b"\xcc\x80", b"\xcd\x80\x80", b"\xce\x80\x80\x80\x80", b"\xcf" + b"\x80" * 8, b"\xca" + b"\x90" * 4,
    b"\xd0\x90", b"\xd1\x90\x90", b"\xd2\x90\x90\x90\x90", b"\xd3" + b"\x90" * 8, b"\xcb" + b"\x90" * 8,
    b"\xdc\x00\x00", b"\xdd\x00\x00\x00\x00", b"\xde\x00\x00", b"\xdf\x00\x00\x00\x00",
]  # fmt: skip


def test_each_form_of_a_value_is_passed_over_whole() -> None:
    data = b"\xdc" + len(EXTENSIONS).to_bytes(2, "big") + b"".join(EXTENSIONS)
    assert not dialect("msgpack").has_more_than(data, len(EXTENSIONS) + 1)
    assert dialect("msgpack").has_more_than(data, len(EXTENSIONS))
    odd = b"\xdf\x00\x00\x00\x01" + data + b"\xc0"  # the whole as a key
    assert not dialect("msgpack").has_more_than(odd, 1)


@given(st.one_of(st.binary(max_size=200), st.text('[]{},:"\\ a', max_size=200).map(str.encode)))
@pytest.mark.parametrize("name", [one.name for one in all_dialects()])
def test_counting_what_is_no_message_never_fails(name: str, data: bytes) -> None:
    for most in (1, 10, 1000):
        dialect(name).has_more_than(data, most)
