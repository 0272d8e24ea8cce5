"""A pool of sockets, to a server that is not ours."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from everwire import (
    ClientLimits,
    ClosedError,
    ClosedOK,
    ConfigError,
    NotSent,
    OutboxFull,
    Socket,
    SocketPool,
)
from everwire.net.attempts import Attempts
from everwire.protocol.states import ConnectionState as State
from everwire.testing import Direction, Network

from .pool_world import SWIFT
from .socket_world import Server, echo
from .world import loop, play, until

URLS = [f"ws://n{number}/" for number in range(3)]


class Servers:
    """Three of them, each of which may be down."""

    def __init__(self, *, on_message: Any = None, latency: float = 0.01) -> None:
        self.network = Network(latency=latency)
        self.network.attempts = Attempts(None)
        self.on_message = on_message
        self.got: list[Server] = [self._server(url) for url in URLS]

    def _server(self, url: str) -> Server:
        return Server(self.network, self.on_message, url=url)

    def pool(self, **options: Any) -> SocketPool:
        options.setdefault("limits", SWIFT)
        options.setdefault("min_ready", 3)
        return SocketPool(
            URLS, network=self.network, random=loop().random, wall=loop().wall, **options
        )

    def down(self, number: int) -> None:
        self.got[number].listener.close()
        for link in self.links(number):
            link.cut()

    def up(self, number: int) -> None:
        before = self.got[number]
        self.got[number] = after = self._server(URLS[number])
        after.peers[:0] = before.peers

    def links(self, number: int) -> list[Any]:
        return [link for link in self.network.links if link.host.startswith(f"n{number}:")]

    @property
    def counts(self) -> list[int]:
        return [len(server.messages) for server in self.got]


def test_what_is_sent_goes_round_and_what_comes_is_one_stream() -> None:
    async def scenario() -> None:
        there = Servers(on_message=echo)
        async with there.pool() as pool:
            for n in range(9):
                await pool.send(str(n))
            got = [await pool.recv_from() for _ in range(9)]
            assert there.counts == [3, 3, 3]
            assert {number for number, _ in got} == {0, 1, 2}
            assert sorted(message for _, message in got) == [str(n) for n in range(9)]
            for number in range(3):
                mine = [message for where, message in got if where == number]
                assert mine == there.got[number].messages
            await pool.send_json({"n": 1})
            await pool.send_nowait(b"\x00")
            assert {await pool.recv(), await pool.recv()} == {'{"n":1}', b"\x00"}
            assert pool.stats.sent == 11 and pool.stats.received == 11
            assert pool.stats.opened == 3 and pool.stats.attempts == 3
            assert "ready=3/3" in repr(pool)

    play(scenario)


def test_what_has_a_key_goes_over_one_socket() -> None:
    async def scenario() -> None:
        there = Servers()
        async with there.pool() as pool:
            for n in range(12):
                await pool.send(str(n), key="a")
            await until(lambda: sum(there.counts) == 12)
            assert sorted(there.counts) == [0, 0, 12]
            for n in range(60):
                pool.send_nowait("x", key=f"k{n}")
            await until(lambda: sum(there.counts) == 72)
            assert min(there.counts) >= 8

    play(scenario)


def test_a_socket_without_connection_is_passed_over() -> None:
    async def scenario() -> None:
        there = Servers()
        async with there.pool() as pool:
            there.down(0)
            await until(lambda: pool.members[0].state is not State.READY)
            assert pool.state is State.READY
            for n in range(8):
                await pool.send(str(n))
                await pool.send(str(n), key=f"k{n}")
            await until(lambda: sum(there.counts) == 16)
            assert there.counts[0] == 0

    play(scenario)


def test_without_any_connection_it_waits_and_goes_out_over_the_first() -> None:
    async def scenario() -> None:
        there = Servers()
        async with there.pool() as pool:
            for number in range(3):
                there.down(number)
            await until(lambda: all(member.quarantined for member in pool.members))
            keyed = [pool.send_nowait(str(n), key="k") for n in range(5)]
            free = [asyncio.ensure_future(pool.send("x")) for _ in range(5)]
            dropped = asyncio.ensure_future(pool.send("never"))
            await asyncio.sleep(3)
            assert not any(one.done() for one in (*keyed, *free))
            assert pool.state is not State.READY
            there.up(1)
            await until(lambda: pool.state is State.READY)
            dropped.cancel()
            await asyncio.wait([*keyed, *free])
            await until(lambda: sum(there.counts) >= 10)
            mine = [one for one in there.got[1].messages if one not in ("x", "never")]
            assert mine == ["0", "1", "2", "3", "4"]
            assert not pool._core.members._routes

    play(scenario)


def test_what_was_moved_can_be_taken_back() -> None:
    """The task that waits was begun on one socket; its message is in another's queue."""

    async def scenario() -> None:
        there = Servers()

        def congested(socket: Socket) -> None:
            for link in there.links(2):
                link.freeze(Direction.TO_SERVER)

        async with there.pool() as pool:
            for number in range(3):
                there.down(number)
            await until(lambda: all(member.quarantined for member in pool.members))
            there.network.window = 1
            waiting = [asyncio.ensure_future(pool.send("x" * 100_000)) for _ in range(6)]
            await asyncio.sleep(0)
            assert [member.queued for member in pool.members] == [2, 2, 2]
            pool.sockets[2].on_open = lambda: congested(pool.sockets[2])
            there.up(2)
            await until(lambda: pool.members[2].state is State.READY)
            assert [member.queued for member in pool.members] == [0, 0, 6]
            for one in waiting:
                one.cancel()
            await asyncio.wait(waiting)
            for link in there.links(2):
                link.thaw()
            await asyncio.sleep(1)
            assert len(there.got[2].messages) == 1  # it had begun to leave

    play(scenario)


