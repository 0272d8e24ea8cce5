"""What a payload may be."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from everwire.errors import BadData
from everwire.limits import MAX_DEPTH
from everwire.protocol.data import check_data, from_base64, pack_data, plain_data, unpack_data

from .wire import data, examples, shape, texts


def legal(value: Any, inside: int = 0) -> bool:
    """The rule, word by word, without regard for speed."""
    if inside > MAX_DEPTH:
        return False
    if value is None or isinstance(value, bool | str):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, bytes):
        return inside == 0
    if inside == MAX_DEPTH:
        return False
    if isinstance(value, list):
        return all(legal(item, inside + 1) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and legal(item, inside + 1) for key, item in value.items())
    return False


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        texts,
        st.integers(-(2**64), 2**65) | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1]),
        st.floats(),
        st.binary(max_size=4),
        st.just(msgspec.msgpack.Ext(1, b"")),
        st.just(bytearray(b"x")),
        st.just(datetime(2020, 1, 1, tzinfo=UTC)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            texts | st.integers() | st.none() | st.binary(max_size=2), inner, max_size=3
        ),
        st.tuples(inner),
        # a tower that ends near the limit
        st.tuples(inner, st.integers(MAX_DEPTH - 3, MAX_DEPTH + 2)).map(lambda x: tower(*x)),
    ),
    max_leaves=8,
)


def tower(value: Any, height: int) -> Any:
    for level in range(height):
        value = [value] if level % 2 else {"a": value}
    return value


@examples(300)
@given(anything)
def test_exactly_the_legal_data_passes(value: Any) -> None:
    try:
        check_data(value)
    except BadData as error:
        assert str(error)
        assert not legal(value)
    else:
        assert legal(value)


@pytest.mark.parametrize("leaf", [1, None, "a", [], {}, b"", nan, inf, 2**63])
@pytest.mark.parametrize("height", [0, 1, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 200])
def test_the_limit_of_depth_counts_containers(leaf: Any, height: int) -> None:
    value = tower(leaf, height)
    if legal(value):
        check_data(value)
    else:
        with pytest.raises(BadData):
            check_data(value)


@examples(150)
@given(data)
def test_legal_data_stays_as_it_is_when_published(value: Any) -> None:
    assert shape(plain_data(value)) == shape(value)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


class Note(msgspec.Struct):
    text: str


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        (Colour.RED, "red"),
        (Point(1, 2), {"x": 1, "y": 2}),
        ([Note("a")], [{"text": "a"}]),
        ({1: "a"}, {"1": "a"}),
        (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00Z"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
    ],
)
def test_what_applications_hold_becomes_plain_data(value: Any, expected: Any) -> None:
    assert shape(plain_data(value)) == shape(expected)


@pytest.mark.parametrize(
    "value",
    [
        nan,
        [inf],
        2**63,
        -(2**63) - 1,
        [2**64],
        "\ud800",
        {"\udfff": 1},
        object(),
        [object()],
        [b"inside"],
        {"a": b"inside"},
        tower(1, MAX_DEPTH + 1),
        tower(1, 5000),
        {Point: 1},
        1j,
    ],
    ids=str(tuple(range(15))).strip("()").split(", "),
)
def test_what_no_reader_could_take_is_refused_when_published(value: Any) -> None:
    with pytest.raises(BadData, match=r"\w"):
        plain_data(value)


def test_data_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BadData):
        plain_data(endless)


@examples(150)
@given(st.binary(max_size=40))
def test_bytes_survive_their_text_form(value: bytes) -> None:
    text = msgspec.json.decode(msgspec.json.encode(value))
    assert from_base64(text) == value
    assert unpack_data(pack_data(value)) == value


@examples(300)
@given(st.text("ABCabc019+/=-_ \n", max_size=9) | texts | st.integers() | st.none())
def test_what_is_no_base64_is_refused(text: Any) -> None:
    try:
        value = from_base64(text)
    except BadData:
        return
    # What was taken says the same, up to bits that are beyond the last byte.
    written = msgspec.json.decode(msgspec.json.encode(value))
    assert len(written) == len(text)
    assert written[:-3] == text[:-3]
