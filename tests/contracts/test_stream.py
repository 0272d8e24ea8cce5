"""A channel in memory against a model: what is held, what it counts, which ids are known."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from everwire.brokers.base import ChannelOptions, Record
from everwire.brokers.stream import RECORD_OVERHEAD, DedupeWindow, Stream
from everwire.protocol.messages import Position

sizes = st.integers(0, 300)
steps = st.lists(
    st.tuples(st.just("append"), sizes)
    | st.tuples(st.just("append"), sizes)
    | st.tuples(st.just("wait"), st.integers(0, 40))
    | st.tuples(st.sampled_from(["trim", "clear"]), st.just(0)),
    max_size=200,
)


def record(offset: int, size: int) -> Record:
    return Record("e", offset, f"m-{offset}", 0, b"x" * size)


@settings(max_examples=150, derandomize=True)
@given(steps, st.integers(1, 90), st.integers(50, 2000))
def test_a_stream_holds_the_newest_within_its_bounds_and_counts_what_it_holds(
    steps: list[tuple[str, int]], most: int, most_bytes: int
) -> None:
    options = ChannelOptions(history=most, history_ttl=60.0, history_bytes=most_bytes)
    stream = Stream("e", 0.0)
    model: list[tuple[float, Record]] = []
    counted, now = 0, 0.0
    for step, number in steps:
        if step == "append":
            new = record(stream.top + 1, number)
            counted += stream.append(new, now, options)
            model.append((now, new))
        elif step == "wait":
            now += number
        elif step == "trim":
            counted += stream.trim(now, options)
            model = [one for one in model if one[0] > now - 60.0]
        else:
            counted += stream.clear()
            model = []
        del model[: max(0, len(model) - most)]
        while len(model) > 1 and sum(len(one.payload) for _, one in model) > most_bytes:
            del model[0]
        # What is too old may be held until the next trim, and not what is too much.
        held = [one for _, one in model]
        page = stream.latest(1000)
        assert list(page.records)[len(page.records) - len(held) :] == held
        assert len(page.records) <= most
        assert stream.size == sum(len(one.payload) for one in page.records)
        assert stream.size <= most_bytes or len(page.records) == 1
        assert counted == stream.size + len(stream) * RECORD_OVERHEAD
        if held:
            before = Position("e", held[0].offset, held[0].id)
            assert list(stream.read(before, 1000, 10**9).records) == held[1:]


@settings(max_examples=150, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30)), max_size=120))
def test_an_id_is_known_for_the_window_and_not_for_twice_as_long(
    steps: list[tuple[int, int]],
) -> None:
    window, maximum, now = 100.0, 8, 0.0
    dedupe = DedupeWindow(window, maximum, now)
    told: dict[str, tuple[int, float]] = {}
    for offset, (number, pause) in enumerate(steps, start=1):
        now += pause
        key = f"m-{number}"
        claimed = dedupe.claim(key, offset, now)
        known, since = told.get(key, (0, 0.0))
        if known and now - since < window:
            assert claimed == known
        if claimed > 0:
            assert claimed == known
            assert now - since < 2 * window
        elif claimed == 0:
            told[key] = (offset, now)
        else:
            assert len(dedupe) == maximum
        assert len(dedupe) <= maximum
    assert not dedupe.turned(now + 2 * window)
