"""Coming back with many subscriptions: few requests, the most important first, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from everwire import ClientLimits, EverwireError, Forbidden, Position
from everwire.client import Client, Subscription, SubscriptionState
from everwire.codes import ErrorCode
from everwire.limits import KiB
from everwire.protocol import messages as m
from everwire.testing import Network

from .world import (
    FAST,
    Peer,
    Script,
    client_to,
    data_of,
    loop,
    node_world,
    play,
    pushed,
    results,
    sid,
    take,
    until,
    welcome,
)


async def enter(rooms: list[Subscription]) -> None:
    async with asyncio.TaskGroup() as group:
        for room in rooms:
            group.create_task(room.__aenter__())


def asked(peer: Peer) -> list[list[str]]:
    """The channels of each request of a connection, those of auth first."""
    frames = [one.subscribe for one in peer.of(m.Auth)] + [
        one.channels for one in peer.of(m.Subscribe)
    ]
    return [[request.channel for request in frame] for frame in frames]


def test_a_thousand_come_back_in_six_requests_or_fewer_and_two_at_a_time() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        waiting: list[tuple[Peer, m.Subscribe]] = []
        most = 0

        def handle(peer: Peer, message: m.Message) -> None:
            nonlocal most
            if isinstance(message, m.Subscribe):
                waiting.append((peer, message))
                most = max(most, len(waiting))
                asyncio.get_running_loop().call_later(0.5, answer)
            else:
                welcome(peer, message)

        def answer() -> None:
            peer, message = waiting.pop(0)
            peer.respond(message, results(message.channels))

        script = Script(network, handle)
        async with client_to(network, limits=FAST) as client:
            rooms = [client.subscribe(f"channel-{n}") for n in range(1_000)]
            await enter(rooms)
            assert most == 2
            client.drop()
            await until(lambda: len(script.peers) == 2)
            await until(lambda: all(room.state == "subscribed" for room in rooms))
            frames = asked(script.peers[1])
            assert len(frames) <= 6
            assert most == 2
            assert sorted(name for frame in frames for name in frame) == sorted(
                room.channel for room in rooms
            )
            assert all(len(raw) <= 64 * KiB for raw in script.peers[1].raw)

    play(scenario)


def test_a_link_lost_with_requests_under_way_leaves_none_waiting() -> None:
    async def scenario() -> None:
        network = Network(latency=0.01)
        mute = True

        def handle(peer: Peer, message: m.Message) -> None:
            if not (mute and isinstance(message, m.Subscribe)):
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network, limits=FAST) as client:
            rooms = [client.subscribe(f"channel-{n}") for n in range(1_000)]
            async with asyncio.TaskGroup() as group:
                group.create_task(enter(rooms))
                for _ in range(3):
                    await asyncio.sleep(2)
                    client.drop()
                mute = False
            assert all(room.state == "subscribed" for room in rooms)
            assert len(script.peers) == 4

    play(scenario)


def test_the_highest_priority_comes_first_then_what_something_came_for_last() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        limits = ClientLimits(first_retry=0.2, subscribe_batch=2)
        async with client_to(network, limits=limits) as client:
            priorities = {"a": 0, "b": 0, "c": 0, "d": 5, "e": -1, "f": 5}
            rooms = []
            for name, priority in priorities.items():
                rooms.append(await client.subscribe(name, priority=priority))
                await asyncio.sleep(1)
            script.peers[0].send(pushed("a", 1))
            await asyncio.sleep(1)
            script.peers[0].send(pushed("e", 1))
            await asyncio.sleep(1)
            client.drop()
            await until(lambda: len(script.peers) == 2)
            await until(lambda: all(room.state == "subscribed" for room in rooms))
            assert asked(script.peers[1]) == [["f", "d"], ["a", "c"], ["b", "e"]]

    play(scenario)


def test_what_is_refused_as_a_whole_waits_as_long_as_the_server_says() -> None:
    async def scenario() -> None:
        network = Network()
        times: list[float] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Subscribe):
                times.append(loop().time())
                if len(times) == 1:
                    code = ErrorCode.RATE_LIMITED
                    peer.send(
                        m.Error(message.id, code, code.wire_name, "", True, retry_after=4_000)
                    )
                    return
            welcome(peer, message)

        Script(network, handle, ping_interval=1_000.0)
        async with client_to(network) as client, client.subscribe("c"):
            assert 4.0 <= times[1] - times[0] <= 4.6

    play(scenario)


def test_refused_for_now_is_tried_again_with_full_jitter_below_twenty_seconds() -> None:
    async def scenario() -> None:
        network = Network()
        times: list[float] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Subscribe):
                times.append(loop().time())
                error = {"code": 501, "name": "unavailable", "message": "", "temporary": True}
                peer.respond(message, {"subscriptions": [{"channel": "c", "error": error}]})
            else:
                welcome(peer, message)

        Script(network, handle, ping_interval=10_000.0)
        async with client_to(network) as client:
            entering = asyncio.get_running_loop().create_task(client.subscribe("c").__aenter__())
            await asyncio.sleep(1_000)
            pauses = [b - a for a, b in pairwise(times)]
            assert pauses[0] <= 0.5
            assert 12 < max(pauses) <= 20
            assert min(pauses[8:]) < 8, "spread over the whole range"
            entering.cancel()
            await asyncio.wait([entering])

    play(scenario)


# ---- tokens of channels ----------------------------------------------------------------


def bouncer(
    *accepted: str, code: int = 202, temporary: bool = False
) -> Callable[[Peer, Any], None]:
    """Lets in who shows one of ``accepted``."""

    def handle(peer: Peer, message: m.Message) -> None:
        if not isinstance(message, (m.Auth, m.Subscribe)):
            welcome(peer, message)
            return
        requests = message.subscribe if isinstance(message, m.Auth) else message.channels
        answer = results(requests)
        for one, request in zip(answer["subscriptions"], requests, strict=True):
            if request.token not in accepted:
                error = {"code": code, "name": "x", "message": "", "temporary": temporary}
                one.clear()
                one.update({"channel": request.channel, "error": error})
        peer.respond(message, answer)

    return handle


def tokens(peer: Peer) -> list[str | None]:
    requests = [*peer.of(m.Auth)[0].subscribe]
    for one in peer.of(m.Subscribe):
        requests += one.channels
    return [request.token for request in requests]


def test_a_token_of_a_channel_is_shown_on_every_link() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network, bouncer("t-c"))
        async with client_to(network, limits=FAST) as client:
            async with client.subscribe("c", token="t-c") as room:
                client.drop()
                await until(lambda: len(script.peers) == 2 and room.state == "subscribed")
                assert [tokens(peer) for peer in script.peers] == [["t-c"], ["t-c"]]
                assert "t-c" not in repr(room) + repr(client) + repr(room._feed.options)

    play(scenario)


@pytest.mark.parametrize("code", [200, 201, 202])
def test_a_token_that_is_refused_is_fetched_again_once(code: int) -> None:
    async def scenario() -> None:
        network = Network()
        handle = bouncer("t-2", "t-3", code=code, temporary=code == 201)
        script = Script(network, handle)
        given = 0

        async def token() -> str:
            nonlocal given
            given += 1
            await asyncio.sleep(0.1)
            return f"t-{given}"

        async with client_to(network, limits=FAST) as client:
            async with client.subscribe("c", token=token) as room:
                assert tokens(script.peers[0]) == ["t-1", "t-2"]
                script._handle = bouncer("t-3")
                script.peers[0].send(m.Unsubscribed(sid("c"), 201, True))
                await until(lambda: given == 3)
                await until(lambda: room.state == "subscribed")
                script._handle = bouncer()
                client.drop()
                with pytest.raises(Forbidden):
                    await anext(room)
                assert given == 4

    play(scenario)


def test_a_provider_that_fails_is_asked_again_and_holds_up_only_its_channel() -> None:
    async def scenario() -> None:
        network = Network()
        Script(network, bouncer("good", None))  # type: ignore[arg-type]
        calls = 0

        def token() -> str:
            nonlocal calls
            calls += 1
            if calls < 4:
                raise EverwireError("the vault is closed")
            return "good"

        async with client_to(network, limits=FAST) as client:
            entering = asyncio.get_running_loop().create_task(
                client.subscribe("c", token=token).__aenter__()
            )
            async with client.subscribe("d"):
                assert not entering.done()
            await entering
            assert calls == 4

    play(scenario)


def test_who_leaves_while_the_token_is_awaited_asks_for_it_no_more() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        asking = asyncio.Event()
        cancelled = asyncio.Event()

        async def token() -> str:
            asking.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return ""

        async with client_to(network) as client:
            entering = asyncio.get_running_loop().create_task(
                client.subscribe("c", token=token).__aenter__()
            )
            await asking.wait()
            entering.cancel()
            await cancelled.wait()
            assert loop().time() < 1
            assert not script.peers[0].of(m.Subscribe)

    play(scenario)


# ---- memory ------------------------------------------------------------------------------


def held(client: Client) -> int:
    return client._core.subscriptions.shared.budget.used


def test_all_together_hold_a_bounded_amount_and_the_largest_gives_way_without_loss() -> None:
    async def scenario() -> None:
        limits = ClientLimits(queued_bytes=20_000)
        async with node_world() as world, world.client(limits=limits) as client:
            rooms = [await client.subscribe(f"c{n}") for n in range(4)]
            (small,) = rooms[:1]
            await world.wire.publish("c0", "x" * 1_000)
            for n in range(30):
                for room in rooms[1:]:
                    await world.wire.publish(room.channel, f"{n} " + "x" * 1_000)
                    await asyncio.sleep(0.05)
                    assert held(client) <= 22_000
            assert small.state is SubscriptionState.SUBSCRIBED, "it holds least"
            assert any(room.state is SubscriptionState.RECOVERING for room in rooms)
            for room in rooms[1:]:
                got = data_of(await take(room, 30))
                assert [one.split()[0] for one in got] == [str(n) for n in range(30)]
            assert client.stats.gaps == 0
            await take(small, 1)
            assert held(client) == 0

    play(scenario)


def test_a_gap_is_not_given_up_with_the_messages() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        limits = ClientLimits(queued_bytes=3_000)
        async with client_to(network, limits=limits) as client:
            async with client.subscribe("c") as room, client.subscribe("d") as other:
                peer = script.peers[0]
                peer.send(
                    pushed("c", 1, "a" * 2_000), m.GapNotice(sid("c"), "e", 5, "i5", "slow", 1),
                    pushed("c", 6, "x" * 300),
                )  # fmt: skip
                await asyncio.sleep(1)
                peer.send(pushed("d", 1, "y" * 1_500))
                await asyncio.sleep(1)
                assert room.state is SubscriptionState.RECOVERING
                assert data_of(await take(room, 2)) == ["a" * 2_000, "<slow>"]
                assert data_of(await take(other, 1)) == ["y" * 1_500]
                reading = asyncio.get_running_loop().create_task(take(room, 1))
                await until(lambda: len(peer.of(m.Subscribe)) == 3)
                assert peer.of(m.Subscribe)[-1].channels[0].position == Position("e", 5, "i5")
                peer.send(pushed("c", 6, "again"))
                assert data_of(await reading) == ["again"]

    play(scenario)


def test_what_ended_unread_is_no_burden_to_the_others() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            async with client.subscribe("c") as room, client.subscribe("d") as other:
                script.peers[0].send(
                    pushed("c", 1, "x" * 1_000), m.Unsubscribed(sid("c"), 202),
                    pushed("d", 1, "y" * 1_000),
                )  # fmt: skip
                await asyncio.sleep(1)
                assert 1_000 < held(client) < 1_100
                assert data_of(await take(room, 1)) == ["x" * 1_000]
                await other.unsubscribe()
                assert held(client) == 0

    play(scenario)


@pytest.mark.parametrize("dialect", ["msgpack", "plain"])
def test_a_server_that_tells_of_nothing_but_gaps_does_not_fill_the_memory(dialect: str) -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network, None if dialect == "msgpack" else plain)
        limits = ClientLimits(queue_messages=10)
        async with client_to(network, limits=limits, dialect=dialect) as client:
            async with client.subscribe("c") as room:
                for n in range(100):
                    script.peers[0].send(m.GapNotice(sid("c"), "e", n, "", "slow", None, "c"))
                await asyncio.sleep(1)
                assert len(room._feed.inbox) == 10

    play(scenario)


def plain(peer: Peer, message: m.Message) -> None:
    if isinstance(message, m.Subscribe):
        for request in message.channels:
            peer.send(m.Subscribed(request.channel, 0, "", 0, ""))


# ---- the server's own --------------------------------------------------------------------


def test_a_channel_that_the_server_subscribed_us_to_is_told_and_can_be_taken_up() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            told: list[tuple[str, Position]] = []
            client.on_subscribed = lambda channel, position: told.append((channel, position))
            peer = script.peers[0]
            peer.send(m.Subscribed("news", sid("news"), "e", 4, "i4"), pushed("news", 5, "early"))
            await until(lambda: told)
            assert told == [("news", Position("e", 4, "i4"))]
            async with client.subscribe(told[0][0], since=told[0][1]) as room:
                peer.send(pushed("news", 5, "early"))
                assert data_of(await take(room, 1)) == ["early"]
                peer.send(m.Subscribed("news", sid("news"), "e", 5, "i5", True))
                peer.send(pushed("news", 6, "late"))
                assert data_of(await take(room, 1)) == ["late"]
            assert len(told) == 1

    play(scenario)
