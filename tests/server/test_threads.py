"""Handlers that are plain functions run in threads: real ones here, on a real server.

The loop is in debug mode, in which asyncio refuses to be used from another thread.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from typing import Any

import pytest

from everwire import (
    BadData,
    Client,
    ClosedError,
    ConfigError,
    Connection,
    Everwire,
    Grant,
    Identity,
    Position,
    RequestError,
    Unauthorized,
    connect,
    from_thread,
)
from everwire.protocol import messages as m

from .peer import open_app

Scenario = Callable[[Client], Coroutine[Any, Any, None]]


@asynccontextmanager
async def talking(wire: Everwire, token: str | None = None) -> AsyncIterator[Client]:
    async with wire.listen("127.0.0.1", 0) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/ws", token=token) as client:
            yield client


def on_sockets(wire: Everwire, scenario: Scenario, *, defects: int = 0) -> None:
    async def main() -> None:
        async with talking(wire) as client:
            node = wire.node
            await scenario(client)
            assert node.counters["defects"] == defects

    asyncio.run(main(), debug=True)


def test_a_plain_handler_publishes_from_its_thread_and_gets_what_is_returned_or_raised() -> None:
    wire = open_app()
    threads: list[threading.Thread] = []

    @wire.command
    def say(conn: Connection, text: str) -> Position:
        threads.append(threading.current_thread())
        return from_thread.run(wire.publish, "c", {"by": conn.user, "text": text}, id="once")

    @wire.command
    def blunder(conn: Connection) -> str:
        try:
            from_thread.run(wire.publish, "c", object())
        except BadData as error:
            return str(error)
        return ""

    async def scenario(client: Client) -> None:
        position = await client.command("say", {"text": "hi"}, type=Position)
        (record,) = (await wire.history("c")).records
        assert (record.epoch, record.offset) == (position.epoch, position.offset)
        assert "cannot be put on the wire" in await client.command("blunder", type=str)
        assert threads[0] is not threading.main_thread()

    on_sockets(wire, scenario)


COROUTINES = [
    name
    for name, value in inspect.getmembers(Everwire)
    if not name.startswith("_") and inspect.iscoroutinefunction(inspect.unwrap(value))
]


def test_a_coroutine_that_a_thread_cannot_await_refuses_to_be_called_and_names_the_remedy() -> None:
    """It would return a coroutine, and do nothing, without a word."""
    wire = open_app()

    @wire.query
    def forgetful(conn: Connection) -> list[str]:
        told = []
        for call in [*(getattr(wire, name) for name in COROUTINES), conn.writable]:
            with pytest.raises(RuntimeError, match=rf"from_thread.run\(….{call.__name__}") as error:
                call()
            told.append(str(error.value))
        return told

    async def scenario(client: Client) -> None:
        told = await client.query("forgetful", type=list[str])
        assert len(told) == len(COROUTINES) + 1

    assert {"publish", "history", "presence"} <= set(COROUTINES)
    on_sockets(wire, scenario)


def test_the_loop_is_found_from_to_thread_in_an_async_handler_too() -> None:
    wire = open_app()

    def blocking() -> int:
        with pytest.raises(RuntimeError, match="from_thread"):
            wire.publish("c", 1)  # type: ignore[unused-coroutine]
        return from_thread.run(wire.publish, "c", 1).offset

    @wire.query
    async def ask(conn: Connection) -> int:
        return await asyncio.to_thread(blocking)

    async def scenario(client: Client) -> None:
        assert await client.query("ask", type=int) == 1

    on_sockets(wire, scenario)


def test_what_a_thread_tells_a_connection_to_do_is_done_on_the_loop() -> None:
    wire = open_app()

    @wire.query
    def shout(conn: Connection) -> None:
        conn.send(m.Event("shouted", {"n": 1}))
        assert "READY" in str(conn.state).upper()

    @wire.event
    def leave(conn: Connection) -> None:
        conn.close(4504, "as you wish")

    async def scenario(client: Client) -> None:
        heard: list[tuple[str, Any]] = []
        client.on_event = lambda name, data: heard.append((name, data))
        await client.query("shout")
        assert heard == [("shouted", {"n": 1})]
        await client.event("leave", {})
        with pytest.raises(ClosedError) as closed:
            while True:
                await client.query("shout")
        assert closed.value.code == 4504

    on_sockets(wire, scenario)


def test_no_method_of_a_connection_runs_in_the_thread_that_calls_it() -> None:
    """Whatever methods it has, or is given one day."""
    wire = open_app()
    methods = [
        name
        for name, value in inspect.getmembers(Connection, inspect.isfunction)
        if not name.startswith("_")
    ]
    assert {"close", "send", "respond", "refuse", "hold_reading"} <= set(methods)

    @wire.query
    def look(conn: Connection) -> None:
        for name in methods:
            assert not inspect.ismethod(getattr(conn, name)), name
        conn.hold_reading()
        assert conn.held_reading == 1
        conn.release_reading()
        with pytest.raises(AttributeError):
            conn.no_such_thing  # type: ignore[attr-defined]  # noqa: B018
        with pytest.raises(AttributeError):
            conn.paused = True

    async def scenario(client: Client) -> None:
        await client.query("look")

    on_sockets(wire, scenario)


def test_a_connection_is_the_same_one_in_threads_and_on_the_loop() -> None:
    wire = open_app()
    kept: list[Connection] = []

    @wire.query
    def note(conn: Connection) -> str:
        assert isinstance(conn, Connection)
        kept.append(conn)
        return repr(conn)

    @wire.query
    async def compare(conn: Connection) -> str:
        (seen,) = kept
        assert seen == conn
        assert conn == seen
        assert conn in {None, seen}
        assert seen in {None, conn}
        assert seen != object()
        await seen.writable()
        seen.send(m.Event("from-the-loop", None))
        return repr(conn)

    async def scenario(client: Client) -> None:
        assert await client.query("note", type=str) == await client.query("compare", type=str)

    on_sockets(wire, scenario)


def decorated(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """As people write it: plain, around a coroutine function."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        return function(*args, **kwargs)

    return call