def test_what_waits_moves_when_its_socket_ends() -> None:
    limits = ClientLimits(backoff_base=0.2, backoff_cap=1.0, outbox_messages=3, outbox_block=60.0)

    async def scenario() -> None:
        there = Servers()
        async with there.pool(min_ready=3, limits=limits) as pool:
            for number in range(3):
                there.down(number)
            await until(lambda: all(member.failures for member in pool.members))
            futures = [pool.send_nowait(str(n), key="k") for n in range(3)]
            home = next(member.number for member in pool.members if member.queued)
            waits = asyncio.ensure_future(pool.send("3", key="k"))  # for room
            await asyncio.sleep(0)
            core = list(pool._core.members)[home].connection
            core._finish(ClosedError(1008, "out"))
            core._tasks.cancel_all()
            later = asyncio.ensure_future(pool.send("4", key="k"))
            await asyncio.sleep(0)
            for number in range(3):
                if number != home:
                    there.up(number)
            await asyncio.wait([*futures, waits, later])
            await until(lambda: sum(there.counts) == 5)
            assert max((server.messages for server in there.got), key=len) == list("01234")

    play(scenario)


def test_ttl_and_room_are_those_of_a_socket() -> None:
    async def scenario() -> None:
        there = Servers()
        dropped: list[Any] = []
        limits = ClientLimits(outbox_messages=1, outbox_block=1.0)
        async with there.pool(
            limits=limits, on_drop=lambda data, error: dropped.append((data, type(error)))
        ) as pool:
            for number in range(3):
                there.down(number)
            await asyncio.sleep(0.1)
            first = pool.send_nowait("1", ttl=0.5, key="k")
            with pytest.raises(OutboxFull):
                pool.send_nowait("2", key="k")
            with pytest.raises(NotSent):
                await first
            assert dropped == [("1", NotSent)]
            assert not pool._core.members._routes

    play(scenario)


def test_reading_slowly_holds_up_the_servers_not_the_memory() -> None:
    async def scenario() -> None:
        there = Servers()
        limits = ClientLimits(queue_messages=10)
        async with there.pool(limits=limits) as pool:
            for server in there.got:
                for n in range(200):
                    server.peers[0].send(str(n))
            await asyncio.sleep(1)
            held = sum(len(socket._core.inbox) for socket in pool.sockets)
            assert held < 100
            got = Counter([(await pool.recv_from())[0] for _ in range(600)])
            assert got == {0: 200, 1: 200, 2: 200}

    play(scenario)


def test_no_socket_keeps_the_others_from_being_read() -> None:
    async def scenario() -> None:
        there = Servers()
        async with there.pool() as pool:
            for _ in range(100):
                there.got[0].peers[0].send("flood")
            there.got[1].peers[0].send("once")
            await asyncio.sleep(0.1)
            assert "once" in [await pool.recv() for _ in range(2)]

    play(scenario)


def test_several_may_receive_and_cancelling_loses_nothing() -> None:
    async def scenario() -> None:
        there = Servers()
        async with there.pool() as pool:
            readers = [asyncio.ensure_future(pool.recv()) for _ in range(3)]
            await asyncio.sleep(0.1)
            readers[0].cancel()
            for number in range(3):
                there.got[number].peers[0].send(str(number))
            await asyncio.sleep(0.1)
            assert {readers[1].result(), readers[2].result(), await pool.recv()} == {"0", "1", "2"}

    play(scenario)


def test_hooks_are_told_of_each_socket() -> None:
    async def scenario() -> None:
        there = Servers()
        opened: list[Socket] = []
        states: list[State] = []

        def subscribe(socket: Socket) -> None:
            opened.append(socket)
            socket.send_nowait("subscribe")

        async with there.pool(on_open=subscribe, on_state=states.append) as pool:
            await until(lambda: sum(there.counts) == 3)
            there.links(1)[0].cut()
            await until(lambda: len(opened) == 4)
            assert set(opened) == set(pool.sockets)
            await until(lambda: sum(there.counts) == 4)
            pool.on_state = None
        assert states == [State.READY]

    play(scenario)


def test_what_came_can_be_read_after_the_end() -> None:
    async def scenario() -> None:
        there = Servers()
        pool = await there.pool()
        there.got[2].peers[0].send("last words")
        await asyncio.sleep(0.1)
        await pool.close(4000, "bye")
        assert [message async for message in pool] == ["last words"]
        assert [server.peers[0].close_code for server in there.got] == [4000] * 3
        with pytest.raises(ClosedOK):
            await pool.recv()
        with pytest.raises(ClosedOK):
            await pool.send("x")
        assert pool.state is State.CLOSED

    play(scenario)


def test_all_ended_for_good_iteration_raises_why() -> None:
    async def scenario() -> None:
        there = Servers()
        async with there.pool() as pool:
            for server in there.got:
                server.peers[0].send("x")
                server.peers[0].close(1008, "policy")
            with pytest.raises(ClosedError) as error:
                async for message in pool:
                    assert message == "x"
            assert error.value.code == 1008
            assert pool.stats.received == 3

    play(scenario)


def test_entering_fails_when_nobody_listens() -> None:
    async def scenario() -> None:
        there = Servers()
        there.network.refuse = True
        with pytest.raises(ConnectionRefusedError) as error:
            await there.pool(timeout=3.0)
        assert "3 of 3 members" in "".join(error.value.__notes__)
        with pytest.raises(ConfigError):
            there.pool(size=99)
        with pytest.raises(ConfigError):
            await there.pool().recv()

    play(scenario)
