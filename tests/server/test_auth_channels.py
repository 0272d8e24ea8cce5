"""Signed tokens of channels: of this channel and user, for their time, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from everwire import (
    JWT,
    ConfigError,
    Connection,
    Everwire,
    Forbidden,
    Grant,
    Identity,
    RequestError,
)
from everwire.brokers.base import Page
from everwire.brokers.memory import MemoryBroker
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.server.node import Node
from everwire.testing import Network, VirtualLoop, run

from ..client.world import client_to, data_of, take
from .peer import Peer, alive, serving

SECRET = "s" * 64


def wall() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.wall()


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(scenario, limit=200_000)


class Slow(MemoryBroker):
    """Takes its time for private channels: ``opening`` and ``reading`` seconds."""

    opening = reading = 0.0

    async def subscribe(self, channels: Sequence[str]) -> None:
        await asyncio.sleep(self.opening if "private" in channels[0] else 0)
        await super().subscribe(channels)

    async def read(self, channel: str, *args: Any, **options: Any) -> Page:
        await asyncio.sleep(self.reading if "private" in channel else 0)
        return await super().read(channel, *args, **options)


@asynccontextmanager
async def private(**options: Any) -> AsyncIterator[tuple[Network, Node, Everwire, JWT]]:
    """Channels ``private:{id}`` want a token; a connection's token is ``user`` or ``user@tenant``."""
    made = JWT(SECRET, algorithms=["HS256"], wall=wall)
    wire = Everwire(channel_tokens=made, allow_anonymous=True, **options)

    @wire.authenticate
    async def who(token: str) -> Identity:
        user, _, tenant = token.partition("@")
        return Identity(user, tenant=tenant)

    wire.channel("private:{id}", token=True, presence=True)
    wire.channel("{name}", grant=Grant(publish=True))

    @wire.channel("both:{id}", token=True)
    async def both(conn: Connection, id: str) -> Grant:  # noqa: A002
        if id == "closed":
            raise Forbidden("closed")
        return Grant(publish=id == "open")

    async with serving(wire) as (network, node):
        yield network, node, wire, made


async def come(network: Network, token: str | None = "ada") -> Peer:
    peer = Peer(network)
    assert isinstance(await peer.auth(token=token), m.Response)
    return peer


async def subscribe(peer: Peer, channel: str, token: str | None = None) -> int:
    """0 if it is allowed, otherwise the error's code."""
    request = m.ChannelRequest(channel, token=token)
    payload = await peer.ask(m.Subscribe(peer._serial(), [request]))
    return int(payload["subscriptions"][0].get("error", {}).get("code", 0))


def test_a_token_lets_its_user_into_its_channel() -> None:
    async def scenario() -> None:
        async with private() as (network, node, wire, made):
            peer = await come(network)
            token = made.issue("ada", channel="private:1")
            assert await subscribe(peer, "private:1", token) == 0
            await wire.publish("private:1", "hello")
            assert (await peer.next(m.ChannelMessage)).data == "hello"
            refused = await peer.publish("p1", "private:1", "x")
            assert refused.code == 202  # it may not publish
            assert node.counters["channel_tokens_refused"] == 0

    play(scenario)


@pytest.mark.parametrize(
    ("user", "claims", "code"),
    [
        ("ada", {"channel": "private:2"}, 202),
        ("ada", {"channel": "private:1 "}, 202),
        ("ada", {"channel": "private:{id}"}, 202),
        ("ada", {"channel": "*"}, 202),
        ("bob", {}, 202),
        ("", {}, 202),
        ("Ada", {}, 202),
        ("ada", {"tenant": "acme"}, 202),
        ("ada", {"tenant": 5}, 202),
        ("ada", {"expires_in": -61}, 201),
        ("ada", {"nbf": 1e10}, 202),
        ("ada", {"subscribe": False}, 202),
        ("ada", {"publish": "yes"}, 202),
        ("ada", {}, 0),
        ("ada", {"expires_in": None}, 0),
    ],
)
def test_a_token_for_another_channel_user_or_tenant_or_time_is_refused(
    user: str, claims: dict[str, Any], code: int
) -> None:
    async def scenario() -> None:
        async with private() as (network, _, _, made):
            peer = await come(network)
            token = made.issue(user, **{"channel": "private:1", **claims})
            assert await subscribe(peer, "private:1", token) == code

    play(scenario)


