"""What is tried with channels, their names and their messages, and what must not come of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from everwire import Connection, Everwire, Forbidden, Grant, Identity
from everwire.brokers.base import Completion, Page, Publication, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.codes import ErrorCode
from everwire.limits import KiB, Limits, MiB
from everwire.protocol import messages as m
from everwire.protocol.channels import channel_key
from everwire.testing import run

from .peer import Peer, serving

BAD_NAMES = {
    "empty": "",
    "256 bytes": "a" * 256,
    "256 bytes of UTF-8": "é" * 128,
    "a megabyte": "a" * 1_000_000,
    "NUL": "a\x00b",
    "line feed": "a\nb",
    "carriage return": "a\rSUBSCRIBE b",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7fb",
    "C1 control": "a\x85b",
    "space": "a b",
    "leading space": " a",
    "no-break space": "a\xa0b",
    "line separator": "a\u2028b",
    "bidi override": "a\u202eb",
    "bidi isolate": "a\u2066b",
    "zero width": "a\u200bb",
    "byte order mark": "\ufeffa",
    "tag characters": "a\U000e0041",
    "NFD": "e\u0301",
    "a singleton of NFC": "\u212b",
    "private use": "\ue000",
    "unassigned": "\U000e0fff",
    "reserved": "system",
    "reserved prefix": "everwire.x",
    "a long pattern": "*" * 100_000,
}
LITERAL_NAMES = [
    "*", "?", "[a-z]", "\\", "news.*", "news?", "[n]ews.a", "a\\*", "a.*", ">", "a.>", "a..b", ".a",
    "a.", "$SYS.x", "$JS.API.>", "_INBOX.x", "{tag}", "{a}b{c}", "#", "+", "a/+/b", "%", "_", "a%00",
    "news.a'--", "^", "news.a$", "(news)", "__keyspace@0__:x", "*" * 255,
]  # fmt: skip


class Watched(MemoryBroker):
    """Notes what it is asked."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.subscribed: list[str] = []
        self.calls = 0

    def publish(self, publication: Publication, done: Completion) -> PublishOutcome:
        self.calls += 1
        return super().publish(publication, done)

    async def subscribe(self, channels: Sequence[str]) -> None:
        self.calls += 1
        self.subscribed += channels
        await super().subscribe(channels)

    async def read(self, *args: Any, **kwargs: Any) -> Page:
        self.calls += 1
        return await super().read(*args, **kwargs)

    async def latest(self, *args: Any, **kwargs: Any) -> Page:
        self.calls += 1
        return await super().latest(*args, **kwargs)

    async def presence(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return await super().presence(*args, **kwargs)


def application(limits: Limits | None = None, **options: Any) -> Everwire:
    """A token is ``tenant/user``; ``closed:`` is nobody's, all other channels are everybody's."""
    options.setdefault("broker", Watched(limits))
    wire = Everwire(allow_anonymous=True, limits=limits, **options)

    @wire.authenticate
    async def who(token: str | None = None) -> Identity:
        tenant, _, user = (token or "").rpartition("/")
        return Identity(user, tenant=tenant)

    @wire.channel("closed:{room}", presence=True)
    async def closed(conn: Connection, room: str) -> Grant:
        raise Forbidden("not for you")

    @wire.channel("seen:{room}")
    async def seen(conn: Connection, room: str) -> Grant:
        return Grant(publish=True)

    wire.channel("{name:path}", presence=True, grant=Grant(publish=True))
    return wire


def broker_of(wire: Everwire) -> Watched:
    broker = wire.node.broker
    assert isinstance(broker, Watched)
    return broker


async def user(network: Any, token: str = "ada") -> Peer:
    peer = Peer(network)
    await peer.auth(token=token)
    return peer


async def try_all(peer: Peer, channel: str) -> list[Any]:
    """Subscribe, publish, read history, see presence: what each is answered, as an error."""
    answers: list[Any] = []
    result = await peer.ask(m.Subscribe(peer._serial(), [m.ChannelRequest(channel)]))
    if isinstance(result, dict):
        result = result["subscriptions"][0].get("error")
        result = msgspec.convert(result, m.ErrorBody) if result else None
    answers.append(result)
    answers.append(await peer.publish(f"p-{peer._serial()}", channel, 1))
    for name in ("everwire.history", "everwire.presence"):
        query = m.Query(peer._serial(), name, {"channel": channel})
        answers += [await peer.ask(query)]
    return answers


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BAD_NAMES)
def test_a_name_that_no_channel_can_have_is_bad_channel_whatever_is_asked(what: str) -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await user(network)
            for answer in await try_all(peer, BAD_NAMES[what]):
                too_big = len(BAD_NAMES[what]) > 60_000  # for a subscribe
                assert answer.code in {300, 400} if too_big else {300}, answer
                assert len(answer.message) < 200
            assert broker_of(wire).calls == 0
            assert not node.hub.channels
            plain = await Peer(network, "plain").open()
            plain.send(m.Subscribe("", [m.ChannelRequest(BAD_NAMES[what])]))
            assert (await plain.next(m.Error)).code in (300, 400)

    run(main)


