"""What an application does with channels, and with those who are connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from everwire import (
    BadData,
    BrokerUnavailable,
    ConfigError,
    Everwire,
    Forbidden,
    Grant,
    Identity,
    Position,
    RequestError,
)
from everwire.brokers.base import Completion, Publication, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.codes import CloseCode, ErrorCode
from everwire.protocol import messages as m
from everwire.server.node import Node
from everwire.testing import Network, run

from .peer import Peer, serving

Scenario = Callable[[Everwire, Network, Node], Coroutine[Any, Any, None]]


def application(**options: Any) -> Everwire:
    """A token is a user's name, with the tenant before a slash."""
    wire = Everwire(allow_anonymous=True, **options)
    wire.channel("open:{name}", presence=True, grant=Grant(publish=True))

    @wire.authenticate
    async def who(token: str | None = None) -> Identity:
        tenant, _, user = (token or "").rpartition("/")
        return Identity(user, tenant=tenant)

    @wire.channel("asked:{room}")
    async def asked(conn: Any, room: str) -> Grant:
        await asyncio.sleep(1)
        if room in forbidden:
            raise Forbidden("no")
        return Grant()

    forbidden: set[str] = set()
    wire.forbidden = forbidden  # type: ignore[attr-defined]
    return wire


def with_wire(scenario: Scenario, wire: Everwire | None = None) -> None:
    async def main() -> None:
        made = wire or application()
        async with serving(made) as (network, node):
            await scenario(made, network, node)
            assert node.counters["defects"] == 0

    run(main)


async def user(network: Network, token: str = "ada", name: str = "json") -> Peer:
    peer = Peer(network, name)
    await peer.auth(token=token)
    return peer


# ---- publishing and reading ----------------------------------------------------------------


def test_what_the_application_publishes_names_a_publisher_only_if_it_says_one() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        reader = await user(network)
        await reader.subscribe("open:c")
        at = await wire.publish("open:c", 1)
        await wire.publish("open:c", 2, publisher="bob")
        first, second = [await reader.next(m.ChannelMessage) for _ in range(2)]
        assert (first.publisher, second.publisher) == (None, "bob")
        assert first.offset == at.offset

    with_wire(scenario)


def test_a_tenants_channel_is_another_one_than_that_of_the_same_name() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        mine, other = await user(network, "t1/ada"), await user(network, "t2/ada")
        for peer in (mine, other):
            await peer.subscribe("open:c")
        await wire.publish("open:c", "for t1", tenant="t1")
        assert (await mine.next(m.ChannelMessage)).data == "for t1"
        assert not other.messages()
        assert [one.data for one in (await wire.history("open:c", tenant="t1")).records]
        for tenant in ("", "t2"):
            assert not (await wire.history("open:c", tenant=tenant)).records
        assert len(await wire.presence("open:c", tenant="t1")) == 1
        assert not await wire.presence("open:c")

    with_wire(scenario)


def test_history_tells_what_was_published_and_where() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        said = ["text", {"a": [1, None]}, b"\x00\xff"]
        places = [await wire.publish("open:c", one, publisher="ada") for one in said]
        page = await wire.history("open:c")
        assert [one.data for one in page.records] == said
        assert [one.position.offset for one in page.records] == [at.offset for at in places]
        assert {one.publisher for one in page.records} == {"ada"}
        assert page.top == page.records[-1].position
        assert [one.data for one in (await wire.history("open:c", limit=2)).records] == said[1:]

    with_wire(scenario)


@pytest.mark.parametrize("limit", [0, -1, -(10**9)])
def test_no_messages_are_none_however_few(limit: int) -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        at = await wire.publish("open:c", 1)
        page = await wire.history("open:c", limit=limit)
        assert (list(page.records), page.top.offset) == ([], at.offset)

    with_wire(scenario)


def test_history_since_a_position_goes_on_from_there_and_says_whether_anything_is_missing() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        for number in range(5):
            await wire.publish("open:c", number)
        first = (await wire.history("open:c", limit=4)).records[0].position
        page = await wire.history("open:c", since=first, limit=2)
        assert [one.data for one in page.records] == [2, 3]
        assert (page.recovered, page.complete) == (True, False)
        page = await wire.history("open:c", since=page.records[-1].position, limit=2)
        assert [one.data for one in page.records] == [4]
        assert (page.recovered, page.complete) == (True, True)
        for foreign in (Position("other", 2, "x"), Position(first.epoch, 99, "x")):
            assert not (await wire.history("open:c", since=foreign)).recovered

    with_wire(scenario)


