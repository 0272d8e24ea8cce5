"""on_connect and on_disconnect: who is let in, and who is seen off."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
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
    Unauthorized,
    Unavailable,
)
from everwire.codes import CloseCode, ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import run

from .peer import Peer, serving


def application(**options: Any) -> Everwire:
    wire = Everwire(allow_anonymous=True, **options)
    wire.channel("{name:path}", grant=Grant(publish=True))

    @wire.authenticate
    async def who(token: str | None = None) -> Identity:
        return Identity(token or "")

    return wire


@pytest.mark.parametrize("name", ["json", "msgpack", "plain"])
def test_a_connection_is_greeted_once_its_user_is_known_and_seen_off_when_it_is_gone(
    name: str,
) -> None:
    wire = application()
    wire.allow_anonymous = False
    said: list[Any] = []

    @wire.on_connect
    async def came(conn: Connection) -> None:
        said.append(("came", conn.user))

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        said.append(("left", conn.user, code, reason))

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await Peer(network, name).open()
            await asyncio.sleep(1)
            assert said == []
            peer.send(m.Auth(1, "ada", {"token": "ada"} if name == "plain" else None))
            await peer.answer(1)
            assert said == [("came", "ada")]
            peer.transport.close(1001, "bye")
            await asyncio.sleep(1)
            assert said == [("came", "ada"), ("left", "ada", 1001, "bye")]

    run(main)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda peer, node: peer.transport.abort(), CloseCode.ABNORMAL),
        (lambda peer, node: [one.close(4321, "") for one in node.connections.values()], 4321),
        (lambda peer, node: [peer.send_raw(b"{") for _ in range(11)], CloseCode.BAD_MESSAGES),
    ],
)
def test_the_code_is_that_of_the_end_whoever_made_it_and_it_is_told_once(
    end: Any, code: int
) -> None:
    wire = application()
    said: list[int] = []

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        said.append(code)

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = Peer(network)
            await peer.auth()
            end(peer, node)
            await asyncio.sleep(10)
            assert said == [code]

    run(main)


@pytest.mark.parametrize("name", ["json", "plain"])
@pytest.mark.parametrize(
    ("error", "code", "close"),
    [
        (Forbidden("not here"), ErrorCode.FORBIDDEN, CloseCode.FORBIDDEN),
        (Unauthorized("who?"), ErrorCode.UNAUTHENTICATED, CloseCode.UNAUTHORIZED),
        (Unavailable("later"), ErrorCode.UNAVAILABLE, CloseCode.TRY_AGAIN_LATER),
        (RuntimeError("secret"), ErrorCode.INTERNAL, CloseCode.INTERNAL_ERROR),
    ],
)
def test_who_is_turned_away_is_told_why_and_never_seen_off(
    name: str, error: Exception, code: int, close: int
) -> None:
    wire = application()
    called: list[str] = []

    @wire.on_connect
    async def first(conn: Connection) -> None:
        called.append("first")

    @wire.on_connect
    async def second(conn: Connection) -> None:
        raise error

    @wire.on_connect
    async def third(conn: Connection) -> None:
        called.append("third")

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        called.append("left")

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await Peer(network, name).open()
            if name == "plain":
                peer.send(m.Subscribe("", [m.ChannelRequest("c")]))
            else:
                peer.send(m.Auth(1, "ada"))
                peer.send(m.Subscribe(2, [m.ChannelRequest("c")]))
            refused = await peer.next(m.Error)
            assert (refused.code, "secret" in refused.message) == (code, False)
            assert await peer.until_closed() == close
            assert not [one for one in peer.inbox if isinstance(one, (m.Response, m.Subscribed))]
            await asyncio.sleep(20)
            assert called == ["first"]
            assert not node.hub.channels

    run(main)


@pytest.mark.parametrize("name", ["json", "plain"])
def test_what_is_asked_while_a_connection_is_greeted_waits(name: str) -> None:
    wire = application()
    entered = False

    @wire.on_connect
    async def came(conn: Connection) -> None:
        nonlocal entered
        await asyncio.sleep(3)
        entered = True

    @wire.query
    async def ask(conn: Connection) -> bool:
        return entered

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await Peer(network, name).open()
            if name == "json":
                peer.send(m.Auth(1, "ada"))
            peer.send(m.Query(2, "ask"))
            answer = await peer.answer(2)
            assert isinstance(answer, m.Response)
            assert answer.payload is True
            assert asyncio.get_running_loop().time() < 4

    run(main)


def test_greeting_takes_no_longer_than_a_request_may() -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await Peer(network).open()
            peer.send(m.Auth(1, "ada"))
            assert await peer.until_closed() == CloseCode.TRY_AGAIN_LATER
            assert 9 < asyncio.get_running_loop().time() < 12

    run(main)


def test_who_leaves_while_being_greeted_is_seen_off_after_it() -> None:
    wire = application()
    said: list[str] = []

    @wire.on_connect
    async def came(conn: Connection) -> None:
        await asyncio.sleep(3)
        said.append("came")

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        said.append("left")

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await Peer(network).open()
            peer.send(m.Auth(1, "ada"))
            await asyncio.sleep(1)
            peer.transport.abort()
            await asyncio.sleep(5)
            assert said == ["came", "left"]
            assert node.counters["defects"] == 0

    run(main)


def test_on_connect_may_close_by_itself_and_then_it_is_seen_off() -> None:
    wire = application()
    said: list[int] = []

    @wire.on_connect
    async def came(conn: Connection) -> None:
        conn.close(4001, "elsewhere")
        await asyncio.sleep(1)

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        said.append(code)

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await Peer(network).open()
            peer.send(m.Auth(1, "ada"))
            assert await peer.until_closed() == 4001
            await asyncio.sleep(5)
            assert said == [4001]
            assert node.counters["defects"] == 0

    run(main)


def test_a_later_auth_of_the_same_user_greets_nobody_anew() -> None:
    wire = application()
    said: list[str] = []

    @wire.on_connect
    async def came(conn: Connection) -> None:
        said.append(conn.user)

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = Peer(network)
            await peer.auth(token="ada")
            await peer.ask(m.Auth(2, "ada"))
            plain = await Peer(network, "plain").open()
            await plain.ask(m.Auth(3, None, {"token": "bob"}))
            assert said == ["ada", "", "bob"]  # bob was anonymous first

    run(main)


def test_plain_functions_run_in_threads() -> None:
    wire = application()
    threads: list[Any] = []

    @wire.on_connect
    def came(conn: Connection) -> list[str]:
        threads.append(threading.current_thread())
        return ["c"]

    @wire.on_disconnect
    def left(conn: Connection, code: int, reason: str) -> None:
        threads.append((threading.current_thread(), conn.user, code))

    async def main() -> None:
        from everwire.testing import Network

        network = Network()
        node = await wire.start()
        listener = network.listen("ws://node/ws", node.accept)
        peer = Peer(network)
        await peer.auth(token="ada")
        await peer.next(m.Subscribed)
        peer.transport.close(1000)
        async with asyncio.timeout(5):
            while len(threads) < 2:
                await asyncio.sleep(0.01)
        listener.close()
        await wire.stop()

    asyncio.run(main())
    assert threads[0] is not threading.main_thread()
    assert threads[1][0] is not threading.main_thread()
    assert threads[1][1:] == ("ada", 1000)


def test_a_stop_sees_everybody_off_while_the_application_still_works_and_waits_not_for_ever() -> (
    None
):
    wire = application()
    said: list[Any] = []

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        await wire.publish("left", conn.user)
        said.append((conn.user, code))
        if conn.user == "slow":
            await asyncio.sleep(1000)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(wire) as (network, node):
            for user in ("ada", "slow", "bob"):
                await Peer(network).auth(token=user)
            began = loop.time()
            await wire.stop()
            assert sorted(said) == [
                ("ada", CloseCode.DRAINING), ("bob", CloseCode.DRAINING), ("slow", CloseCode.DRAINING)
            ]  # fmt: skip
            assert loop.time() - began < 6
            assert len(node.tasks) <= 1  # its own upkeep
            with pytest.raises(ConfigError):
                await wire.publish("left", 1)

    run(main)


def test_many_that_leave_at_once_are_seen_off_some_at_a_time_and_each_within_its_time() -> None:
    wire = application(limits=Limits(request_timeout=2.0))
    running = most = ended = 0

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(5 if ended == 0 else 0.1)
        finally:
            running -= 1
            ended += 1

    async def main() -> None:
        async with serving(wire) as (network, node):
            peers = [Peer(network) for _ in range(200)]
            for peer in peers:
                await peer.auth()
            for peer in peers:
                peer.transport.abort()
            await asyncio.sleep(60)
            assert (ended, running) == (200, 0)
            assert 1 < most <= 32
            assert len(node.tasks) <= 1  # its own upkeep

    run(main)


def test_who_leaves_in_the_turn_in_which_the_others_were_seen_off_is_seen_off_as_well() -> None:
    wire = application()
    said: list[str] = []

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        said.append(conn.user)

    async def main() -> None:
        async with serving(wire) as (network, node):
            for n in range(33):
                await Peer(network).auth(token=str(n))
            *most, last = list(node.connections.values())
            for connection in most:
                connection.transport.abort()
                connection.closed(CloseCode.ABNORMAL, "")
            asyncio.get_running_loop().call_soon(last.close, CloseCode.DISCONNECTED)
            await asyncio.sleep(1)
            assert sorted(said) == sorted(str(n) for n in range(33))

    run(main)


def test_who_leaves_while_being_greeted_as_somebody_else_is_seen_off_once() -> None:
    wire = application()
    said: list[str] = []

    @wire.on_connect
    async def came(conn: Connection) -> None:
        said.append(f"came {conn.user}")
        if conn.user:
            await asyncio.sleep(2)

    @wire.on_disconnect
    async def left(conn: Connection, code: int, reason: str) -> None:
        said.append("left")

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await Peer(network, "plain").open()
            await asyncio.sleep(1)
            peer.send(m.Auth("a", "ada"))
            await asyncio.sleep(1)
            peer.transport.close(CloseCode.NORMAL, "")
            await asyncio.sleep(5)
            assert said == ["came ", "came ada", "left"]

    run(main)


def test_a_user_who_is_revoked_while_being_greeted_is_not_let_in() -> None:
    wire = application()

    @wire.on_connect
    async def came(conn: Connection) -> None:
        await asyncio.sleep(2)

    async def main() -> None:
        async with serving(wire) as (network, node):
            peers = [await Peer(network).open() for _ in range(2)]
            for peer, token in zip(peers, ("ada", "bob"), strict=True):
                peer.send(m.Auth(1, token))
            await asyncio.sleep(1)
            await wire.revoke(user="ada")
            assert await peers[0].until_closed() == CloseCode.TOKEN_REFUSED
            assert isinstance(await peers[1].answer(1), m.Response)
            assert len(node.connections) == 1

    run(main)


def test_on_connect_cannot_ask_a_client_that_was_not_let_in() -> None:
    wire = application()
    failures: list[type[BaseException]] = []

    @wire.on_connect
    async def came(conn: Connection) -> None:
        try:
            await conn.query("confirm")
        except NotSent as error:
            failures.append(type(error))

    async def main() -> None:
        async with serving(wire) as (network, _):
            await Peer(network).auth()
            assert failures == [NotSent]

    run(main)


def test_a_handler_that_cannot_be_called_is_refused_where_it_is_declared() -> None:
    wire = application()

    async def too_much(conn: Connection, room: str) -> None: ...

    async def too_little(conn: Connection) -> None: ...

    with pytest.raises(ConfigError, match="on_connect"):
        wire.on_connect(too_much)
    with pytest.raises(ConfigError, match="code, reason"):
        wire.on_disconnect(too_little)


@pytest.mark.parametrize("where", ["query", "command", "on_connect", "on_disconnect"])
def test_what_does_not_care_that_it_is_cancelled_does_not_hold_up_a_stop(where: str) -> None:
    wire = application()
    at: list[str] = []

    async def stubborn(here: str) -> None:
        at.append(here)
        until = asyncio.get_running_loop().time() + 100 * (here == where)
        while asyncio.get_running_loop().time() < until:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    @wire.query
    async def query(conn: Connection) -> None:
        await stubborn("query")

    @wire.command
    async def command(conn: Connection) -> None:
        await stubborn("command")

    @wire.on_connect
    async def on_connect(conn: Connection) -> None:
        await stubborn("on_connect")

    @wire.on_disconnect
    async def on_disconnect(conn: Connection, code: int, reason: str) -> None:
        await stubborn("on_disconnect")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(wire) as (network, _):
            peer = await Peer(network).open()
            peer.send(m.Auth(1, "ada"))
            peer.send(m.Query(2, "query"))
            peer.send(m.Command(3, "command", key="k"))
            await asyncio.sleep(1)
            began = loop.time()
            await wire.stop()
            assert loop.time() - began < 20
            assert where in at
            await asyncio.sleep(120)

    run(main)