@pytest.mark.parametrize("name", LITERAL_NAMES)
def test_what_is_a_pattern_to_some_broker_is_a_name_like_any_other(name: str) -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer, publisher = await user(network), await user(network)
            assert "error" not in await peer.subscribe(name)
            for other in ("news.a", "news", "a", "a.b", "x"):
                if other != name:
                    await publisher.publish(f"o-{other}", other, f"of {other}")
            await publisher.publish("1", name, "its own")
            assert (await peer.next(m.ChannelMessage)).data == "its own"
            await asyncio.sleep(1)
            assert not peer.messages()
            assert broker_of(wire).subscribed == [channel_key("", name)]
            page = await wire.history(name)
            assert [one.data for one in page.records] == ["its own"]
            assert node.counters["defects"] == 0

    run(main)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (("a:b", "c"), ("a", "b:c")),
        (("a", "c"), ("", "a:c")),
        (("a", "c"), ("", "ac")),
        (("1", "c"), ("", "1:c")),
        (("a_b", "c"), ("a", "b_c")),
        (("_", "c"), ("", "_c")),
        (("a/b", "c"), ("a", "b/c")),
        (("", "c"), ("c", "c")),
        (("A", "c"), ("a", "c")),
        (("é", "c"), ("e\u0301", "c")),
    ],
)
def test_a_tenants_channel_is_nobody_elses_however_the_two_names_are_put_together(
    mine: tuple[str, str], theirs: tuple[str, str]
) -> None:
    """In what is stored, told, remembered and cached."""
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, node):
            (tenant, channel), (other_tenant, other_channel) = mine, theirs
            peer = await user(network, f"{tenant}/ada")
            foreign = await user(network, f"{other_tenant}/ada")
            for prefix in ("", "seen:"):  # granted to all at once, and asked for one by one
                await peer.subscribe(prefix + channel)
                await foreign.subscribe(prefix + other_channel)
                for times in (1, 2):
                    stored = await peer.publish("same", prefix + channel, "mine")
                    assert stored["duplicate"] is (times == 2)
                assert not foreign.messages()
                stored = await foreign.publish("same", prefix + other_channel, "theirs")
                assert stored["duplicate"] is False
                assert (await peer.next(m.ChannelMessage)).data == "mine"
                assert (await foreign.next(m.ChannelMessage)).data == "theirs"
            for name, tenancy in ((channel, tenant), (other_channel, other_tenant)):
                assert len(await wire.presence(name, tenant=tenancy)) == 1
                assert len((await wire.history(name, tenant=tenancy)).records) == 1
            keys = set(broker_of(wire).subscribed)
            assert len(keys) == 4
            assert len({one.sid for one in node.hub.channels.values()}) == 4

    run(main)


# ---- rights --------------------------------------------------------------------------------


