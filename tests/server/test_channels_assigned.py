"""Server-side subscriptions: the application subscribes a connection, and users' own channels."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire import (
    ConfigError,
    Connection,
    Everwire,
    Forbidden,
    Grant,
    Identity,
    NotSent,
    Position,
    RequestError,
)
from everwire.brokers.memory import MemoryBroker
from everwire.codes import CloseCode, ErrorCode
from everwire.errors import BrokerUnavailable
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.protocol.channels import OwnChannel, check_channel, quoted
from everwire.testing import run

from ..contracts.stepped import STEP, SteppedBroker
from .peer import Peer, serving


def application(**options: Any) -> Everwire:
    wire = Everwire(allow_anonymous=True, **options)

    @wire.authenticate
    async def who(token: str | None = None) -> Identity:
        tenant, _, user = (token or "").rpartition("/")
        return Identity(user, tenant=tenant)

    @wire.channel("closed:{room}", presence=True)
    async def closed(conn: Connection, room: str) -> Grant:
        raise Forbidden("not by yourself")

    @wire.channel("{name:path}")
    async def other(conn: Connection, name: str) -> Grant:
        return Grant(publish=True)

    return wire


# ---- given by on_connect ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "msgpack", "plain"])
def test_what_on_connect_returns_is_subscribed_to_and_told_before_its_messages(name: str) -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> list[str]:
        return ["closed:a", "news"]

    @wire.on_connect
    async def also(conn: Connection) -> str:
        return "more"

    async def main() -> None:
        async with serving(wire) as (network, node):
            at = await wire.publish("news", "before")
            peer = Peer(network, name)
            if name == "plain":
                await peer.open()
            else:
                answer = await peer.auth()
                assert isinstance(answer, m.Response)
                assert answer.payload["subscriptions"] == []
            told = [await peer.next(m.Subscribed) for _ in range(3)]
            assert [one.channel for one in told] == ["closed:a", "news", "more"]
            await wire.publish("news", "after")
            message = await peer.next(m.ChannelMessage)
            assert message.data == "after"
            if name != "plain":
                assert (told[1].epoch, told[1].offset, told[1].id) == (at.epoch, at.offset, at.id)
                assert told[1].recovered is False
                assert (message.sid, message.offset) == (told[1].sid, at.offset + 1)
            assert len(await wire.presence("closed:a")) == 1
            assert node.counters["defects"] == 0

    run(main)


def test_what_is_published_while_auth_is_answered_comes_once_and_after_it() -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> str:
        return "news"

    async def main() -> None:
        async with serving(wire) as (network, _):
            peers = [Peer(network) for _ in range(20)]
            for peer in peers:
                await peer.open()
            for number in range(50):
                if number % 2:
                    peers[number // 2 % 20].send(m.Auth(1))
                    peers[-1 - number // 2 % 20].send(m.Ping(1))
                await wire.publish("news", number)
                await asyncio.sleep(number % 3 / 1000)
            for peer in peers:
                await peer.answer(1)
            await asyncio.sleep(1)
            for peer in peers:
                kinds = [type(one) for one in peer.inbox]
                (told,) = [one for one in peer.inbox if isinstance(one, m.Subscribed)]
                assert kinds.index(type(told)) < min(
                    [i for i, one in enumerate(peer.inbox) if isinstance(one, m.ChannelMessage)],
                    default=99,
                )
                offsets = [one.offset for one in peer.messages()]
                assert offsets == list(range(told.offset + 1, 51))

    run(main)


@pytest.mark.parametrize("returned", [5, ["a b"], ["system"], [1], "x" * 300, ["a\n"]])
def test_what_is_no_channel_is_a_defect_and_nobody_is_let_in(returned: Any) -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> Any:
        return returned

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = Peer(network)
            answer = await peer.auth()
            assert isinstance(answer, m.Error)
            assert answer.code == ErrorCode.INTERNAL
            assert await peer.until_closed() == CloseCode.INTERNAL_ERROR
            assert node.counters["defects"] == 1

    run(main)


class Shy(MemoryBroker):
    fails = 0

    async def subscribe(self, channels: Any) -> None:
        if self.fails:
            self.fails -= 1
            raise BrokerUnavailable("not now")
        await super().subscribe(channels)


@pytest.mark.parametrize("name", ["json", "plain"])
def test_who_cannot_be_subscribed_now_is_told_to_try_again(name: str) -> None:
    broker = Shy()
    wire = application(broker=broker)

    @wire.on_connect
    async def came(conn: Connection) -> str:
        return "news"

    async def main() -> None:
        async with serving(wire) as (network, _):
            broker.fails = 1
            peer = await Peer(network, name).open()
            if name == "json":
                peer.send(m.Auth(1))
            assert (await peer.next(m.Error)).code == ErrorCode.UNAVAILABLE
            assert await peer.until_closed() == CloseCode.TRY_AGAIN_LATER

    run(main)


# ---- going on after a reconnection ---------------------------------------------------------


@pytest.mark.parametrize("channel", ["closed:a", "news"])
def test_a_client_that_comes_back_says_from_where_it_goes_on(channel: str) -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> str:
        return channel

    async def main() -> None:
        async with serving(wire) as (network, _):
            first = Peer(network)
            await first.auth(token="ada")
            told = await first.next(m.Subscribed)
            first.transport.abort()
            for number in range(3):
                await wire.publish(channel, number)
            position = m.Position(told.epoch, told.offset, told.id)
            second = Peer(network)
            answer = await second.auth(token="ada", subscribe=[m.ChannelRequest(channel, position)])
            assert isinstance(answer, m.Response)
            (result,) = answer.payload["subscriptions"]
            assert (result["recovered"], result["offset"]) == (True, told.offset)
            assert [(await second.next(m.ChannelMessage)).data for _ in range(3)] == [0, 1, 2]
            await asyncio.sleep(1)
            assert not [one for one in second.inbox if isinstance(one, m.Subscribed)]
            # and by a subscribe of its own, whatever the rule says
            again = await second.subscribe(channel, position)
            assert again["recovered"] is True

    run(main)


def test_who_was_not_given_a_channel_gets_it_neither_by_a_position() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = Peer(network)
            answer = await peer.auth(subscribe=[m.ChannelRequest("closed:a", m.Position("e", 0))])
            assert isinstance(answer, m.Response)
            (result,) = answer.payload["subscriptions"]
            assert result["error"]["code"] == ErrorCode.FORBIDDEN

    run(main)


# ---- conn.subscribe ------------------------------------------------------------------------


def test_a_handler_subscribes_the_connection_and_may_say_from_where() -> None:
    wire = application()

    @wire.command
    async def join(conn: Connection, room: str, offset: int | None = None, epoch: str = "") -> None:
        since = None if offset is None else Position(epoch, offset)
        await conn.subscribe(room, since=since)
        await conn.subscribe(room)  # twice is once

    async def main() -> None:
        async with serving(wire) as (network, node):
            at = await wire.publish("closed:a", 1)
            await wire.publish("closed:a", 2)
            peer = Peer(network)
            await peer.auth()
            assert await peer.ask(m.Command(5, "join", {"room": "closed:a"})) is None
            told = await peer.next(m.Subscribed)
            assert (told.channel, told.offset, told.recovered) == ("closed:a", 2, False)
            payload = {"room": "b", "offset": 0, "epoch": (await wire.publish("b", 3)).epoch}
            await peer.ask(m.Command(6, "join", payload))
            told = await peer.next(m.Subscribed)
            assert (told.channel, told.offset, told.recovered) == ("b", 0, True)
            assert (await peer.next(m.ChannelMessage)).data == 3
            payload = {"room": "closed:c", "offset": 7, "epoch": at.epoch}
            await peer.ask(m.Command(7, "join", payload))
            assert (await peer.next(m.Subscribed)).recovered is False
            assert (await peer.next(m.GapNotice)).reason == "epoch"
            assert not [one for one in peer.inbox if isinstance(one, m.Subscribed)]
            refused = await peer.ask(m.Command(8, "join", {"room": "a b"}))
            assert refused.code == ErrorCode.BAD_CHANNEL
            assert node.counters["defects"] == 0

    run(main)


def test_in_on_connect_it_takes_effect_when_the_client_is_let_in() -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> None:
        await conn.subscribe("news", since=Position("e", 9))

    async def main() -> None:
        async with serving(wire) as (network, _):
            await wire.publish("news", 1)
            peer = Peer(network)
            assert isinstance(await peer.auth(), m.Response)
            assert (await peer.next(m.Subscribed)).channel == "news"
            assert (await peer.next(m.GapNotice)).reason == "epoch"
            assert (await peer.next(m.ChannelMessage)).data == 1

    run(main)


def test_what_the_application_gives_it_takes_and_others_keep_their_own() -> None:
    wire = application()

    @wire.command
    async def join(conn: Connection) -> None:
        await conn.subscribe("closed:a")

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = Peer(network)
            await peer.auth(token="ada")
            await peer.ask(m.Command(5, "join"))
            assert await wire.unsubscribe("ada", "closed:a") == 1
            await peer.next(m.Unsubscribed)
            result = await peer.subscribe("closed:a")
            assert result["error"]["code"] == ErrorCode.FORBIDDEN
            # a later auth asks the rules again: not about what the application gave
            await peer.ask(m.Command(6, "join"))
            await peer.subscribe("open")
            await peer.ask(m.Auth(7, "ada"))
            await asyncio.sleep(1)
            await wire.publish("closed:a", "still")
            assert (await peer.next(m.ChannelMessage)).data == "still"

    run(main)


def test_being_subscribed_gives_no_right_to_publish() -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> list[str]:
        return ["closed:a", "open"]

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = Peer(network)
            await peer.auth()
            assert (await peer.publish("1", "closed:a", 1)).code == ErrorCode.FORBIDDEN
            assert "offset" in await peer.publish("2", "open", 1)  # the rule's handler says so

    run(main)


def test_subscriptions_of_the_application_are_bounded_and_end_with_the_connection() -> None:
    wire = application(limits=Limits(subscriptions=3))
    kept: list[Connection] = []
    errors: list[Exception] = []

    @wire.command
    async def join(conn: Connection) -> None:
        kept.append(conn)
        try:
            for number in range(5):
                await conn.subscribe(f"c{number}")
        except RequestError as error:
            errors.append(error)
            raise

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = Peer(network)
            await peer.auth()
            assert (await peer.ask(m.Command(5, "join"))).code == ErrorCode.SUBSCRIPTIONS
            (connection,) = node.connections.values()
            assert len(connection.subscriptions) == 3
            peer.transport.abort()
            await asyncio.sleep(1)
            with pytest.raises(NotSent):
                await kept[0].subscribe("c0")
            await asyncio.sleep(10)
            assert not node.hub.channels

    run(main)


# ---- users' own channels ---------------------------------------------------------------------


def test_a_user_is_subscribed_to_the_own_channel_and_nobody_else_may_be() -> None:
    wire = application(user_channel="user:{user}")

    async def main() -> None:
        async with serving(wire) as (network, _):
            ada, other, bob = Peer(network), Peer(network), Peer(network)
            for peer, token in ((ada, "ada"), (other, "t/ada"), (bob, "bob")):
                await peer.auth(token=token)
                name = wire.user_channel(token.rpartition("/")[2])
                assert (await peer.next(m.Subscribed)).channel == name
            await wire.publish(wire.user_channel("ada"), "for ada")
            assert (await ada.next(m.ChannelMessage)).data == "for ada"
            for attempt in ("user:ada", "user:nobody"):
                result = await bob.subscribe(attempt)
                assert result["error"]["code"] == ErrorCode.FORBIDDEN
                for query in ("everwire.history", "everwire.presence"):
                    refused = await bob.ask(m.Query(Peer._last, query, {"channel": attempt}))
                    assert refused.code == ErrorCode.FORBIDDEN
                refused = await bob.publish(f"b-{attempt}", attempt, "spam")
                assert refused.code == ErrorCode.FORBIDDEN
            assert "error" not in await ada.subscribe("user:ada")
            assert (await ada.publish("a-1", "user:ada", 1)).code == ErrorCode.FORBIDDEN
            anonymous = Peer(network)
            await anonymous.auth()
            assert (await anonymous.subscribe("user:ada"))["error"]["code"] == ErrorCode.FORBIDDEN
            await asyncio.sleep(1)
            assert not (bob.messages() or other.messages() or anonymous.messages())
            assert not [one for one in anonymous.inbox if isinstance(one, m.Subscribed)]

    run(main)


def test_own_channels_go_before_all_other_patterns_and_have_options() -> None:
    wire = application()  # with a pattern that fits everything
    wire.channel("u/{name}", own=True, history=2, presence=True, grant=Grant(publish=True))

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer, foreign = Peer(network), Peer(network)
            await peer.auth(token="ada")
            await foreign.auth(token="bob")
            assert (await foreign.subscribe("u/ada"))["error"]["code"] == ErrorCode.FORBIDDEN
            for number in range(3):
                assert "offset" in await peer.publish(f"i{number}", "u/ada", number)
            assert [one.data for one in (await wire.history("u/ada")).records] == [1, 2]
            assert [one.user for one in await wire.presence("u/ada")] == ["ada"]

    run(main)


@pytest.mark.parametrize(
    ("user", "part"),
    [
        ("ada", "ada"),
        ("ada@example.org", "ada@example.org"),
        ("a b", "a%20b"),
        ("a:b", "a%3Ab"),
        ("a%20b", "a%2520b"),
        ("é", "é"),
        ("e\u0301", "e%CC%81"),
        ("\u212b", "%E2%84%AB"),
        ("\u202eada\n", "%E2%80%AEada%0A"),
        ("*", "%2A"),
    ],
)
def test_any_users_name_makes_a_channel_of_its_own(user: str, part: str) -> None:
    assert quoted(user) == part
    assert check_channel(OwnChannel("user:{user}:in").name(user)) == f"user:{part}:in"


def test_own_channels_are_declared_once_with_the_user_as_the_one_parameter() -> None:
    for pattern in ("user", "{a}:{b}", "{user"):
        with pytest.raises(ConfigError):
            Everwire(user_channel=pattern)
    wire = Everwire(user_channel="user:{user}")
    with pytest.raises(ConfigError, match="already"):
        wire.channel("own:{user}", own=True)

    async def handler(conn: Connection, user: str) -> None: ...

    with pytest.raises(ConfigError, match="takes no function"):
        Everwire().channel("user:{user}", own=True)(handler)
    with pytest.raises(ConfigError, match="user_channel="):
        Everwire().user_channel("ada")


def test_who_is_gone_before_it_could_be_subscribed_is_no_defect() -> None:
    wire = Everwire(user_channel="user:{user}")

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token)

    @wire.channel("slow")
    async def slow(conn: Connection) -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await Peer(network).open()
            peer.send(m.Auth(1, "ada", subscribe=[m.ChannelRequest("slow")]))
            await asyncio.sleep(0.5)
            assert await wire.disconnect("ada") == 1
            await asyncio.sleep(5)
            assert node.counters["defects"] == 0
            assert not node.connections

    run(main)


def test_subscribing_a_connection_that_ends_meanwhile_says_so() -> None:
    wire = application(broker=SteppedBroker())
    ended: list[type[BaseException]] = []

    async def main() -> None:
        async with serving(wire) as (network, node):
            await Peer(network).auth(token="ada")
            (connection,) = node.connections.values()

            async def subscribe() -> None:
                try:
                    await connection.subscribe(f"closed:{step}")
                except Exception as error:  # noqa: BLE001
                    ended.append(type(error))

            for step in range(5):
                async with asyncio.TaskGroup() as group:
                    group.create_task(subscribe())
                    await asyncio.sleep((step + 0.5) * STEP)
                    connection.close(CloseCode.GOING_AWAY)
                assert ended == ([NotSent] if step < 4 else []), f"at step {step}"
                ended.clear()
                await Peer(network).auth(token="ada")
                connection = list(node.connections.values())[-1]
            assert node.counters["defects"] == 0

    run(main)
