"""What cancelling does to a handler in a thread: real threads, on a real server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from everwire import Client, Connection, RequestTimeout, connect
from everwire.handling.threads import in_thread
from everwire.server.node import Node

from .peer import open_app


class Work:
    """A handler in a thread, which goes on when it is told to."""

    def __init__(self) -> None:
        self.wire = open_app()
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)
        self.ended: list[int] = []
        self.wire.query(concurrency=2)(self.slow)

    def slow(self, conn: Connection, n: int, fails: bool = False) -> int:
        self.begun.release()
        self.go_on.wait(20)
        self.ended.append(n)
        if fails:
            raise RuntimeError("late")
        return n

    slow.__name__ = "slow"

    def play(self, scenario: Callable[[Client, Node], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with self.wire.listen("127.0.0.1", 0) as server:
                url = f"ws://127.0.0.1:{server.port}/ws"
                async with connect(url) as client:
                    try:
                        await scenario(client, self.wire.node)
                    finally:
                        self.go_on.set()

        asyncio.run(main(), debug=True)

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=20)


def ask(client: Client, n: int, **more: Any) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(client.query("slow", {"n": n, **more}))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_its_caller_is_answered_at_once_and_the_thread_runs_to_its_end_for_nobody() -> None:
    work = Work()

    async def scenario(client: Client, node: Node) -> None:
        for n, fails in ((1, False), (2, True)):
            asking = ask(client, n, fails=fails)
            await work.until_begun()
            asking.cancel()
            await asyncio.wait([asking])
        # Answered, both of them: nothing is in flight any more, and the threads still run.
        await until(lambda: len(node.working) == 0)
        assert node.app.stats().refused == {"cancelled": 2}
        assert work.ended == []
        work.go_on.set()
        await until(lambda: sorted(work.ended) == [1, 2])
        assert await client.query("slow", {"n": 3}) == 3
        assert node.counters["defects"] == 0  # nobody was there to be told of it

    work.play(scenario)


def test_a_turn_is_kept_until_the_thread_has_ended() -> None:
    """Otherwise callers that give up would let in more threads than there are turns."""
    work = Work()

    async def scenario(client: Client, node: Node) -> None:
        first = [ask(client, 1), ask(client, 2)]
        for _ in first:
            await work.until_begun()
        for asking in first:
            asking.cancel()
        await until(lambda: len(node.working) == 0)
        third = ask(client, 3)
        with pytest.raises(RequestTimeout):
            await client.query("slow", {"n": 4}, timeout=0.3)
        await until(lambda: len(node.working) == 1)  # the server's clock is a little behind
        assert not third.done()
        assert work.ended == []
        work.go_on.set()
        assert await third == 3
        assert sorted(work.ended) == [1, 2, 3]

    work.play(scenario)


def test_a_call_that_no_thread_was_free_for_never_runs_and_gives_its_turn_back() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        go_on = threading.Event()
        told: list[str] = []
        ran: list[str] = []

        def first() -> None:
            go_on.wait(20)
            ran.append("first")

        busy = loop.create_task(in_thread(first, lambda: told.append("first")))
        await asyncio.sleep(0)
        waiting = loop.create_task(
            in_thread(lambda: ran.append("second"), lambda: told.append("second"))
        )
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert told == ["second"]
        go_on.set()
        await busy
        await until(lambda: len(told) == 2)
        await in_thread(lambda: time.sleep(0))  # whatever was queued is done
        assert (told, ran) == (["second", "first"], ["first"])

    asyncio.run(main())
