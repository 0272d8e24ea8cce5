"""Tasks that nobody awaits are held, and what they raise is not lost."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from everwire.net.tasks import TaskOwner
from everwire.testing import run


def test_it_holds_its_tasks_until_they_end() -> None:
    async def scenario() -> None:
        owner = TaskOwner("o")
        done: list[int] = []

        async def work() -> None:
            await asyncio.sleep(1)
            done.append(1)

        owner.start(work(), "work")
        gc.collect()
        assert len(owner) == 1
        await asyncio.sleep(2)
        assert (done, len(owner)) == ([1], 0)

    run(scenario)


def test_what_a_task_raises_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        seen: list[BaseException] = []
        owner = TaskOwner("o", on_error=lambda task, error: seen.append(error))

        async def fail() -> None:
            raise ValueError("told")

        owner.start(fail(), "fails")
        await owner.wait_closed()
        await asyncio.sleep(0)
        assert [str(error) for error in seen] == ["told"]

    with caplog.at_level(logging.ERROR, "everwire.tasks"):
        run(scenario)
    assert [record.getMessage() for record in caplog.records] == ["o fails failed"]


def test_cancelled_tasks_are_waited_for_and_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        owner = TaskOwner("o")
        cleaned: list[int] = []

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(1)
                cleaned.append(1)

        owner.start(work())
        owner.start(work())
        await asyncio.sleep(0)
        owner.cancel_all()
        await owner.wait_closed()
        assert cleaned == [1, 1]

    run(scenario)
    assert not caplog.records


def test_a_task_may_close_its_own_owner() -> None:
    async def scenario() -> None:
        owner = TaskOwner("o")

        async def close() -> None:
            owner.cancel_all()
            await owner.wait_closed()

        other = owner.start(asyncio.sleep(100))
        task = owner.start(close())
        async with asyncio.timeout(1):
            await task
        assert other.cancelled()

    run(scenario)
