"""Connecting, coming back, and knowing when not to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from everwire import (
    ClientLimits,
    ClosedError,
    ClosedOK,
    ConfigError,
    Connection,
    Everwire,
    EverwireError,
    Forbidden,
    HandshakeRefused,
    Identity,
    RequestTimeout,
    Unauthorized,
    connect,
)
from everwire.codes import CloseCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import Direction, Network

from .world import (
    FAST,
    URL,
    Peer,
    Script,
    client_to,
    data_of,
    loop,
    node_world,
    play,
    take,
    until,
    welcome,
)


def authenticating(*accepted: str) -> Callable[[Everwire], None]:
    def declare(wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str) -> Identity:
            if token not in accepted:
                raise Unauthorized("unknown token")
            return Identity(token)

    return declare


def test_entering_waits_until_ready_and_leaving_closes() -> None:
    async def scenario() -> None:
        async with node_world(latency=0.1) as world:
            client = world.client()
            states: list[str] = []
            client.on_state = states.append
            async with client as same:
                assert same is client
                assert client.state == "ready"
                assert len(world.node.connections) == 1
            await asyncio.sleep(1)
            assert states == ["authenticating", "ready", "closing", "closed"]
            assert not world.node.connections
            assert client.state == "closed"

    play(scenario)


def test_awaiting_works_as_well_and_closing_twice_is_once() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            assert await client is client
            async with asyncio.TaskGroup() as group:
                group.create_task(client.close())
                group.create_task(client.close())
            await client.close()
            with pytest.raises(ClosedOK):
                await client
            with pytest.raises(ClosedOK):
                await client.publish("c", 1)
            with pytest.raises(ConfigError, match="open the client first"):
                await world.client().publish("c", 1)

    play(scenario)


def test_without_a_server_it_tries_on_and_raises_the_last_cause() -> None:
    async def scenario() -> None:
        network = Network()
        began = loop().time()
        with pytest.raises(ConnectionRefusedError):
            await client_to(network)
        assert loop().time() - began == pytest.approx(30.0)
        attempts = [one for one in network.trace if one.kind == "connect"]
        assert 4 <= len(attempts) <= 20

    play(scenario)


def test_a_server_that_comes_up_meanwhile_is_found() -> None:
    async def scenario() -> None:
        network = Network()
        opening = asyncio.get_running_loop().create_task(client_to(network).__aenter__())
        await asyncio.sleep(5)
        Script(network)
        async with await opening as client:
            assert client.state == "ready"

    play(scenario)


def test_a_handshake_that_never_ends_is_one_attempt() -> None:
    async def scenario() -> None:
        network = Network()
        Script(network)
        network.partition()
        with pytest.raises(RequestTimeout, match="no connection to the server within 4 s"):
            await client_to(network, connect_timeout=4.0, timeout=10.0)

    play(scenario)


def test_an_auth_that_is_never_answered_is_one_attempt() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network, lambda peer, message: None)
        with pytest.raises(RequestTimeout, match="no answer to auth"):
            await client_to(network)
        assert len(script.peers) >= 2

    play(scenario)


@pytest.mark.parametrize(
    ("refusal", "tries"),
    [
        (HandshakeRefused(404, "Not Found", temporary=False), 1),
        (HandshakeRefused(426, "Upgrade Required", temporary=False), 1),
        (HandshakeRefused(503, "Service Unavailable", temporary=True, retry_after=9.0), 3),
    ],
)
def test_what_http_refuses_for_good_is_raised_at_once(
    refusal: HandshakeRefused, tries: int
) -> None:
    async def scenario() -> None:
        network = Network()
        network.refuse = refusal
        with pytest.raises(HandshakeRefused) as error:
            await client_to(network, timeout=25.0)
        assert error.value.status == refusal.status
        assert len([one for one in network.trace if one.kind == "connect"]) == tries

    play(scenario)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(4500, Unauthorized), (4501, Forbidden), (4504, ClosedError), (1008, ClosedError)],
)
def test_a_final_close_code_ends_the_client(code: int, kind: type[Exception]) -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            script.peers[0].close(code, "why")
            await until(lambda: client.state == "closed")
            with pytest.raises(kind, match="why"):
                await client.publish("c", 1)
            await asyncio.sleep(100)
            assert len(script.peers) == 1

    play(scenario)


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4402, 4408, 4430, 4440, 4999 - 600])
def test_any_other_comes_back(code: int) -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network, token=lambda: "t") as client:
            script.peers[0].close(code)
            await until(lambda: len(script.peers) == 2 and client.state == "ready")
            assert client.stats.reconnects == 1

    play(scenario)


def test_a_server_that_accepts_and_closes_is_not_hammered() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            welcome(peer, message)
            if isinstance(message, m.Auth):
                peer.close(1011)

        script = Script(network, handle)
        async with client_to(network):
            await asyncio.sleep(300)
            assert 20 <= len(script.peers) <= 60

    play(scenario)


def test_after_a_link_that_held_it_comes_back_quickly() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            for _ in range(10):
                await asyncio.sleep(31)
                client.drop()
                began = loop().time()
                await asyncio.sleep(0.001)
                await until(lambda: client.state == "ready")
                assert loop().time() - began < 2.1

    play(scenario)


def test_a_thousand_clients_come_back_spread_out() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        seeds = Random(7)
        limits = ClientLimits(stable_after=1.0)
        clients = [
            client_to(network, random=Random(seeds.random()), limits=limits) for _ in range(300)
        ]
        for client in clients:
            await client
        await asyncio.sleep(2)  # they held: coming back costs nothing
        network.cut()
        began = loop().time()
        times: list[float] = []

        def note(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth):
                times.append(loop().time() - began)
            welcome(peer, message)

        script._handle = note
        await asyncio.sleep(5)
        assert len(times) == 300
        buckets = [sum(n / 10 <= t < (n + 1) / 10 for t in times) for n in range(20)]
        assert max(buckets) < 40
        for client in clients:
            await client.close()

    play(scenario)


# ---- tokens ------------------------------------------------------------------------------


def test_a_token_is_asked_for_each_connection() -> None:
    async def scenario() -> None:
        tokens = iter(["one", "two"])

        async def provide() -> str:
            await asyncio.sleep(0.5)
            return next(tokens)

        async with node_world(authenticating("one", "two")) as world:
            async with world.client(token=provide, limits=FAST) as client:
                assert world.connection().user == "one"
                client.drop()
                await until(lambda: client.stats.reconnects == 1)
                assert world.connection().user == "two"

    play(scenario)


def test_a_refused_token_is_replaced_once_and_at_once() -> None:
    async def scenario() -> None:
        tokens = iter(["stale", "fresh"])
        async with node_world(authenticating("fresh")) as world:
            began = loop().time()
            async with world.client(token=lambda: next(tokens)):
                assert loop().time() - began < 0.3
                assert world.connection().user == "fresh"

    play(scenario)


def test_two_refused_in_a_row_end_it() -> None:
    async def scenario() -> None:
        asked: list[int] = []

        def provide() -> str:
            asked.append(1)
            return "stale"

        async with node_world(authenticating("fresh")) as world:
            with pytest.raises(Unauthorized, match="unknown token"):
                await world.client(token=provide)
            assert len(asked) == 2
            with pytest.raises(Unauthorized, match="unknown token"):
                await world.client(token="stale")
            with pytest.raises(Unauthorized, match="token is needed"):
                await world.client()

    play(scenario)


def test_the_close_code_says_more_than_the_error_before_it() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth):
                peer.send(m.Error(message.id, 200, "unauthenticated", "no"))
                peer.close(4500, "never")

        script = Script(network, handle)
        with pytest.raises(Unauthorized, match="never"):
            await client_to(network, token="t")
        assert len(script.peers) == 1

    play(scenario)


def test_a_refusal_without_a_close_is_one_too() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth):
                peer.send(m.Error(message.id, 202, "forbidden", "not you"))

        script = Script(network, handle)
        with pytest.raises(Forbidden, match="not you"):
            await client_to(network, token="t")
        assert len(script.peers) == 1

    play(scenario)


def test_a_token_that_expired_while_the_link_was_up_is_replaced_and_the_client_goes_on() -> None:
    """By a provider that was not to be had in time; otherwise see test_tokens.py."""

    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(token: str) -> Identity:
                return Identity("ada", expires=loop().wall() + 100)

        down = False

        async def provide() -> str:
            if down:
                raise OSError("the login is down")
            return "t"

        async with node_world(declare) as world:
            async with world.client(token=provide) as client:
                async with client.subscribe("c") as room:
                    down = True
                    await until(lambda: not world.node.connections, within=110)
                    down = False
                    await until(lambda: client.stats.reconnects == 1)
                    await world.wire.publish("c", 1)
                    assert data_of(await take(room, 1)) == [1]

    play(scenario)


def test_a_token_refused_again_and_again_after_being_accepted_is_no_busy_loop() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            welcome(peer, message)
            if isinstance(message, m.Auth):
                peer.close(4402)

        script = Script(network, handle)
        async with client_to(network, token=lambda: "t"):
            await asyncio.sleep(300)
            assert len(script.peers) <= 60

    play(scenario)


@pytest.mark.parametrize("way", ["raises", "hangs", "gives none"])
def test_a_token_provider_that_fails_is_a_failed_attempt_and_wedges_nothing(way: str) -> None:
    async def scenario() -> None:
        asked: list[int] = []

        async def provide() -> Any:
            asked.append(1)
            if len(asked) <= 3:
                if way == "raises":
                    raise ValueError("no network")
                if way == "gives none":
                    return None
                await asyncio.sleep(10_000)
            return "t"

        async with node_world(authenticating("t")) as world:
            async with world.client(token=provide, timeout=90.0):
                assert len(asked) == 4
            asked.clear()
            match = {"raises": "no network", "hangs": "no token within 10 s"}.get(way, "text")
            with pytest.raises(EverwireError, match=match):
                await world.client(token=provide, timeout=0.01 if way != "hangs" else 10.01)

    play(scenario)


def test_credentials_go_to_the_handler() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(credentials: Any) -> Identity:
                if credentials != {"name": "ada", "password": "x"}:
                    raise Forbidden("no")
                return Identity("ada")

        async with node_world(declare) as world:
            async with world.client(credentials={"name": "ada", "password": "x"}):
                assert world.connection().user == "ada"
            with pytest.raises(Forbidden):
                await world.client(credentials={"name": "eve"})

    play(scenario)


# ---- drain -------------------------------------------------------------------------------


def test_a_draining_node_is_left_when_it_says_and_nothing_is_lost() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            states: list[str] = []
            client.on_state = states.append
            async with client.subscribe("c") as room:
                await asyncio.sleep(40)
                world.connection().send(m.Drain(3_000, 10_000))
                world.node.hub.flush()
                began = loop().time()
                await until(lambda: "draining" in states)
                for n in range(40):
                    await client.publish("c", n)
                    await asyncio.sleep(0.2)
                assert states == ["draining", "ready"]
                assert data_of(await take(room, 40)) == list(range(40))
                assert client.stats.reconnects == 1
                assert client.stats.gaps == 0
                opened = [one.time for one in world.network.trace if one.kind == "open"]
                assert 3.0 <= opened[1] - began <= 3.2

    play(scenario)


def test_a_node_that_closes_before_its_time_is_come_back_to_at_that_time() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network, ping_interval=100)
        async with client_to(network):
            await asyncio.sleep(31)
            script.peers[0].send(m.Drain(5_000, 1_000))
            began = loop().time()
            await asyncio.sleep(1)
            script.peers[0].close(4440)
            await until(lambda: len(script.peers) == 2)
            assert loop().time() - began == pytest.approx(5.0, abs=0.1)

    play(scenario)


def test_a_draining_node_that_lets_nobody_in_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        network = Network()
        draining = [2]

        def handle(peer: Peer, message: m.Message) -> None:
            if draining[0]:
                draining[0] -= 1
                peer.send(m.Drain(0, 0))
                peer.close(4440)
            else:
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network):
            assert len(script.peers) == 3
            assert loop().time() < 5

    with caplog.at_level(logging.WARNING, "everwire.client"):
        play(scenario)
    (said,) = caplog.records  # why the opening takes its time
    assert "4440 draining" in said.getMessage()


def test_nodes_that_all_drain_are_no_busy_loop() -> None:
    async def scenario() -> None:
        network = Network()

        def handle(peer: Peer, message: m.Message) -> None:
            welcome(peer, message)
            if isinstance(message, m.Auth):
                peer.send(m.Drain(0, 0))

        script = Script(network, handle)
        async with client_to(network):
            await asyncio.sleep(300)
            assert len(script.peers) <= 60

    play(scenario)


# ---- the rest -----------------------------------------------------------------------------


def test_a_server_of_another_dialect_is_told_with_the_remedy() -> None:
    async def scenario() -> None:
        network = Network()

        script = Script(network, hello=False)
        opened = network._admit

        def admit(link: Any, handshake: Any) -> Any:
            refusal = opened(link, handshake)
            link.client.subprotocol = None
            return refusal

        network._admit = admit  # type: ignore[method-assign]
        with pytest.raises(ConfigError, match="'plain' needs nothing of a server"):
            await client_to(network)
        assert len(script.peers) == 1

    play(scenario)


@pytest.mark.parametrize("garbage", [b"\xc1", b"", b"\x93\x0c\x01", b"\x91\x05"])
def test_a_server_that_talks_rubbish_is_left_and_tried_again(garbage: bytes) -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            script.peers[0].transport.send(2, garbage)
            await until(lambda: len(script.peers) == 2 and client.state == "ready")

    play(scenario)


def test_a_message_of_an_unknown_type_is_ignored() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            script.peers[0].transport.send(2, b"\x92\x63\x01")
            script.peers[0].send(m.Response(999, None), m.Error(None, 500, "internal", "?"))
            await asyncio.sleep(1)
            assert client.stats.reconnects == 0

    play(scenario)


def test_an_answer_to_auth_that_is_none_is_a_failed_attempt() -> None:
    async def scenario() -> None:
        network = Network()
        bad = [{"subscriptions": 7}]

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth) and message.subscribe and bad:
                peer.respond(message, bad.pop())
            else:
                welcome(peer, message)

        script = Script(network, handle)
        async with client_to(network, limits=FAST) as client:
            async with client.subscribe("c") as room:
                client.drop()
                await until(lambda: len(script.peers) == 3)
                await until(lambda: room.state == "subscribed" and client.state == "ready")

    play(scenario)


def test_hooks_that_raise_break_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = world.client()

            def fails(*args: Any) -> None:
                raise ValueError("mine")

            client.on_state = client.on_event = fails
            async with client:
                world.connection().send(m.Event("e", 1))
                await client.publish("c", 1)

    with caplog.at_level(logging.ERROR, "everwire.client"):
        play(scenario)
    assert len(caplog.records) >= 3


def test_closing_while_there_is_no_connection_ends_at_once() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            world.network.refuse = True
            world.network.cut()
            await asyncio.sleep(3)
            began = loop().time()
            await client.close()
            assert loop().time() - began < 0.1
            assert client.state == "closed"

    play(scenario)


@pytest.mark.parametrize("when", [0.0, 0.005, 0.015, 0.025, 0.035, 0.05])
def test_giving_up_while_connecting_leaves_nothing(when: float) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = world.client()
            opening = asyncio.get_running_loop().create_task(client.__aenter__())
            await asyncio.sleep(when)
            opening.cancel()
            await asyncio.wait([opening])
            if not opening.cancelled():
                await client.close()
            assert client.state == "closed"
            await asyncio.sleep(5)
            assert not world.node.connections

    play(scenario)


def test_closing_a_connection_whose_server_does_not_answer_ends_in_time() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            world.network.links[0].freeze()
            began = loop().time()
            await client.close()
            assert loop().time() - began == pytest.approx(3.0, abs=0.1)

    play(scenario)


def test_closing_that_is_cancelled_drops_the_connection() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            client = await world.client()
            world.network.links[0].freeze(Direction.TO_CLIENT)
            closing = asyncio.get_running_loop().create_task(client.close())
            await asyncio.sleep(0.5)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert client.state == "closed"

    play(scenario)


def test_a_defect_of_ours_ends_the_client_and_wedges_nobody() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client() as client:
            client._core.session._reconnection._delay = lambda *args: 1 / 0  # type: ignore[method-assign]
            waiting = asyncio.get_running_loop().create_task(
                client.query("everwire.history", {"channel": "c"})
            )
            await asyncio.sleep(0)
            client.drop()
            await asyncio.sleep(0.1)
            with pytest.raises(ClosedError, match="ZeroDivisionError"):
                await waiting
            with pytest.raises(ClosedError):
                await client.publish("c", 1)

    play(scenario)


def test_what_it_is_shows_no_secrets() -> None:
    async def scenario() -> None:
        network = Network()
        Script(network)
        url = "ws://user:secret@node/ws?token=secret"
        async with client_to(network, url=url, token="secret") as client:
            assert "secret" not in repr(client)
            assert "ready" in repr(client)
            async with client.subscribe("c") as room:
                assert "'c' subscribed" in repr(room)

    play(scenario)


@pytest.mark.parametrize("url", ["http://x", "ws://", "x", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not a WebSocket URL"):
        connect(url)
    with pytest.raises(ConfigError, match="there is no dialect"):
        connect(URL, dialect="morse")


def test_the_handshake_carries_name_and_headers() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network, name="billing", headers={"X-Trace": "1"}):
            (peer,) = script.peers
            assert peer.handshake.headers["x-trace"] == "1"
            assert peer.handshake.subprotocols == ("everwire.v1.msgpack",)
            info = peer.of(m.Auth)[0].client
            assert info is not None
            assert (info.name, len(info.instance)) == ("billing", 16)
            assert info.version

    play(scenario)


# ---- heartbeat ---------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_an_idle_connection_stays(dialect: str) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(dialect=dialect) as client:
            await asyncio.sleep(600)
            assert client.stats.reconnects == 0

    play(scenario)


def test_pings_are_answered_with_the_same_time() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network):
            script.peers[0].send(m.Ping(12345))
            await asyncio.sleep(1)
            assert [one.time for one in script.peers[0].of(m.Pong)] == [12345]

    play(scenario)


def test_a_dead_link_is_noticed_within_the_interval_and_the_grace() -> None:
    async def scenario() -> None:
        limits = Limits(ping_interval=8.0)
        async with node_world(limits=limits) as world, world.client() as client:
            await asyncio.sleep(100)
            reasons: list[str] = []
            client.on_state = reasons.append
            world.network.links[0].freeze(drop=True)
            began = loop().time()
            await until(lambda: reasons)
            assert loop().time() - began <= 18.1
            await until(lambda: client.state == "ready")
            error = client._core.session.failure
            assert isinstance(error, ClosedError)
            assert error.code == CloseCode.HEARTBEAT

    play(scenario)


def test_a_large_message_on_a_slow_line_is_a_sign_of_life() -> None:
    async def scenario() -> None:
        limits = Limits(ping_interval=5.0)
        async with node_world(limits=limits) as world, world.client() as client:
            async with client.subscribe("c") as room:
                world.network.links[0].bandwidth = 5_000.0
                await world.wire.publish("c", "x" * 500_000)
                await take(room, 1, within=150)
                assert client.stats.reconnects == 0

    play(scenario)


def test_when_our_own_loop_was_busy_the_server_is_asked_before_it_is_given_up() -> None:
    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network) as client:
            states: list[str] = []
            client.on_state = states.append
            await asyncio.sleep(28)
            loop()._set(loop().time() + 20)  # as if nothing had run for so long
            await asyncio.sleep(1)
            assert states == ["suspect", "ready"]
            assert len(script.peers[0].of(m.Ping)) == 1
            script._handle = lambda peer, message: None
            loop()._set(loop().time() + 60)
            await asyncio.sleep(4)
            assert states[2:] == ["suspect"]
            script._handle = None
            await until(lambda: client.state == "ready")
            assert client.stats.reconnects == 1

    play(scenario)


def test_after_the_machine_was_suspended_the_server_is_asked_at_once() -> None:
    async def scenario() -> None:
        ahead = [0.0]
        network = Network()
        script = Script(network)
        async with client_to(network, wall=lambda: loop().wall() + ahead[0]) as client:
            states: list[str] = []
            client.on_state = states.append
            await asyncio.sleep(10)
            ahead[0] = 3600.0
            await asyncio.sleep(5)
            assert states == ["suspect", "ready"]
            assert len(script.peers) == 1

    play(scenario)


def test_the_connection_is_given_to_nobody_twice() -> None:
    """A transport that still talks after it was given up reaches nobody."""

    async def scenario() -> None:
        network = Network()
        script = Script(network)
        async with client_to(network, limits=FAST) as client, client.subscribe("c") as room:
            old = client._core.session.link
            assert old is not None
            client.drop()
            await until(lambda: client.state == "ready")
            old.received(2, old.dialect.encode(m.Drain(0, 0)))
            old.closed(4500, "late")
            old.resume_writing()
            old.heard()
            await asyncio.sleep(1)
            assert client.state == "ready"
            assert room.state == "subscribed"
            assert len(script.peers) == 2
            assert isinstance(world_connection(script), Peer)

    def world_connection(script: Script) -> Peer | Connection:
        return script.peers[-1]

    play(scenario)
