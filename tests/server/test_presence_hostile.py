"""Presence against what is against it: readers that come and go, failures in the middle, crowds."""

from __future__ import annotations

import asyncio

from everwire.protocol import messages as m

from .nodes import Nodes
from .test_presence import Watcher, join, on_nodes


def test_what_was_to_be_told_to_who_watched_before_is_not_told_to_who_watches_now() -> None:
    async def scenario(cluster: Nodes) -> None:
        first = await Watcher.at(cluster, 0)
        peer = await join(cluster, 0)
        await asyncio.sleep(1)
        await peer.ask(m.Unsubscribe(5, ["c"]))  # told at once
        await peer.subscribe("c")  # to be told in a moment
        await first.ask(m.Unsubscribe(6, ["c"]))
        await peer.ask(m.Unsubscribe(7, ["c"]))  # nobody watches
        second = await Watcher.at(cluster, 0)
        await asyncio.sleep(20)
        assert second.members == ["watcher"]
        assert second.count == 1

    on_nodes(1, scenario, latency=0.0)
