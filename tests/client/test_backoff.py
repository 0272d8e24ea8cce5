"""When a client comes back: full jitter after the cap, and no reset before a link held."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, strategies as st

from everwire.net.backoff import Backoff


class Edge(Random):
    """Chance that always falls on one end."""

    def __init__(self, top: bool) -> None:
        super().__init__(0)
        self.top = top

    def uniform(self, a: float, b: float) -> float:
        return b if self.top else a


def test_the_first_retry_after_a_ready_link_is_spread_from_zero() -> None:
    assert Backoff(random=Edge(top=False)).delay(held=1.0) == 0.0
    assert Backoff(random=Edge(top=True)).delay(held=1.0) == 2.0


def test_then_the_upper_end_doubles_up_to_the_cap() -> None:
    backoff = Backoff(random=Edge(top=True))
    assert [backoff.delay(held=0.0)] + [backoff.delay() for _ in range(7)] == [
        2.0, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0,
    ]  # fmt: skip


def test_a_first_connect_that_fails_begins_with_the_base() -> None:
    backoff = Backoff(random=Edge(top=True))
    assert [backoff.delay() for _ in range(3)] == [1.0, 2.0, 4.0]


def test_at_the_cap_the_whole_range_is_still_used() -> None:
    backoff = Backoff(random=Random(1))
    for _ in range(10):
        backoff.delay()
    late = [backoff.delay() for _ in range(400)]
    assert min(late) < 1.0
    assert max(late) > 19.0
    assert len({round(delay, 1) for delay in late}) > 100


def test_a_link_that_flaps_does_not_reset_it() -> None:
    backoff = Backoff(random=Edge(top=True))
    assert [backoff.delay(held=29.9) for _ in range(6)] == [2.0, 1.0, 2.0, 4.0, 8.0, 16.0]


def test_a_link_that_held_does() -> None:
    backoff = Backoff(random=Edge(top=True))
    for _ in range(5):
        backoff.delay()
    assert backoff.delay(held=30.0) == 2.0
    assert backoff.attempts == 0
    assert backoff.delay() == 1.0


def test_a_hint_wins_and_those_told_the_same_come_apart() -> None:
    assert Backoff(random=Edge(top=False)).delay(hint=40.0) == 40.0
    assert Backoff(random=Edge(top=True)).delay(hint=40.0) == 42.0
    assert Backoff(random=Edge(top=True)).delay(hint=0.5) == 1.0


def test_an_attempt_with_a_hint_counts() -> None:
    backoff = Backoff(random=Edge(top=True))
    backoff.delay(hint=1.0)
    assert backoff.attempts == 1


@given(
    steps=st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=200),
    seed=st.integers(0, 2**32),
    cap=st.floats(0.2, 100),
)
def test_every_delay_is_within_its_bounds(steps: list[float | None], seed: int, cap: float) -> None:
    backoff = Backoff(cap=cap, random=Random(seed))
    for held in steps:
        delay = backoff.delay(held)
        assert 0.0 <= delay <= max(2.0, cap)
        if held is None:
            assert delay >= 0.1


@pytest.mark.parametrize("attempt", [62, 1_100, 10**9])
def test_an_outage_of_months_overflows_nothing(attempt: int) -> None:
    assert Backoff().bounds(attempt) == (0.1, 20.0)


def test_two_processes_do_not_share_their_chance() -> None:
    one, two = Backoff(), Backoff()
    assert [one.delay() for _ in range(5)] != [two.delay() for _ in range(5)]
