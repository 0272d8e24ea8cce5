"""What a drain finishes before it closes: in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from everwire import Connection
from everwire.protocol import messages as m
from everwire.testing import run

from .peer import Peer, open_app, serving


@pytest.mark.parametrize(
    ("seconds", "answered"), [(0.01, True), (1.2, True), (10.0, False)], ids=str
)
def test_what_was_begun_is_answered_before_the_close_if_it_is_short(
    seconds: float, answered: bool
) -> None:
    """At the end of a window of a second there is half of it more."""
    wire = open_app()

    @wire.command
    async def work(conn: Connection, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = Peer(network)
            await peer.auth()
            draining = asyncio.create_task(node.drain(1.0))
            await asyncio.sleep(0.995 if seconds < 1 else 0.0)
            peer.send(m.Command(7, "work", {"seconds": seconds}, key="k"))
            assert await peer.until_closed() == 4440
            found = [one for one in peer.inbox if isinstance(one, m.Response)]
            assert [one.payload for one in found if one.request_id == 7] == ["done"] * answered
            await draining

    run(main())


def test_what_comes_after_the_window_is_not_begun() -> None:
    wire, begun = open_app(), []

    @wire.command
    async def work(conn: Connection, seconds: float) -> None:
        begun.append(seconds)
        await asyncio.sleep(seconds)

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = Peer(network)
            await peer.auth()
            draining = asyncio.create_task(node.drain(1.0))
            peer.send(m.Command(7, "work", {"seconds": 1.3}, key="one"))
            await asyncio.sleep(1.1)
            peer.send(m.Command(8, "work", {"seconds": 0}, key="other"))
            await draining
            assert begun == [1.3]

    run(main())
