"""A client that is opened while there is no server: it waits, says why, or does not wait."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from everwire import (
    ClientLimits,
    ConfigError,
    Everwire,
    Identity,
    NotSent,
    Pool,
    Socket,
    StillQueued,
    Unauthorized,
)
from everwire.testing import Network

from .world import FAST, URL, client_to, data_of, loop, node_world, play, take, until

NO_WAIT = ClientLimits(first_retry=0.2, backoff_base=0.2, backoff_cap=1.0, close_timeout=0.2)


@pytest.mark.parametrize("durable", [False, True])
def test_who_does_not_wait_publishes_at_once_and_it_is_sent_in_order(
    durable: bool, tmp_path: Path
) -> None:
    options = {"outbox": tmp_path / "outbox.db"} if durable else {}

    async def scenario() -> None:
        async with node_world() as world:
            world.network.refuse = True
            async with world.client(timeout=0, limits=NO_WAIT, **options) as client:
                assert loop().time() < 0.1
                assert client.state == "connecting"
                futures = [client.publish_nowait("c", n) for n in range(100)]
                if durable:
                    stored = await client.publish("c", 100, wait="stored")
                    assert stored.position is None
                await asyncio.sleep(5)
                assert not any(future.done() for future in futures)
                world.network.refuse = False
                positions = [(await future).position for future in futures]
                assert [one.offset for one in positions if one] == [*range(1, 101)]
            assert len(world.broker.published) == 100 + durable

    play(scenario)


def test_what_was_stored_offline_is_sent_by_the_next_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with node_world() as world:
            world.network.refuse = True
            options: Any = {"outbox": tmp_path / "outbox.db", "limits": NO_WAIT}
            async with world.client(timeout=0, **options) as client:
                waiting = client.publish_nowait("c", "first")
                await client.publish("c", "second", wait="stored")
            with pytest.raises(StillQueued):
                await waiting
            world.network.refuse = False
            async with world.client() as reader, reader.subscribe("c") as room:
                async with world.client(**options):
                    assert data_of(await take(room, 2)) == ["first", "second"]

    play(scenario)


def test_who_does_not_wait_may_subscribe_and_ask_all_the_same() -> None:
    """Each waits as it would between two connections."""

    async def scenario() -> None:
        async with node_world() as world:
            world.network.refuse = True
            async with world.client(timeout=0, limits=NO_WAIT) as client:
                with pytest.raises(NotSent, match="no connection"):
                    await client.command("any", timeout=1)
                loop().call_later(3, setattr, world.network, "refuse", False)
                async with client.subscribe("c") as room:
                    assert loop().time() > 4
                    await client.publish("c", 1)
                    assert data_of(await take(room, 1)) == [1]
                assert (await client).state == "ready"

    play(scenario)


def test_a_refusal_for_good_that_nobody_waits_for_is_logged_and_raised_by_the_next_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def declare(wire: Everwire) -> None:
        @wire.authenticate
        async def who(token: str) -> Identity:
            raise Unauthorized("nobody comes in")

    async def scenario() -> None:
        async with node_world(declare) as world:
            outbox = tmp_path / "outbox.db"
            client = await world.client(timeout=0, token="t", outbox=outbox, limits=NO_WAIT)
            await client.publish("c", 1, wait="stored")
            await until(lambda: client.state == "closed")
            with pytest.raises(Unauthorized, match="nobody comes in"):
                await client.publish("c", 2)
            await client.close()

    play(scenario)
    assert "the client ended: unauthenticated (200): nobody comes in" in caplog.text


def test_a_file_that_cannot_be_used_is_told_at_once_also_to_who_does_not_wait(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        (tmp_path / "outbox.db").write_bytes(b"no database" * 1000)
        with pytest.raises(ConfigError, match="not a database"):
            await client_to(Network(), timeout=0, outbox=tmp_path / "outbox.db")

    play(scenario)


def test_a_pool_need_not_wait_either() -> None:
    async def scenario() -> None:
        async with node_world() as world:
            world.network.refuse = True
            options: Any = {"network": world.network, "random": loop().random}
            async with Pool(URL, 2, timeout=0, limits=FAST, wall=loop().wall, **options) as pool:
                assert loop().time() < 0.1
                future = pool.publish_nowait("c", 1)
                world.network.refuse = False
                assert (await future).position is not None

    play(scenario)


@pytest.mark.parametrize("kind", ["client", "socket"])
def test_an_opening_that_waits_for_a_server_says_so_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        network = Network()
        options: Any = {"limits": FAST, "timeout": 10}
        with pytest.raises(OSError, match="nobody listens"):
            if kind == "client":
                await client_to(network, **options)
            else:
                options |= {"network": network, "random": loop().random, "wall": loop().wall}
                await Socket(URL, **options)

    with caplog.at_level(logging.INFO, "everwire"):
        play(scenario)
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    text = said.getMessage()
    assert "not connected to ws://node:80 yet" in text
    assert "nobody listens" in text
    assert "again in" in text
    assert len(caplog.records) > 3, "the attempts that follow are told, but not as warnings"


def test_a_connection_that_is_lost_is_no_opening_that_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with node_world() as world, world.client(limits=FAST) as client:
            world.network.refuse = True
            client.drop()
            await asyncio.sleep(5)

    with caplog.at_level(logging.WARNING, "everwire.client"):
        play(scenario)
    assert not [record for record in caplog.records if "yet" in record.getMessage()]