def test_without_a_right_what_exists_and_what_does_not_are_answered_alike_and_at_once() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            for number in range(50):
                await wire.publish("closed:there", "x" * KiB, id=f"{number}")
            peer = await user(network)
            calls = broker_of(wire).calls
            answers = []
            for room in ("there", "nowhere"):
                began = asyncio.get_running_loop().time()
                found = await try_all(peer, f"closed:{room}")
                took = asyncio.get_running_loop().time() - began
                answers.append(
                    [(one.code, one.message.replace(room, "R"), one.temporary) for one in found]
                )
                assert took < 0.1
            assert answers[0] == answers[1]
            assert {code for code, _, _ in answers[0]} == {ErrorCode.FORBIDDEN}
            assert broker_of(wire).calls == calls  # nothing was looked up: no time tells either

    run(main)


def test_presence_of_a_channel_that_does_not_show_it_is_denied() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            await peer.subscribe("seen:a")
            for room in ("seen:a", "seen:nowhere"):
                answer = await peer.ask(
                    m.Query(peer._serial(), "everwire.presence", {"channel": room})
                )
                assert answer.code == ErrorCode.FORBIDDEN
            payload = await peer.ask(m.Subscribe(7, [m.ChannelRequest("seen:a", None, None, True)]))
            assert "error" not in payload["subscriptions"][0]
            await asyncio.sleep(1)
            assert not [one for one in peer.inbox if isinstance(one, m.Presence)]

    run(main)


# ---- history -------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "count"), [(10**9, 30), (-1, 1), (0, 1), (5, 5)])
def test_a_limit_of_history_is_capped(limit: int, count: int) -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            for number in range(30):
                await wire.publish("c", number)
            peer = await user(network)
            page = await peer.ask(m.Query(2, "everwire.history", {"channel": "c", "limit": limit}))
            assert [one["data"] for one in page["messages"]] == list(range(30 - count, 30))

    run(main)


def test_history_reads_at_most_a_thousand_messages() -> None:
    wire = Everwire()
    wire.channel("c", history=2000, grant=Grant())

    async def main() -> None:
        async with serving(wire) as (network, _):
            for number in range(1500):
                await wire.publish("c", number)
            peer = await user(network)
            start = (await wire.history("c", limit=1500)).records[0].position
            since = msgspec.to_builtins(start)
            for more in ({}, {"since": since}):
                query = {"channel": "c", "limit": 10**9, **more}
                page = await peer.ask(m.Query(peer._serial(), "everwire.history", query))
                assert len(page["messages"]) == 1000

    run(main)


@pytest.mark.parametrize(
    ("since", "error"),
    [
        ({"offset": 99}, False),
        ({"offset": 2**53 - 1}, False),
        ({"epoch": "another"}, False),
        ({"id": "forged"}, False),
        ({"offset": -1}, True),
        ({"offset": 2**53}, True),
        ({"offset": 1.5}, True),
        ({"offset": "1"}, True),
        ({"epoch": None}, True),
        ({"epoch": 5}, True),
    ],
)
def test_a_position_that_is_not_one_of_the_channels_is_not_recovered(
    since: dict[str, Any], error: bool
) -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            for number in range(3):
                at = await wire.publish("c", number)
            peer = await user(network)
            position = {"epoch": at.epoch, "offset": at.offset, "id": at.id, **since}
            found = await peer.ask(
                m.Query(2, "everwire.history", {"channel": "c", "since": position})
            )
            peer.send_raw(
                json.dumps(
                    {"type": "subscribe", "id": 3,
                     "channels": [{"channel": "c", "position": position}]}
                ).encode()
            )  # fmt: skip
            answer = await peer.answer(3)
            if error:
                assert found.code == ErrorCode.BAD_REQUEST
                assert isinstance(answer, m.Error)
                assert answer.code == ErrorCode.BAD_REQUEST
            else:
                assert found["recovered"] is False
                assert isinstance(answer, m.Response)
                assert answer.payload["subscriptions"][0]["recovered"] is False
                assert (await peer.next(m.GapNotice)).reason == "epoch"

    run(main)


