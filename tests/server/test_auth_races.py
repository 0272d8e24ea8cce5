"""What changes while somebody is on the way in: revoked, sent away, replaced or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from everwire import JWT, Connection, Everwire, Forbidden, Identity
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.server.node import Node
from everwire.testing import Network

from .peer import Peer, serving
from .test_auth import SECRET, play, wall


async def slowly(conn: Connection) -> None:
    await asyncio.sleep(2)


@asynccontextmanager
async def guarded(
    on_connect: Any, **options: Any
) -> AsyncIterator[tuple[Network, Node, Everwire, JWT]]:
    """A node that wants a JWT, and asks the application about whoever comes."""
    made = JWT(SECRET, algorithms=["HS256"], wall=wall, tenant="tenant")
    wire = Everwire(**options)
    wire.authenticate(made)
    wire.on_connect(on_connect)
    async with serving(wire) as (network, node):
        yield network, node, wire, made


@pytest.mark.parametrize("whom", ["user", "token", "tenant"])
def test_who_is_revoked_while_on_the_way_in_does_not_arrive(whom: str) -> None:
    async def scenario() -> None:
        async with guarded(slowly) as (network, node, wire, made):
            peer = Peer(network)
            await peer.open()
            token = made.issue("ada", jti="one", tenant="acme")
            await asyncio.sleep(2)
            peer.send(m.Auth(1, token=token))
            await asyncio.sleep(1)
            if whom == "user":
                await wire.revoke(user="ada", tenant="acme")
            elif whom == "token":
                await wire.revoke(token_id="one")
            else:
                await wire.revoke(tenant="acme")
            await asyncio.sleep(3)
            assert peer.close_code == 4402
            assert not any(isinstance(one, m.Response) for one in peer.inbox)
            assert not node.connections

    play(scenario)


def test_who_is_sent_away_while_on_the_way_in_does_not_arrive() -> None:
    async def scenario() -> None:
        async with guarded(slowly) as (network, node, wire, made):
            peer = await Peer(network).open()
            peer.send(m.Auth(1, token=made.issue("ada", tenant="acme")))
            await asyncio.sleep(1)
            assert await wire.disconnect("bob", tenant="acme") == 0
            assert await wire.disconnect("ada") == 0
            assert await wire.disconnect("ada", tenant="acme") == 1
            await asyncio.sleep(3)
            assert peer.close_code == 4504
            assert not node.connections

    play(scenario)


@pytest.mark.parametrize("dialect", ["json", "plain"])
def test_whom_the_host_handed_over_can_be_sent_away_before_auth(dialect: str) -> None:
    async def scenario() -> None:
        async with guarded(slowly) as (network, node, wire, _made):
            ada = Identity("ada", tenant="acme")
            listener = network.listen(
                "ws://host/ws", lambda tr, hs: node.accept(tr, replace(hs, identity=ada))
            )
            peer = await Peer(network, dialect, "ws://host/ws").open()
            await asyncio.sleep(1)
            assert await wire.disconnect("ada", tenant="acme") == 1
            assert await peer.until_closed() == 4504
            again = await Peer(network, dialect, "ws://host/ws").open()
            await asyncio.sleep(1)
            await wire.revoke(tenant="acme")
            assert await again.until_closed() == 4402
            await asyncio.sleep(3)
            assert not node.connections
            listener.close()

    play(scenario)


@pytest.mark.parametrize("error", [Forbidden("no"), ValueError("a defect")])
def test_who_takes_a_place_and_is_not_let_in_gives_it_back(error: Exception) -> None:
    """Otherwise the one that is still there would not be counted, and there could be any number."""
    refuse = False

    async def greet(conn: Connection) -> None:
        if refuse:
            raise error

    async def scenario() -> None:
        nonlocal refuse
        limits = Limits(connections_user=2)
        async with guarded(greet, limits=limits) as (network, node, _wire, made):
            token = made.issue("ada", tenant="acme")
            peers = [await Peer(network).open() for _ in range(2)]
            for peer in peers:
                assert isinstance(await peer.ask(m.Auth(1, token=token)), dict)
            secret = (await peers[1].next(m.Hello)).connection
            refuse = True
            for _ in range(3):
                other = await Peer(network).open()
                other.send(m.Auth(1, token=token, replaces=secret))
                assert await other.until_closed() in (4501, 1011)
            refuse = False
            late = await Peer(network).open()
            late.send(m.Auth(1, token=token))
            assert await late.until_closed() == 4506
            assert [one.close_code for one in peers] == [None, None]
            new = await Peer(network).open()
            assert isinstance(await new.ask(m.Auth(1, token=token, replaces=secret)), dict)
            assert await peers[1].until_closed() == 4507
            await asyncio.sleep(1)
            assert len(node.connections) == 2

    play(scenario)