def test_without_a_token_or_with_one_of_a_connection_a_private_channel_is_closed() -> None:
    async def scenario() -> None:
        async with private() as (network, _, wire, made):
            peer = await come(network)
            stranger = JWT("x" * 64, algorithms=["HS256"], wall=wall)
            for token in (
                None, "", "x", made.issue("ada"), stranger.issue("ada", channel="private:1"),
                "x" * 9000,
            ):  # fmt: skip
                assert await subscribe(peer, "private:1", token) == 202
            for request in (
                m.Publish("p1", "private:1", "x"),
                m.Query(7, "everwire.history", {"channel": "private:1"}),
                m.Query(8, "everwire.presence", {"channel": "private:1"}),
            ):
                answer = await peer.ask(request)
                assert isinstance(answer, m.Error)
                assert answer.code == 202
            assert len((await wire.history("private:1")).records) == 0

    play(scenario)


def test_tenants_have_their_own_channels_and_tokens() -> None:
    async def scenario() -> None:
        async with private() as (network, _, _, made):
            acme = await come(network, "ada@acme")
            token = made.issue("ada", channel="private:1", tenant="acme")
            assert await subscribe(acme, "private:1", made.issue("ada", channel="private:1")) == 202
            assert await subscribe(acme, "private:1", token) == 0
            assert await subscribe(await come(network, "ada@other"), "private:1", token) == 202

    play(scenario)


def test_the_anonymous_may_have_tokens_that_name_nobody() -> None:
    async def scenario() -> None:
        async with private() as (network, _, _, made):
            peer = await come(network, None)
            assert await subscribe(peer, "private:1", made.issue("ada", channel="private:1")) == 202
            assert await subscribe(peer, "private:1", made.issue("", channel="private:1")) == 0

    play(scenario)


def test_a_token_and_the_rule_allow_together_what_both_allow() -> None:
    async def scenario() -> None:
        async with private() as (network, _, _, made):
            peer = await come(network)

            async def publishes(channel: str, **claims: Any) -> bool:
                token = made.issue("ada", channel=channel, **claims)
                assert await subscribe(peer, channel, token) == 0
                return isinstance(await peer.publish(f"p{peer._serial()}", channel, 1), dict)

            assert await publishes("private:1", publish=True)
            assert await publishes("both:open", publish=True)
            assert not await publishes("both:open")
            assert not await publishes("both:other", publish=True)
            token = made.issue("ada", channel="both:closed")
            assert await subscribe(peer, "both:closed", token) == 202
            assert await subscribe(peer, "both:open", None) == 0  # still granted, by the last token

    play(scenario)


@pytest.mark.parametrize("life", [1.0, 29.5, 100.0])
def test_a_subscription_ends_with_its_token_and_says_so(life: float) -> None:
    async def scenario() -> None:
        async with private() as (network, node, wire, made):
            peer = await come(network)
            ends = wall() + life
            token = made.issue("ada", channel="private:1", expires_in=life, publish=True)
            assert await subscribe(peer, "private:1", token) == 0
            assert await subscribe(peer, "open") == 0
            while not (ended := [one for one in peer.inbox if isinstance(one, m.Unsubscribed)]):
                await wire.publish("private:1", wall())
                await asyncio.sleep(0.05)
            assert (ended[0].code, ended[0].temporary) == (201, True)
            last = max(message.data for message in peer.messages())
            assert ends - 0.1 <= last <= ends + 1.0
            assert peer.close_code is None
            assert (await peer.publish("p1", "private:1", 1)).code == 202
            assert isinstance(await peer.publish("p2", "open", 1), dict)
            await asyncio.sleep(60)  # by the leeway it would open it again until then
            assert await subscribe(peer, "private:1", token) == 201
            assert node.counters["channel_tokens_expired"] == 1

    play(scenario)


@pytest.mark.parametrize("slow", ["opening", "reading"])
def test_a_token_that_ends_while_the_broker_is_waited_for_opens_nothing(slow: str) -> None:
    """And the client is told that a fresh one may."""

    async def scenario() -> None:
        broker = Slow(wall=wall)
        setattr(broker, slow, 4.0)
        async with private(broker=broker) as (network, node, wire, made):
            peer = await come(network)
            token = made.issue("ada", channel="private:1", expires_in=2)
            assert await subscribe(peer, "private:1", token) == 201
            await wire.publish("private:1", "secret")
            await asyncio.sleep(1)
            assert not peer.messages()
            (connection,) = node.connections.values()
            assert not connection.subscriptions

    play(scenario)