def test_a_position_of_another_channel_reads_only_the_channel_that_is_asked_for() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            await wire.publish("closed:x", "secret")
            there = (await wire.history("closed:x")).records[0].position
            await wire.publish("c", "open")
            peer = await user(network)
            for offset in (0, there.offset):
                result = await peer.subscribe("c", m.Position(there.epoch, offset, there.id))
                assert result["recovered"] is False
                assert result["epoch"] != there.epoch
                assert (await peer.next(m.ChannelMessage)).data == "open"
            query = {"channel": "c", "since": msgspec.to_builtins(there)}
            page = await peer.ask(m.Query(5, "everwire.history", query))
            assert [one["data"] for one in page["messages"]] == ["open"]

    run(main)


# ---- what only the server says ---------------------------------------------------------------

FORGED = {
    "from": "root", "user": "root", "publisher": "root", "offset": 1, "epoch": "mine", "time": 1,
    "prev": 0, "sid": 1, "scope": "root", "tenant": "other", "trace": "x", "duplicate": True,
    "options": {"history": 0}, "connection": "x", "requestId": 7, "PUBLISHER": "root",
}  # fmt: skip


@pytest.mark.parametrize("name", ["json", "msgpack", "plain"])
def test_what_only_the_server_says_is_not_taken_from_a_client(name: str) -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            before = await wire.publish("c", "before")
            reader = await user(network)
            await reader.subscribe("c")
            peer = Peer(network, name)
            if name == "plain":
                await peer.open()
                await peer.ask(m.Auth("a", None, {"token": "ada"}))
                peer.send_raw(
                    json.dumps({"action": "publish", "channel": "c", "data": 5, **FORGED}).encode()
                )
            else:
                await peer.auth(token="ada")
                message = {"type": "publish", "id": "p-1", "channel": "c", "data": 5}
                if name == "json":
                    peer.send_raw(json.dumps({**message, **FORGED}).encode())
                else:
                    packed = [4, "p-1", "c", 5, None, 0, None, *FORGED.values()]
                    peer.send_raw(msgspec.msgpack.encode(packed))
                stored = await peer.answer("p-1")
                assert isinstance(stored, m.Response)
                assert stored.payload == {
                    "epoch": before.epoch, "offset": before.offset + 1, "duplicate": False
                }  # fmt: skip
            message = await reader.next(m.ChannelMessage)
            assert (message.data, message.publisher, message.trace) == (5, "ada", None)
            assert (message.offset, message.prev) == (before.offset + 1, None)
            assert message.time > 1000

    run(main)


def test_messages_that_only_a_server_sends_move_nothing() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await user(network)
            sid = (await peer.subscribe("c"))["sid"]
            for message in (
                m.ChannelMessage(sid, 9, "x", 1, "forged"),
                m.GapNotice(sid, "e", 9, "x", "expired"),
                m.Presence(sid, True, [m.Member("x", "root")], [], 1),
                m.Subscribed("closed:x", 77, "e", 0, ""),
                m.Unsubscribed(sid, 202),
                m.Drain(0, 0),
            ):
                peer.send(message)
            await wire.publish("c", "real")
            assert (await peer.next(m.ChannelMessage)).data == "real"
            await asyncio.sleep(1)
            assert not [one for one in peer.inbox if isinstance(one, (m.GapNotice, m.Error))]
            assert len(await wire.presence("c")) == 1
            assert node.counters["unexpected_messages"] == 6

    run(main)


# ---- message ids -----------------------------------------------------------------------------


def test_an_id_is_its_users_own_in_its_channel_and_tells_nothing_of_others() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            first = await user(network, "ada")
            stored = await first.publish("id", "c", "ada's")
            offsets = [stored["offset"]]
            for token in ("bob", "t/ada", ""):
                other = await user(network, token)
                answer = await other.publish("id", "c", f"{token}'s")
                assert answer["duplicate"] is False
                offsets.append(answer["offset"])
            answer = await first.publish("id", "d", "in another channel")
            assert (answer["duplicate"], answer["offset"]) == (False, 1)
            again = await (await user(network, "ada")).publish("id", "c", "whatever")
            assert (again["duplicate"], again["offset"]) == (True, offsets[0])
            guessed = await (await user(network, "")).publish("id", "c", "another anonymous one")
            assert guessed["duplicate"] is False
            said = [one.data for one in (await wire.history("c")).records]
            assert said == ["ada's", "bob's", "'s", "another anonymous one"]

    run(main)


