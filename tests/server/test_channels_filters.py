"""on_publish: the application sees, changes or refuses what clients publish, in order."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from everwire import (
    BrokerUnavailable,
    ConfigError,
    Connection,
    Everwire,
    Forbidden,
    Grant,
    Identity,
    Unavailable,
)
from everwire.brokers.base import Completion, Publication, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.codes import ErrorCode
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.testing import run

from .peer import Peer, serving


class Draft(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(max_length=10)]
    tags: list[str] = []


@dataclass
class Note:
    text: str
    tags: list[str]


class Model(pydantic.BaseModel):
    text: str
    tags: list[str] = []


def application(**options: Any) -> Everwire:
    wire = Everwire(allow_anonymous=True, **options)

    @wire.authenticate
    async def who(token: str | None = None) -> Identity:
        return Identity(token or "")

    wire.channel("read:{name}", grant=Grant())
    wire.channel("{name:path}", history=10_000, grant=Grant(publish=True))
    return wire


async def user(network: Any, token: str = "ada", name: str = "json") -> Peer:
    peer = Peer(network, name)
    await peer.auth(token=token)
    return peer


async def stored(wire: Everwire, channel: str) -> list[Any]:
    return [one.data for one in (await wire.history(channel, limit=10_000)).records]


def test_a_filter_sees_who_says_what_where_and_may_change_or_refuse_it() -> None:
    wire = application()
    seen: list[Any] = []

    @wire.on_publish("chat:{room}")
    async def clean(conn: Connection, room: str, data: Any) -> Any:
        seen.append((conn.user, room, data))
        if data == "bad":
            raise Forbidden("not in here")
        return None if data == "fine" else {"by": conn.user, "text": data}

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await user(network)
            assert "offset" in await peer.publish("1", "chat:a", "fine")
            assert "offset" in await peer.publish("2", "chat:a", "hello")
            refused = await peer.publish("3", "chat:a", "bad")
            assert (refused.code, refused.message) == (ErrorCode.FORBIDDEN, "not in here")
            assert "offset" in await peer.publish("4", "other", "bad")
            await wire.publish("chat:a", "bad")  # the application's own
            assert await stored(wire, "chat:a") == ["fine", {"by": "ada", "text": "hello"}, "bad"]
            assert seen == [("ada", "a", said) for said in ("fine", "hello", "bad")]
            assert (await peer.publish("5", "read:a", "x")).code == ErrorCode.FORBIDDEN
            assert node.counters["defects"] == 0

    run(main)


@pytest.mark.parametrize("kind", [Draft, Note, Model])
def test_data_is_checked_against_the_annotation_and_the_error_names_the_field(kind: Any) -> None:
    wire = application()

    async def check(conn: Connection, data: Any) -> Any:
        assert isinstance(data, kind)
        return {"text": data.text.upper(), "tags": data.tags}

    check.__annotations__["data"] = kind
    wire.on_publish("c")(check)

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            good = {"text": "hi", "tags": ["a"], "more": 1}
            assert "offset" in await peer.publish("1", "c", good)
            assert await stored(wire, "c") == [{"text": "HI", "tags": ["a"]}]
            for number, (data, field) in enumerate(
                [
                    ({"text": 5, "tags": []}, "data.text"),
                    ({"tags": []}, "data.text"),
                    ({"text": "hi", "tags": ["a", 7]}, "data.tags[1]"),
                    ("text", "data"),
                    (None, "data"),
                ]
            ):
                refused = await peer.publish(f"b{number}", "c", data)
                assert refused.code == ErrorCode.BAD_REQUEST
                assert field in refused.message
                assert refused.details == {"field": field}
            assert len(await stored(wire, "c")) == 1

    run(main)


def test_parameters_are_read_as_annotated_and_data_is_not() -> None:
    wire = application()

    @wire.on_publish("n:{number}")
    async def number(conn: Connection, number: int, data: int) -> int:
        return number + data

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            assert "offset" in await peer.publish("1", "n:5", 2)
            assert await stored(wire, "n:5") == [7]
            assert (await peer.publish("2", "n:5", "2")).code == ErrorCode.BAD_REQUEST
            assert (await peer.publish("3", "n:x", 2)).code == ErrorCode.BAD_CHANNEL

    run(main)


def test_a_parameter_beyond_what_its_kind_can_be_names_no_channel() -> None:
    wire = Everwire()

    @wire.channel("day:{day}")
    async def day(conn: Connection, day: datetime) -> None: ...

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = Peer(network)
            await peer.auth()
            assert "error" not in await peer.subscribe("day:253402300799")
            for beyond in ("253402300800", "9" * 200, "-1e300"):
                refused = await peer.subscribe(f"day:{beyond}")
                assert refused["error"]["code"] == ErrorCode.BAD_CHANNEL
            assert not node.counters["defects"]

    run(main)


@pytest.mark.parametrize(
    ("returned", "code"),
    [
        (float("nan"), None),
        (object(), None),
        ("x" * 2_000_000, ErrorCode.TOO_BIG),
    ],
)
def test_what_a_filter_makes_must_be_data_as_well(returned: Any, code: int | None) -> None:
    wire = application()

    @wire.on_publish("c")
    async def change(conn: Connection, data: Any) -> Any:
        return returned

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await user(network)
            refused = await peer.publish("1", "c", 1)
            assert refused.code == (code or ErrorCode.INTERNAL)
            assert node.counters["defects"] == (0 if code else 1)
            assert await stored(wire, "c") == []

    run(main)


def test_what_is_refused_anyhow_does_not_reach_the_filter() -> None:
    wire = application()
    seen: list[Any] = []

    @wire.on_publish("{name:path}")
    async def see(conn: Connection, name: str, data: Any) -> None:
        seen.append(data)

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            assert (await peer.publish("1", "read:a", 1)).code == ErrorCode.FORBIDDEN
            deep: list[Any] = []
            for _ in range(40):
                deep = [deep]
            assert (await peer.publish("2", "c", deep)).code == ErrorCode.BAD_REQUEST
            assert seen == []

    run(main)


# ---- order ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "msgpack", "plain"])
def test_order_stays_however_long_each_message_takes(name: str) -> None:
    wire = application()
    running: dict[str, int] = {}

    @wire.on_publish("{name:path}")
    async def slow(conn: Connection, name: str, data: int) -> None:
        assert running.setdefault(name, 0) == 0
        running[name] += 1
        await asyncio.sleep(random.Random(data).random())
        running[name] -= 1
        if data % 7 == 6:
            raise Forbidden("for good: it holds nobody up")

    async def main() -> None:
        async with serving(wire) as (network, node):
            if name == "plain":
                peer = await Peer(network, name).open()
            else:
                peer = await user(network, name=name)
            for number in range(100):
                for channel in "ab":
                    message_id = "" if name == "plain" else f"{channel}{number}"
                    peer.send(m.Publish(message_id, channel, number))
            await asyncio.sleep(100)
            for channel in "ab":
                expected = [one for one in range(100) if one % 7 != 6]
                assert await stored(wire, channel) == expected
            (connection,) = node.connections.values()
            assert not connection.inflight
            assert connection.publishing is not None
            assert not connection.publishing.waiting

    run(main)


def test_after_a_failure_for_now_those_behind_are_held_until_the_next_run() -> None:
    wire = application()
    fails = [3]
    seen: list[int] = []

    @wire.on_publish("c")
    async def sometimes(conn: Connection, data: int) -> None:
        seen.append(data)
        await asyncio.sleep(0.1)
        if data in fails:
            fails.remove(data)
            raise Unavailable("later")

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            for number in range(6):
                peer.send(m.Publish(f"i{number}", "c", number))
            answers = [await peer.answer(f"i{number}") for number in range(6)]
            codes = [one.code if isinstance(one, m.Error) else 0 for one in answers]
            assert codes == [0, 0, 0, ErrorCode.UNAVAILABLE, ErrorCode.HELD, ErrorCode.HELD]
            assert seen == [0, 1, 2, 3]  # what is held is not asked about
            for number in range(3, 6):
                peer.send(m.Publish(f"i{number}", "c", number, run=1))
            for number in range(3, 6):
                assert isinstance(await peer.answer(f"i{number}"), m.Response)
            assert await stored(wire, "c") == list(range(6))

    run(main)


class Failing(MemoryBroker):
    refuses = 0

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome:
        if self.refuses:
            self.refuses -= 1
            return BrokerUnavailable("not now", outcome="unknown")
        return super().publish(publication, done)


def test_a_failure_of_the_broker_holds_those_behind_in_the_filter_too() -> None:
    broker = Failing()
    wire = application(broker=broker)

    @wire.on_publish("c")
    async def pause(conn: Connection, data: int) -> None:
        await asyncio.sleep(0.1)

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            broker.refuses = 1
            for number in range(3):
                peer.send(m.Publish(f"i{number}", "c", number))
            answers = [await peer.answer(f"i{number}") for number in range(3)]
            assert [one.code for one in answers if isinstance(one, m.Error)] == [501, 502, 502]
            assert await stored(wire, "c") == []

    run(main)


def test_a_message_sent_again_is_stored_once_whatever_the_filter_makes_of_it() -> None:
    wire = application()
    times = 0

    @wire.on_publish("c")
    async def stamp(conn: Connection, data: Any) -> Any:
        nonlocal times
        times += 1
        return [data, times]

    async def main() -> None:
        async with serving(wire) as (network, _):
            for token in ("ada", ""):
                first = await (await user(network, token)).publish("same", "c", token)
                again = await (await user(network, token)).publish("same", "c", token, run=1)
                assert (first["duplicate"], again["duplicate"]) == (False, True)
                assert first["offset"] == again["offset"]
            assert await stored(wire, "c") == [["ada", 1], ["", 3]]

    run(main)


# ---- bounds --------------------------------------------------------------------------------


def test_a_filter_has_the_time_of_a_request() -> None:
    wire = application(limits=Limits(request_timeout=2.0))

    @wire.on_publish("c")
    async def hang(conn: Connection, data: Any) -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            refused = await peer.publish("1", "c", 1)
            assert (refused.code, refused.temporary) == (ErrorCode.TIMEOUT, True)
            assert 1.9 < asyncio.get_running_loop().time() < 3

    run(main)


def test_what_waits_for_a_filter_counts_as_in_flight_and_stops_the_reading() -> None:
    wire = application(limits=Limits(inflight=10))
    gate = asyncio.Event()

    @wire.on_publish("c")
    async def wait(conn: Connection, data: Any) -> None:
        await gate.wait()

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await user(network)
            for number in range(50):
                peer.send(m.Publish(f"i{number}", "c", number))
            await asyncio.sleep(1)
            (connection,) = node.connections.values()
            assert len(connection.inflight) <= 11
            assert connection.held_reading == 1
            gate.set()
            for number in range(50):
                assert isinstance(await peer.answer(f"i{number}"), m.Response)

    run(main)


def test_what_was_received_is_published_though_the_client_is_gone() -> None:
    wire = application()

    @wire.on_publish("c")
    async def slow(conn: Connection, data: Any) -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await Peer(network, "plain").open()
            for number in range(3):
                peer.send(m.Publish("", "c", number))
            await asyncio.sleep(0.5)
            peer.transport.close(1000)
            await asyncio.sleep(10)
            assert await stored(wire, "c") == [0, 1, 2]
            assert not node.tasks
            assert node.counters["defects"] == 0

    run(main)


def test_a_filter_that_does_not_fit_is_refused_where_it_is_declared() -> None:
    wire = application()

    async def wrong(conn: Connection, room: str) -> None: ...

    async def right(conn: Connection, data: Any) -> None: ...

    with pytest.raises(ConfigError, match="data"):
        wire.on_publish("chat:{room}")(wrong)
    wire.on_publish("c")(right)
    with pytest.raises(ConfigError, match="twice"):
        wire.on_publish("c")
    with pytest.raises(ConfigError, match="names"):
        wire.on_publish(right)  # type: ignore[arg-type]
