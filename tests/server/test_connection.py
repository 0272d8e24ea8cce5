"""The life of a connection: greeting, auth, heartbeat, strikes, limits, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everwire import Everwire, Forbidden, Grant, Identity, Unauthorized
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.server import contents
from everwire.server.connection import NOTHING
from everwire.server.node import Node
from everwire.server.publishing import Publishing
from everwire.testing import Direction, Network, run

from .peer import URL, Peer, alive, open_app, serving

Scenario = Callable[[Network, Node], Coroutine[Any, Any, None]]


def with_node(scenario: Scenario, wire: Everwire | None = None, **options: Any) -> None:
    async def main() -> None:
        async with serving(wire, **options) as (network, node):
            await scenario(network, node)
            assert node.counters["defects"] == 0

    run(main)


def guarded(**options: Any) -> Everwire:
    """An application that knows two tokens."""
    wire = open_app(**options)

    @wire.authenticate
    async def who(token: str) -> Identity:
        await asyncio.sleep(0.1)
        if token == "barred":
            raise Forbidden("not here")
        if token not in ("t-ada", "t-bob"):
            raise Unauthorized("unknown token")
        return Identity(token[2:])

    return wire


@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_hello_comes_first_and_auth_is_answered(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, name).open()
        hello = await peer.next(m.Hello)
        assert (hello.version, hello.node, hello.ping_interval) == (1, node.id, 20_000)
        assert hello.limits["message"] == 2**20
        assert await peer.ask(m.Auth(7, client=m.ClientInfo("abc"))) == {
            "user": "",
            "expiresIn": None,
            "subscriptions": [],
        }

    with_node(scenario)


def test_without_auth_by_the_deadline_the_connection_ends_with_4401() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network).open()
        began = asyncio.get_running_loop().time()
        assert await peer.until_closed() == 4401
        assert 5 <= asyncio.get_running_loop().time() - began <= 7
        assert not node.connections

    with_node(scenario)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"token": "wrong"}, 4402),
        ({"credentials": {"a": 1}}, 4500),
        ({}, 4500),
        ({"token": "barred"}, 4501),
        ({"token": "t-ada", "require": ["teleportation"]}, 4505),
    ],
)
def test_who_is_refused_gets_the_code_that_says_whether_to_come_back(
    fields: dict[str, Any], code: int
) -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network).open()
        peer.send(m.Auth(1, **fields))
        assert await peer.until_closed() == code
        if code != 4505:  # why, for people, comes before the close
            assert any(isinstance(one, m.Error) and one.request_id == 1 for one in peer.inbox)

    with_node(scenario, guarded())


def test_a_request_before_auth_is_a_violation() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network).open()
        peer.send(m.Query(1, "x"))
        assert await peer.until_closed() == 4502

    with_node(scenario)


def test_a_second_auth_in_flight_is_a_violation_and_requests_behind_an_auth_wait() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network).open()
        peer.send(m.Auth(1, "t-ada"))
        peer.send(m.Subscribe(2, [m.ChannelRequest("c")]))
        assert isinstance(await peer.answer(2), m.Response)
        peer.send(m.Auth(3, "t-ada"))
        peer.send(m.Auth(4, "t-ada"))
        assert await peer.until_closed() == 4502

    with_node(scenario, guarded())


def test_a_later_auth_may_not_change_the_user() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth(token="t-ada")
        again = await peer.ask(m.Auth(2, "t-ada"))
        assert again["user"] == "ada"
        peer.send(m.Auth(3, "t-bob"))
        assert await peer.until_closed() == 4402

    with_node(scenario, guarded())


def test_a_connection_that_replaces_another_of_the_same_user_ends_it_with_4507() -> None:
    async def scenario(network: Network, node: Node) -> None:
        old = Peer(network)
        await old.auth(token="t-ada")
        secret = (await old.next(m.Hello)).connection
        bob = Peer(network)
        await bob.auth(token="t-bob", replaces=secret)
        await asyncio.sleep(1)
        assert old.close_code is None
        await Peer(network).auth(token="t-ada", replaces=secret)
        assert await old.until_closed() == 4507

    with_node(scenario, guarded())


def test_a_place_is_taken_over_by_its_user_alone_and_never_by_itself() -> None:
    wire = open_app()

    @wire.authenticate
    async def who(token: str) -> Identity:
        user, _, tenant = token.partition("@")
        return Identity(user, tenant=tenant)

    async def scenario(network: Network, node: Node) -> None:
        old = Peer(network)
        await old.auth(token="ada@one")
        secret = (await old.next(m.Hello)).connection
        public = next(iter(node.connections.values())).id
        for token, replaces in (
            ("ada@two", secret),
            ("bob@one", secret),
            ("ada@one", public),
            ("ada@one", ""),
            ("ada@one", secret[:-1]),
        ):
            await Peer(network).auth(token=token, replaces=replaces)
        await old.ask(m.Auth(2, "ada@one", replaces=secret))
        await asyncio.sleep(1)
        assert old.close_code is None

    with_node(scenario, wire)


def test_who_is_sent_away_on_the_way_takes_nobody_s_place() -> None:
    wire = Everwire()

    @wire.channel("slow")
    async def slow(conn: Any) -> Grant:
        await asyncio.sleep(1)
        return Grant()

    async def scenario(network: Network, node: Node) -> None:
        old, new = Peer(network), Peer(network)
        await old.auth()
        secret = (await old.next(m.Hello)).connection
        await new.open()
        new.send(m.Auth(1, replaces=secret, subscribe=[m.ChannelRequest("slow")]))
        await asyncio.sleep(0.5)
        list(node.connections.values())[-1].close(4504)
        await asyncio.sleep(5)
        assert (old.close_code, new.close_code) == (None, 4504)

    with_node(scenario, wire)


def test_a_used_request_id_is_a_violation() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        peer.send(m.Query(5, "slow"))
        peer.send(m.Query(5, "slow"))
        assert await peer.until_closed() == 4502

    wire = open_app()

    @wire.query
    async def slow(conn: Any) -> None:
        await asyncio.sleep(5)

    with_node(scenario, wire)


@pytest.mark.parametrize("name", ["json", "msgpack", "plain"])
def test_the_eleventh_bad_message_within_a_minute_ends_with_4400(name: str) -> None:
    nonsense = b"\xc1" if name == "msgpack" else b"{"

    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, name).open()
        if name != "plain":
            await peer.ask(m.Auth(1))
        for _ in range(10):
            peer.send_raw(nonsense)
        await asyncio.sleep(1)
        errors = [one for one in peer.inbox if isinstance(one, m.Error)]
        assert [error.code for error in errors] == [ErrorCode.BAD_REQUEST] * 10
        await asyncio.sleep(61)
        peer.send_raw(nonsense)  # the first of a new minute
        await asyncio.sleep(1)
        assert peer.close_code is None
        for _ in range(10):
            peer.send_raw(nonsense)
        assert await peer.until_closed() == 4400

    with_node(scenario)


def test_an_unknown_type_is_answered_if_it_has_an_id_and_is_no_strike() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        for n in range(30):
            peer.send_raw(b'{"type":"novel","id":%d}' % n)
            peer.send_raw(b'{"type":"novel"}')
        await asyncio.sleep(1)
        errors = [one for one in peer.inbox if isinstance(one, m.Error)]
        assert [(e.code, e.request_id) for e in errors] == [(101, n) for n in range(30)]
        assert peer.close_code is None

    with_node(scenario)


def test_before_auth_a_message_may_be_64_kib() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network).open()
        peer.send(m.Auth(1, "x" * 70_000))
        assert await peer.until_closed() == 1009

    with_node(scenario)


def test_a_message_beyond_the_limit_is_refused_and_the_connection_stays() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        for data in ("x" * 2**20, ["\x00"] * 180_000):
            answer = await peer.publish("a-1", "c", data)
            assert (answer.code, answer.name) == (ErrorCode.TOO_BIG, "too_big")
        assert (await peer.publish("a-2", "c", "x" * 1_000_000))["offset"] == 1

    with_node(scenario)


def test_packed_data_that_would_be_too_big_as_json_is_refused() -> None:
    """Nobody's reader is closed for somebody else's size."""

    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network, "msgpack")
        await peer.auth()
        answer = await peer.publish("a-1", "c", "\x01" * 300_000)
        assert answer.code == ErrorCode.TOO_BIG
        assert (await peer.publish("a-2", "c", "\x01" * 100_000))["offset"] == 1

    with_node(scenario)


@pytest.mark.parametrize("name", ["json", "plain"])
def test_a_silent_connection_is_found_dead_within_31_seconds(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, name).open()
        if name == "json":
            await peer.ask(m.Auth(1))
        await asyncio.sleep(100)
        assert len(node.connections) == 1  # it answered pings
        peer.link.freeze(drop=True)
        began = asyncio.get_running_loop().time()
        await node._wait_empty(100)
        assert asyncio.get_running_loop().time() - began <= 31

    with_node(scenario)


def test_every_connection_is_pinged_at_least_each_interval() -> None:
    """So that a client which only listens knows that the server is there."""

    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        for _ in range(20):  # it talks all the time: still it must hear something
            await asyncio.sleep(5)
            peer.send(m.Event("x", None))
        assert 4 <= sum(isinstance(one, m.Ping) for one in peer.inbox) <= 6

    with_node(scenario)


def test_when_the_node_itself_was_busy_a_silent_connection_gets_one_more_chance() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        peer.link.freeze(Direction.TO_SERVER)
        await asyncio.sleep(25)
        node.wheel.lagged_at = node.wheel.now  # as the wheel notes it when it comes late
        await asyncio.sleep(8)
        assert len(node.connections) == 1  # suspect
        await asyncio.sleep(5)
        assert not node.connections

    with_node(scenario)


def test_requests_at_the_limit_in_flight_stop_the_reading_and_nothing_is_lost() -> None:
    wire = open_app(limits=Limits(inflight=4))
    running = 0
    most = 0

    @wire.query
    async def slow(conn: Any, n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return n

    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        for n in range(20):
            peer.send(m.Query(100 + n, "slow", {"n": n}))
        answers = [await peer.answer(100 + n) for n in range(20)]
        assert [a.payload for a in answers if isinstance(a, m.Response)] == list(range(20))
        assert most <= 4

    with_node(scenario, wire)


def test_what_a_closed_connection_held_is_let_go() -> None:
    async def scenario(network: Network, node: Node) -> None:
        for n in range(50):
            peer = Peer(network)
            await peer.auth(subscribe=[m.ChannelRequest("c", presence=True)])
            await peer.publish(f"x-{n}", "c", n)
            peer.link.cut() if n % 2 else peer.transport.close(1000)
        await asyncio.sleep(9.5)
        assert not node.connections
        assert not node.hub.channels
        assert (await contents.presence(node, "c")).count == 0
        assert len(node.tasks) == 0
        assert not alive(Publishing)

    with_node(scenario)


def test_what_connections_share_while_they_have_nothing_stays_empty() -> None:
    with pytest.raises(TypeError):
        NOTHING["x"] = 1

    async def scenario(network: Network, node: Node) -> None:
        one, other = Peer(network), Peer(network)
        for peer in (one, other):
            await peer.auth()
            peer.send(m.Subscribe(2, [m.ChannelRequest("c")]))
            peer.send(m.Query(3, "everwire.history", {"channel": "c"}))
            await peer.answer(2)
            await peer.publish("a-1", "c", 1)
        assert NOTHING == {}

    with_node(scenario)


def test_what_comes_while_the_first_auth_is_looked_at_waits_its_turn() -> None:
    wire = open_app()

    @wire.authenticate
    async def slow(token: str) -> Identity:
        await asyncio.sleep(1)
        return Identity(token)

    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network).open()
        peer.send(m.Auth(1, "ann"))
        for n in range(30):
            peer.send(m.Publish(f"a-{n}", "c", n))
        connection = next(iter(node.connections.values()))
        await asyncio.sleep(0.5)
        assert connection.held_reading == 1  # nobody fills our memory before we know them
        answers = [await peer.answer(f"a-{n}") for n in range(30)]
        offsets = [one.payload["offset"] for one in answers if isinstance(one, m.Response)]
        assert offsets == list(range(1, 31))
        assert connection.held_reading == 0

    with_node(scenario, wire)


def test_drain_tells_each_client_its_own_moment_and_closes_what_stays() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peers = [Peer(network) for _ in range(20)]
        for peer in peers:
            await peer.auth()
        plain = await Peer(network, "plain").open()
        await node.drain(4.0)
        moments = [(await peer.next(m.Drain)).reconnect_in for peer in peers]
        assert all(0 <= moment <= 4000 for moment in moments)
        assert len(set(moments)) > 10
        assert {peer.close_code for peer in peers} == {4440}
        assert plain.close_code == 1012

    with_node(scenario)


def test_a_token_may_come_as_a_subprotocol() -> None:
    async def scenario(network: Network, node: Node) -> None:
        for token, ok in (("t-ada", True), ("nobody", False)):
            peer = Peer(network)
            offers = ("everwire.v1.json", f"everwire.token.{token}")
            peer.transport = await network.connect(URL, peer, subprotocols=offers, max_message=9999)
            assert peer.transport.subprotocol == "everwire.v1.json"
            peer.send(m.Auth(1))
            answer = await peer.answer(1)
            assert isinstance(answer, m.Response) is ok
            if not ok:
                assert await peer.until_closed() == 4402

    with_node(scenario, guarded())


def test_plain_actions_count_to_the_limit_in_flight_too() -> None:
    """They have no ids, and still a slow handler must not let them pile up."""
    wire = Everwire(limits=Limits(inflight=4))
    asked = 0

    @wire.channel("{name}")
    async def slow(conn: Any, name: str) -> Grant:
        nonlocal asked
        asked += 1
        await asyncio.sleep(1)
        return Grant(publish=True)

    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, "plain").open()
        for n in range(8):
            peer.send(m.Subscribe("", [m.ChannelRequest(f"c{n}")]))
            peer.send(m.Publish("", f"p{n}", n))
        await asyncio.sleep(0.5)
        (connection,) = node.connections.values()
        assert len(connection.inflight) == 4
        assert asked == 4
        await asyncio.sleep(10)
        assert asked == 16
        assert len(connection.subscriptions) == 8
        assert not connection.inflight

    with_node(scenario, wire)
