"""What is revoked at one node is revoked at all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire import JWT, BrokerUnavailable, Everwire, Grant, Unavailable
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import run

from .nodes import Nodes, nodes
from .peer import Peer
from .test_auth import SECRET, wall


def tokens() -> JWT:
    return JWT(SECRET, algorithms=["HS256"], wall=wall)


def guarded(**options: Any) -> Everwire:
    wire = Everwire(channel_tokens=tokens(), **options)
    wire.authenticate(tokens())
    wire.channel("private:{id}", token=True)
    wire.channel("{name}", grant=Grant())
    return wire


async def come(cluster: Nodes, index: int, token: str) -> Peer | int:
    """The peer, or the code that it is refused with."""
    peer = cluster.peer(index)
    if isinstance(await peer.auth(token=token), m.Response):
        return peer
    return await peer.until_closed()


def test_a_revocation_ends_connections_at_every_node_and_is_remembered_there() -> None:
    async def scenario() -> None:
        made = tokens()
        async with nodes(3, limits=Limits(revocations=2), make=guarded) as cluster:
            token, bob = made.issue("ada"), made.issue("bob")
            peers = [await come(cluster, index, token) for index in range(3)]
            others = [await come(cluster, index, bob) for index in range(3)]
            await asyncio.sleep(1.5)
            before = wall()
            await cluster[0].revoke(user="ada")
            for peer in peers:
                assert isinstance(peer, Peer)
                assert await peer.until_closed() == 4402
            assert wall() - before <= 1.0
            for index in range(3):
                assert await come(cluster, index, token) == 4402
                assert isinstance(await come(cluster, index, made.issue("ada")), Peer)
            for peer in others:
                assert isinstance(peer, Peer)
                assert peer.close_code is None

    run(scenario)


def test_one_token_of_a_channel_ends_at_every_node() -> None:
    async def scenario() -> None:
        made = tokens()
        async with nodes(2, limits=Limits(revocations=2), make=guarded) as cluster:
            peer = await come(cluster, 1, made.issue("ada"))
            assert isinstance(peer, Peer)
            token = made.issue("ada", channel="private:1", jti="t")
            request = m.Subscribe(5, [m.ChannelRequest("private:1", token=token)])
            assert "error" not in (await peer.ask(request))["subscriptions"][0]
            await cluster[0].revoke(token_id="t")
            assert (await peer.next(m.Unsubscribed)).code == 201
            assert peer.close_code is None

    run(scenario)


def test_a_node_whose_memory_is_full_ends_connections_all_the_same() -> None:
    """And the others are told: theirs may not be."""

    async def scenario() -> None:
        made = tokens()
        async with nodes(2, limits=Limits(revocations=2), make=guarded) as cluster:
            await cluster[0].revoke(user="u1")
            await cluster[0].revoke(user="u2")
            peers = [await come(cluster, index, made.issue("u3")) for index in range(2)]
            with pytest.raises(Unavailable):
                await cluster[0].revoke(user="u3")
            for peer in peers:
                assert isinstance(peer, Peer)
                assert await peer.until_closed() == 4402
            assert cluster.node(1).counters["revoked_connections"] == 1

    run(scenario)


def test_without_the_broker_a_node_does_its_own_part_and_says_that_the_others_do_not_know() -> None:
    async def scenario() -> None:
        made = tokens()
        async with nodes(2, limits=Limits(revocations=2), make=guarded) as cluster:
            token = made.issue("ada")
            here, there = await come(cluster, 0, token), await come(cluster, 1, token)
            assert isinstance(here, Peer)
            assert isinstance(there, Peer)
            cluster.broker(0).severed = True
            with pytest.raises(BrokerUnavailable):
                await cluster[0].revoke(user="ada")
            assert await here.until_closed() == 4402
            assert await come(cluster, 0, token) == 4402
            assert there.close_code is None
            cluster.broker(0).severed = False
            await cluster[0].revoke(user="ada")
            assert await there.until_closed() == 4402

    run(scenario)
