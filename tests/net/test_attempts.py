"""The budget of attempts after failures, which everything in a process shares."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, strategies as st

from everwire.limits import MAX_ATTEMPTS
from everwire.net.attempts import MAX_ENDPOINTS, Attempts, endpoint_of
from everwire.net.websocket import PicowsNetwork
from everwire.testing import Network, VirtualLoop, run

HERE, THERE = "ws://here:80", "ws://there:80"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(begin <= time <= begin + 60.0 for time in times) for begin in times)


@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=200))
def test_no_minute_sees_more_than_the_budget(steps: list[float]) -> None:
    clock = Clock()
    attempts = Attempts(clock=clock)
    spent: list[float] = []
    for step in steps:
        clock.now += step
        if attempts.spend(HERE):
            assert not spent or clock.now >= spent[-1]
            spent.append(clock.now)
    assert most_in_a_minute(spent) <= MAX_ATTEMPTS


def test_who_waits_as_long_as_told_gets_one() -> None:
    clock = Clock()
    attempts = Attempts(clock=clock)
    while attempts.spend(HERE):
        pass
    for _ in range(50):
        assert not attempts.spend(HERE)
        clock.now += attempts.wait(HERE)
        assert attempts.spend(HERE)


def test_another_endpoint_has_a_budget_of_its_own() -> None:
    attempts = Attempts(clock=Clock())
    while attempts.spend(HERE):
        pass
    assert attempts.wait(THERE) == 0.0
    assert attempts.spend(THERE)


def test_a_link_that_held_makes_it_whole() -> None:
    attempts = Attempts(clock=Clock())
    first = sum(attempts.spend(HERE) for _ in range(20))
    assert not attempts.spend(HERE)
    attempts.restore(HERE)
    assert sum(attempts.spend(HERE) for _ in range(20)) == first


def test_without_a_bound_nothing_waits() -> None:
    attempts = Attempts(None, clock=Clock())
    assert all(attempts.spend(HERE) for _ in range(1_000))


def test_it_remembers_a_bounded_number_of_endpoints_and_those_that_are_spent_last() -> None:
    clock = Clock()
    attempts = Attempts(clock=clock)
    for number in range(2 * MAX_ENDPOINTS):
        assert attempts.spend(f"ws://{number}")
        clock.now += 1e-3
        while attempts.spend(HERE):
            pass
    assert not attempts.spend(HERE)
    assert repr(attempts) == f"<Attempts endpoints={MAX_ENDPOINTS}>"


def test_those_who_wait_come_one_by_one_and_a_cancelled_one_takes_nothing() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        attempts = Network().attempts
        times: list[float] = []

        async def attempt() -> None:
            await attempts.take(HERE, loop.random)
            times.append(loop.time())

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt()) for _ in range(30)]
            await asyncio.sleep(1)
            for task in tasks[5:25]:
                task.cancel()
        assert len(times) == 10
        assert most_in_a_minute(times) <= MAX_ATTEMPTS
        assert min(b - a for a, b in pairwise(times[4:])) > 9.0
        assert times[-1] < 90.0

    run(scenario)


def test_the_real_network_has_one_for_the_process_and_one_in_memory_its_own() -> None:
    assert PicowsNetwork().attempts is PicowsNetwork().attempts
    assert Network().attempts is not Network().attempts
    own = Attempts()
    assert PicowsNetwork(own).attempts is own


def test_waiting_tells_for_how_long() -> None:
    async def scenario() -> None:
        attempts = Network().attempts
        assert await attempts.take(HERE, Random(1)) == 0.0
        while attempts.spend(HERE):
            pass
        assert 12.0 <= await attempts.take(HERE, Random(1)) <= 15.0

    run(scenario)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("ws://user:pass@Node/ws?token=x", "ws://node:80"),
        ("wss://node/", "wss://node:443"),
        ("wss://node:8443/a/b", "wss://node:8443"),
        ("ws://[::1]:9/", "ws://::1:9"),
    ],
)
def test_an_endpoint_is_scheme_host_and_port_and_nothing_secret(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint
