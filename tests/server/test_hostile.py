"""What a hostile or broken client tries, and what must not come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from itertools import islice, product
from typing import Any

import msgspec
import pytest

from everwire import Everwire, Forbidden, Grant, Identity
from everwire.codes import ErrorCode
from everwire.limits import KiB, Limits, MiB
from everwire.protocol import messages as m
from everwire.protocol.dialects import BadMessage, dialect
from everwire.protocol.msgpack_scan import has_odd_keys
from everwire.server import contents
from everwire.server.node import Node
from everwire.server.publishing import Publishing
from everwire.testing import Network, VirtualLoop, run

from .peer import Peer, alive, open_app, serving

Scenario = Callable[[Network, Node], Coroutine[Any, Any, None]]
pack = msgspec.msgpack.encode


def with_node(scenario: Scenario, wire: Everwire | None = None, **options: Any) -> None:
    async def main() -> None:
        async with serving(wire, **options) as (network, node):
            await scenario(network, node)

    run(main)


def colliding(count: int) -> bytes:
    """A map whose keys are arrays of -1 and -2: in Python all of one hash."""
    keys = [bytes([0xDC, 0, 17, *key]) for key in islice(product((0xFF, 0xFE), repeat=17), count)]
    return b"\xdf" + len(keys).to_bytes(4, "big") + b"".join(key + b"\xc0" for key in keys)


def test_a_map_that_takes_quadratic_time_to_build_is_not_built() -> None:
    message = b"\x94\x0c\x02\xa1q" + colliding(20_000)
    began = time.process_time()
    with pytest.raises(BadMessage, match="keys") as refused:
        dialect("msgpack").decode(message)
    assert time.process_time() - began < 0.1  # building it takes seconds
    assert refused.value.request_id == 2


@pytest.mark.parametrize(
    ("value", "odd"),
    [
        ({str(n): [n, -n, n * 0.5, None, True, b"x" * n] for n in range(300)}, False),
        ([{"a": {"b": "\u07c0" * 3000}}] * 3, False),
        ({n: n for n in range(3000)}, True),
        ([[[{"k": {(1, 2): 3, **{str(n): n for n in range(2000)}}}]]], True),
        ([1.5] * 2000, False),
    ],
)
def test_only_keys_that_are_not_text_are_found(value: Any, odd: bool) -> None:
    data = pack(value)
    assert len(data) > 4096
    assert has_odd_keys(data) is odd
    for cut in range(0, len(data), 97):  # a message that is cut is somebody else's to refuse
        has_odd_keys(data[:cut])


@pytest.mark.parametrize("name", ["json", "msgpack", "plain"])
def test_a_message_that_is_too_big_is_refused_without_being_decoded(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, name).open()
        if name != "plain":
            await peer.ask(m.Auth(1))
        if name == "msgpack":
            text = b"\x94\x0c\x07\xa1q\xc6" + (2 * MiB).to_bytes(4, "big") + bytes(2 * MiB)
        else:
            text = b'{"type":"query","id":7,"name":"q","payload":{"resource":"x"},"x":"%b"}' % (
                b"x" * 2 * MiB
            )
        peer.send_raw(text)
        error = await peer.next(m.Error)
        assert (error.code, error.request_id) == (ErrorCode.TOO_BIG, 7)

    with_node(scenario)


def two_tokens() -> Everwire:
    wire = Everwire(allow_anonymous=True)

    @wire.authenticate
    async def who(token: str) -> Identity:
        user, _, tenant = token.partition("@")
        return Identity(user.removesuffix("-less"), info=token, tenant=tenant)

    @wire.channel("secret:{name}", presence=True)
    async def secret(conn: Any, name: str) -> Grant:
        if conn.identity.info is None or conn.identity.info.endswith("-less"):
            raise Forbidden("not with this token")
        return Grant(publish=True)

    return wire


def test_a_refreshed_token_is_asked_for_every_channel_again() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer, writer = Peer(network), Peer(network)
        await peer.auth(token="ada")
        await writer.auth(token="bob")
        sid = (await peer.subscribe("secret:x"))["sid"]
        assert (await peer.publish("a-1", "secret:x", 1))["offset"] == 1
        await peer.ask(m.Auth(2, "ada-less"))
        ended = await peer.next(m.Unsubscribed)
        assert (ended.sid, ended.code, ended.temporary) == (sid, ErrorCode.FORBIDDEN, False)
        assert (await peer.publish("a-2", "secret:x", 2)).code == ErrorCode.FORBIDDEN
        await writer.publish("b-1", "secret:x", 3)
        await asyncio.sleep(1)
        assert [one.offset for one in peer.messages()] == [1]
        assert (await contents.presence(node, "secret:x")).count == 0

    with_node(scenario, two_tokens())


def test_a_plain_connection_cannot_change_its_user_or_tenant_either() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, "plain").open()
        assert (await peer.ask(m.Auth(1, "ada@a")))["user"] == "ada"
        for token in ("eve@a", "ada@b"):
            assert (await peer.ask(m.Auth(2, token))).code == ErrorCode.UNAUTHENTICATED

    with_node(scenario, two_tokens())


def test_nobody_can_take_a_message_id_away_from_somebody_else() -> None:
    async def scenario(network: Network, node: Node) -> None:
        thief, victim = Peer(network), Peer(network)
        await thief.auth()
        await victim.auth()
        await thief.publish("order-1", "c", "FAKE")
        assert not (await contents.publish(node, "c", "REAL", message_id="order-1")).duplicate
        assert (await contents.publish(node, "c", "REAL", message_id="order-1")).duplicate
        await thief.publish("inst-6", "c", "stolen")
        assert not (await victim.publish("inst-6", "c", "mine"))["duplicate"]
        assert (await victim.publish("inst-6", "c", "mine"))["duplicate"]
        page = await contents.history(node, "c", limit=9)
        assert len(page.records) == 4

    with_node(scenario)


def hanging(**limits: Any) -> Everwire:
    wire = Everwire(limits=Limits(**limits))

    @wire.channel("{name:path}", presence=True)
    async def slow(conn: Any, name: str) -> Grant:
        await asyncio.sleep(5)
        return Grant(publish=True)

    @wire.event
    async def sleepy(conn: Any) -> None:
        await asyncio.sleep(1000)

    return wire


@pytest.mark.parametrize("name", ["json", "plain"])
def test_a_link_that_dies_while_handlers_are_asked_leaves_nothing_behind(name: str) -> None:
    async def scenario(network: Network, node: Node) -> None:
        for n in range(20):
            peer = await Peer(network, name).open()
            if name == "json":
                peer.send(m.Auth(1, subscribe=[m.ChannelRequest(f"a-{n}")]))
            peer.send(m.Subscribe("" if name == "plain" else 2, [m.ChannelRequest(f"s-{n}")]))
            peer.send(m.Publish("" if name == "plain" else "p-1", f"p-{n}", n))
            peer.send(m.Event("sleepy", {}))
            await asyncio.sleep(0.5 * (n % 13))
            peer.link.cut()
        await asyncio.sleep(30)
        assert not node.connections
        assert not alive(Publishing)
        assert not node.hub.channels
        assert len(node.tasks) + len(node.working) == 0

    with_node(scenario, hanging())


def test_events_count_to_the_limit_in_flight_and_end_with_the_connection() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, "plain").open()
        for _ in range(100):
            peer.send(m.Event("sleepy", {}))
        await asyncio.sleep(1)
        assert len(node.working) <= 5
        peer.link.cut()
        await asyncio.sleep(1)
        assert len(node.tasks) + len(node.working) == 0

    with_node(scenario, hanging(inflight=4))


def test_a_channel_handler_that_never_answers_is_a_temporary_error_in_the_end() -> None:
    wire = Everwire()

    @wire.channel("c")
    async def never(conn: Any) -> Grant:
        await asyncio.sleep(10_000)
        return Grant()

    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        answer = await peer.auth(subscribe=[m.ChannelRequest("c")])
        assert isinstance(answer, m.Response)
        (result,) = answer.payload["subscriptions"]
        assert (result["error"]["code"], result["error"]["temporary"]) == (ErrorCode.TIMEOUT, True)

    with_node(scenario, wire)


def test_cancel_is_for_queries_and_commands_only() -> None:
    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        await peer.subscribe("live")
        peer.send(m.Subscribe(5, [m.ChannelRequest("live"), m.ChannelRequest("other")]))
        peer.send(m.Cancel(5))
        answer = await peer.answer(5)
        assert isinstance(answer, m.Response)
        await contents.publish(node, "live", 1)
        await asyncio.sleep(1)
        assert len(peer.messages()) == 1

    with_node(scenario, hanging())


def test_presence_is_not_pushed_to_readers_that_stand_still_and_shown_to_them_later() -> None:
    wire = Everwire(limits=Limits(presence_info=32 * KiB))

    @wire.channel("c", presence=True)
    async def c(conn: Any) -> Grant:
        return Grant(publish=True, info="x" * 20 * KiB)

    async def scenario(network: Network, node: Node) -> None:
        watcher, restless = Peer(network), Peer(network)
        await watcher.auth(subscribe=[m.ChannelRequest("c", presence=True)])
        await restless.auth()
        watcher.transport.pause_reading()
        for _ in range(100):  # not at once: that would be told together
            await restless.subscribe("c")
            await asyncio.sleep(0.11)
            await restless.ask(m.Unsubscribe(restless._serial(), ["c"]))
            await asyncio.sleep(0.11)
        buffered = max(one.transport.write_buffer_size() for one in node.connections.values())
        assert buffered < 2 * MiB
        await restless.subscribe("c")
        watcher.inbox.clear()
        watcher.transport.resume_reading()
        await asyncio.sleep(5)
        last = [one for one in watcher.inbox if isinstance(one, m.Presence)][-1]
        assert (last.full, last.count) == (True, 2)

    with_node(scenario, wire)


def test_history_answers_with_what_fits_into_a_message() -> None:
    async def scenario(network: Network, node: Node) -> None:
        for n in range(30):
            await contents.publish(node, "c", [n, "\0" * 30 * KiB])
        page = await contents.history(node, "c", limit=100)
        first = page.records[0]
        peer = Peer(network)
        await peer.auth()
        since = {"epoch": first.epoch, "offset": first.offset, "id": first.id}
        for more, expected in (({}, [29]), ({"since": since}, [1])):
            peer.send(m.Query(9, "everwire.history", {"channel": "c", **more}))
            answer = await peer.answer(9)
            assert isinstance(answer, m.Response)
            assert len(msgspec.json.encode(answer.payload)) <= MiB
            numbers = [one["data"][0] for one in answer.payload["messages"]]
            assert numbers == sorted(numbers)
            assert set(expected) <= set(numbers)

    wire = Everwire()
    wire.channel("c", history=100, history_bytes=64 * MiB, grant=Grant())
    with_node(scenario, wire)


def test_a_token_ends_the_connection_within_a_second_of_its_end_even_of_a_slow_reader() -> None:
    wire = open_app()

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity("ada", expires=wire.wall() + 1.5)

    async def scenario(network: Network, node: Node) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        peer, slow = Peer(network), Peer(network)
        await peer.auth(token="t")
        await slow.auth(token="t", subscribe=[m.ChannelRequest("c")])
        slow.transport.pause_reading()
        for n in range(100):
            await contents.publish(node, "c", [n, "x" * 20_000])
        began = loop.time()
        assert await peer.until_closed() == 4402
        assert loop.time() - began < 2.6
        await asyncio.sleep(1)
        assert all(one.state != "ready" for one in node.connections.values())

    with_node(scenario, wire)


def test_a_flood_of_failing_requests_is_a_few_lines_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = open_app()

    @wire.query
    async def broken(conn: Any) -> None:
        raise RuntimeError("secret")

    async def scenario(network: Network, node: Node) -> None:
        peer = Peer(network)
        await peer.auth()
        for n in range(200):
            assert (await peer.ask(m.Query(10 + n, "broken"))).code == ErrorCode.INTERNAL

    with_node(scenario, wire)
    assert len([one for one in caplog.records if one.name.startswith("everwire")]) == 1


def test_a_plain_client_that_guesses_tokens_is_closed() -> None:
    wire = open_app()

    @wire.authenticate
    async def who(token: str) -> Identity:
        raise Forbidden("no")

    async def scenario(network: Network, node: Node) -> None:
        peer = await Peer(network, "plain").open()
        for n in range(20):
            peer.send(m.Auth(n + 1, f"guess-{n}"))
            await asyncio.sleep(0.1)
            if peer.close_code is not None:
                break
        assert peer.close_code == 4400

    with_node(scenario, wire)