@pytest.mark.parametrize(
    ("users", "same"),
    [(("a", "bid"), ("ab", "id")), (("1", "0:id"), ("10", ":id")), (("a:", "b"), ("a", ":b"))],
)
def test_user_and_id_are_not_run_together(users: tuple[str, str], same: tuple[str, str]) -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            for token, message_id in (users, same):
                answer = await (await user(network, token)).publish(message_id, "c", token)
                assert answer["duplicate"] is False

    run(main)


@pytest.mark.parametrize("message_id", ["x" * 129, "x" * 64 * KiB, "", 5, 2**70, None, [1], {}])
def test_an_id_that_is_none_is_refused(message_id: Any) -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            message = {"type": "publish", "id": message_id, "channel": "c", "data": 1}
            peer.send_raw(json.dumps(message).encode())
            assert (await peer.next(m.Error)).code == ErrorCode.BAD_REQUEST
            assert not (await wire.history("c")).records
            assert "offset" in await peer.publish("é" * 128, "c", 1)

    run(main)


def test_ids_without_end_are_refused_at_the_limit_and_forgotten_after_the_window() -> None:
    limits = Limits(dedupe_max=1000, dedupe_window=60.0)
    wire = application(limits)

    async def main() -> None:
        async with serving(wire) as (network, _):
            peer = await user(network)
            for number in range(1000):
                assert "offset" in await peer.publish(f"n-{number}", "c", number)
            refused = await peer.publish("one-more", "c", 1)
            assert (refused.code, refused.temporary) == (ErrorCode.DEDUPE_FULL, True)
            other = await peer.publish("n-0", "d", 1)  # another channel has its own room
            assert other["duplicate"] is False
            again = await (await user(network)).publish("n-0", "c", 0)
            assert again["duplicate"] is True  # none was forgotten to make room
            await asyncio.sleep(100)
            assert "offset" in await (await user(network)).publish("one-more", "c", 1)

    run(main)


# ---- subscribing without end -------------------------------------------------------------------


def test_ten_thousand_subscribes_end_at_the_limit_without_asking_anybody() -> None:
    limits = Limits(subscriptions=200, subscribes=10)
    wire = application(limits)
    asked = 0

    @wire.query
    async def count(conn: Connection) -> int:
        return asked

    async def main() -> None:
        nonlocal asked
        async with serving(wire) as (network, node):
            peer = await user(network)
            codes: dict[int, int] = {}
            for batch in range(100):
                names = [m.ChannelRequest(f"seen:{batch}-{n}") for n in range(100)]
                payload = await peer.ask(m.Subscribe(peer._serial(), names))
                for result in payload["subscriptions"]:
                    code = result["error"]["code"] if "error" in result else 0
                    codes[code] = codes.get(code, 0) + 1
                    if code == ErrorCode.RATE_LIMITED:
                        assert result["error"]["temporary"] is True
                        assert result["error"]["retryAfter"] > 0
            assert codes[0] == 200
            assert codes[ErrorCode.SUBSCRIPTIONS] == 200
            assert codes[ErrorCode.RATE_LIMITED] == 9_600
            assert len(broker_of(wire).subscribed) == 200
            assert len(node.hub.channels) == 200
            (connection,) = node.connections.values()
            assert len(connection.channels) <= 200

    run(main)


def test_subscribing_and_leaving_in_turn_is_slowed_down_and_asks_the_broker_seldom() -> None:
    limits = Limits(subscriptions=100, subscribes=20)
    wire = application(limits)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(wire) as (network, node):
            peer = await user(network)
            refused = 0
            for number in range(2000):
                result = await peer.subscribe(f"c{number % 3}")
                if "error" in result:
                    assert result["error"]["code"] == ErrorCode.RATE_LIMITED
                    refused += 1
                    continue
                await peer.ask(m.Unsubscribe(peer._serial(), [f"c{number % 3}"]))
            assert refused > 1000
            assert len(broker_of(wire).subscribed) <= 3 * (1 + loop.time() / 5)
            assert node.counters["subscribes_limited"] == refused
            # Leaving is never refused, and after a while all is as before.
            await asyncio.sleep(30)
            assert "error" not in await peer.subscribe("c0")
            assert isinstance(await peer.ask(m.Unsubscribe(5, ["c0"])), dict)
            await asyncio.sleep(10)
            assert not node.hub.channels

    run(main)


