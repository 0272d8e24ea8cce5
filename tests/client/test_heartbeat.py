"""Silence is death only if we listened."""

from __future__ import annotations

from hypothesis import given, strategies as st

from everwire.client.heartbeat import Heartbeat, Verdict

WALL = 1_000_000.0


def beat(**options: bool) -> Heartbeat:
    return Heartbeat(30.0, 5.0, now=0.0, wall=WALL, **options)


def tick(heart: Heartbeat, late: float = 0.0, drift: float = 0.0) -> tuple[float, Verdict]:
    now = heart.due + late
    return now, heart.check(now, WALL + now + drift)


def until_not_alive(heart: Heartbeat) -> tuple[float, Verdict]:
    while True:
        now, verdict = tick(heart)
        if verdict is not Verdict.ALIVE:
            return now, verdict


def test_silence_for_the_deadline_is_death_to_the_moment() -> None:
    assert until_not_alive(beat()) == (30.0, Verdict.DEAD)


def test_any_sign_of_life_moves_the_deadline() -> None:
    heart = beat()
    tick(heart)
    heart.heard_at = 3.0
    assert until_not_alive(heart) == (33.0, Verdict.DEAD)


def test_a_loop_that_was_busy_probes_first() -> None:
    heart = beat()
    for _ in range(4):
        tick(heart)
    now, verdict = tick(heart, late=20.0)
    assert (now, verdict) == (38.75, Verdict.PROBE)
    assert tick(heart) == (43.75, Verdict.DEAD)


def test_a_busy_loop_that_has_heard_something_since_does_not_count() -> None:
    heart = beat()
    tick(heart, late=20.0)
    heart.heard_at = 24.0
    assert until_not_alive(heart) == (54.0, Verdict.DEAD)


def test_a_little_late_is_no_excuse() -> None:
    heart = beat()
    for _ in range(7):
        tick(heart)
    assert tick(heart, late=7.0)[1] is Verdict.DEAD


def test_an_answer_to_the_probe_ends_the_suspicion() -> None:
    heart = beat()
    tick(heart, late=40.0)
    assert heart.probing is not None
    heart.heard_at, heart.probing = 45.0, None
    assert until_not_alive(heart) == (75.0, Verdict.DEAD)


def test_after_a_suspended_machine_it_asks_at_once() -> None:
    heart = beat()
    assert tick(heart, drift=600.0)[1] is Verdict.PROBE
    assert tick(heart, drift=600.0)[1] is Verdict.DEAD


def test_a_clock_that_was_set_back_is_nothing() -> None:
    heart = beat()
    assert tick(heart, drift=-600.0)[1] is Verdict.ALIVE


def test_where_the_peer_need_not_send_it_is_always_asked_first() -> None:
    heart = beat(always_probe=True)
    assert until_not_alive(heart) == (30.0, Verdict.PROBE)
    assert tick(heart) == (35.0, Verdict.DEAD)


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), max_size=50))
def test_the_next_check_is_always_ahead(steps: list[tuple[float, bool]]) -> None:
    heart = beat()
    for late, heard in steps:
        now, verdict = tick(heart, late=late)
        assert verdict is Verdict.DEAD or heart.due > now
        if heard:
            heart.heard_at, heart.probing = now, None


def test_what_moved_counts_at_the_look_at_which_it_is_told() -> None:
    """The next look may follow at once, and then nothing has moved since."""
    heart = beat()
    while heart.due < 26.0:
        tick(heart)
    last = heart.due
    assert heart.check(last, WALL + last, moved=True) is Verdict.ALIVE
    assert until_not_alive(heart) == (last + 30.0, Verdict.DEAD)
