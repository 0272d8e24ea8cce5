"""docs/channels.md: its application runs, and does what the page says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from everwire.codes import CloseCode, ErrorCode
from everwire.protocol import messages as m
from everwire.testing import run

from .peer import Peer, serving

PAGE = (Path(__file__).parents[2] / "docs" / "channels.md").read_text(encoding="utf-8")


def test_the_pages_application_runs_and_does_what_it_says() -> None:
    names: dict[str, Any] = {"__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        if "client." not in block:  # what a client does is tested where clients are
            exec(compile(block, "docs/channels.md", "exec", dont_inherit=True), names)
    wire = names["wire"]

    async def main() -> None:
        async with serving(wire) as (network, node):
            ada, bob, mallory = Peer(network), Peer(network), Peer(network)
            for peer, token in ((ada, "ada"), (bob, "bob")):
                await peer.auth(token=token)
                told = [(await peer.next(m.Subscribed)).channel for _ in range(2)]
                assert told == [f"user:{token}", "news"]
            await mallory.auth(token="mallory")
            assert await mallory.until_closed() == CloseCode.FORBIDDEN
            assert (await bob.subscribe("room:1"))["error"]["code"] == ErrorCode.FORBIDDEN
            assert (await bob.subscribe("room:x"))["error"]["code"] == ErrorCode.BAD_CHANNEL
            assert (await bob.subscribe("room:*"))["error"]["code"] == ErrorCode.FORBIDDEN
            await ada.subscribe("room:1")
            assert "offset" in await ada.publish("1", "room:1", {"text": " hello "})
            message = await ada.next(m.ChannelMessage)
            assert message.data == {"by": "ada", "text": "hello"}
            refused = await ada.publish("2", "room:1", {"text": "spam"})
            assert refused.code == ErrorCode.FORBIDDEN
            await bob.subscribe("room:2")
            await names["examples"]()
            assert await ada.until_closed() == CloseCode.DISCONNECTED
            said = [(await bob.next(m.ChannelMessage)).data for _ in range(3)]
            assert said == [{"title": "…"}, "closing soon", {"left": "ada"}]
            await asyncio.sleep(1)
            assert node.counters["defects"] == 0

    run(main)
