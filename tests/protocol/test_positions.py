"""Positions: duplicate, next, hole."""

from __future__ import annotations

from hypothesis import given, strategies as st

from everwire.protocol.messages import Position
from everwire.protocol.positions import NOWHERE, Place, advance, place

from .wire import examples


@st.composite
def channel(draw: st.DrawFn) -> list[tuple[int, int | None]]:
    """The messages of a channel, ``(offset, prev)``; a shared stream leaves numbers out."""
    steps = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    at, messages = 0, []
    for step in steps:
        prev = None if step == 1 and draw(st.booleans()) else at
        at += step
        messages.append((at, prev))
    return messages


@examples(250)
@given(st.data())
def test_any_order_of_arrival_ends_whole_or_shows_a_hole(source: st.DataObject) -> None:
    """A reader that takes what is next, and asks again at a hole, misses and repeats nothing."""
    messages = source.draw(channel())
    held = [offset for offset, _ in messages]
    start = source.draw(st.sampled_from([0, *held]))
    copies = source.draw(st.lists(st.sampled_from(messages), max_size=len(messages) * 2))
    arrivals = source.draw(st.permutations(messages + copies))
    lost = source.draw(st.sets(st.sampled_from(held)))

    at, taken, holes = start, [], 0
    for offset, prev in arrivals:
        if offset in lost:
            continue
        match place(at, offset, prev):
            case Place.NEXT:
                taken.append(offset)
                at = offset
            case Place.DUPLICATE:
                assert offset <= start or offset in taken
            case Place.HOLE:
                holes += 1
                between = [one for one in held if at < one < offset]
                assert between, "a hole is shown only where something is missing"
    expected = [offset for offset in held if offset > start]
    assert taken == expected[: len(taken)], "contiguous, in order, each once"
    if taken != expected:
        missing = expected[len(taken)]
        behind = [one for one in expected[len(taken) + 1 :] if one not in lost]
        assert missing in lost or holes, "something is missing and nothing was shown"
        if missing in lost and behind:
            assert holes


@examples(250)
@given(channel(), st.integers(0, 50))
def test_exactly_one_message_is_next(messages: list[tuple[int, int | None]], at: int) -> None:
    places = [place(at, offset, prev) for offset, prev in messages]
    ahead = [one for one in places if one is not Place.DUPLICATE]
    assert ahead == [Place.NEXT, *[Place.HOLE] * (len(ahead) - 1)][: len(ahead)]
    assert places == sorted(places, key=[Place.DUPLICATE, Place.NEXT, Place.HOLE].index)


@examples(200)
@given(st.integers(0, 2**53 - 2), st.integers(1, 2**53 - 1))
def test_an_absent_prev_is_the_offset_before(at: int, offset: int) -> None:
    assert place(at, offset, None) is place(at, offset, offset - 1)


def test_the_beginning_is_before_the_first_message() -> None:
    assert place(NOWHERE.offset, 1, None) is Place.NEXT
    assert place(NOWHERE.offset, 7, 0) is Place.NEXT
    assert place(NOWHERE.offset, 2, None) is Place.HOLE


def test_advancing_keeps_the_epoch() -> None:
    assert advance(Position("e", 1, "a"), 5, "b") == Position("e", 5, "b")
