"""Streams: no faster than they are read, closed when nobody reads, never begun anew in silence."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everwire import (
    BadData,
    ClientLimits,
    ConfigError,
    Connection,
    Everwire,
    Forbidden,
    NotSent,
    ProtocolError,
    RequestError,
    RequestTimeout,
    StreamInterrupted,
)
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Direction, Network

from .world import FAST, Peer, Script, client_to, loop, node_world, play, until, welcome

LOG: list[Any] = []


def declare(wire: Everwire) -> None:
    LOG.clear()

    @wire.query
    async def ticks(
        conn: Connection, n: int, pause: float = 0.0, size: int = 0
    ) -> AsyncIterator[Any]:
        try:
            for number in range(n):
                if pause:
                    await asyncio.sleep(pause)
                LOG.append(number)
                yield number if not size else bytes(size)
        except asyncio.CancelledError:
            LOG.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0.01)  # what a generator cleans up with may be awaited
            LOG.append("closed")

    @wire.query
    async def fails(conn: Connection, how: str) -> AsyncIterator[int]:
        yield 1
        if how == "refuses":
            raise Forbidden("no further")
        if how == "odd":
            yield object()  # type: ignore[misc]
        raise ValueError("s3cret")

    @wire.query
    async def stubborn(conn: Connection) -> AsyncIterator[int]:
        n = 0
        while True:
            try:
                await asyncio.sleep(0.5)
            except asyncio.CancelledError:
                LOG.append("ignored")
            n += 1
            yield n

    @wire.query
    async def once(conn: Connection, answer: Any = None) -> Any:
        return answer


def settled(world: Any) -> bool:
    """The server works on nothing any more."""
    return all(not one.streams and not one.inflight for one in world.node.connections.values())


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_parts_come_in_order_as_the_type_asked_for_and_end(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(dialect=dialect) as client:
            got = [part async for part in client.stream("ticks", {"n": 100}, type=int)]
            assert got == list(range(100))
            assert [part async for part in client.stream("ticks", {"n": 0})] == []
            assert [part async for part in client.stream("ticks", {"n": 2, "size": 3})] == [
                b"\0\0\0",
                b"\0\0\0",
            ]
            async with client.stream("ticks", {"n": 2}, type=int) as stream:
                assert await anext(stream) == 0
                assert await anext(stream) == 1
                for _ in range(2):
                    with pytest.raises(StopAsyncIteration):
                        await anext(stream)
            await until(lambda: settled(world))
            assert not client._core.streams

    play(scenario)


def test_the_handler_is_asked_for_no_more_than_the_client_has_room_for() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            async with client.stream("ticks", {"n": 1_000}, type=int) as stream:
                await asyncio.sleep(5)
                assert list(range(16)) == LOG
                for expected in range(500):
                    assert await anext(stream) == expected
                    assert LOG[-1] <= expected + 16
                await asyncio.sleep(5)
                assert LOG[-1] <= 499 + 16
                assert stream.received <= 516

    play(scenario)


def test_large_parts_are_let_come_by_their_bytes() -> None:
    """After the first sixteen, which nobody can know the size of."""

    async def scenario() -> None:
        limits = ClientLimits(stream_bytes=100_000)
        async with node_world(declare) as world, world.client(limits=limits) as client:
            async with client.stream("ticks", {"n": 60, "size": 30_000}) as stream:
                await asyncio.sleep(1)
                for _ in range(16):
                    await anext(stream)
                await asyncio.sleep(1)
                assert len(LOG) - 16 <= 3  # times 30 000 bytes
                taken = 16
                async for part in stream:
                    assert len(part) == 30_000
                    taken += 1
                    await asyncio.sleep(0.1)
                    ahead = sum(one not in ("closed", "cancelled") for one in LOG) - taken
                    assert ahead <= 3
                assert taken == 60

    play(scenario)


def test_the_server_keeps_no_more_for_a_reader_that_does_not_read_than_its_write_limit() -> None:
    async def scenario() -> None:
        limits = Limits(message=300_000, write_high=400_000, write_low=50_000)
        async with node_world(declare, limits=limits, window=10_000) as world:
            async with world.client() as client:
                world.connection().transport.set_write_limits(400_000, 50_000)
                async with client.stream("ticks", {"n": 16, "size": 250_000}) as stream:
                    world.network.links[0].freeze(Direction.TO_CLIENT)
                    await asyncio.sleep(5)
                    assert world.connection().transport.write_buffer_size() < 700_000
                    assert len(LOG) <= 3
                    world.network.links[0].thaw()
                    assert len([part async for part in stream]) == 16

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
@pytest.mark.parametrize("way", ["break", "aclose", "cancel", "forget", "raise"])
@pytest.mark.parametrize("where", ["waiting", "at rest"])
def test_leaving_closes_the_handler(way: str, where: str, dialect: str) -> None:
    """Whether it waits for something of its own, or for credit."""

    async def scenario() -> None:
        pause = 3.0 if where == "waiting" else 0.0
        payload = {"n": 1_000, "pause": pause}
        async with node_world(declare) as world, world.client(dialect=dialect) as client:

            async def read() -> None:
                if way == "forget":
                    async for _ in client.stream("ticks", payload):
                        break
                    gc.collect()
                    return
                async with client.stream("ticks", payload) as stream:
                    async for _ in stream:
                        if way == "break":
                            break
                        if way == "aclose":
                            await stream.aclose()
                        if way == "raise":
                            raise KeyError(1)
                        if way == "cancel" and where == "at rest":
                            await asyncio.Event().wait()

            task = asyncio.get_running_loop().create_task(read())
            await asyncio.sleep(4)
            task.cancel()
            await asyncio.wait([task])
            assert (not task.cancelled() and task.exception() is not None) == (way == "raise")
            await until(lambda: LOG and LOG[-1] == "closed", within=1)
            assert ("cancelled" in LOG) == (where == "waiting")
            assert settled(world)
            assert not client._core.streams
            link = client._core.session.link
            assert link is not None
            assert not link._waiting
            assert await client.query("once", {"answer": 5}) == 5
            assert client.stats.reconnects == 0

    play(scenario)


def test_a_dropped_link_ends_the_stream_and_says_how_many_parts_came() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client(limits=FAST) as client:
            got: list[int] = []
            with pytest.raises(StreamInterrupted, match="after 5 parts") as error:
                async for part in client.stream("ticks", {"n": 100, "pause": 1.0}, type=int):
                    got.append(part)
                    if part == 3:
                        await asyncio.sleep(1.5)  # one more comes, and is not lost
                        client.drop()
            assert got == [0, 1, 2, 3, 4]
            assert error.value.parts == 5
            await until(lambda: LOG[-1] == "closed", within=1)
            await asyncio.sleep(10)
            assert LOG[:5] == [0, 1, 2, 3, 4]
            assert LOG.count(0) == 1  # and it was not begun anew
            assert await client.query("once", {"answer": 1}) == 1

    play(scenario)


def test_the_end_of_the_client_ends_the_stream() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world:
            client = await world.client()
            stream = client.stream("ticks", {"n": 100, "pause": 1.0})
            assert await anext(stream) == 0
            await client.close()
            with pytest.raises(StreamInterrupted) as error:
                await anext(stream)
            assert error.value.parts == 1
            await until(lambda: LOG[-1] == "closed", within=1)

    play(scenario)


def test_an_error_in_the_middle_comes_after_the_parts_before_it() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            stream = client.stream("fails", {"how": "refuses"})
            assert await anext(stream) == 1
            with pytest.raises(Forbidden, match="no further"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            for how in ("breaks", "odd"):
                stream = client.stream("fails", {"how": how})
                assert await anext(stream) == 1
                with pytest.raises(RequestError) as error:
                    await anext(stream)
                assert error.value.code == ErrorCode.INTERNAL
                assert "s3cret" not in str(error.value)
            with pytest.raises(RequestError) as error:
                await anext(client.stream("ticks", {"m": 1}))
            assert error.value.code == ErrorCode.BAD_REQUEST
            with pytest.raises(RequestError) as error:
                await anext(client.stream("no such"))
            assert error.value.code == ErrorCode.UNKNOWN_TYPE
            assert world.node.counters.pop("defects") == 2

    play(scenario)


def test_the_time_is_for_each_part_and_stands_still_while_nobody_reads() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            slow = client.stream("ticks", {"n": 5, "pause": 2.0}, timeout=3)
            assert [part async for part in slow] == [0, 1, 2, 3, 4]  # ten seconds in all

            at_rest = client.stream("ticks", {"n": 40}, timeout=1)
            assert await anext(at_rest) == 0
            await asyncio.sleep(30)
            assert [part async for part in at_rest] == list(range(1, 40))

            await until(lambda: settled(world), within=1)
            LOG.clear()
            began = loop().time()
            with pytest.raises(RequestTimeout):
                await anext(client.stream("ticks", {"n": 5, "pause": 60.0}, timeout=2))
            assert loop().time() - began == pytest.approx(2, abs=0.1)
            await asyncio.sleep(1)
            assert LOG == ["cancelled", "closed"]

            world.network.refuse = True
            client.drop()
            await asyncio.sleep(0.1)
            with pytest.raises(NotSent):
                await anext(client.stream("ticks", {"n": 5}))

    play(scenario)


def test_the_server_enforces_the_time_too() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            link = client._core.session.link
            assert link is not None
            answers: list[Any] = []
            message = m.Query(link.next_id(), "ticks", {"n": 9, "pause": 60.0}, 1_500, stream=True)
            link.ask(
                message.id, link.encode(message), lambda _, answer: answers.append(answer), None
            )
            await asyncio.sleep(2)
            (error,) = answers
            assert (error.code, LOG) == (ErrorCode.TIMEOUT, ["cancelled", "closed"])

    play(scenario)


def test_a_handler_that_will_not_be_cancelled_is_closed_nevertheless() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            async with client.stream("stubborn") as stream:
                assert await anext(stream) == 1
            await until(lambda: settled(world), within=5)
            with pytest.raises(RequestTimeout):
                await anext(client.stream("stubborn", timeout=0.2))
            await until(lambda: settled(world), within=5)
            world.node.counters.pop("defects", None)

    play(scenario)


def test_what_does_not_stream_is_asked_otherwise_and_the_reverse() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            with pytest.raises(RequestError, match=r"client\.stream") as error:
                await client.query("ticks", {"n": 1})
            assert error.value.code == ErrorCode.BAD_REQUEST
            assert [part async for part in client.stream("once", {"answer": [1]})] == [[1]]
            assert [part async for part in client.stream("once")] == []
            async with world.client(dialect="plain") as plain:
                with pytest.raises(ConfigError, match="plain"):
                    plain.stream("ticks")
                with pytest.raises(RequestError, match="stream"):
                    await plain.query("ticks", {"n": 1})

    play(scenario)


def test_a_part_of_another_type_ends_it_and_names_the_place() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            stream = client.stream("ticks", {"n": 100}, type=list[int])
            with pytest.raises(BadData, match="stream 'ticks'"):
                await anext(stream)
            await until(lambda: settled(world), within=1)

    play(scenario)


def test_a_part_beyond_the_message_limit_ends_it() -> None:
    async def scenario() -> None:
        async with node_world(declare, limits=Limits(message=10_000)) as world:
            async with world.client() as client:
                with pytest.raises(RequestError) as error:
                    await anext(client.stream("ticks", {"n": 5, "size": 10_000}))
                assert error.value.code == ErrorCode.TOO_BIG
                with pytest.raises(RequestError) as error:
                    await anext(client.stream("ticks", {"n": "x" * 10_000}))
                assert error.value.code == ErrorCode.TOO_BIG
                await until(lambda: settled(world), within=1)

    play(scenario)


def test_open_streams_do_not_keep_anything_else_from_being_answered() -> None:
    """As many as are allowed, none of them read: requests go on, and so do the streams."""

    async def scenario() -> None:
        async with node_world(declare, limits=Limits(streams=20, inflight=4)) as world:
            async with world.client() as client:
                streams = [client.stream("ticks", {"n": 40}) for _ in range(20)]
                for stream in streams:
                    assert await anext(stream) == 0
                await asyncio.sleep(1)
                with pytest.raises(RequestError) as error:
                    await anext(client.stream("ticks", {"n": 1}))
                assert (error.value.code, error.value.temporary) == (ErrorCode.RATE_LIMITED, True)
                assert await client.query("once", {"answer": 3}) == 3
                for stream in streams:
                    assert [part async for part in stream] == list(range(1, 40))
                assert [part async for part in client.stream("ticks", {"n": 1})] == [0]

    play(scenario)


def test_many_streams_at_once_are_each_whole() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:

            async def read(n: int) -> None:
                got = [part async for part in client.stream("ticks", {"n": n, "pause": 0.01})]
                assert got == list(range(n))

            async with asyncio.TaskGroup() as group:
                for n in range(60):
                    group.create_task(read(n))
            assert settled(world)

    play(scenario)


def test_two_readers_of_one_stream_are_told() -> None:
    async def scenario() -> None:
        async with node_world(declare) as world, world.client() as client:
            async with client.stream("ticks", {"n": 5, "pause": 1.0}) as stream:

                async def read() -> Any:
                    return await anext(stream)

                first = asyncio.get_running_loop().create_task(read())
                await asyncio.sleep(0.1)
                with pytest.raises(RuntimeError, match="somebody else"):
                    await anext(stream)
                assert await first == 0

    play(scenario)


def test_a_server_that_sends_more_than_it_may_is_not_kept_for() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Query):
                assert message.stream
                peer.send(*(m.Response(message.id, n, True) for n in range(100)))
            else:
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network) as client:
            async with client.stream("q") as stream:
                await asyncio.sleep(1)
                with pytest.raises(ProtocolError, match="unasked"):
                    await anext(stream)
            assert [one.id for one in script.peers[0].of(m.Cancel)] == [
                one.id for one in script.peers[0].of(m.Query)
            ]

    play(scenario)


def test_credit_is_given_eight_at_a_time() -> None:
    async def scenario() -> None:
        network = Network()
        left = 16

        def handle(peer: Peer, message: m.Message) -> None:
            nonlocal left
            if isinstance(message, m.Query):
                peer.send(*(m.Response(message.id, n, True) for n in range(16)))
            elif isinstance(message, m.Credit):
                left += message.n
                peer.send(*(m.Response(message.id, n, True) for n in range(message.n)))
            else:
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network) as client:
            async with client.stream("q") as stream:
                for _ in range(100):
                    await anext(stream)
            given = [one.n for one in script.peers[0].of(m.Credit)]
            assert set(given) == {8}
            assert 11 <= len(given) <= 12

    play(scenario)


@pytest.mark.parametrize("kind", ["command", "event"])
def test_only_a_query_may_yield(kind: str) -> None:
    async def yields(conn: Connection) -> AsyncIterator[int]:
        yield 1

    def blocks(conn: Connection) -> Any:
        yield 1

    wire = Everwire()
    with pytest.raises(ConfigError, match="yields"):
        getattr(wire, kind)(yields)
    with pytest.raises(ConfigError, match="yields"):
        wire.query(blocks)
