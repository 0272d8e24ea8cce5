"""What a socket sends: in order, within bounds, and never gone in silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from everwire import Dropped, NotSent, OutboxFull, Socket, Superseded
from everwire.limits import ClientLimits
from everwire.testing import Direction, Network

from .socket_world import Server, socket_to
from .world import FAST, loop, play, until

# A retry every two seconds or so, that the budget of attempts lasts for a test.
SMALL = ClientLimits(
    outbox_messages=3, outbox_bytes=100, backoff_floor=1.5, backoff_base=2.0, backoff_cap=2.0
)


def offline(network: Network, **options: Any) -> Socket:
    """A socket that has no server yet."""
    return socket_to(network, timeout=0, limits=SMALL, **options)


def names(lost: list[tuple[Any, Exception]]) -> list[tuple[Any, type[Exception]]]:
    return [(data, type(error)) for data, error in lost]


# ---- overflow --------------------------------------------------------------------------


def test_block_waits_for_room_and_refuses_after_a_while() -> None:
    async def scenario() -> None:
        network = Network()
        async with offline(network) as socket:
            waiting = [socket.send_nowait(f"{n}") for n in range(3)]
            with pytest.raises(OutboxFull):
                socket.send_nowait("3")
            began = loop().time()
            with pytest.raises(OutboxFull, match="within 5 s"):
                await socket.send("3")
            assert loop().time() - began == pytest.approx(5.0)
            sending = asyncio.get_running_loop().create_task(socket.send("4"))
            await asyncio.sleep(1)
            server = Server(network)
            await sending
            assert all(future.done() for future in waiting)
            await asyncio.sleep(0.1)
            assert server.messages == ["0", "1", "2", "4"]
            assert socket.stats.dropped == 0

    play(scenario)


def test_reject_refuses_at_once() -> None:
    async def scenario() -> None:
        network = Network()
        async with offline(network, overflow="reject") as socket:
            for n in range(3):
                socket.send_nowait(f"{n}")
            began = loop().time()
            with pytest.raises(OutboxFull):
                await socket.send("3")
            assert loop().time() == began
            server = Server(network)
            await until(lambda: len(server.messages) == 3)

    play(scenario)


def test_drop_oldest_makes_room_and_tells() -> None:
    async def scenario() -> None:
        network = Network()
        lost: list[tuple[Any, Exception]] = []
        async with offline(
            network, overflow="drop_oldest", on_drop=lambda *args: lost.append(args)
        ) as socket:
            first = socket.send_nowait("0")
            for n in range(1, 5):
                socket.send_nowait(f"{n}")
            assert names(lost) == [("0", Dropped), ("1", Dropped)]
            with pytest.raises(Dropped):
                await first
            assert socket.stats.dropped == 2
            server = Server(network)
            await until(lambda: len(server.messages) == 3)
            assert server.messages == ["2", "3", "4"]

    play(scenario)


def test_drop_newest_drops_what_comes_and_tells() -> None:
    async def scenario() -> None:
        network = Network()
        lost: list[tuple[Any, Exception]] = []
        async with offline(
            network, overflow="drop_newest", on_drop=lambda *args: lost.append(args)
        ) as socket:
            for n in range(4):
                socket.send_nowait(f"{n}")
            with pytest.raises(Dropped):
                await socket.send(b"4")
            assert names(lost) == [("3", Dropped), (b"4", Dropped)]
            server = Server(network)
            await until(lambda: len(server.messages) == 3)
            assert server.messages == ["0", "1", "2"]

    play(scenario)


def test_coalesce_replaces_what_waits_with_the_same_key_in_its_place() -> None:
    async def scenario() -> None:
        network = Network()
        lost: list[tuple[Any, Exception]] = []
        async with offline(
            network, overflow="coalesce", on_drop=lambda *args: lost.append(args)
        ) as socket:
            socket.send_nowait("x 1", key="x")
            socket.send_nowait("no key")
            socket.send_nowait("y 1", key="y")
            newer = socket.send_nowait("x 2", key="x")
            assert names(lost) == [("x 1", Superseded)]
            with pytest.raises(OutboxFull):
                socket.send_nowait("z 1", key="z")
            server = Server(network)
            await newer
            await until(lambda: len(server.messages) == 3)
            assert server.messages == ["x 2", "no key", "y 1"]
            await socket.send("x 3", key="x")  # what has left is not replaced
            await until(lambda: len(server.messages) == 4)

    play(scenario)


def test_bytes_are_bounded_as_messages_are() -> None:
    async def scenario() -> None:
        network = Network()
        async with offline(network, overflow="reject") as socket:
            socket.send_nowait("x" * 60)
            with pytest.raises(OutboxFull):
                socket.send_nowait("x" * 41)
            socket.send_nowait("x" * 40)
            Server(network)
            await until(lambda: socket.waiting == 0)
            with pytest.raises(OutboxFull, match="a message of 101 bytes"):
                await socket.send("x" * 101)

    play(scenario)


def test_what_is_no_message_is_refused() -> None:
    async def scenario() -> None:
        network = Network()
        Server(network)
        wrong: Any = {"n": 1}
        async with socket_to(network) as socket:
            with pytest.raises(TypeError, match="send_json"):
                await socket.send(wrong)
            with pytest.raises(TypeError, match="send_json"):
                socket.send_nowait(wrong)
            with pytest.raises(TypeError):
                await socket.send_json(object())

    play(scenario)


# ---- time to live, cancelling ------------------------------------------------------------


def test_what_waits_too_long_is_given_up_and_the_others_are_not() -> None:
    async def scenario() -> None:
        network = Network()
        lost: list[tuple[Any, Exception]] = []
        async with socket_to(
            network, timeout=0, ttl=10.0, on_drop=lambda *args: lost.append(args)
        ) as socket:
            socket.send_nowait("short", ttl=1.0)
            usual = socket.send_nowait("usual")
            socket.send_nowait("long", ttl=100.0)
            began = loop().time()
            with pytest.raises(NotSent, match="time to live"):
                await socket.send("two", ttl=2.0)
            assert loop().time() - began == pytest.approx(2.0)
            with pytest.raises(NotSent):
                await usual
            assert loop().time() - began == pytest.approx(10.0)
            assert names(lost) == [("short", NotSent), ("two", NotSent), ("usual", NotSent)]
            server = Server(network)
            await until(lambda: server.messages == ["long"])
            assert socket.stats.dropped == 3

    play(scenario)


def test_cancelling_takes_back_what_has_not_begun_to_leave() -> None:
    async def scenario() -> None:
        network = Network()
        async with offline(network) as socket:
            sending = [
                asyncio.get_running_loop().create_task(socket.send(f"{n}")) for n in range(5)
            ]
            await asyncio.sleep(0.1)
            sending[1].cancel()
            sending[4].cancel()  # it waits for room
            await asyncio.sleep(0.1)
            assert socket.waiting == 3
            server = Server(network)
            await until(lambda: len(server.messages) == 3)
            assert server.messages == ["0", "2", "3"]
            assert socket.stats.dropped == 0

    play(scenario)


def test_cancelling_does_not_tear_what_has_begun_to_leave() -> None:
    async def scenario() -> None:
        network = Network(window=64)
        server = Server(network)
        async with socket_to(network) as socket:
            network.links[0].freeze()
            sending = asyncio.get_running_loop().create_task(socket.send("x" * 1000))
            await asyncio.sleep(0.1)
            sending.cancel()
            await asyncio.sleep(0.1)
            assert socket.waiting == 1
            network.links[0].thaw()
            await socket.send("after")
            await asyncio.sleep(0.1)
            assert server.messages == ["x" * 1000, "after"]

    play(scenario)


def test_who_sends_without_end_lets_others_have_their_turn() -> None:
    async def scenario() -> None:
        network = Network(window=1 << 30)
        Server(network)
        async with socket_to(network) as socket:
            turns: list[int] = []

            async def other() -> None:
                while True:
                    turns.append(1)
                    await asyncio.sleep(0)

            task = asyncio.get_running_loop().create_task(other())
            for _ in range(1000):
                await socket.send("x")
            assert len(turns) >= 10
            task.cancel()

    play(scenario)


# ---- links that die ----------------------------------------------------------------------


def test_what_had_not_left_when_the_link_died_is_sent_first_on_the_next_and_what_had_is_not() -> (
    None
):
    async def scenario() -> None:
        network = Network(window=100)
        server = Server(network)
        async with socket_to(network, limits=FAST) as socket:
            network.links[0].freeze()
            sent = [socket.send_nowait(f"{n}".ljust(40)) for n in range(10)]
            await asyncio.sleep(0.1)
            assert [future.done() for future in sent] == [True, True] + [False] * 8
            network.links[0].cut()
            network.window = 1 << 20
            sent.append(socket.send_nowait("new"))
            await until(lambda: len(server.messages) == 9)
            # The first two were in the network's hands, and are lost with it.
            assert [str(message).strip() for message in server.messages] == [
                *map(str, range(2, 10)),
                "new",
            ]
            assert socket.stats.repeated == 1
            assert socket.stats.sent == 11

    play(scenario)


def test_an_answer_to_a_ping_behind_a_message_leaves_its_fate_unknown_so_it_is_not_repeated() -> (
    None
):
    async def scenario() -> None:
        network = Network(window=100)
        server = Server(network)
        async with socket_to(network, limits=FAST) as socket:
            network.links[0].freeze()
            sent = [socket.send_nowait(f"{n}".ljust(60)) for n in range(4)]
            server.peers[0].transport.ping()
            link = network.links[0]
            link.thaw(Direction.TO_CLIENT)
            await asyncio.sleep(0.01)
            link.cut()
            network.window = 1 << 20
            await sent[-1]
            await asyncio.sleep(0.1)
            assert [str(message).strip() for message in server.messages] == ["2", "3"]
            assert socket.stats.repeated == 0

    play(scenario)


def test_nothing_is_written_while_what_was_written_has_not_left() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01, bandwidth=10_000.0, window=1000)
        server = Server(network)
        async with socket_to(network) as socket:
            most = 0
            for n in range(100):
                socket.send_nowait(f"{n}".ljust(300))
                most = max(most, network.links[0].client.write_buffer_size())
            assert most <= 300 + 8
            await until(lambda: len(server.messages) == 100)
            assert most <= 300 + 8

    play(scenario)


@settings(max_examples=300)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(1, 5),  # messages
            st.floats(0.0, 3.0),  # seconds after them
            st.sampled_from(["", "cut", "freeze", "close", "refuse", "drop", "ping"]),
        ),
        min_size=1,
        max_size=25,
    ),
    window=st.sampled_from([40, 100, 1000]),
    seed=st.integers(0, 1000),
)
def test_over_all_that_happens_the_order_holds_nothing_comes_twice_and_losses_are_told(
    steps: list[tuple[int, float, str]], window: int, seed: int
) -> None:
    """Lost without a word may be only what had left for a link that died."""

    async def scenario() -> None:
        network = Network(latency=0.01, window=window)
        server = Server(network)
        told: list[str] = []
        left: set[str] = set()  # and not received, when a link died
        number = 0

        def lost_link(error: Exception) -> None:
            received = {str(message).strip() for message in server.messages}
            left.update(name for name, future in outcomes.items() if future.done())
            left.difference_update(received)

        socket = socket_to(
            network,
            limits=FAST,
            ttl=5.0,
            on_drop=lambda data, error: told.append(str(data).strip()),
            on_close=lost_link,
        )
        outcomes: dict[str, asyncio.Future[None]] = {}
        async with socket:
            for count, pause, fault in steps:
                for _ in range(count):
                    outcomes[f"{number}"] = socket.send_nowait(f"{number}".ljust(30))
                    number += 1
                if fault == "cut":
                    network.cut()
                elif fault == "freeze" and network.links:
                    network.links[-1].freeze()
                    loop().call_later(1.0, network.links[-1].thaw)
                elif fault == "close" and server.peers:
                    server.peers[-1].close(1011)
                elif fault == "refuse":
                    network.refuse = not network.refuse
                elif fault == "drop":
                    socket.drop()
                elif fault == "ping" and server.peers:
                    server.peers[-1].transport.ping()
                await asyncio.sleep(pause)
            network.refuse = False
            await asyncio.sleep(60)
            for link in network.links:
                link.thaw()
            await asyncio.sleep(60)
        got = [int(str(message)) for message in server.messages]
        assert got == sorted(set(got))
        assert all(future.done() for future in outcomes.values())
        failed = {name for name, future in outcomes.items() if future.exception() is not None}
        assert failed == set(told)
        assert not failed & {str(n) for n in got}
        assert set(outcomes) - failed - {str(n) for n in got} <= left
        stats = socket.stats
        assert (stats.sent, stats.dropped) == (number - len(failed), len(failed))

    play(scenario, seed=seed)
