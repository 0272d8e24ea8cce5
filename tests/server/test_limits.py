"""Each limit on what clients may do: what they are told, what is counted, who else is touched."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from everwire import ConfigError, Connection, Everwire, Grant, Identity, Limits
from everwire.limits import KiB, MiB
from everwire.net.transport import Handshake, Receiver
from everwire.protocol import messages as m
from everwire.server.node import Node
from everwire.testing import Network, run

from .peer import Peer, open_app, serving


def now() -> float:
    return asyncio.get_running_loop().time()


def application(**limits: Any) -> Everwire:
    wire = Everwire(limits=Limits(**limits), allow_anonymous=True)
    wire.channel("{name:path}", grant=Grant(publish=True))

    @wire.authenticate
    async def who(token: str) -> Identity:
        user, _, tenant = token.partition("@")
        return Identity(user, tenant=tenant)

    @wire.query
    async def echo(conn: Connection, payload: Any) -> Any:
        return payload

    return wire


async def opened(network: Network, dialect: str = "json", **fields: Any) -> Peer:
    peer = Peer(network, dialect)
    if dialect == "plain":
        await peer.open()
    else:
        await peer.auth(**fields)
    return peer


async def burst(peer: Peer, count: int, first: int = 100) -> tuple[int, list[m.Error]]:
    """Send queries all at once; return how many were answered, and what the others were told."""
    for n in range(count):
        peer.send(m.Query(first + n, "echo", n))
    answers = [await peer.answer(first + n) for n in range(count)]
    refused = [one for one in answers if isinstance(one, m.Error)]
    return count - len(refused), refused


# ---- messages --------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["json", "msgpack", "plain"])
def test_messages_beyond_the_rate_are_refused_for_a_moment(dialect: str) -> None:
    async def main() -> None:
        async with serving(application(messages=50)) as (network, node):
            peer, other = await opened(network, dialect), await opened(network)
            await asyncio.sleep(2)
            answered, refused = await burst(peer, 80)
            assert answered == 50
            assert {one.code for one in refused} == {401}
            assert "50 messages a second are allowed (limit messages)" in refused[0].message
            if dialect != "plain":
                assert {(one.temporary, one.outcome) for one in refused} == {(True, "none")}
                assert min(one.retry_after or 0 for one in refused) >= 1000
            assert node.counters["rate_limited"] == 30
            assert (await burst(other, 40))[0] == 40
            await asyncio.sleep(2)
            assert (await burst(peer, 50, 1000))[0] == 50

    run(main)


def test_who_sends_on_is_closed_with_4429() -> None:
    async def main() -> None:
        async with serving(application(messages=50)) as (network, node):
            peer = await opened(network)
            for n in range(120):
                peer.send(m.Query(n + 100, "echo", n))
            assert await peer.until_closed() == 4429
            assert node.app.stats().closes == {4429: 1}

    run(main)


def test_what_came_beyond_the_rate_counts_on_into_the_next_second() -> None:
    """A bucket, not a window: otherwise twice the rate could be asked for every other second."""

    async def main() -> None:
        async with serving(application(messages=50)) as (network, _):
            peer = await opened(network)
            await asyncio.sleep(2)
            assert (await burst(peer, 90))[0] == 50
            await asyncio.sleep(1)
            assert (await burst(peer, 50, 1000))[0] == 10

    run(main)


def test_at_the_rate_nothing_is_ever_refused_and_a_burst_may_be_allowed() -> None:
    async def main() -> None:
        async with serving(application(messages=50, burst=3)) as (network, node):
            peer = await opened(network)
            await asyncio.sleep(2)
            assert (await burst(peer, 145))[0] == 145
            for second in range(1, 20):  # and a pong now and then
                await asyncio.sleep(1)
                assert (await burst(peer, 49, 1000 * second))[0] == 49
            assert node.counters["rate_limited"] == 0
            assert (await burst(peer, 60, 50_000))[0] < 40, "the bucket had stayed nearly full"

    run(main)


def test_heartbeats_do_not_suffer_from_the_rate() -> None:
    async def main() -> None:
        async with serving(application(messages=3)) as (network, _):
            peer = await opened(network)
            await asyncio.sleep(120)
            assert peer.close_code is None
            assert (await burst(peer, 1))[0] == 1

    run(main)


@pytest.mark.parametrize("value", [0, 0.5])
def test_a_burst_holds_what_may_come_in_a_second(value: float) -> None:
    with pytest.raises(ConfigError, match="burst"):
        Limits(burst=value)


# ---- bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["json", "msgpack", "plain"])
def test_bytes_beyond_the_rate_come_more_slowly_and_nothing_is_refused(dialect: str) -> None:
    async def main() -> None:
        async with serving(application(bytes=100 * KiB)) as (network, node):
            peer, other = await opened(network, dialect), await opened(network)
            await asyncio.sleep(2)
            began = now()
            for n in range(100):
                peer.send(m.Query(100 + n, "echo", "x" * 10_000))
            for n in range(100):
                assert await peer.ask(m.Query(9000 + n, "echo", n)) == n if n % 10 == 0 else True
                assert (await other.ask(m.Query(100 + n, "echo", n))) == n
            assert now() - began < 15
            for n in range(100):
                answer = await peer.answer(100 + n)
                assert isinstance(answer, m.Response)
            # 1 MB at 100 KiB a second, of which the first second's worth came at once.
            assert 8 <= now() - began <= 12
            assert node.counters["throttled"] >= 5
            assert node.counters["bytes_limited"] == 0
            assert peer.close_code is None
            assert node.app.stats().refused == {}

    run(main)


def test_a_message_larger_than_a_seconds_worth_passes_and_is_paid_for() -> None:
    async def main() -> None:
        async with serving(application(bytes=50 * KiB)) as (network, node):
            peer = await opened(network)
            await asyncio.sleep(2)
            began = now()
            assert len(await peer.ask(m.Query(100, "echo", "x" * 500 * KiB))) == 500 * KiB
            assert now() - began < 1
            assert await peer.ask(m.Query(101, "echo", 1)) == 1
            assert 8 <= now() - began <= 11
            # Not being read from is no sign of death, and ends.
            for n in range(5):
                await peer.ask(m.Query(200 + n, "echo", "x" * 700 * KiB))
            assert now() - began > 60
            assert node.counters["heartbeat_losses"] == 0

    run(main)


def test_a_connection_that_is_not_read_from_can_still_end() -> None:
    async def main() -> None:
        async with serving(application(bytes=KiB)) as (network, node):
            for way in ("cut", "server"):
                peer = await opened(network)
                peer.send(m.Query(100, "echo", "x" * 100 * KiB))
                await asyncio.sleep(1)
                (conn,) = node.connections.values()
                assert conn.held_reading
                if way == "cut":
                    peer.link.cut()
                else:
                    conn.close(4504)
                    assert await peer.until_closed() == 4504
                await asyncio.sleep(120)
                assert not node.connections

    run(main)


def test_bytes_that_come_although_nothing_is_read_end_the_connection() -> None:
    """As what inflates to a thousand times of what was read: it is here, and cannot be held."""

    async def main() -> None:
        async with serving(application(bytes=MiB, hard_cap=2 * MiB)) as (network, node):
            peer = await opened(network)
            (conn,) = node.connections.values()
            payload = msgspec.json.encode(
                {"type": "event", "name": "nothing", "data": "x" * 900 * KiB}
            )
            count = 0
            while not node.counters["bytes_limited"]:
                conn.received(1, payload)
                count += 1
                assert count < 20
            assert 4 <= count <= 5
            assert await peer.until_closed() == 4429

    run(main)


# ---- connections -----------------------------------------------------------------------


async def closed_at_once(network: Network, token: str, **fields: Any) -> int:
    peer = await Peer(network).open()
    peer.send(m.Auth(1, token, **fields))
    return await peer.until_closed()


def test_a_users_newest_connection_beyond_the_limit_is_closed_with_4506() -> None:
    async def main() -> None:
        async with serving(application(connections_user=3)) as (network, node):
            mine = [await opened(network, token="ada") for _ in range(2)]
            plain = await opened(network, "plain")
            assert (await plain.ask(m.Auth(1, "ada")))["user"] == "ada"
            assert await closed_at_once(network, "ada") == 4506
            assert node.counters["user_full"] == 1
            assert node.app.stats().closes == {4506: 1}
            # Nobody else is concerned, not even of the same name.
            for token in ("eve", "ada@other"):
                await opened(network, token=token)
            for _ in range(5):
                await opened(network)
            # Whoever is there stays, and may refresh.
            assert (await mine[0].ask(m.Auth(2, "ada")))["user"] == "ada"
            assert all(one.close_code is None for one in (*mine, plain))
            assert await closed_at_once(network, "ada") == 4506
            mine[1].link.cut()
            await asyncio.sleep(1)
            await opened(network, token="ada")
            assert await closed_at_once(network, "ada") == 4506

    run(main)


def test_a_connection_that_takes_anothers_place_takes_its_number_too() -> None:
    """Otherwise nobody at the limit could move, or come back before the old link is found dead."""

    async def main() -> None:
        async with serving(application(connections_user=2)) as (network, _):
            old = await Peer(network).open()
            secret = (await old.next(m.Hello)).connection
            await old.ask(m.Auth(1, "ada"))
            await opened(network, token="ada")
            foreign = await Peer(network).open()
            foreign_secret = (await foreign.next(m.Hello)).connection
            await foreign.ask(m.Auth(1, "eve"))
            for wrong in ("nobody's", foreign_secret):
                assert await closed_at_once(network, "ada", replaces=wrong) == 4506
            await opened(network, token="eve")
            assert await closed_at_once(network, "eve") == 4506, "hers is counted still"
            new = await opened(network, token="ada", replaces=secret)
            assert await old.until_closed() == 4507
            assert new.close_code is None
            assert await closed_at_once(network, "ada", replaces=secret) == 4506

    run(main)


def test_a_place_is_taken_once_also_by_several_at_a_time() -> None:
    async def main() -> None:
        async with serving(application(connections_user=1)) as (network, node):
            old = await Peer(network).open()
            secret = (await old.next(m.Hello)).connection
            await old.ask(m.Auth(1, "ada"))
            several = [await Peer(network).open() for _ in range(4)]
            for one in several:
                one.send(m.Auth(1, "ada", replaces=secret))
            await asyncio.sleep(1)
            assert sorted(str(one.close_code) for one in several) == ["4506"] * 3 + ["None"]
            assert len(node.connections) == 1

    run(main)


def test_many_connections_come_and_go_and_nothing_is_left_of_them() -> None:
    async def main() -> None:
        async with serving(application(connections_user=2, connections=3)) as (network, node):
            for n in range(30):
                peer = await opened(network, token="ada" if n % 2 else "eve")
                await peer.ask(m.Auth(2, "ada" if n % 2 else "eve"))
                peer.transport.close() if n % 3 else peer.link.cut()
                await asyncio.sleep(5)
            assert not node.per_user._counts
            assert not node._addresses._counts

    run(main)


def test_connections_beyond_the_limit_of_an_address_are_counted() -> None:
    async def main() -> None:
        async with serving(application(connections=2)) as (network, node):
            peers = [await opened(network) for _ in range(2)]
            third = await Peer(network).open()
            assert await third.until_closed() == 4429
            assert node.counters["address_full"] == 1
            assert all(one.close_code is None for one in peers)

    run(main)


def test_of_ipv6_a_network_of_64_bits_is_one_address() -> None:
    """One customer has as many addresses as it likes."""

    async def main() -> None:
        async with serving(application(connections=2)) as (network, node):
            remotes = iter(
                ["2001:db8::1:1", "2001:db8::2:1", "2001:db8:0:0:f::3:1", "2001:db9::1:1"]
            )

            def accept(transport: Any, handshake: Handshake) -> Receiver:
                transport.remote = next(remotes)
                return node.accept(transport, handshake)

            network.listen("ws://six/ws", accept)
            peers = [await Peer(network, url="ws://six/ws").open() for _ in range(4)]
            await asyncio.sleep(1)
            assert [one.close_code for one in peers] == [None, None, 4429, None]
            for peer in peers:
                peer.transport.close()
            await asyncio.sleep(1)
            assert not node._addresses._counts

    run(main)


# ---- what a message may hold ---------------------------------------------------------------


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("dialect", ["json", "msgpack", "plain"])
def test_depth_and_elements_have_an_error_and_a_counter_each(dialect: str) -> None:
    async def main() -> None:
        async with serving(application(elements=1000)) as (network, node):
            peer = await opened(network, dialect)
            assert await peer.ask(m.Query(100, "echo", deep(32))) == deep(32)
            assert await peer.ask(m.Query(101, "echo", [1] * 900)) == [1] * 900
            too_deep = await peer.ask(m.Query(102, "echo", deep(33)))
            assert too_deep.code == 100
            assert "32 levels" in too_deep.message
            peer.send(m.Publish("" if dialect == "plain" else "i-1", "c", deep(33)))
            published = await peer.next(m.Error)
            assert published.code == 100
            assert node.counters["too_deep"] == 2
            if dialect != "plain":
                assert too_deep.details == {"limit": "MAX_DEPTH", "most": 32}
            assert node.counters["bad_messages"] == 0, "it is no strike"
            many = await peer.ask(m.Query(103, "echo", [1] * 1001))
            assert many.code == 100
            assert "1000 values and keys" in many.message
            assert node.counters["too_many_elements"] == 1
            assert node.counters["bad_messages"] == 1

    run(main)


def test_the_page_on_limits_names_limits_and_counters_that_exist() -> None:
    root = Path(__file__).parents[2] / "docs"
    table = (root / "limits.md").read_text().partition("## What is told")[2]
    metrics = (root / "metrics.md").read_text()
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    assert len(rows) >= 20
    for names, _, counted in rows:
        for name in re.findall(r"`(\w+)`", names):
            assert name == "MAX_DEPTH" or hasattr(Limits(), name), name
        for name in re.findall(r"`(?:events\.)?(\w+)`", counted):
            assert f"`{name}`" in metrics, name


async def too_big(peer: Peer, node: Node) -> None:
    assert (await peer.ask(m.Query(9, "echo", "x" * 2000))).code == 400
    assert node.app.stats().refused == {"too_big": 1}


async def subscriptions(peer: Peer, node: Node) -> None:
    await peer.subscribe("a")
    await peer.subscribe("b")
    assert (await peer.subscribe("c"))["error"]["code"] == 402
    assert node.app.stats().refused == {"subscriptions": 1}


async def batch(peer: Peer, node: Node) -> None:
    several = [m.ChannelRequest(f"c{n}") for n in range(4)]
    assert (await peer.ask(m.Subscribe(9, several))).code == 100
    assert node.app.stats().refused == {"bad_request": 1}


async def inflight(peer: Peer, node: Node) -> None:
    for n in range(5):
        peer.send(m.Query(10 + n, "sleep"))
    await asyncio.sleep(0.5)
    assert node.app.stats().working == 2
    for n in range(5):
        assert await peer.answer(10 + n) == m.Response(10 + n, None)
    assert node.counters["inflight_full"] >= 2


async def strikes(peer: Peer, node: Node) -> None:
    for _ in range(3):
        peer.send_raw(b"{")
    assert await peer.until_closed() == 4400
    assert node.counters["bad_messages"] == 3
    assert node.app.stats().closes == {4400: 1}


@pytest.mark.parametrize(
    "case",
    [too_big, subscriptions, batch, inflight, strikes],
    ids=lambda case: case.__name__,
)
def test_each_limit_of_a_connection_is_told_and_counted(case: Any) -> None:
    wire = open_app(
        limits=Limits(
            message=1500, hard_cap=3000, subscriptions=2, subscribe_batch=3, inflight=2, strikes=2
        )
    )

    @wire.query
    async def sleep(conn: Connection) -> None:
        await asyncio.sleep(1)

    @wire.query
    async def echo(conn: Connection, payload: Any) -> Any:
        return payload

    async def main() -> None:
        async with serving(wire) as (network, node):
            await case(await opened(network), node)

    run(main)
