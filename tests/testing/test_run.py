"""The runner: nothing that goes wrong beside the main coroutine passes."""

from __future__ import annotations

import asyncio
import gc

import pytest

from everwire.testing import (
    LeftoverError,
    Runner,
    VirtualLoop,
    run,
)


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def test_run_takes_a_coroutine_or_a_function_with_arguments() -> None:
    async def double(n: int) -> int:
        return 2 * n

    assert run(double(4)) == 8
    assert run(double, 5) == 10


def test_what_main_raises_comes_out() -> None:
    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(main)


def test_a_task_left_over_fails_the_run_by_name() -> None:
    async def main() -> None:
        virtual_loop().extra = asyncio.create_task(  # type: ignore[attr-defined]
            asyncio.sleep(100), name="forgotten"
        )

    with pytest.raises(LeftoverError, match="forgotten"):
        run(main)


def test_leftovers_may_be_allowed_and_are_cancelled() -> None:
    cancelled = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> str:
        virtual_loop().extra = asyncio.create_task(forgotten())  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return "fine"

    assert run(main, allow_leftovers=True) == "fine"
    assert cancelled == [True]


def test_a_task_that_ends_without_time_passing_is_no_leftover() -> None:
    async def several_steps() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def main() -> None:
        virtual_loop().extra = asyncio.create_task(several_steps())  # type: ignore[attr-defined]

    run(main)


def test_an_exception_in_a_callback_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, lambda: 1 / 0)
        await asyncio.sleep(2)

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(ZeroDivisionError)


def test_a_failed_task_that_nobody_asked_fails_the_run() -> None:
    async def fail() -> None:
        raise LookupError("nobody asked")

    async def main() -> None:
        tasks = [asyncio.create_task(fail())]
        tasks.append(tasks)  # type: ignore[arg-type]  # only a full collection frees it
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(LookupError, match="nobody asked")


def test_beside_the_exception_of_main_reported_ones_are_notes() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        run(main)
    assert any("ZeroDivisionError" in note for note in caught.value.__notes__)


def test_an_exception_while_being_cancelled_is_reported() -> None:
    async def main() -> None:
        async def bad_cleanup() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                raise ValueError("cleanup failed")

        virtual_loop().extra = asyncio.create_task(bad_cleanup())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    with pytest.raises(ExceptionGroup) as caught:
        run(main, allow_leftovers=True)
    assert caught.group_contains(ValueError, match="cleanup failed")


def test_a_run_inside_a_loop_is_refused() -> None:
    async def inner() -> None: ...

    async def main() -> None:
        with pytest.raises(RuntimeError, match="inside"):
            run(inner())

    run(main)


def test_a_run_leaves_the_garbage_collector_as_it_was() -> None:
    async def main() -> None: ...

    gc.unfreeze()
    run(main)
    assert gc.get_freeze_count() == 0
    gc.freeze()
    ours = gc.get_freeze_count()
    try:
        run(main)
        assert gc.get_freeze_count() > ours / 2
    finally:
        gc.unfreeze()


# ---- Runner ------------------------------------------------------------------------------


def test_what_runs_in_tasks_goes_on_in_the_next_run_and_time_stands_still_between() -> None:
    ticks: list[float] = []

    async def tick() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            ticks.append(virtual_loop().time())

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(tick())

    with Runner() as runner:
        task = runner.run(begin)
        assert runner.loop.time() == 0
        runner.run(asyncio.sleep, 1.5)
        assert ticks == [1]
        runner.run(asyncio.wait_for, task, None)
    assert ticks == [1, 2, 3]


def test_a_task_left_over_at_the_end_of_all_runs_fails_them_by_name() -> None:
    async def begin() -> None:
        virtual_loop().extra = asyncio.create_task(  # type: ignore[attr-defined]
            asyncio.sleep(100), name="forgotten"
        )

    runner = Runner()
    with pytest.raises(LeftoverError, match="forgotten"), runner:
        runner.run(begin)
        runner.run(asyncio.sleep, 1)


def test_what_is_reported_can_be_seen_between_runs_and_is_raised_at_the_end() -> None:
    async def begin() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    with pytest.raises(BaseExceptionGroup) as caught, Runner() as runner:
        runner.run(begin)
        runner.run(asyncio.sleep, 1)
        assert [type(one) for one in runner.reported] == [ZeroDivisionError]
    assert caught.group_contains(ZeroDivisionError)


def test_what_is_reported_beside_a_failure_is_a_note_on_it() -> None:
    async def begin() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    with pytest.raises(KeyError) as caught, Runner() as runner:
        runner.run(begin)
        runner.run(asyncio.sleep, 1)
        raise KeyError("mine")
    assert any("ZeroDivisionError" in note for note in caught.value.__notes__)