@pytest.mark.parametrize("name", ["no:pattern", "", "system", "a b", "x" * 300])
def test_a_channel_that_cannot_be_is_an_error_for_the_application_too(name: str) -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        for work in (wire.publish(name, 1), wire.history(name), wire.presence(name)):
            with pytest.raises(RequestError) as refused:
                await work
            assert refused.value.code == ErrorCode.BAD_CHANNEL

    with_wire(scenario)


def test_an_id_of_the_application_has_nothing_to_do_with_a_users() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        peer = await user(network)
        await peer.publish("same", "open:c", "the user's")
        await wire.publish("open:c", "ours", id="same")
        await wire.publish("open:c", "ours again", id="same")
        page = await wire.history("open:c")
        assert [one.data for one in page.records] == ["the user's", "ours"]

    with_wire(scenario)


@pytest.mark.parametrize("name", ["\x00server", "a\x00b", "u" * 256, "é" * 128])
def test_no_user_and_no_tenant_is_called_like_what_the_node_calls_itself(name: str) -> None:
    for fields in ({"user": name}, {"user": "u", "tenant": name}):
        with pytest.raises(RequestError) as refused:
            Identity(**fields)
        assert refused.value.code == ErrorCode.UNAUTHENTICATED
    Identity("é" * 127, tenant="t" * 255)
    with pytest.raises(TypeError, match="text"):
        Identity(5)  # type: ignore[arg-type]


# ---- broadcast -----------------------------------------------------------------------------


def test_a_broadcast_reaches_each_channel_once_and_answers_for_each() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        reader = await user(network)
        for name in "ab":
            await reader.subscribe(f"open:{name}")
        names = ["open:a", "open:b", "open:a", "nothing", "open:c"]
        outcomes = await wire.broadcast(names, {"n": 1}, publisher="bob")
        assert list(outcomes) == ["open:a", "open:b", "nothing", "open:c"]
        refused = outcomes.pop("nothing")
        assert isinstance(refused, RequestError)
        assert refused.code == ErrorCode.BAD_CHANNEL
        for name, at in outcomes.items():
            (record,) = (await wire.history(name)).records
            assert (record.position, record.data, record.publisher) == (at, {"n": 1}, "bob")
        assert [(await reader.next(m.ChannelMessage)).data for _ in "ab"] == [{"n": 1}] * 2

    with_wire(scenario)


class Failing(MemoryBroker):
    """Refuses a channel once."""

    refuses = ""

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome:
        if publication.channel == self.refuses:
            self.refuses = ""
            return BrokerUnavailable("not now")
        return super().publish(publication, done)


def test_a_broadcast_that_failed_in_part_is_made_good_with_the_same_id() -> None:
    broker = Failing()
    broker.refuses = "open:b"

    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        names = [f"open:{name}" for name in "abc"]
        outcomes = await wire.broadcast(names, 1, id="once")
        assert [isinstance(one, Position) for one in outcomes.values()] == [True, False, True]
        assert isinstance(outcomes["open:b"], BrokerUnavailable)
        again = await wire.broadcast(names, 1, id="once")
        assert again["open:a"] == outcomes["open:a"]
        for name in names:
            assert len((await wire.history(name)).records) == 1

    with_wire(scenario, application(broker=broker))


def test_a_broadcast_of_what_cannot_be_sent_stores_it_nowhere() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        with pytest.raises(BadData):
            await wire.broadcast(["open:a"], float("nan"))
        with pytest.raises(RequestError):
            await wire.broadcast(["open:a"], "x" * node.limits.message)
        with pytest.raises(ConfigError, match="several"):
            await wire.broadcast("open:a", 1)
        with pytest.raises(ConfigError, match="128"):
            await wire.publish("open:a", 1, id="x" * 129)
        assert not (await wire.history("open:a")).records

    with_wire(scenario)


def test_a_long_broadcast_lets_others_have_their_turns() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = node.tasks.start(count(), "count")
        await wire.broadcast((f"open:{n}" for n in range(1000)), 1)
        counting.cancel()
        assert turns > 10

    with_wire(scenario)


