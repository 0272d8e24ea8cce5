"""Coming back, not coming back, and ending: what well-known clients do, and we.

Each test shows the straightforward way first, and that it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from everwire import ClientLimits, Unauthorized
from everwire.client import Client
from everwire.protocol import messages as m
from everwire.testing import Network

from .naive import Wire
from .world import (
    FAST,
    Peer,
    Script,
    client_to,
    loop,
    play,
    until,
    welcome,
)


async def naive_loop(
    network: Network,
    token: Callable[[], Awaitable[str]],
    *,
    final: tuple[int, ...] = (),
    pause: float = 1.0,
) -> None:
    """Connect again and again, as it is usually written."""
    codes: list[int] = []
    while not codes or codes[-1] not in final:
        wire = Wire()
        wire.on_closed = codes.append
        try:
            await wire.open(network, await token())
            await wire.lost.wait()
        except OSError:
            await asyncio.sleep(pause)


async def any_token() -> str:
    return "t"


# ---- 10 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["raises", "hangs"])
def test_a_token_that_cannot_be_fetched_wedges_nothing(way: str) -> None:
    """A rejected promise ends the loop that would have tried again; a pending one stops it.

    reconnecting-websocket #134 and #166, partysocket before 1.1.13: never connected again.
    """

    def provider() -> tuple[list[float], Callable[[], Awaitable[str]]]:
        asked: list[float] = []

        async def token() -> str:
            asked.append(loop().time())
            if len(asked) == 2:
                if way == "raises":
                    raise RuntimeError("the identity service is down")
                await asyncio.sleep(10_000)
            return "t"

        return asked, token

    async def naive() -> None:
        network = Network()
        Script(network)
        asked, token = provider()
        task = asyncio.get_running_loop().create_task(naive_loop(network, token))
        await asyncio.sleep(10)
        network.cut()
        await asyncio.sleep(600)
        assert len(asked) == 2
        assert not network.links
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or isinstance(task.exception(), RuntimeError)

    async def ours() -> None:
        network = Network()
        Script(network)
        asked, token = provider()
        async with client_to(network, token=token) as client:
            await asyncio.sleep(10)
            network.cut()
            await until(lambda: len(asked) == 3)
            await until(lambda: client.state == "ready", within=1)
            assert loop().time() < 10 + 2 + 10 + 2

    play(naive)
    play(ours)


def test_a_token_that_is_refused_for_ever_ends_it_and_is_no_busy_loop() -> None:
    """An expired token that a provider hands out again and again is tried without end.

    centrifuge-dart #129 and #154, centrifuge-js #401 and #422: a loop of hundreds a second.
    """

    def refuse(peer: Peer, message: m.Message) -> None:
        peer.close(4402, "expired")

    async def naive() -> None:
        network = Network(latency=0.005)
        script = Script(network, refuse)
        task = asyncio.get_running_loop().create_task(naive_loop(network, any_token, pause=0.0))
        await asyncio.sleep(10)
        assert len(script.peers) >= 400
        task.cancel()
        await asyncio.wait([task])

    async def ours() -> None:
        network = Network(latency=0.005)
        script = Script(network, refuse)
        with pytest.raises(Unauthorized):
            await client_to(network, token=any_token)
        assert len(script.peers) == 2
        assert loop().time() < 1

    play(naive)
    play(ours)


# ---- 11 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1011, 1012, 1013, 1014, 4000, 4499])
def test_a_server_that_says_goodbye_politely_is_come_back_to(code: int) -> None:
    """1000 and 1001 are what servers and proxies send when they restart.

    Phoenix's client takes 1000 for "never again" (#3161, #4924, #6678), graphql-ws did so
    too (#446): a deploy leaves every browser behind.
    """

    async def naive() -> None:
        network = Network()
        script = Script(network)
        task = asyncio.get_running_loop().create_task(
            naive_loop(network, any_token, final=(1000, 1001))
        )
        await asyncio.sleep(1)
        script.peers[0].close(1000)
        await asyncio.sleep(600)
        assert len(script.peers) == 1
        await task

    async def ours() -> None:
        network = Network()
        script = Script(network, ping_interval=1_000)
        async with client_to(network) as client, client.subscribe("c") as room:
            await asyncio.sleep(60)
            assert len(script.peers) == 1
            script.peers[0].close(code)
            await until(lambda: len(script.peers) == 2 and room.state == "subscribed", within=3)
            assert client.state == "ready"

    play(naive)
    play(ours)


# ---- 13 ----------------------------------------------------------------------------------


async def nothing(client: Client) -> Any:
    return None


async def full_outbox(client: Client) -> Any:
    for n in range(1_000):
        client.publish_nowait("c", n).add_done_callback(lambda future: future.exception())


async def full_queue(client: Client) -> Any:
    return await client.subscribe("full").__aenter__()


async def calls(client: Client) -> Any:
    return [
        asyncio.get_running_loop().create_task(client.query("never", timeout=1_000))
        for _ in range(300)
    ]


@pytest.mark.parametrize("before", [nothing, full_outbox, full_queue, calls])
@pytest.mark.parametrize("peer", ["silent", "flooding", "frozen", "gone", "reconnecting"])
def test_closing_ends_in_time_whatever_is_queued_and_whatever_the_peer_does(
    before: Callable[[Client], Awaitable[Any]], peer: str
) -> None:
    """A closing handshake has two sides, and the other one may never answer.

    aiohttp #1002 (a peer that keeps sending: never), ws #2203 (30 s), websockets #704 (five
    times ``close_timeout``), websocket-client #592: ``close()`` hangs.
    """

    def handle(one: Peer, message: m.Message) -> None:
        if isinstance(message, (m.Auth, m.Subscribe)):
            welcome(one, message)  # and nothing else is ever answered

    async def naive() -> None:
        network = Network()
        Script(network, handle)
        wire = await Wire().open(network)
        network.links[0].freeze()
        wire.transport.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await wire.lost.wait()

    async def ours() -> None:
        network = Network(latency=0.01)
        script = Script(network, handle)
        limits = ClientLimits(queue_messages=5, outbox_ttl=1_000)
        client = await client_to(network, limits=limits)
        held = await before(client)
        await asyncio.sleep(1)

        async def flood() -> None:
            offset = 0
            while True:
                for one in script.peers:
                    for _ in range(50):
                        offset += 1
                        one.send(m.ChannelMessage(sum(b"full"), offset, "i", 1, "x" * 1_000))
                await asyncio.sleep(0.01)

        flooding = asyncio.get_running_loop().create_task(flood() if peer == "flooding" else nap())
        if peer == "frozen":
            network.links[0].freeze(drop=True)
        elif peer == "silent":
            network.links[0].freeze()
        elif peer in ("gone", "reconnecting"):
            network.refuse = peer == "gone"
            network.cut()
            await asyncio.sleep(3)
        began = loop().time()
        await client.close()
        assert loop().time() - began <= 2 * limits.close_timeout + 0.1
        assert client.state == "closed"
        flooding.cancel()
        for one in held if isinstance(held, list) else ():
            assert one.done()
            one.exception()

    async def nap() -> None:
        await asyncio.sleep(1_000)

    play(naive)
    play(ours)


def test_closing_while_a_token_is_fetched_or_a_handshake_hangs_ends_at_once() -> None:
    """Disconnecting while connecting is forgotten: phoenix #1841 and #4616, partysocket 1.1.3."""

    async def hanging() -> str:
        await asyncio.sleep(10_000)
        return "t"

    async def scenario() -> None:
        for token in (hanging, None):
            network = Network()
            script = Script(network)
            client = client_to(network, limits=FAST, token=token)
            if token is None:
                network.partition()
            opening = asyncio.get_running_loop().create_task(client.__aenter__())
            await asyncio.sleep(2)
            began = loop().time()
            await client.close()
            assert loop().time() - began < 0.1
            await asyncio.wait([opening])
            assert opening.exception() is not None
            network.partition(False)
            await asyncio.sleep(60)
            assert not network.links
            assert len(script.peers) == 0

    play(scenario)
