"""What of a channel's past a subscriber is given: the last value, all of it, or nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from everwire import ConfigError, Connection, Everwire, Grant, Identity
from everwire.codes import ErrorCode
from everwire.limits import KiB, Limits
from everwire.protocol import messages as m
from everwire.testing import run

from .peer import Peer, serving


def prices(**options: Any) -> Everwire:
    wire = Everwire(**options)
    wire.channel("price:{symbol}", latest=True, grant=Grant(publish=True))
    return wire


async def known(network: Any, *channels: str) -> Peer:
    peer = Peer(network)
    await peer.auth(subscribe=[m.ChannelRequest(channel) for channel in channels])
    return peer


# ---- the latest value ----------------------------------------------------------------------


def test_whoever_subscribes_is_sent_the_last_value_and_then_what_comes() -> None:
    wire = prices()

    async def main() -> None:
        async with serving(wire) as (network, _):
            for value in (1, 2, 3):
                at = await wire.publish("price:a", value)
            peer = Peer(network)
            await peer.auth()
            result = await peer.subscribe("price:a")
            assert (result["offset"], result["recovered"]) == (at.offset - 1, False)
            await wire.publish("price:a", 4)
            assert [(await peer.next(m.ChannelMessage)).data for _ in range(2)] == [3, 4]
            assert not [one for one in peer.inbox if isinstance(one, m.GapNotice)]
            assert [one.data for one in (await wire.history("price:a")).records] == [4]

    run(main)


def test_of_a_channel_without_a_value_nothing_is_sent() -> None:
    wire = prices()

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await known(network, "price:a")
            await asyncio.sleep(1)
            assert not peer.messages()
            await wire.publish("price:a", 1)
            assert (await peer.next(m.ChannelMessage)).data == 1

    run(main)


def test_the_last_value_is_kept_for_a_day_not_as_long_as_other_history() -> None:
    wire = prices()

    async def main() -> None:
        async with serving(wire) as (network, _):
            await wire.publish("price:a", 1)
            await asyncio.sleep(3000)
            peer = await known(network, "price:a")
            assert (await peer.next(m.ChannelMessage)).data == 1

    run(main)


def test_who_comes_back_recovers_only_if_nothing_was_skipped() -> None:
    wire = prices()

    async def main() -> None:
        async with serving(wire) as (network, _):
            at = await wire.publish("price:a", 1)
            peer = Peer(network)
            await peer.auth()
            here = m.Position(at.epoch, at.offset, at.id)
            assert (await peer.subscribe("price:a", here))["recovered"] is True
            await wire.publish("price:a", 2)
            assert (await peer.subscribe("price:a", here))["recovered"] is False
            gap = await peer.next(m.GapNotice)
            assert (gap.reason, gap.from_) == ("expired", at.offset)
            await asyncio.sleep(1)
            assert peer.messages()[-1].data == 2

    run(main)


def test_a_slow_reader_goes_on_with_the_last_value_after_a_gap() -> None:
    wire = prices(limits=Limits(write_high=64 * KiB, write_low=8 * KiB))

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await known(network, "price:a")
            peer.transport.pause_reading()
            for value in range(200):
                await wire.publish("price:a", [value, "x" * 16 * KiB])
                await asyncio.sleep(0.01)
            peer.transport.resume_reading()
            await asyncio.sleep(5)
            values = [one.data[0] for one in peer.messages()]
            assert values[-1] == 199
            assert len(values) < 190
            gaps = [one for one in peer.inbox if isinstance(one, m.GapNotice)]
            assert {one.reason for one in gaps} == {"slow"}

    run(main)


def test_the_values_of_many_channels_come_at_once_without_gaps() -> None:
    wire = prices()

    async def main() -> None:
        async with serving(wire) as (network, _):
            names = [f"price:{n}" for n in range(200)]
            for name in names:
                await wire.publish(name, [name, "x" * KiB])
            peer = await known(network, *names)
            await asyncio.sleep(1)
            assert sorted(one.data[0] for one in peer.messages()) == sorted(names)
            assert not [one for one in peer.inbox if isinstance(one, m.GapNotice)]

    run(main)


def test_latest_goes_with_no_other_history() -> None:
    for history in (0, 5):
        with pytest.raises(ConfigError, match="latest"):
            Everwire().channel("c", latest=True, history=history)
    with pytest.raises(ConfigError, match="on_overflow"):
        Everwire().channel("c", latest=True, on_overflow="conflate")


# ---- rights --------------------------------------------------------------------------------


def rights(grant: Grant, **options: Any) -> Everwire:
    wire = Everwire(allow_anonymous=True)

    @wire.authenticate
    async def who(token: str | None = None) -> Identity:
        return Identity(token or "")

    @wire.channel("c", presence=True, **options)
    async def channel(conn: Connection) -> Grant:
        return grant if conn.user != "writer" else Grant(publish=True)

    return wire


@pytest.mark.parametrize("latest", [True, False])
@pytest.mark.parametrize(
    "forged",
    [
        lambda at: m.Position(at.epoch, 0, ""),
        lambda at: m.Position(at.epoch, 1, ""),
        lambda at: m.Position(at.epoch, at.offset - 1, f"{at.epoch[:8]}-{at.offset - 1}"),
        lambda at: m.Position("another", 5, "x"),
        lambda at: m.Position(at.epoch, 2**53 - 1, "x"),
    ],
)
def test_without_the_right_to_history_no_position_gets_any_of_it(forged: Any, latest: bool) -> None:
    wire = rights(Grant(history=False), latest=latest)

    async def main() -> None:
        async with serving(wire) as (network, _):
            for number in range(5):
                at = await wire.publish("c", f"before {number}")
            peer = Peer(network)
            await peer.auth(token="new")
            result = await peer.subscribe("c", forged(at))
            assert (result["recovered"], result["offset"]) == (False, at.offset)
            assert (await peer.next(m.GapNotice)).offset == at.offset
            assert (await peer.subscribe("c"))["offset"] == at.offset
            await wire.publish("c", "after")
            assert (await peer.next(m.ChannelMessage)).data == "after"
            await asyncio.sleep(1)
            assert not peer.messages()
            refused = await peer.ask(m.Query(9, "everwire.history", {"channel": "c"}))
            assert refused.code == ErrorCode.FORBIDDEN

    run(main)


def test_without_the_right_to_history_a_reader_that_missed_nothing_recovers() -> None:
    wire = rights(Grant(history=False))

    async def main() -> None:
        async with serving(wire) as (network, _):
            at = await wire.publish("c", 1)
            peer = Peer(network)
            await peer.auth(token="new")
            here = m.Position(at.epoch, at.offset, at.id)
            assert (await peer.subscribe("c", here))["recovered"] is True

    run(main)


def test_without_the_right_to_presence_nobody_is_seen() -> None:
    wire = rights(Grant(presence=False))

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = Peer(network)
            await peer.auth(token="new", subscribe=[m.ChannelRequest("c", presence=True)])
            refused = await peer.ask(m.Query(9, "everwire.presence", {"channel": "c"}))
            assert refused.code == ErrorCode.FORBIDDEN
            await asyncio.sleep(1)
            assert not [one for one in peer.inbox if isinstance(one, m.Presence)]
            assert len(await wire.presence("c")) == 1  # it is seen itself

    run(main)
