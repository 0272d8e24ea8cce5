"""Fragments become a message, within bounds of size, number and everybody's share."""

from __future__ import annotations

import codecs
import itertools

import pytest
from hypothesis import given, strategies as st

from everwire.protocol.assembly import FRAGMENT, MAX_FRAGMENTS, Assembly, Budget, Refused
from everwire.protocol.frames import Opcode

MAX = 1 << 20


def assembly(opcode: int = Opcode.BINARY, *, limit: int = MAX, budget: int = 1 << 30) -> Assembly:
    return Assembly(opcode, limit, Budget(budget), compressed=False, since=0.0)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=30))
def test_the_message_is_its_fragments_in_order(parts: list[bytes]) -> None:
    one = assembly()
    for part in parts[:-1]:
        assert one.add(part, False) is None
    assert one.add(parts[-1], True) == b"".join(parts)


@given(st.text(max_size=20), st.binary(max_size=3), st.lists(st.integers(0, 60), max_size=6))
def test_text_is_refused_at_the_fragment_in_which_it_can_be_none_any_more(
    text: str, rest: bytes, cuts: list[int]
) -> None:
    data = text.encode() + rest
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    one, decoder = assembly(Opcode.TEXT), codecs.getincrementaldecoder("utf-8")()
    for n, (start, end) in enumerate(itertools.pairwise(edges)):
        last = n == len(edges) - 2
        try:
            decoder.decode(data[start:end], last)
        except UnicodeDecodeError:
            with pytest.raises(UnicodeDecodeError):
                one.add(data[start:end], last)
            return
        one.add(data[start:end], last)


def test_compressed_text_is_not_looked_at_before_it_is_inflated() -> None:
    one = Assembly(Opcode.TEXT, MAX, Budget(MAX), compressed=True, since=0.0)
    one.add(b"\xff\xff", False)
    assert one.add(b"\x80", True) == b"\xff\xff\x80"


def test_a_message_has_its_limit_to_the_byte() -> None:
    one = assembly(limit=100)
    one.add(b"x" * 60, False)
    assert one.add(b"x" * 40, True) == b"x" * 100
    one = assembly(limit=100)
    one.add(b"x" * 60, False)
    with pytest.raises(Refused) as refused:
        one.add(b"x" * 41, True)
    assert refused.value.code == 1009


@pytest.mark.parametrize("size", [0, 1, 7, 32])
def test_small_fragments_are_counted_against_what_they_bring(size: int) -> None:
    """So many for nothing, and one more for each 64 bytes: no more work than bytes."""
    one, count = assembly(), 0
    with pytest.raises(Refused) as refused:
        for _ in range(100_000):
            one.add(b"x" * size, False)
            count += 1
    assert refused.value.code == 1009
    assert count == MAX_FRAGMENTS + (count + 1) * size // FRAGMENT


@pytest.mark.parametrize("size", [FRAGMENT, FRAGMENT + 1, 1000])
def test_fragments_of_64_bytes_and_more_are_not_counted(size: int) -> None:
    one = assembly()
    count = MAX // size
    for _ in range(count - 1):
        one.add(b"x" * size, False)
    assert one.add(b"x" * size, True) == b"x" * (count * size)


def test_all_unfinished_messages_share_a_budget_and_give_back_what_they_took() -> None:
    budget = Budget(100)

    def begin() -> Assembly:
        return Assembly(Opcode.BINARY, MAX, budget, compressed=False, since=0.0)

    one, two, three = begin(), begin(), begin()
    one.add(b"x" * 60, False)
    two.add(b"x" * 40, False)
    assert budget.used == 100
    with pytest.raises(Refused) as refused:
        three.add(b"x", False)
    assert refused.value.code == 1013
    three.release()
    one.release()
    one.release()
    assert budget.used == 40
    two.add(b"x" * 60, True)
    two.release()
    assert budget.used == 0
