"""The virtual loop and its runner."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings, strategies as st

from everwire.testing import (
    DeadlockError,
    LeftoverError,
    TimeLimitError,
    VirtualLoop,
    clock,
    run,
)


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def test_a_day_of_sleep_takes_no_time_and_exactly_a_day() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run(main, limit=1e6) == 86_400
    assert time.monotonic() - began < 5


def test_the_clock_begins_where_it_is_told() -> None:
    loop = VirtualLoop(start=50.0)
    try:
        loop.run_until_complete(asyncio.sleep(1))
        assert loop.time() == 51.0
    finally:
        loop.close()


def test_the_wall_clock_goes_with_the_virtual_one() -> None:
    async def main() -> tuple[float, float]:
        loop = virtual_loop()
        before = loop.wall()
        await asyncio.sleep(90)
        return before, loop.wall()

    before, after = run(main)
    assert before == clock.EPOCH
    assert after == before + 90


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1_000), min_size=1, max_size=20))
def test_timers_run_in_order_and_at_their_time(delays: list[float]) -> None:
    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, float]] = []

        async def wait(delay: float) -> None:
            await asyncio.sleep(delay)
            seen.append((delay, loop.time()))

        async with asyncio.TaskGroup() as group:
            for delay in delays:
                group.create_task(wait(delay))
        return seen

    seen = run(main)
    assert [delay for delay, _ in seen] == sorted(delays)
    assert all(at == pytest.approx(delay, abs=1e-8) for delay, at in seen)


@pytest.mark.parametrize("delay", [1e-8, 1e-7, 1.0])
def test_timers_run_however_late_it_is(delay: float) -> None:
    """Also where a float's grain is above the resolution that asyncio counts with."""
    loop = VirtualLoop(start=2e9)
    try:
        loop.run_until_complete(asyncio.sleep(delay))
        assert loop.time() == 2e9 + delay
    finally:
        loop.close()


def test_timeouts_are_virtual() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main) == 30


def test_the_same_seed_gives_the_same_chance() -> None:
    async def main() -> list[float]:
        return [virtual_loop().random.random() for _ in range(3)]

    assert run(main, seed=7) == run(main, seed=7)
    assert run(main, seed=7) != run(main, seed=8)


def test_settle_waits_for_all_that_needs_no_time() -> None:
    async def main() -> tuple[list[int], float]:
        loop, seen = virtual_loop(), list[int]()

        def chain(n: int) -> None:
            seen.append(n)
            if n < 50:
                loop.call_soon(chain, n + 1)

        chain(0)
        timer = loop.call_later(1, seen.append, -1)
        await loop.settle()
        timer.cancel()
        return seen, loop.time()

    assert run(main) == (list(range(51)), 0.0)


# ---- what would hang for ever --------------------------------------------------


def test_a_deadlock_names_the_tasks_and_where_they_wait() -> None:
    async def stuck_in_here() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stuck_in_here(), name="the-stuck-one")

    with pytest.raises(DeadlockError) as caught:
        run(main)
    text = str(caught.value)
    assert "the-stuck-one" in text
    assert "stuck_in_here (test_clock.py:" in text
    assert "Event.wait" in text
    assert "main: " in text


def test_a_deadlock_still_runs_the_cleanup_of_what_waits() -> None:
    cleaned = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleaned.append(True)

    with pytest.raises(DeadlockError):
        run(main)
    assert cleaned == [True]


def test_virtual_time_ends_at_the_limit() -> None:
    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)

    with pytest.raises(TimeLimitError, match=r"at 20 s .* limit of 20 s"):
        run(main, limit=20)


def test_at_the_limit_there_is_time_to_clean_up() -> None:
    cleaned = []

    async def main() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            cleaned.append(True)

    with pytest.raises(TimeLimitError):
        run(main, limit=20)
    assert cleaned == [True]


def test_cleaning_up_does_not_take_for_ever_either() -> None:
    async def main() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            for _ in itertools.count():
                await asyncio.sleep(1)

    with pytest.raises(TimeLimitError) as caught:
        run(main, limit=20)
    assert any("TimeLimitError" in note for note in caught.value.__notes__)


def test_a_busy_loop_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "TURN_LIMIT", 1_000)

    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(DeadlockError, match="busy loop"):
        run(main)


def test_a_task_that_refuses_to_end_does_not_hang_the_run() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        virtual_loop().extra = asyncio.create_task(stubborn())  # type: ignore[attr-defined]

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.value.subgroup(LeftoverError)
    assert caught.value.subgroup(DeadlockError)


# ---- threads -------------------------------------------------------------------


def test_the_clock_stands_still_while_a_thread_works() -> None:
    async def main() -> tuple[str, float]:
        go = threading.Event()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(1, lambda: None)
        work = loop.run_in_executor(None, lambda: go.wait(5) and "done")
        loop.call_soon(go.set)
        result = await work
        timer.cancel()
        return str(result), loop.time()

    assert run(main) == ("done", 0.0)


def test_many_rounds_through_threads_never_look_like_a_deadlock() -> None:
    """Between a thread's end and the loop's hearing of it, something is still under way."""

    async def main() -> int:
        total = 0
        for n in range(300):
            total += await asyncio.to_thread(lambda n=n: n)
        return total

    assert run(main) == sum(range(300))


def test_an_executor_of_ones_own_counts_too() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            await loop.run_in_executor(pool, sum, [1, 2])
        return loop.time()

    assert run(main) == 0.0


def test_the_clock_waits_for_a_thread_whose_future_was_cancelled() -> None:
    async def main() -> list[str]:
        loop, order, go = asyncio.get_running_loop(), list[str](), threading.Event()

        def work() -> None:
            go.wait(5)
            loop.call_soon_threadsafe(order.append, "thread")

        future = loop.run_in_executor(None, work)
        await asyncio.sleep(0)
        future.cancel()
        loop.call_later(1, order.append, "timer")
        loop.call_soon(go.set)
        await asyncio.sleep(2)
        return order

    assert run(main) == ["thread", "timer"]


def test_hold_waits_for_threads_that_the_loop_cannot_know() -> None:
    async def main() -> float:
        loop = virtual_loop()
        done = asyncio.Event()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(done.set))
        timer = loop.call_later(5, lambda: None)
        with loop.hold():
            thread.start()
            await done.wait()
        thread.join()
        timer.cancel()
        return loop.time()

    assert run(main) == 0.0


def test_a_thread_that_never_ends_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "THREAD_LIMIT", 0.01)
    go = threading.Event()

    async def main() -> None:
        try:
            await asyncio.to_thread(go.wait, 5)
        finally:
            go.set()

    with pytest.raises(DeadlockError, match="thread"):
        run(main)


def test_descriptors_that_are_ready_come_before_a_jump() -> None:
    async def main() -> tuple[bytes, float]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            got: asyncio.Future[bytes] = loop.create_future()
            loop.add_reader(ours, lambda: got.set_result(ours.recv(10)))
            theirs.send(b"hello")
            async with asyncio.timeout(60):
                data = await got
            loop.remove_reader(ours)
            return data, loop.time()

    assert run(main) == (b"hello", 0.0)