def test_a_token_s_end_is_not_forgotten_for_too_many_other_channels() -> None:
    """While the broker is waited for, what was granted counts as little as any other channel."""

    async def scenario() -> None:
        broker = Slow(wall=wall)
        broker.opening = 2.0
        limits = Limits(subscriptions=3)
        async with private(broker=broker, limits=limits) as (network, _, wire, made):
            peer = await come(network)
            token = made.issue("ada", channel="private:1", expires_in=10)
            peer.send(m.Subscribe(7, [m.ChannelRequest("private:1", token=token)]))
            await asyncio.sleep(0.5)
            for number in range(9):
                assert isinstance(await peer.publish(f"p{number}", f"c{number}", 1), dict)
            answer = await peer.answer(7)
            assert isinstance(answer, m.Response)
            await wire.publish("private:1", "hello")
            assert (await peer.next(m.ChannelMessage)).data == "hello"
            await asyncio.sleep(10)
            assert (await peer.next(m.Unsubscribed)).code == 201
            await wire.publish("private:1", "secret")
            await asyncio.sleep(1)
            assert not peer.messages()

    play(scenario)


def test_a_fresh_token_takes_the_place_of_the_one_before_it() -> None:
    async def scenario() -> None:
        async with private() as (network, _, wire, made):
            peer = await come(network)
            for life in (5, 500):
                token = made.issue("ada", channel="private:1", expires_in=life)
                assert await subscribe(peer, "private:1", token) == 0
            bad = made.issue("bob", channel="private:1")
            assert await subscribe(peer, "private:1", bad) == 202  # and it is as before
            await asyncio.sleep(100)
            await wire.publish("private:1", "still")
            assert (await peer.next(m.ChannelMessage)).data == "still"

    play(scenario)


def test_a_refreshed_connection_keeps_what_tokens_opened_for_its_user() -> None:
    async def scenario() -> None:
        async with private() as (network, _, wire, made):
            peer = await come(network)
            token = made.issue("ada", channel="private:1", expires_in=100)
            assert await subscribe(peer, "private:1", token) == 0
            assert isinstance(await peer.ask(m.Auth(50, "ada")), dict)
            await wire.publish("private:1", "hello")
            assert (await peer.next(m.ChannelMessage)).data == "hello"
            await asyncio.sleep(101)  # and its end is not forgotten
            assert (await peer.next(m.Unsubscribed)).code == 201

    play(scenario)


def test_an_auth_that_brings_a_fresh_channel_token_keeps_that_one() -> None:
    async def scenario() -> None:
        async with private() as (network, _, wire, made):
            peer = await come(network)
            token = made.issue("ada", channel="private:1", expires_in=5)
            assert await subscribe(peer, "private:1", token) == 0
            fresh = made.issue("ada", channel="private:1", expires_in=500)
            request = m.ChannelRequest("private:1", token=fresh)
            assert isinstance(await peer.ask(m.Auth(50, "ada", subscribe=[request])), dict)
            await asyncio.sleep(100)
            await wire.publish("private:1", "still")
            assert (await peer.next(m.ChannelMessage)).data == "still"

    play(scenario)


def test_a_refresh_asks_again_whether_a_channel_s_token_is_over() -> None:
    """Sooner than whoever looks once a second."""

    async def scenario() -> None:
        async with private() as (network, _, _, made):
            peer = await come(network)
            await asyncio.sleep(1.0 - wall() % 1)
            token = made.issue("ada", channel="private:1", expires_in=1.05)
            assert await subscribe(peer, "private:1", token) == 0
            await asyncio.sleep(1.2)
            assert isinstance(await peer.ask(m.Auth(50, "ada")), dict)
            ended = [one for one in peer.inbox if isinstance(one, m.Unsubscribed)]
            assert [one.code for one in ended] == [201]

    play(scenario)