def test_a_plain_function_that_returns_a_coroutine_is_awaited() -> None:
    wire = open_app()

    @wire.query
    @decorated
    async def ask(conn: Connection) -> int:
        return (await wire.publish("c", 1)).offset

    async def scenario(client: Client) -> None:
        assert await client.query("ask", type=int) == 1

    on_sockets(wire, scenario)


def test_a_plain_handler_that_raises_anything_is_answered_and_not_waited_for() -> None:
    """Also StopIteration, which no future can hold."""
    wire = open_app()

    @wire.query
    def first(conn: Connection) -> Any:
        return next(iter([]))

    @wire.query
    def refuse(conn: Connection) -> None:
        raise RequestError("not today", code=501)

    async def scenario(client: Client) -> None:
        for name, code in (("first", 500), ("refuse", 501)):
            with pytest.raises(RequestError) as refused:
                await client.query(name, timeout=5)
            assert refused.value.code == code

    on_sockets(wire, scenario, defects=1)


def test_another_loop_cannot_be_used_by_mistake() -> None:
    wire = open_app()
    caught: list[str] = []

    def attempt(function: Callable[[], object]) -> None:
        try:
            function()
        except RuntimeError as error:
            caught.append(str(error))

    async def elsewhere() -> None:
        await wire.publish("c", 1)

    @wire.query
    def ask(conn: Connection) -> None:
        attempt(lambda: asyncio.run(elsewhere()))

    async def scenario(client: Client) -> None:
        await client.query("ask")
        thread = threading.Thread(target=attempt, args=(lambda: asyncio.run(elsewhere()),))
        thread.start()
        thread.join()
        attempt(lambda: from_thread.run(wire.publish, "c", 1))  # here one awaits
        assert len(caught) == 3
        assert "from_thread.run" in caught[0]
        assert "run_coroutine_threadsafe" in caught[1]
        assert "await" in caught[2]
        assert not (await wire.history("c")).records
        # And what that names works:
        loop = asyncio.get_running_loop()
        position = await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(wire.publish("c", 1), loop).result()
        )
        assert position.offset == 1

    on_sockets(wire, scenario)


def test_a_plain_authenticate_and_a_plain_channel_handler_reach_the_loop_too() -> None:
    wire = Everwire()

    @wire.authenticate
    def who(token: str) -> Identity:
        if not from_thread.run(wire.history, "log:x").records:
            raise Unauthorized("nobody has written that down")
        return Identity(token)

    @wire.channel("log:{name}")
    def log(conn: Connection, name: str) -> Grant:
        from_thread.run(wire.publish, "log:x", f"{conn.user} asked for {name}")
        return Grant(publish=True)

    async def main() -> None:
        async with wire.listen("127.0.0.1", 0) as server:
            await wire.publish("log:x", "begin")
            url = f"ws://127.0.0.1:{server.port}/ws"
            async with connect(url, token="ada") as client:
                await client.publish("log:y", 1)
            said = [record.payload for record in (await wire.history("log:x")).records]
            assert len(said) == 2
            assert b"ada asked for y" in said[1]

    asyncio.run(main(), debug=True)


def test_many_threads_at_once_lose_and_disorder_nothing() -> None:
    wire = open_app()

    @wire.query
    def work(conn: Connection, worker: int) -> list[int]:
        channel = f"c-{worker}"
        return [from_thread.run(wire.publish, channel, n).offset for n in range(50)]

    async def scenario(client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(client.query("work", {"worker": n}, type=list[int], timeout=30))
                for n in range(20)
            ]
        assert all(task.result() == list(range(1, 51)) for task in tasks)

    on_sockets(wire, scenario)


def test_a_thread_that_works_when_the_server_stops_is_told_and_ends() -> None:
    wire = open_app()
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    @wire.query
    def slow(conn: Connection) -> None:
        began.set()
        go_on.wait(20)
        try:
            conn.close(4504)  # long gone: nothing to do
            from_thread.run(wire.publish, "c", 1)
        except Exception as error:  # noqa: BLE001 (the test looks at it)
            raised.append(error)
        ended.set()

    async def main() -> None:
        async with talking(wire) as client:
            asked = asyncio.get_running_loop().create_task(client.query("slow", timeout=30))
            await asyncio.to_thread(began.wait, 20)
            asked.cancel()
        go_on.set()

    asyncio.run(main(), debug=True)
    assert ended.is_set()
    # As the application, or already the loop has ended:
    assert isinstance(raised[0], (ConfigError, CancelledError))