def test_a_client_that_comes_back_with_all_its_subscriptions_is_not_slowed_down() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            for _ in range(3):
                peer = await user(network)
                for batch in range(5):
                    names = [m.ChannelRequest(f"c{batch}-{n}") for n in range(200)]
                    payload = await peer.ask(m.Subscribe(peer._serial(), names))
                    assert not [one for one in payload["subscriptions"] if "error" in one]
                peer.transport.abort()
                await asyncio.sleep(0.1)

    run(main)


def test_a_subscribe_that_is_too_large_is_refused_whole() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, node):
            peer = await user(network)
            many = [m.ChannelRequest(f"c{n}") for n in range(201)]
            assert (await peer.ask(m.Subscribe(2, many))).code == ErrorCode.BAD_REQUEST
            for large in (
                m.ChannelRequest("c", None, "t" * 64 * KiB),
                m.ChannelRequest("c", m.Position("e" * 40 * KiB, 1, "i" * 40 * KiB)),
                m.ChannelRequest("é" * 40 * KiB),
            ):
                assert (await peer.ask(m.Subscribe(3, [large]))).code == ErrorCode.TOO_BIG
            assert not node.hub.channels
            full = [m.ChannelRequest("n" * 251 + f"{n:03}", None, "t" * 70) for n in range(200)]
            payload = await peer.ask(m.Subscribe(4, full))
            assert not [one for one in payload["subscriptions"] if "error" in one]

    run(main)


# ---- presence --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["identity", "grant"])
def test_what_presence_shows_of_a_member_is_small(where: str) -> None:
    wire = Everwire()
    info = {"size": 0}

    @wire.authenticate
    async def who(token: str) -> Identity:
        return Identity(token, info="x" * info["size"] if where == "identity" else None)

    @wire.channel("c", presence=True)
    async def channel(conn: Connection) -> Grant:
        return Grant(info="x" * info["size"] if where == "grant" else None)

    wire.channel("unseen", grant=Grant())

    async def main() -> None:
        async with serving(wire) as (network, node):
            watcher = await user(network)
            await watcher.ask(m.Subscribe(2, [m.ChannelRequest("c", presence=True)]))
            for size, refused in ((MiB, True), (4 * KiB, True), (4 * KiB - 2, False)):
                info["size"] = size
                peer = await user(network, f"u{size}")
                result = await peer.subscribe("c")
                assert ("error" in result) is refused
                if refused:
                    assert result["error"]["code"] == ErrorCode.TOO_BIG
                    assert "error" not in await peer.subscribe("unseen")
            await asyncio.sleep(1)
            assert len(await wire.presence("c")) == 2
            assert node.counters["presence_refused"] == 2
            (connection,) = [one for one in node.connections.values() if one.user == f"u{MiB}"]
            assert "c" not in connection.subscriptions

    run(main)


def test_two_tenants_with_users_of_one_name_do_not_see_each_other() -> None:
    wire = application()

    async def main() -> None:
        async with serving(wire) as (network, _):
            peers = [await user(network, token) for token in ("t1/ada", "t2/ada", "t2/bob")]
            for peer in peers:
                await peer.ask(m.Subscribe(2, [m.ChannelRequest("c", presence=True)]))
            await asyncio.sleep(1)
            answers = [
                await peer.ask(m.Query(3, "everwire.presence", {"channel": "c"})) for peer in peers
            ]
            assert [sorted(one["user"] for one in answer["members"]) for answer in answers] == [
                ["ada"], ["ada", "bob"], ["ada", "bob"]
            ]  # fmt: skip
            assert await wire.disconnect("ada", tenant="t1") == 1
            assert await peers[0].until_closed() == 4504
            assert "error" not in await peers[1].subscribe("c")

    run(main)
