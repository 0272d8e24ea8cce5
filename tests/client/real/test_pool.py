"""Pools over real sockets, to servers in other processes that are killed and started again."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from everwire import ClientLimits, Gap, Message, Pool, SocketPool
from everwire.net.attempts import Attempts
from everwire.net.websocket import PicowsNetwork
from everwire.protocol.states import ConnectionState as State

from ..world import until
from .test_socket import QUICK, Server, play

APPLICATION = """
from everwire import Connection, Everwire, Grant, Identity
wire = Everwire()
@wire.authenticate
async def user(token: str) -> Identity:
    return Identity(token)
wire.channel("{name}", history=10_000, grant=Grant(publish=True))
@wire.query
async def who(conn: Connection) -> str:
    return conn.id
"""
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


def network() -> PicowsNetwork:
    """With a budget of attempts of its own: the tests of a process are not one application."""
    return PicowsNetwork(Attempts(None))


@LOOPS
def test_a_server_is_killed_and_comes_back(
    serve: Callable[..., Any], tmp_path: Path, free_port: int, run: Callable[..., Any]
) -> None:
    """What is acknowledged by the second process it holds once, and in order."""
    (tmp_path / "rooms.py").write_text(APPLICATION)
    channels = [f"c{n}" for n in range(6)]

    def up() -> Any:
        return serve("serve", "rooms:wire", port=free_port, cwd=tmp_path)

    async def publish(pool: Pool, channel: str, acked: list[Any], stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            some = [pool.publish_nowait(channel, number + n) for n in range(20)]
            acked += [await future for future in some]
            number += 20
            await asyncio.sleep(0.005)

    async def scenario() -> None:
        served = await asyncio.to_thread(up)
        limits = ClientLimits(
            first_retry=0.1, backoff_base=0.1, backoff_cap=0.3, backoff_floor=0.05
        )
        acked: dict[str, list[Any]] = {channel: [] for channel in channels}
        stop = asyncio.Event()
        items: list[Message | Gap] = []
        async with Pool(
            served.url, 3, token="ada", min_ready=3, limits=limits, network=network()
        ) as pool, asyncio.TaskGroup() as group:  # fmt: skip
            room = await pool.subscribe("c0").__aenter__()

            async def read() -> None:
                async for item in room:
                    items.append(item)  # noqa: PERF401  # as they come

            reading = group.create_task(read())
            for channel in channels:
                group.create_task(publish(pool, channel, acked[channel], stop))
            await until(lambda: all(len(one) > 200 for one in acked.values()), within=20)
            await asyncio.to_thread(served.child.kill)
            await until(lambda: pool.state is not State.READY, within=10)
            served = await asyncio.to_thread(up)
            await until(lambda: pool.state is State.READY, within=10)
            before = {channel: len(one) for channel, one in acked.items()}
            await until(
                lambda: all(len(one) > before[channel] + 200 for channel, one in acked.items()),
                within=20,
            )
            stop.set()
            await until(lambda: all(member.queued == 0 for member in pool.members), within=10)
            await until(lambda: all(one.state is State.READY for one in pool.members), within=10)
            assert len({await pool.query("who") for _ in range(30)}) >= 2
            for channel in channels:
                held = await pool.history(channel, limit=10_000)
                epoch = held[0].position.epoch if held[0].position else ""
                second = [ack for ack in acked[channel] if ack.position.epoch == epoch]
                assert len(second) >= 200
                offsets = [ack.position.offset for ack in second]
                assert offsets == list(range(1, len(second) + 1))
                assert [one.id for one in held] == [ack.id for ack in second[-len(held) :]]
                assert not any(ack.duplicate for ack in second)
                data = [one.data for one in held]
                assert data == list(range(data[0], data[0] + len(data)))
            await until(lambda: items[-1].position == acked["c0"][-1].position, within=10)
            assert [item.reason for item in items if isinstance(item, Gap)] == ["epoch"]
            spread = Counter(member.number for member in pool.members if member.stats.acknowledged)
            assert len(spread) >= 2
            await room.unsubscribe()
            await reading

    play(scenario, run)


@pytest.fixture
def server(request: pytest.FixtureRequest, start: Callable[..., Any], free_port: int) -> Server:
    made = Server(start, request.param, free_port)
    made.up()
    return made


@pytest.mark.parametrize("server", ["ws", "websockets"], indirect=True)
@LOOPS
def test_sockets_to_a_server_that_is_killed_and_comes_back(
    server: Server, run: Callable[..., Any]
) -> None:
    async def scenario() -> None:
        async with SocketPool(
            server.url, 3, min_ready=3, limits=QUICK, network=network()
        ) as pool:  # fmt: skip
            for n in range(30):
                await pool.send(f"first {n}")
                await pool.send(f"keyed {n}", key="k")
            got = [await pool.recv_from() for _ in range(60)]
            turns = Counter(number for number, text in got if str(text).startswith("first"))
            assert turns == {0: 10, 1: 10, 2: 10}
            keyed = [(number, text) for number, text in got if str(text).startswith("keyed")]
            assert [text for _, text in keyed] == [f"keyed {n}" for n in range(30)]
            assert len({number for number, _ in keyed}) == 1
            server.kill()
            await until(lambda: pool.state is not State.READY, within=10)
            waiting = [pool.send_nowait(f"second {n}", key="k") for n in range(10)]
            await asyncio.to_thread(server.up)
            async with asyncio.timeout(10):
                await asyncio.wait(waiting)
                echoed = [await pool.recv() for _ in range(10)]
            assert echoed == [f"second {n}" for n in range(10)]
            await until(lambda: all(one.state is State.READY for one in pool.members), within=10)
            assert pool.stats.opened >= 6

    play(scenario, run)


FORKED = """
import asyncio, os, sys
from contextlib import suppress
from everwire import ConfigError, Pool, Socket, SocketPool, connect

