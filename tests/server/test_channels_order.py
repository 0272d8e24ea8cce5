"""What names a channel takes effect in the order of asking, by whatever way it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from everwire import Connection, Everwire, Forbidden, Grant, Identity, RequestError
from everwire.brokers.memory import MemoryBroker
from everwire.codes import ErrorCode
from everwire.protocol import messages as m
from everwire.server.turns import Turn
from everwire.testing import run

from .peer import Peer, serving


class Rights:
    """An application whose one channel takes a second to ask about, and may be closed."""

    def __init__(self, broker: MemoryBroker | str = "auto") -> None:
        self.allowed = True
        self.asked = 0
        self.pause = 1.0
        self.wire = Everwire(broker, allow_anonymous=True)

        @self.wire.authenticate
        async def who(token: str | None = None) -> Identity:
            return Identity(token or "")

        @self.wire.channel("{name}")
        async def channel(conn: Connection, name: str) -> Grant:
            allowed = self.allowed
            self.asked += 1
            await asyncio.sleep(self.pause)
            if not allowed:
                raise Forbidden("not any more")
            return Grant(publish=True)


def asks(channel: str) -> list[m.ChannelRequest]:
    return [m.ChannelRequest(channel)]


def test_an_unsubscribe_behind_an_auth_that_subscribes_comes_after_it() -> None:
    rights = Rights()

    async def main() -> None:
        async with serving(rights.wire) as (network, node):
            peer = Peer(network)
            await peer.auth(token="ada")
            peer.send(m.Auth(2, "ada", subscribe=asks("c")))
            peer.send(m.Unsubscribe(3, ["c"]))
            answer = await peer.answer(2)
            assert isinstance(answer, m.Response)
            assert "error" not in answer.payload["subscriptions"][0]
            assert isinstance(await peer.answer(3), m.Response)
            (connection,) = node.connections.values()
            assert not connection.subscriptions
            assert not connection.operations

    run(main)


def test_an_auth_that_subscribes_comes_after_what_was_asked_before() -> None:
    rights = Rights()

    async def main() -> None:
        async with serving(rights.wire) as (network, node):
            peer = Peer(network)
            await peer.auth(token="ada")
            peer.send(m.Subscribe(2, asks("c")))
            peer.send(m.Unsubscribe(3, ["c"]))
            peer.send(m.Auth(4, "ada", subscribe=asks("c")))
            for request_id in (2, 3, 4):
                assert isinstance(await peer.answer(request_id), m.Response)
            (connection,) = node.connections.values()
            assert list(connection.subscriptions) == ["c"]
            await rights.wire.publish("c", "once")
            await asyncio.sleep(1)
            assert [one.data for one in peer.messages()] == ["once"]

    run(main)


def test_an_auth_that_fails_holds_nobody_up() -> None:
    rights = Rights()

    async def main() -> None:
        async with serving(rights.wire) as (network, _):
            peer = await Peer(network, "plain").open()
            await peer.ask(m.Auth("a", None, {"token": "ada"}))
            refused = await peer.ask(m.Auth("b", None, {"token": "bob"}))
            assert refused.code == ErrorCode.UNAUTHENTICATED
            peer.send(m.Subscribe("", asks("c")))
            await peer.next(m.Subscribed)

    run(main)


@pytest.mark.parametrize("after", [0.0, 0.5, 0.8])
def test_what_is_being_subscribed_to_is_asked_about_again_too(after: float) -> None:
    """Asked with the old token, granted, and registered after the new one allowed it no more."""
    rights = Rights()

    async def main() -> None:
        async with serving(rights.wire) as (network, node):
            peer = Peer(network)
            await peer.auth(token="ada")
            peer.send(m.Subscribe(2, asks("c")))
            await asyncio.sleep(0.1 + after)
            rights.allowed = False
            began = asyncio.get_running_loop().time()
            assert isinstance(await peer.ask(m.Auth(3, "ada")), dict)
            assert asyncio.get_running_loop().time() - began < 0.5  # the token is not held up
            await peer.answer(2)
            await asyncio.sleep(3)
            (connection,) = node.connections.values()
            assert not connection.subscriptions
            await rights.wire.publish("c", "secret")
            await asyncio.sleep(1)
            assert not peer.messages()

    run(main)


class SlowBroker(MemoryBroker):
    async def subscribe(self, channels: Sequence[str]) -> None:
        await asyncio.sleep(1)
        await super().subscribe(channels)


def test_what_the_broker_is_being_asked_for_is_asked_about_again_too() -> None:
    """Granted by the old token, registered when the new one does not allow it any more."""
    rights = Rights(SlowBroker())
    rights.pause = 0

    async def main() -> None:
        async with serving(rights.wire) as (network, _):
            peer = Peer(network)
            await peer.auth(token="ada")
            peer.send(m.Subscribe(2, asks("c")))
            await asyncio.sleep(0.5)
            rights.allowed = False
            assert isinstance(await peer.ask(m.Auth(3, "ada")), dict)
            answer = await peer.answer(2)
            assert isinstance(answer, m.Response)
            ended = await peer.next(m.Unsubscribed)
            assert (ended.sid, ended.code) == (answer.payload["subscriptions"][0]["sid"], 202)

    run(main)


def test_nobody_waits_behind_what_a_closed_connection_never_began() -> None:
    rights = Rights()

    async def main() -> None:
        async with serving(rights.wire) as (network, node):
            peer = Peer(network)
            await peer.auth(token="ada")
            (connection,) = node.connections.values()
            node.dispatch(connection, m.Subscribe(2, asks("c")))
            turn = Turn(connection, ["c"])
            connection.close(1000)
            async with asyncio.timeout(1), turn:
                pass
            assert not connection.operations

    run(main)


def test_a_later_auth_ends_what_is_allowed_no_more_and_keeps_the_rest() -> None:
    rights = Rights()
    rights.pause = 0

    async def main() -> None:
        async with serving(rights.wire) as (network, _):
            peer = Peer(network)
            await peer.auth(token="ada")
            sids = [(await peer.subscribe(name))["sid"] for name in "ab"]
            asked = rights.asked
            await peer.ask(m.Auth(2, "ada"))
            assert rights.asked == asked + 2
            rights.allowed = False
            await peer.ask(m.Auth(3, "ada", subscribe=asks("b")))
            ended = [await peer.next(m.Unsubscribed) for _ in sids]
            assert [(one.sid, one.code) for one in ended] == [(sid, 202) for sid in sids]

    run(main)


def test_the_application_and_the_client_take_turns() -> None:
    rights = Rights()
    errors: list[Any] = []

    @rights.wire.command
    async def join(conn: Connection) -> None:
        try:
            await conn.subscribe("c")
        except RequestError as error:
            errors.append(error)

    async def main() -> None:
        async with serving(rights.wire) as (network, node):
            peer = Peer(network)
            await peer.auth(token="ada")
            peer.send(m.Subscribe(2, asks("c")))
            peer.send(m.Command(3, "join"))
            await asyncio.sleep(0.1)
            peer.send(m.Unsubscribe(4, ["c"]))
            for request_id in (2, 3, 4):
                assert isinstance(await peer.answer(request_id), m.Response)
            (connection,) = node.connections.values()
            assert not connection.subscriptions
            assert not connection.operations
            assert not errors

    run(main)
