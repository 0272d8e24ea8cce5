"""When and whether to try again, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from everwire import ClosedError, HandshakeRefused, Unauthorized
from everwire.client.reconnection import Failure, Reconnection, Retry, Stop
from everwire.limits import MAX_ATTEMPTS, ClientLimits
from everwire.net.attempts import Attempts
from everwire.testing import Direction, Link, Network

from .world import Script, client_to, loop, play, until

LOST = ClosedError(1006)


class Latest(Random):
    """Chance that always takes the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def policy(attempts: Attempts | None = None, **options: Any) -> Reconnection:
    options.setdefault("random", loop().random)
    made = Reconnection(ClientLimits(), attempts=attempts or Network().attempts, **options)
    made.begin("ws://node/ws")
    return made


def playing(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        play(scenario)

    test.__name__ = scenario.__name__
    return test


@playing
async def test_a_link_that_held_costs_nothing_and_a_young_one_does() -> None:
    made = policy()
    made.ready()
    await asyncio.sleep(30.0)
    assert not made.after(LOST).charged
    made.begin("ws://node/ws")
    made.ready()
    await asyncio.sleep(29.0)
    assert made.after(LOST).charged
    assert made.after(ConnectionRefusedError()).charged


@playing
async def test_a_planned_end_costs_nothing_however_young() -> None:
    made = policy()
    made.ready()
    made.leave(1.0)
    await asyncio.sleep(0.5)
    pause = made.after(ClosedError(4440))
    assert not pause.charged
    assert pause.seconds >= 0.5


@playing
async def test_what_is_charged_waits_for_the_budget_and_what_is_not_does_not() -> None:
    attempts = Network().attempts
    while attempts.spend("ws://node:80"):
        pass
    made = policy(attempts)
    began = loop().time()
    await made.wait(made.after(LOST))
    assert loop().time() - began >= 12.0
    made.begin("ws://node/ws")
    made.ready()
    await asyncio.sleep(30.0)
    while attempts.spend("ws://node:80"):
        pass
    began = loop().time()
    await made.wait(made.after(LOST))
    assert loop().time() - began <= 2.0


@playing
async def test_a_link_that_held_makes_the_budget_of_its_endpoint_whole() -> None:
    attempts = Network().attempts
    whole = sum(attempts.spend("ws://node:80") for _ in range(20))
    made = policy(attempts)
    made.ready()
    await asyncio.sleep(29.0)
    assert attempts.wait("ws://node:80") == 0.0
    assert sum(attempts.spend("ws://node:80") for _ in range(20)) < whole
    await asyncio.sleep(1.0)
    assert sum(attempts.spend("ws://node:80") for _ in range(20)) == whole


@playing
async def test_hurrying_ends_a_pause_within_a_second_and_costs_nothing() -> None:
    attempts = Network().attempts
    while attempts.spend("ws://node:80"):
        pass
    made = policy(attempts, random=Latest())
    waiting = asyncio.get_running_loop().create_task(made.wait(made.after(LOST)))
    await asyncio.sleep(3.0)
    began = loop().time()
    while not waiting.done() and loop().time() - began <= 2.0:
        made.hurry()  # again does not put it off
        await asyncio.sleep(0.01)
    await waiting
    assert loop().time() - began <= 1.02
    made.hurry()  # nothing waits: nothing happens


@playing
async def test_a_decision_of_the_application_goes_first_and_none_leaves_it_to_us() -> None:
    seen: list[Failure] = []
    answers = iter([3.5, Retry(7.0), Retry(), None, Stop()])

    def decide(failure: Failure) -> Any:
        seen.append(failure)
        return next(answers)

    made = policy(decide=decide)
    final = HandshakeRefused(404, "", temporary=False)
    assert made.after(final).seconds == 3.5
    assert made.after(final).seconds == 7.0
    assert made.after(final).seconds <= 20.0
    with pytest.raises(HandshakeRefused):
        made.after(final)
    with pytest.raises(ClosedError):
        made.after(LOST)
    assert [failure.retries for failure in seen] == [0, 1, 2, 3, 3]


@playing
async def test_a_stop_may_say_as_what() -> None:
    made = policy(decide=lambda failure: Stop(Unauthorized("no")))
    with pytest.raises(Unauthorized):
        made.after(LOST)


@playing
async def test_attempts_in_a_row_have_an_end_if_one_is_wanted() -> None:
    made = policy(max_attempts=3)
    for _ in range(3):
        made.after(LOST)
    with pytest.raises(ClosedError) as error:
        made.after(LOST)
    assert "3 attempts in a row" in error.value.__notes__[0]
    made = policy(max_attempts=1)
    for _ in range(3):
        made.begin("ws://node/ws")
        made.ready()
        await asyncio.sleep(31.0)
        made.after(LOST)  # each time the first


@playing
async def test_what_we_ended_ourselves_is_no_verdict_of_the_server() -> None:
    made = policy()
    made.after(ClosedError(1002), by_us=True)
    with pytest.raises(ClosedError):
        made.after(ClosedError(1002))


@playing
async def test_a_server_that_accepts_and_closes_sees_ten_attempts_a_minute_of_a_process() -> None:
    """After the first of each client; the clients know nothing of each other."""
    network = Network()
    script = Script(network)
    clients = [client_to(network) for _ in range(7)]
    for client in clients:
        await client
    times: list[float] = []

    def close_at_once(link: Link, direction: Direction, payload: bytes) -> None:
        times.append(loop().time())
        link.cut()

    network.on_message = close_at_once
    network.cut()
    await asyncio.sleep(600)
    assert max(sum(a <= t <= a + 60.0 for t in times) for a in times) <= MAX_ATTEMPTS
    assert len(times) >= 40
    network.on_message = None
    await until(lambda: all(client.state == "ready" for client in clients), within=200)
    assert len(script.peers) >= 14
    for client in clients:
        await client.close()
