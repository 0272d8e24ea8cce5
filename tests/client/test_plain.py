"""The dialect plain: against our own node, and against servers that know nothing of us."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from everwire import (
    BadRequest,
    ClientLimits,
    Connection,
    Everwire,
    Forbidden,
    Gap,
    Grant,
    Identity,
    Message,
    NotSent,
    RequestTimeout,
    Unauthorized,
)
from everwire.testing import Network
from everwire.testing.link import Side

from .world import FAST, URL, client_to, data_of, loop, node_world, play, quiet, take, until


class Classic:
    """The small Node server of old: channels, and nothing else. Confirms subscriptions."""

    def __init__(self, network: Network) -> None:
        self.clients: list[Classic.Client] = []
        network.listen(URL, self._accept)

    def _accept(self, transport: Any, handshake: Any) -> Any:
        client = Classic.Client(self, transport)
        self.clients.append(client)
        return client

    class Client:
        def __init__(self, server: Classic, transport: Side) -> None:
            self.server = server
            self.transport = transport
            self.channels: set[str] = set()
            self.log: list[Any] = []
            self.pings = 0

        def say(self, value: Any) -> None:
            self.transport.send(1, json.dumps(value).encode())

        def received(self, opcode: int, payload: bytes | memoryview) -> None:
            value = json.loads(bytes(payload))
            self.log.append(value)
            channel = value.get("channel")
            match value.get("action"):
                case "subscribe":
                    self.channels.add(channel)
                    self.say({"channel": "system",
                              "data": {"type": "subscription_confirm", "channel": channel}})  # fmt: skip
                case "unsubscribe":
                    self.channels.discard(channel)
                case "publish":
                    for client in self.server.clients:
                        if channel in client.channels:
                            client.say({"channel": channel, "data": value["data"]})
                case _:
                    pass

        def heard(self) -> None:
            self.pings += 1

        def closed(self, code: int, reason: str) -> None:
            self.server.clients.remove(self)

        def pause_writing(self) -> None: ...

        resume_writing = pause_writing


def test_channels_against_our_own_node() -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(dialect="plain") as client:
            assert client.state == "ready"
            async with client.subscribe("c") as room:
                ack = await client.publish("c", {"n": 1})
                assert ack.position is None
                (item,) = await take(room, 1)
                assert isinstance(item, Message)
                assert (item.channel, item.data, item.position) == ("c", {"n": 1}, None)
                assert room.position is None
            await asyncio.sleep(1)
            assert not world.connection().subscriptions

    play(scenario)


def test_requests_and_errors_against_our_own_node() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            @wire.query
            async def double(conn: Connection, n: int) -> int:
                return 2 * n

            @wire.command
            async def refuse(conn: Connection) -> None:
                raise Forbidden("not you")

            wire.channel("staff", grant=Grant(subscribe=False))

        async with node_world(declare) as world, world.client(dialect="plain") as client:
            assert await client.query("double", {"n": 2}, type=int) == 4
            with pytest.raises(Forbidden, match="not you"):
                await client.command("refuse")
            with pytest.raises(BadRequest):
                await client.query("double", {"m": 2})
            with pytest.raises(Forbidden):
                async with client.subscribe("staff"):
                    raise AssertionError

    play(scenario)


def test_a_token_is_sent_and_its_answer_awaited() -> None:
    async def scenario() -> None:
        def declare(wire: Everwire) -> None:
            @wire.authenticate
            async def who(token: str) -> Identity:
                if token != "good":
                    raise Unauthorized("unknown token")
                return Identity("ada")

        async with node_world(declare) as world:
            async with world.client(dialect="plain", token="good"):
                assert world.connection().user == "ada"
            with pytest.raises(Unauthorized, match="unknown token"):
                await world.client(dialect="plain", token="bad")

    play(scenario)


def test_a_server_that_knows_no_auth_is_a_failed_attempt_and_no_wedge() -> None:
    async def scenario() -> None:
        network = Network()
        Classic(network)
        with pytest.raises(RequestTimeout, match="no answer to auth"):
            await client_to(network, dialect="plain", token="t", timeout=12)

    play(scenario)


def test_channels_against_a_classic_server() -> None:
    async def scenario() -> None:
        network = Network()
        server = Classic(network)
        async with client_to(network, dialect="plain") as client:
            async with client.subscribe("with spaces") as room, client.subscribe("other") as other:
                await client.publish("with spaces", [1, None])
                await client.publish("other", "x")
                assert data_of(await take(room, 1)) == [[1, None]]
                assert data_of(await take(other, 1)) == ["x"]
            await asyncio.sleep(0.1)
            assert server.clients[0].channels == set()
            actions = [one["action"] for one in server.clients[0].log]
            assert actions == ["subscribe"] * 2 + ["publish"] * 2 + ["unsubscribe"] * 2

    play(scenario)


def test_after_a_drop_a_gap_says_that_something_may_be_missing() -> None:
    async def scenario() -> None:
        network = Network()
        server = Classic(network)
        async with client_to(network, dialect="plain", limits=FAST) as client:
            async with client.subscribe("c") as room:
                await client.publish("c", 1)
                await asyncio.sleep(0.1)
                server.clients[0].transport.abort()
                await asyncio.sleep(0.001)
                assert (await client.publish("c", 2)).position is None
                await until(lambda: client.stats.reconnects == 1)
                await asyncio.sleep(0.1)
                await client.publish("c", 3)
                items = await take(room, 3)
                assert data_of(items) == [1, "<dropped>", 3]
                assert items[1] == Gap("c", "dropped", None)
                assert client.stats.gaps == 1

    play(scenario)


def test_a_full_queue_is_a_gap_and_reading_goes_on() -> None:
    async def scenario() -> None:
        network = Network()
        Classic(network)
        limits = ClientLimits(queue_messages=3)
        async with client_to(network, dialect="plain", limits=limits) as client:
            async with client.subscribe("c") as room:
                for n in range(10):
                    await client.publish("c", n)
                await asyncio.sleep(1)
                assert data_of(await take(room, 3)) == [0, 1, 2]
                await asyncio.sleep(1)
                await client.publish("c", 10)
                assert data_of(await take(room, 2)) == ["<dropped>", 10]

    play(scenario)


def test_in_and_out_quickly_leaves_exactly_one() -> None:
    async def scenario() -> None:
        network = Network(latency=0.05)
        server = Classic(network)
        async with client_to(network, dialect="plain") as client:
            for pause in (0.0, 0.03, 0.2):
                entering = asyncio.get_running_loop().create_task(
                    client.subscribe("c").__aenter__()
                )
                await asyncio.sleep(pause)
                entering.cancel()
                await asyncio.wait([entering])
                if not entering.cancelled():
                    await entering.result().unsubscribe()
            async with client.subscribe("c") as room:
                await client.publish("c", 1)
                assert data_of(await take(room, 1)) == [1]
                await quiet(room)
            await asyncio.sleep(1)
            assert server.clients[0].channels == set()

    play(scenario)


def test_what_is_not_sent_waits_for_a_connection_and_for_no_longer_than_its_time() -> None:
    async def scenario() -> None:
        network = Network()
        Classic(network)
        async with client_to(network, dialect="plain", limits=FAST) as client:
            network.refuse = True
            network.cut()
            await asyncio.sleep(0.1)
            with pytest.raises(NotSent):
                await client.publish("c", 1, ttl=3)
            waiting = client.publish_nowait("c", 2)
            await asyncio.sleep(1)
            assert not waiting.done()
            network.refuse = False
            assert (await waiting).position is None

    play(scenario)


def test_a_silent_server_is_pinged_and_given_up_when_it_does_not_answer() -> None:
    async def scenario() -> None:
        network = Network()
        server = Classic(network)
        async with client_to(network, dialect="plain") as client:
            await asyncio.sleep(100)
            assert server.clients[0].pings >= 4
            assert client.stats.reconnects == 0
            network.links[0].freeze(drop=True)
            began = loop().time()
            await asyncio.sleep(1)
            await until(lambda: len(network.links) == 2)
            assert 10 <= loop().time() - began <= 33

    play(scenario)


@pytest.mark.parametrize("rubbish", ["no json", "[]", '{"type":"data"}', '{"x":1}', "{}", "null"])
def test_what_a_server_says_beyond_that_is_ignored(rubbish: str) -> None:
    async def scenario() -> None:
        network = Network()
        server = Classic(network)
        async with client_to(network, dialect="plain") as client:
            async with client.subscribe("c") as room:
                server.clients[0].transport.send(1, rubbish.encode())
                server.clients[0].say({"channel": "system", "data": {"type": "error", "code": 202,
                                       "message": "no", "channel": "c"}})  # fmt: skip
                await client.publish("c", 1)
                assert data_of(await take(room, 1)) == [1]
            assert client.stats.reconnects == 0

    play(scenario)
