"""The in-memory network while something is wrong with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire.protocol.frames import Opcode
from everwire.testing import Direction, Link, Network, run

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY
UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
HUNDRED = b"x" * 98  # 100 bytes on the line


async def settle() -> None:
    await asyncio.get_running_loop().settle()  # type: ignore[attr-defined]


# ---- cut -------------------------------------------------------------------------


def test_a_cut_is_1006_for_both_at_once_and_loses_what_is_in_flight(dial: Any) -> None:
    async def main() -> None:
        network = Network(latency=0.5)
        client, server, link = await dial(network)
        client.transport.send(TEXT, b"lost")
        server.transport.send(TEXT, b"lost")
        await asyncio.sleep(0.3)
        now = asyncio.get_running_loop().time()
        link.cut()
        assert client.events == server.events == []  # told in a turn of its own
        client.transport.send(TEXT, b"lost, too")
        await asyncio.sleep(5)
        assert client.events == server.events == [("closed", 1006, "")]
        assert client.times == server.times == [now]
        assert network.links == []
        assert not link.is_live

    run(main)


def test_after_a_cut_nothing_is_told_twice(dial: Any) -> None:
    async def main() -> None:
        client, server, link = await dial(Network())
        link.cut()
        link.cut()
        client.transport.abort()
        server.transport.close()
        await settle()
        link.cut()
        await settle()
        assert client.events == server.events == [("closed", 1006, "")]

    run(main)


def test_the_whole_network_can_be_cut(dial: Any, recorder: Any) -> None:
    async def main() -> None:
        network = Network(latency=0.5)
        opened = [await dial(network) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            connecting = group.create_task(refused(network, ConnectionResetError, recorder()))
            await asyncio.sleep(0.1)
            network.cut()
            await connecting
        await asyncio.sleep(10)
        assert all(each.client.closings == [(1006, "")] for each in opened)
        opens = [record for record in network.trace if record.kind == "open"]
        assert len(opens) == 2  # the third never reached the server
        assert network._links == {}  # nothing is kept of links that ended

    run(main)


async def refused(network: Network, error: type[BaseException], receiver: Any) -> None:
    with pytest.raises(error):
        await network.connect("ws://node/ws", receiver, max_message=100)


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_cut_after_lets_exactly_so_many_messages_through(
    dial: Any, direction: Direction, count: int
) -> None:
    async def main() -> None:
        client, server, link = await dial(Network())
        if direction is UP:
            link.cut_after(n_to_server=count)
        else:
            link.cut_after(n_to_client=count)
        for n in range(5):
            client.transport.send(TEXT, b"up%d" % n)
            server.transport.ping()  # pings and pongs do not count
            server.transport.send(TEXT, b"down%d" % n)
        await settle()
        got = server if direction is UP else client
        assert len(got.payloads) == count
        assert client.closings == server.closings == [(1006, "")]

    run(main)


def test_cut_after_counts_from_now_and_can_be_taken_back(dial: Any) -> None:
    async def main() -> None:
        client, server, link = await dial(Network())
        client.transport.send(TEXT, b"0")
        await settle()
        link.cut_after(n_to_server=2)
        client.transport.send(TEXT, b"1")
        await settle()
        link.cut_after()
        for n in (2, 3, 4):
            client.transport.send(TEXT, b"%d" % n)
        await settle()
        assert server.payloads == [b"0", b"1", b"2", b"3", b"4"]
        with pytest.raises(ValueError, match="negative"):
            link.cut_after(n_to_client=-1)

    run(main)


def test_on_message_can_cut_before_the_very_message(dial: Any) -> None:
    async def main() -> None:
        network = Network()
        client, server, _ = await dial(network)
        seen: list[tuple[int, Direction, bytes]] = []

        def watch(link: Link, direction: Direction, payload: bytes) -> None:
            seen.append((link.id, direction, payload))
            if payload == b"3":
                link.cut()

        network.on_message = watch
        for n in range(1, 6):
            client.transport.send(TEXT, b"%d" % n)
        await settle()
        assert server.events == [
            ("received", TEXT, b"1"),
            ("received", TEXT, b"2"),
            ("closed", 1006, ""),
        ]
        assert seen == [(1, UP, b"1"), (1, UP, b"2"), (1, UP, b"3")]

    run(main)


def test_on_message_that_freezes_holds_the_message_and_is_asked_once(dial: Any) -> None:
    async def main() -> None:
        network = Network()
        client, server, link = await dial(network)
        seen: list[bytes] = []

        def watch(link: Link, direction: Direction, payload: bytes) -> None:
            seen.append(payload)
            if payload == b"2":
                link.freeze(direction)

        network.on_message = watch
        for n in (1, 2, 3):
            client.transport.send(TEXT, b"%d" % n)
        await settle()
        assert server.payloads == [b"1"]
        link.thaw()
        await settle()
        assert server.payloads == [b"1", b"2", b"3"]
        assert seen == [b"1", b"2", b"3"]

    run(main)


def test_an_exception_in_on_message_is_reported_and_cuts(dial: Any) -> None:
    closings = []

    async def main() -> None:
        network = Network()
        client, _, _ = await dial(network)
        network.on_message = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
        client.transport.send(TEXT, b"x")
        await settle()
        closings.extend(client.closings)

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(ZeroDivisionError)
    assert closings == [(1006, "")]


# ---- freeze ----------------------------------------------------------------------


def test_a_frozen_direction_keeps_everything_and_tells_nobody(dial: Any) -> None:
    async def main() -> None:
        client, server, link = await dial(Network(latency=0.5))
        client.transport.send(TEXT, b"in flight")
        link.freeze(UP)
        client.transport.send(TEXT, b"kept")
        server.transport.send(TEXT, b"the other way")
        await asyncio.sleep(100)
        assert server.events == []
        assert client.payloads == [b"the other way"]
        now = asyncio.get_running_loop().time()
        link.thaw(UP)
        await settle()
        assert server.payloads == [b"in flight", b"kept"]
        assert server.times == [now, now]

    run(main)


def test_freezing_without_a_direction_stops_both_and_thaws_both(dial: Any) -> None:
    async def main() -> None:
        client, server, link = await dial(Network())
        link.freeze()
        client.transport.ping()
        server.transport.send(TEXT, b"x")
        await asyncio.sleep(100)
        assert client.events == server.events == []
        link.thaw()
        await settle()
        assert server.events == [("heard",)]
        assert client.events == [("received", TEXT, b"x"), ("heard",)]

    run(main)


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_closing_handshake_does_not_complete_over_a_frozen_link(
    dial: Any, direction: Direction
) -> None:
    async def main() -> None:
        client, server, link = await dial(Network())
        link.freeze(direction)
        client.transport.close(4001, "bye")
        await asyncio.sleep(100)
        assert client.closings == []
        assert server.closings == ([] if direction is UP else [(4001, "bye")])
        link.thaw()
        await settle()
        assert client.closings == server.closings == [(4001, "bye")]

    run(main)


def test_an_abort_over_a_frozen_link_is_not_known_to_the_peer(dial: Any) -> None:
    """The half-open connection: one side gave up, the other believes that all is well."""

    async def main() -> None:
        network = Network()
        client, server, link = await dial(network)
        link.freeze()
        client.transport.send(TEXT, b"kept")
        client.transport.abort()
        await asyncio.sleep(100)
        assert client.closings == [(1006, "")]
        assert server.events == []
        assert network.links == [link]
        link.thaw()
        await settle()
        assert server.events == [("received", TEXT, b"kept"), ("closed", 1006, "")]
        assert network.links == []

    run(main)


def test_what_a_dropping_freeze_took_never_comes_back(dial: Any) -> None:
    async def main() -> None:
        network = Network(latency=0.5)
        client, server, link = await dial(network)
        client.transport.send(TEXT, b"in flight")
        link.freeze(UP, drop=True)
        client.transport.send(TEXT, b"later")
        await asyncio.sleep(10)
        link.thaw()
        client.transport.send(TEXT, b"too late")
        client.transport.abort()
        server.transport.send(TEXT, b"nobody is there")
        await asyncio.sleep(10)
        assert server.events == []
        assert client.closings == [(1006, "")]
        server.transport.abort()
        await asyncio.sleep(10)
        assert server.closings == [(1006, "")]
        assert network.links == []

    run(main)


# ---- refused, and partitioned --------------------------------------------------------


def test_a_network_that_refuses_lets_nobody_in_until_it_does_not(dial: Any, recorder: Any) -> None:
    async def main() -> None:
        network = Network()
        client, server, _ = await dial(network)
        network.refuse = True
        await refused(network, ConnectionRefusedError, recorder())
        network.refuse = TimeoutError("no route")
        await refused(network, TimeoutError, recorder())
        network.refuse = False
        client.transport.send(TEXT, b"links stay")
        await dial(network)
        assert server.payloads == [b"links stay"]

    run(main)


def test_a_partition_holds_everything_and_connects_wait(dial: Any) -> None:
    async def main() -> None:
        network = Network(latency=0.5)
        client, server, _ = await dial(network)
        network.partition()
        client.transport.send(TEXT, b"kept")
        async with asyncio.TaskGroup() as group:
            connecting = group.create_task(dial(network))
            await asyncio.sleep(100)
            assert server.events == []
            assert not connecting.done()
            assert len(network.links) == 1
            assert network.partitioned
            network.partition()  # it is there already
            network.partition(False)
            await asyncio.sleep(1)
            assert connecting.done()
        assert server.payloads == [b"kept"]
        assert len(network.links) == 2

    run(main)


def test_a_partition_may_be_there_before_the_loop(dial: Any) -> None:
    network = Network()
    network.partition()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await dial(network)

    run(main)


# ---- altogether ------------------------------------------------------------------


def test_settings_of_the_network_reach_live_links_and_those_to_come(dial: Any) -> None:
    async def main() -> None:
        network = Network()
        first = (await dial(network)).link
        network.latency, network.bandwidth, network.window = 0.25, 1e6, 1_000
        second = (await dial(network)).link
        for link in (first, second):
            assert (link.latency, link.bandwidth, link.window) == (0.25, 1e6, 1_000)

    run(main)


def test_the_same_run_happens_the_same_way_twice(dial: Any) -> None:
    async def main() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        network = Network(latency=0.01, bandwidth=10_000)
        opened = [await dial(network) for _ in range(5)]
        for _n in range(200):
            client, server, link = loop.random.choice(opened)
            loop.random.choice(
                [
                    lambda c=client: c.transport.send(TEXT, b"x" * loop.random.randrange(300)),
                    lambda s=server: s.transport.send(TEXT, b"x" * loop.random.randrange(300)),
                    client.transport.ping,
                    link.freeze,
                    link.thaw,
                ]
            )()
            await asyncio.sleep(loop.random.random() * 0.02)
        network.cut()
        return network.trace

    first, second = run(main, seed=3), run(main, seed=3)
    assert first == second
    assert len(first) > 300