def test_a_token_is_of_no_use_when_the_connection_s_user_has_changed() -> None:
    """In plain, where whoever was anonymous may say later who it is."""

    async def scenario() -> None:
        async with private() as (network, _, wire, made):
            peer = Peer(network, "plain")
            await peer.open()
            connection = next(iter(wire.node.connections.values()))
            token = made.issue("", channel="private:1")
            assert (await wire.node.access.ask(connection, "private:1", token)).grant.subscribe
            peer.send(m.Subscribe("", [m.ChannelRequest("private:1")]))
            await peer.next(m.Subscribed)
            peer.send(m.Auth(1, "ada"))
            await peer.answer(1)
            await wire.publish("private:1", "secret")
            await asyncio.sleep(1)
            assert not peer.messages()
            assert not connection.subscriptions
            with pytest.raises(RequestError, match="another channel or user"):
                await wire.node.access.ask(connection, "private:1", token)

    play(scenario)


def test_a_revoked_token_ends_its_subscription_and_opens_none() -> None:
    async def scenario() -> None:
        async with private() as (network, _, wire, made):
            peer, other = await come(network), await come(network)
            tokens = [made.issue("ada", channel="private:1", jti=f"t{n}") for n in range(2)]
            for one, token in zip((peer, other), tokens, strict=True):
                assert await subscribe(one, "private:1", token) == 0
            await wire.revoke(token_id="t0")
            await wire.publish("private:1", "secret")
            assert (await peer.next(m.Unsubscribed)).code == 201
            assert (await other.next(m.ChannelMessage)).data == "secret"
            assert peer.close_code is None
            assert not peer.messages()
            assert await subscribe(peer, "private:1", tokens[0]) == 202

    play(scenario)


def test_a_user_s_revocation_concerns_the_tokens_of_channels_too() -> None:
    async def scenario() -> None:
        async with private() as (network, _, wire, made):
            token = made.issue("ada", channel="private:1")
            await asyncio.sleep(1.5)
            await wire.revoke(user="ada")
            peer = await come(network)  # its own token says nothing of when it was issued
            assert await subscribe(peer, "private:1", token) == 202
            assert await subscribe(peer, "private:1", made.issue("ada", channel="private:1")) == 0

    play(scenario)


def test_a_client_asks_its_provider_again_when_a_channel_s_token_ends_and_misses_nothing() -> None:
    async def scenario() -> None:
        async with private() as (network, node, wire, made):
            asked = 0

            async def provider() -> str:
                nonlocal asked
                asked += 1
                return made.issue("ada", channel="private:1", expires_in=7)

            async with client_to(network, token="ada") as client:
                async with client.subscribe("private:1", token=provider) as room:
                    for number in range(200):
                        await wire.publish("private:1", number)
                        await asyncio.sleep(0.2)
                    assert data_of(await take(room, 200)) == list(range(200))
            assert asked >= 5
            assert node.counters["channel_tokens_expired"] >= 4

    play(scenario)


@pytest.mark.parametrize("kind", ["fixed", "provider"])
def test_a_client_that_has_no_other_token_gives_up(kind: str) -> None:
    async def scenario() -> None:
        async with private() as (network, _, _, made):
            stale = made.issue("ada", channel="private:1", expires_in=-1000)

            async def provider() -> str:
                return stale

            source = stale if kind == "fixed" else provider
            async with client_to(network, token="ada") as client:
                with pytest.raises(RequestError) as caught:
                    async with asyncio.timeout(30):
                        await client.subscribe("private:1", token=source).__aenter__()
                assert caught.value.code == 201

    play(scenario)


def test_an_ended_connection_is_not_held_for_its_tokens() -> None:
    async def scenario() -> None:
        async with private() as (network, _, _, made):
            peer = await come(network)
            token = made.issue("ada", channel="private:1", expires_in=100_000)
            assert await subscribe(peer, "private:1", token) == 0
            peer.transport.abort()
            del peer
            await asyncio.sleep(70)
            assert alive(Connection) == 0

    play(scenario)


def test_a_rule_for_tokens_needs_who_verifies_them() -> None:
    with pytest.raises(ConfigError, match="channel_tokens"):
        Everwire().channel("private:{id}", token=True)
    wire = Everwire(channel_tokens=JWT(SECRET, algorithms=["HS256"]))
    with pytest.raises(ConfigError, match="no grant"):
        wire.channel("private:{id}", token=True, grant=Grant())
    wire.channel("private:{id}", token=True)
    with pytest.raises(ConfigError, match="twice"):
        wire.channel("private:{id}", token=True)