url = sys.argv[1]

async def child(opened, room):
    async def refused(what, call):
        try:
            async with asyncio.timeout(5):
                result = call()
                if asyncio.iscoroutine(result):
                    await result
        except ConfigError as error:
            assert "connect anew in each process" in str(error), error
        else:
            raise AssertionError(f"{what} was not refused")

    for one in opened:
        kind = type(one).__name__
        await refused(f"{kind}.close", one.close)
        if isinstance(one, (Socket, SocketPool)):
            await refused(f"{kind}.send", lambda: one.send("child"))
            await refused(f"{kind}.recv", one.recv)
        else:
            await refused(f"{kind}.publish", lambda: one.publish("c", "child"))
            await refused(f"{kind}.publish_nowait", lambda: one.publish_nowait("c", "child"))
            await refused(f"{kind}.query", lambda: one.query("q"))
            await refused(f"{kind}.event", lambda: one.event("e"))
            await refused(f"{kind}.subscribe", lambda: one.subscribe("x"))
        if not isinstance(one, SocketPool):
            await refused(f"{kind}.drop", one.drop)
    await refused("iterating", lambda: anext(room))
    async with connect(url, token="ada") as own, Pool(url, 2, token="ada") as pool:
        await own.publish("c", "own")
        await pool.publish("c", "own")
    async with unopened as late:
        await late.publish("c", "late")

loop = asyncio.new_event_loop()
enter = lambda one: loop.run_until_complete(one.__aenter__())
client, pool = enter(connect(url, token="ada")), enter(Pool(url, 2, token="ada", min_ready=2))
sockets = [enter(Socket(url)), enter(SocketPool(url, 2, min_ready=2))]
unopened = connect(url, token="ada")
room = loop.run_until_complete(client.subscribe("c").__aenter__())
pid = os.fork()
if not pid:
    try:
        asyncio.run(child([client, pool, *sockets], room))
        for one in (client, sockets[0]):
            link = one._core.session.link
            link.abort()
            assert link.error is None, "the parent's link was touched"
        for task in asyncio.all_tasks(loop):  # as when they are collected
            with suppress(RuntimeError):  # what it would wait for in the end does not come
                task.get_coro().close()
    except BaseException as error:
        print("child:", repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

async def parent():
    status = await asyncio.to_thread(os.waitpid, pid, 0)
    await client.publish("c", "parent")
    await pool.publish("c", "parent")
    got = [(await anext(room)).data for _ in range(5)]
    assert client.stats.reconnects == pool.stats.reconnects == 0
    assert all(one.stats.opened == n for one, n in zip(sockets, (1, 2)))
    for one in (client, pool, *sockets):
        await one.close()
    print("got", got, "child", os.waitstatus_to_exitcode(status[1]), flush=True)

loop.run_until_complete(asyncio.wait_for(parent(), 20))
"""


def test_a_child_that_uses_what_its_parent_opened_is_told(
    serve: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    """It gets an error, opens its own, and the parent's connections are as they were."""
    (tmp_path / "rooms.py").write_text(APPLICATION)
    (tmp_path / "forked.py").write_text(FORKED)
    served = serve("serve", "rooms:wire", cwd=tmp_path)
    child = start([sys.executable, "-W", "ignore", tmp_path / "forked.py", served.url])
    line = child.line("^got .*$")[0]
    assert line == "got ['own', 'own', 'late', 'parent', 'parent'] child 0"