# ---- unsubscribing ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "msgpack", "plain"])
def test_who_is_unsubscribed_is_told_why_and_gets_nothing_more(name: str) -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        peer = Peer(network, name)
        if name == "plain":
            await peer.open()
            peer.send(m.Auth(1, "ada", {"token": "ada"}))
            await peer.answer(1)
            peer.send(m.Subscribe("", [m.ChannelRequest("open:c")]))
            await peer.next(m.Subscribed)
        else:
            await peer.auth(token="ada")
            sid = (await peer.subscribe("open:c"))["sid"]
        await wire.publish("open:c", "before")
        assert await wire.unsubscribe("ada", "open:c") == 1
        await wire.publish("open:c", "after")
        told = await peer.next(m.Unsubscribed)
        if name == "plain":
            assert told.channel == "open:c"
        else:
            assert (told.sid, told.code, told.temporary) == (sid, ErrorCode.FORBIDDEN, False)
        await asyncio.sleep(1)
        assert [one.data for one in peer.messages()] == ["before"]
        assert await wire.presence("open:c") == []
        assert await wire.unsubscribe("ada", "open:c") == 0

    with_wire(scenario)


def test_one_connection_of_a_user_can_be_meant_or_all() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        peers = [await user(network) for _ in range(3)]
        foreign = [await user(network, "bob"), await user(network, "t/ada")]
        for peer in peers + foreign:
            await peer.subscribe("open:c")
        one = next(iter(node.connections.values()))
        assert await wire.unsubscribe(one, "open:c", code=ErrorCode.UNAVAILABLE) == 1
        assert (await peers[0].next(m.Unsubscribed)).code == ErrorCode.UNAVAILABLE
        assert await wire.unsubscribe("ada", "open:c") == 2
        assert await wire.unsubscribe("ada", "open:c", tenant="t") == 1
        await wire.publish("open:c", "left to bob")
        await foreign[0].next(m.ChannelMessage)

    with_wire(scenario)


def test_unsubscribing_waits_for_the_subscribe_that_came_before() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        peer = await user(network)
        peer.send(m.Subscribe(5, [m.ChannelRequest("asked:x")]))
        await asyncio.sleep(0.5)  # the handler takes a second
        assert await wire.unsubscribe("ada", "asked:x") == 1
        assert isinstance(await peer.answer(5), m.Response)
        await peer.next(m.Unsubscribed)
        (connection,) = node.connections.values()
        assert not connection.subscriptions
        assert not connection.operations

    with_wire(scenario)


def test_unsubscribing_does_not_wait_for_a_connection_that_ends_meanwhile() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        peer = await user(network)
        peer.send(m.Subscribe(5, [m.ChannelRequest("asked:x")]))
        await asyncio.sleep(0.5)
        async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(wire.unsubscribe("ada", "asked:x"))
            peer.link.cut()
        assert ended.result() == 0

    with_wire(scenario)


def test_who_was_unsubscribed_is_asked_about_anew() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        peer = await user(network)
        assert "error" not in await peer.subscribe("asked:x")
        wire.forbidden.add("x")  # type: ignore[attr-defined]
        assert await wire.unsubscribe("ada", "asked:x") == 1
        assert (await peer.subscribe("asked:x"))["error"]["code"] == ErrorCode.FORBIDDEN

    with_wire(scenario)


# ---- disconnecting ------------------------------------------------------------------------


def test_who_is_disconnected_is_told_to_stay_away_unless_said_otherwise() -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        peers = [await user(network) for _ in range(2)]
        other = await user(network, "bob")
        first = next(iter(node.connections.values()))
        assert await wire.disconnect(first, code=4001, reason="elsewhere") == 1
        assert await peers[0].until_closed() == 4001
        assert await wire.disconnect("ada") == 1
        assert await peers[1].until_closed() == CloseCode.DISCONNECTED
        assert await wire.disconnect("ada") == 0
        assert await wire.disconnect("bob", tenant="elsewhere") == 0
        await other.subscribe("open:c")

    with_wire(scenario)


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1011, 2999, 5000])
def test_a_code_that_cannot_be_sent_is_refused(code: int) -> None:
    async def scenario(wire: Everwire, network: Network, node: Node) -> None:
        with pytest.raises(ConfigError, match="4504"):
            await wire.disconnect("ada", code=code)
        with pytest.raises(ConfigError, match="error code"):
            await wire.unsubscribe("ada", "open:c", code=code)
        for work in (wire.disconnect(""), wire.unsubscribe("", "open:c")):
            with pytest.raises(ConfigError, match="anonymous"):
                await work

    with_wire(scenario)
