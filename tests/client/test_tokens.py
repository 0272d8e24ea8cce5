"""Tokens are fetched once for all, renewed while everything goes on, and refused for good only
when a fresh one is refused."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from everwire import (
    ConfigError,
    Everwire,
    EverwireError,
    Identity,
    Token,
    Tokens,
    Unauthorized,
    connect,
)
from everwire.client.tokens import life_left, refresh_in
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
    take,
    until,
    welcome,
)


def good_for(seconds: float, seen: list[str] | None = None) -> Callable[[Everwire], None]:
    """Who authenticates may stay for so many seconds."""

    def declare(wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str) -> Identity:
            if seen is not None:
                seen.append(token)
            return Identity("ada", expires=loop().wall() + seconds)

    return declare


class Source:
    """A provider that counts, and fails as it is told."""

    def __init__(self, life: float | None = None, took: float = 0.0) -> None:
        self.life = life
        self.took = took
        self.asked: list[float] = []
        self.fails = 0

    async def __call__(self) -> Any:
        self.asked.append(loop().time())
        await asyncio.sleep(self.took)
        if self.fails:
            self.fails -= 1
            raise ValueError("no network")
        name = f"t{len(self.asked)}"
        return name if self.life is None else Token(name, loop().wall() + self.life)


# ---- in-band refresh -----------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_a_token_is_renewed_on_the_link_before_it_expires(dialect: str) -> None:
    async def scenario() -> None:
        seen: list[str] = []
        source = Source()
        async with node_world(good_for(1_000, seen)) as world:
            async with world.client(token=source, dialect=dialect) as client:
                async with client.subscribe("c") as room:
                    await asyncio.sleep(3_500)
                    await world.wire.publish("c", 1)
                    assert data_of(await take(room, 1)) == [1]
                assert client.stats.reconnects == 0
                assert seen == ["t1", "t2", "t3", "t4", "t5"][: len(seen)]
                gaps = [b - a for a, b in zip(source.asked, source.asked[1:], strict=False)]
                assert len(gaps) in (3, 4)
                assert all(745 <= gap <= 905 for gap in gaps)

    play(scenario)


def test_what_the_provider_says_of_its_life_counts_as_well_as_what_the_server_says() -> None:
    async def scenario() -> None:
        source = Source(life=400)
        async with node_world(good_for(10_000)) as world, world.client(token=source):
            await asyncio.sleep(399)
            assert len(source.asked) == 2
            assert 299 <= source.asked[1] - source.asked[0] <= 361

    play(scenario)


def test_a_moment_is_chosen_by_chance_and_thirty_seconds_early_where_that_leaves_half() -> None:
    random = Random(1)
    moments = [refresh_in(1_000, random) for _ in range(500)]
    assert 750 <= min(moments) < 760
    assert 890 < max(moments) <= 900
    assert all(refresh_in(100, random) <= 70 for _ in range(100))
    assert refresh_in(60, random) == 30
    assert all(37.5 <= refresh_in(50, random) <= 45 for _ in range(100))
    assert refresh_in(-5, random) == 1.0  # never a loop


@pytest.mark.parametrize(
    ("expires_at", "payload", "left"),
    [
        (None, {"expiresIn": None}, None),
        (None, None, None),
        (None, ["odd"], None),
        (None, {"expiresIn": "odd"}, None),
        (None, {"expiresIn": 5_000}, 5.0),
        (1_009.0, {"expiresIn": None}, 9.0),
        (1_009.0, {"expiresIn": 5_000}, 5.0),
        (1_002.0, {"expiresIn": 5_000}, 2.0),
    ],
)
def test_the_life_of_a_token_is_the_shorter_of_what_both_say(
    expires_at: float | None, payload: Any, left: float | None
) -> None:
    assert life_left(Token("t", expires_at), payload, 1_000.0) == left


def test_a_refresh_that_cannot_be_fetched_is_tried_again_and_the_link_is_left_alone() -> None:
    async def scenario() -> None:
        source = Source()
        async with node_world(good_for(1_000)) as world, world.client(token=source) as client:
            source.fails = 4
            await asyncio.sleep(990)
            assert len(source.asked) == 6
            waits = [b - a for a, b in zip(source.asked[1:], source.asked[2:], strict=False)]
            assert all(0.1 <= wait <= 20 for wait in waits)
            assert client.stats.reconnects == 0
            await asyncio.sleep(100)  # beyond the first token's end
            assert client.stats.reconnects == 0

    play(scenario)


def test_the_link_is_not_dropped_for_a_failed_refresh_before_the_server_does() -> None:
    async def scenario() -> None:
        source = Source()
        async with node_world(good_for(1_000)) as world, world.client(token=source) as client:
            began = loop().time()
            source.fails = 10_000
            await until(lambda: not world.node.connections, within=1_100)
            assert loop().time() - began == pytest.approx(1_000, abs=2)
            source.fails = 0
            await until(lambda: client.stats.reconnects == 1)

    play(scenario)


def test_a_token_fetched_for_a_link_that_is_gone_is_not_sent_on_the_next() -> None:
    async def scenario() -> None:
        network = Network()
        auths: list[tuple[int, str | None]] = []

        def handle(peer: Peer, message: m.Message) -> None:
            if isinstance(message, m.Auth):
                auths.append((script.peers.index(peer), message.token))
                peer.respond(message, {"user": "a", "expiresIn": 20_000, "subscriptions": []})
            else:
                welcome(peer, message)

        script = Script(network, handle)
        source = Source()
        async with client_to(network, token=source, limits=FAST) as client:
            source.took = 5.0
            await until(lambda: len(source.asked) == 2, within=100)
            client.drop()  # while it is being fetched
            source.took = 0.0
            await until(lambda: client.stats.reconnects == 1)
            await asyncio.sleep(10)
            assert auths == [(0, "t1"), (1, "t3")]

    play(scenario)


@pytest.mark.parametrize("life", [None, 1_000.0])
def test_a_refused_refresh_is_followed_by_a_fresh_token_and_a_second_refusal_is_final(
    life: float | None,
) -> None:
    async def scenario() -> None:
        accepted = {"t1", "t3"}

        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(token: str) -> Identity:
                if token not in accepted:
                    raise Unauthorized("not that one")
                return Identity("ada", expires=loop().wall() + 1_000)

        source = Source(life)
        async with node_world(declare) as world, world.client(token=source) as client:
            await until(lambda: client.stats.reconnects == 1, within=2_000)
            assert len(source.asked) == 3
            assert source.asked[2] - source.asked[1] < 3
            with pytest.raises(Unauthorized, match="not that one"):
                await asyncio.sleep(1_500)
                await client.query("x")
            assert len(source.asked) == 5
            await asyncio.sleep(1_000)
            assert len(source.asked) == 5

    play(scenario)


def test_only_one_auth_is_in_flight() -> None:
    """The answer is awaited, however long the server takes over it; a second one is a breach."""

    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(token: str) -> Identity:
                await asyncio.sleep(3)
                return Identity("ada", expires=loop().wall() + 3)

        async with node_world(declare) as world, world.client(token=Source()):
            await asyncio.sleep(60)
            assert world.node.counters["violations"] == 0

    play(scenario)


# ---- what is fetched -----------------------------------------------------------------------


def test_a_token_that_is_good_for_long_is_used_for_the_next_connection() -> None:
    async def scenario() -> None:
        source = Source(life=3_600)
        async with node_world(good_for(3_600)) as world:
            async with world.client(token=source, limits=FAST) as client:
                for n in range(3):
                    client.drop()
                    await until(lambda: client.stats.reconnects == n + 1)  # noqa: B023
                assert len(source.asked) == 1

    play(scenario)


def test_within_thirty_seconds_of_its_end_by_the_servers_clock_it_is_fetched_anew() -> None:
    async def scenario() -> None:
        network = Network()
        ahead = 0.0

        def handle(peer: Peer, message: m.Message) -> None:
            welcome(peer, message)

        script = Script(network, handle, hello=False)

        def accept(transport: Any, handshake: Any) -> Peer:
            peer = Peer(script, transport, handshake)
            script.peers.append(peer)
            time = int((loop().wall() + ahead) * 1000)
            peer.send(m.Hello(1, "n", "secret", time, [], 20_000, {}))
            return peer

        network.listen("ws://clock/ws", accept)
        source = Source(life=100)
        async with client_to(network, url="ws://clock/ws", token=source, limits=FAST) as client:
            client.drop()
            await until(lambda: client.stats.reconnects == 1)
            assert len(source.asked) == 1
            ahead = 75.0  # there it is good for less than 25 s more
            client.drop()
            await until(lambda: client.stats.reconnects == 2)
            client.drop()
            await until(lambda: client.stats.reconnects == 3)
            assert len(source.asked) == 2

    play(scenario)


def test_a_refused_token_is_not_used_again_though_it_says_it_is_good() -> None:
    async def scenario() -> None:
        accepted = {"t1"}

        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(token: str) -> Identity:
                if token not in accepted:
                    raise Unauthorized("revoked")
                return Identity("ada")

        source = Source(life=3_600)
        async with node_world(declare) as world:
            async with world.client(token=source, limits=FAST) as client:
                accepted.clear()
                accepted.add("t2")
                client.drop()
                await until(lambda: client.stats.reconnects == 1)
                assert len(source.asked) == 2

    play(scenario)


def test_several_clients_share_what_is_fetched_and_ask_once() -> None:
    async def scenario() -> None:
        source = Source(life=3_600, took=2.0)
        tokens = Tokens(source)
        async with node_world(good_for(3_600)) as world:
            clients = [world.client(token=tokens) for _ in range(5)]
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(_open(client))
            assert len(source.asked) == 1
            await asyncio.sleep(3_500)  # each refreshes at its own moment
            assert len(source.asked) == 2
            for client in clients:
                assert client.stats.reconnects == 0
                await client.close()

    play(scenario)


async def _open(client: Any) -> None:
    await client


def test_who_is_cancelled_while_all_wait_leaves_the_others_their_token() -> None:
    async def scenario() -> None:
        source = Source(took=2.0)
        tokens = Tokens(source)
        create = asyncio.get_running_loop().create_task
        first, second, third = (create(tokens.get(0.0)) for _ in range(3))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(0.5)
        third.cancel()
        token = await second
        assert token == Token("t2")
        assert len(source.asked) == 2
        assert first.cancelled()
        assert third.cancelled()

    play(scenario)


def test_a_failure_is_everybodys_who_waits_and_the_next_asks_again() -> None:
    async def scenario() -> None:
        source = Source(took=1.0)
        source.fails = 1
        tokens = Tokens(source)
        create = asyncio.get_running_loop().create_task
        waiting = [create(tokens.get(0.0)) for _ in range(3)]
        for each in waiting:
            with pytest.raises(EverwireError, match="no network"):
                await each
        assert len(source.asked) == 1
        assert await tokens.get(0.0) == Token("t2")

    play(scenario)


def test_a_plain_provider_runs_in_a_thread_and_may_return_what_is_awaited() -> None:
    async def scenario() -> None:
        threads: list[threading.Thread] = []

        def blocking() -> str:
            threads.append(threading.current_thread())
            return "a"

        source = Source()
        assert await Tokens(blocking).get(0.0) == Token("a")
        assert threads != [threading.current_thread()]
        assert await Tokens(lambda: source()).get(0.0) == Token("t1")

    play(scenario)


@pytest.mark.parametrize("way", ["cancelled", "hangs", "raises", "none"])
def test_whatever_a_provider_does_is_one_failed_attempt(way: str) -> None:
    async def scenario() -> None:
        asked: list[float] = []

        async def provide() -> Any:
            asked.append(loop().time())
            if len(asked) > 3:
                return "t"
            if way == "cancelled":
                raise asyncio.CancelledError
            if way == "hangs":
                await asyncio.Event().wait()
            if way == "raises":
                raise RuntimeError("no")
            return {"access_token": "s3cret"}

        async with node_world(good_for(3_600)) as world:
            async with world.client(token=provide, timeout=120):
                assert len(asked) == 4

    play(scenario)


# ---- refusals ------------------------------------------------------------------------------


def test_text_that_is_refused_is_final_at_once() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(token: str) -> Identity:
                seen.append(token)
                raise Unauthorized("never heard of it")

        async with node_world(declare) as world:
            with pytest.raises(Unauthorized, match="never heard"):
                await world.client(token="stale")
            assert seen == ["stale"]

    play(scenario)


def test_nothing_of_a_token_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def wrong() -> Any:
        return {"access_token": "s3cret"}

    async def refused() -> Token:
        return Token("s3cret")

    async def scenario() -> None:
        assert "s3cret" not in repr(Token("s3cret", 1.0))
        assert "s3cret" not in repr(Tokens("s3cret"))

        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(token: str) -> Identity:
                raise Unauthorized("no")

        async with node_world(declare) as world:
            for provider in (wrong, refused):
                with pytest.raises(EverwireError) as error:
                    await world.client(token=provider, timeout=5)
                assert "s3cret" not in repr(error.value) + str(error.value)
        assert "s3cret" not in caplog.text

    play(scenario)


def test_what_cannot_be_a_token_is_refused_at_once_and_not_shown() -> None:
    async def provide() -> str:
        return "t"

    called = provide()
    with pytest.raises(ConfigError, match="without calling it"):
        connect("ws://node/ws", token=called)  # type: ignore[arg-type]
    called.close()
    with pytest.raises(ConfigError, match="not bytes") as error:
        connect("ws://node/ws", token=b"secret")  # type: ignore[arg-type]
    assert "secret" not in str(error.value)
