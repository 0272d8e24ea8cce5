"""A publishing process is killed again and again: what it was told is stored, is, and once."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from everwire import Message, Position, connect
from everwire.client import Client

from ...conftest import eventually
from . import durable_publisher

KILLS = 100
SERVER = """
from everwire import Connection, Everwire, Grant, Identity, Limits

wire = Everwire(limits=Limits(history_bytes=64 * 2**20, dedupe_window=300.0))


@wire.authenticate
async def who(token: str) -> Identity:
    return Identity("ada")


@wire.channel("{name:path}", history=100_000, history_ttl=600.0)
async def anything(conn: Connection, name: str) -> Grant:
    return Grant(publish=True)
"""


async def stored(client: Client, channel: str, top: Position) -> list[list[int]]:
    """All that a channel's history holds, up to ``top``."""
    found: list[list[int]] = []
    async with client.subscribe(channel, since=Position(top.epoch, 0, "")) as messages:
        async for item in messages:
            assert isinstance(item, Message), "the history is too short for this test"
            if item.position == top:
                return found
            found.append(item.data)
    raise AssertionError("the history ended")


def grown_or_ended(log: Path, size: int, process: BaseProcess) -> bool:
    return log.stat().st_size > size or not process.is_alive()


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
@pytest.mark.timeout(120)
def test_what_was_acknowledged_before_a_kill_is_stored_once_and_in_order(
    synchronous: str, serve: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "killed.py").write_text(SERVER)
    served = serve("serve", "killed:wire", cwd=tmp_path)
    log, path = tmp_path / "acknowledged", tmp_path / "outbox.db"
    log.touch()
    chance = random.Random(7)
    context = multiprocessing.get_context("forkserver")  # what is imported once need not be again
    context.set_forkserver_preload([durable_publisher.__name__])
    kills = KILLS if synchronous == "NORMAL" else KILLS // 4

    for number in range(kills):
        size = log.stat().st_size
        process = context.Process(
            target=durable_publisher.publish,
            args=(served.url, str(path), synchronous, number, str(log)),
        )
        process.start()
        # Now and then while it opens or connects; mostly while it publishes.
        if number % 5:
            assert eventually(partial(grown_or_ended, log, size, process), within=20)
            assert process.is_alive(), "the publisher failed"
        time.sleep(chance.uniform(0.0, 0.12))  # it is killed at any moment
        process.kill()
        process.join(10)
        assert process.exitcode == -9

    async def the_rest() -> dict[int, list[list[int]]]:
        # The last one has left something as well: it goes out before what ends the channels.
        found = {}
        async with connect(served.url, token="t", outbox=path) as client:
            for worker in range(durable_publisher.WORKERS):
                ack = await client.publish(f"c{worker}", "end")
                assert ack.position is not None
                found[worker] = await stored(client, f"c{worker}", ack.position)
            assert await client.undelivered() == []
        return found

    history = asyncio.run(the_rest())
    acknowledged: dict[int, list[list[int]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        if line != "open":
            run, worker, n = map(int, line.split())
            acknowledged[worker].append([run, worker, n])
    assert sum(map(len, acknowledged.values())) > kills
    for worker, messages in history.items():
        assert messages == sorted(messages), "out of order"
        held = {tuple(message) for message in messages}
        assert len(messages) == len(held), "stored twice"
        assert [message for message in acknowledged[worker] if tuple(message) not in held] == []
        for run in {message[0] for message in messages}:
            numbers = [n for r, _, n in messages if r == run]
            assert numbers == list(range(len(numbers))), "one was skipped"
