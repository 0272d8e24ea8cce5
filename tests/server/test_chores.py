"""Chores: in order for each key, side by side for different ones, until the broker answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everwire.errors import BrokerUnavailable
from everwire.instrumentation import LimitedLog
from everwire.net.tasks import TaskOwner
from everwire.server import chores
from everwire.server.chores import Chores
from everwire.testing import run

Scenario = Callable[[Chores, list[Any]], Coroutine[Any, Any, None]]


def with_chores(scenario: Scenario) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = TaskOwner("test")
        await scenario(Chores(tasks, LimitedLog(logging.getLogger("test"), loop.time)), [])
        assert len(tasks) == 0

    run(main)


def test_those_of_one_key_are_done_in_order_and_others_beside_them() -> None:
    async def scenario(chores: Chores, done: list[Any]) -> None:
        async def work(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            done.append(name)

        for n in range(3):
            chores.add("slow", lambda n=n: work(f"slow {n}", 3 - n))  # type: ignore[misc]
        await asyncio.sleep(0.1)
        chores.add("quick", lambda: work("quick", 0))
        await chores.finish(10)
        assert done == ["quick", "slow 0", "slow 1", "slow 2"]

    with_chores(scenario)


def test_so_many_are_done_at_a_time_and_all_in_the_end() -> None:
    async def scenario(todo: Chores, done: list[Any]) -> None:
        most = now = 0

        async def work() -> None:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(1)
            now -= 1
            done.append(1)

        for n in range(100):
            todo.add(str(n), work)
        await todo.finish(100)
        assert (most, len(done)) == (chores.AT_ONCE, 100)

    with_chores(scenario)


def test_what_the_broker_does_not_answer_is_done_again_before_what_follows() -> None:
    async def scenario(chores: Chores, done: list[Any]) -> None:
        async def fail() -> None:
            done.append("try")
            if len(done) < 4:
                raise BrokerUnavailable("not now")

        async def after() -> None:
            done.append("after")

        chores.add("k", fail)
        chores.add("k", after)
        await chores.finish(60)
        assert done == ["try"] * 4 + ["after"]

    with_chores(scenario)


def test_a_defect_is_logged_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(chores: Chores, done: list[Any]) -> None:
        async def broken() -> None:
            raise ZeroDivisionError

        async def after() -> None:
            done.append("after")

        chores.add("k", broken)
        chores.add("k", after)
        await chores.finish(60)
        assert done == ["after"]
        assert "a defect in a chore" in caplog.text

    with_chores(scenario)


def test_there_are_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "MAX_CHORES", 3)

    async def scenario(chores: Chores, done: list[Any]) -> None:
        async def work(n: int) -> None:
            done.append(n)

        for n in range(5):
            chores.add("k", lambda n=n: work(n))  # type: ignore[misc]
        await chores.finish(60)
        chores.add("k", lambda: work(9))
        await chores.finish(60)
        assert done == [0, 1, 2, 9]

    with_chores(scenario)


def test_what_is_added_in_the_turn_in_which_all_else_was_done_is_done_as_well() -> None:
    async def scenario(todo: Chores, done: list[Any]) -> None:
        async def work(name: str) -> None:
            done.append(name)

        for n in range(chores.AT_ONCE):
            todo.add(str(n), lambda n=n: work(str(n)))  # type: ignore[misc]
        asyncio.get_running_loop().call_soon(todo.add, "late", lambda: work("late"))
        await asyncio.sleep(1)
        assert done[-1] == "late"

    with_chores(scenario)
