"""Hostile messages: JSON and MessagePack that some reader would choke on, or read differently."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from .conftest import Target
from .peer import JSON, MSGPACK, Peer

BAD_REQUEST = 100
UNKNOWN_TYPE = 101
BAD_CHANNEL = 300
DEEP = "[" * 100_000
PUBLISH = '{"type":"publish","id":"%s","channel":"c","data":%s}'


def fresh() -> str:
    """A message id that was never used: a second publish with the same one has no effect."""
    return f"m-{time.monotonic_ns()}"


def says_bad_request(answer: Any) -> bool:
    return bool(answer["type"] == "error" and answer["code"] == BAD_REQUEST)


# ---- what is no message at all ---------------------------------------------------------

NO_MESSAGES: dict[str, bytes] = {
    "words": b"hello",
    "a byte order mark": b'\xef\xbb\xbf{"type":"ping"}',
    "something behind it": b'{"type":"ping"} x',
    "two messages": b'{"type":"ping"}{"type":"ping"}',
    "nothing": b"",
    "white space": b" \n\t ",
    "a million line feeds": b"\n" * 1_000_000,
    "a number": b"1",
    "an array": b"[1,2]",
    "null": b"null",
    "no type": b'{"id":1}',
    "a type that is a number": b'{"type":4,"id":1}',
    "100 000 brackets": DEEP.encode(),
    "100 000 braces": b'{"a":' * 100_000,
    "a megabyte of empty objects": b"[" + b"{}," * 340_000 + b"{}]",
    "single quotes": b"{'type':'ping'}",
    "a comment": b'{"type":"ping"/**/}',
    "a NUL": b'{"type":"ping"}\x00',
}


@pytest.mark.parametrize("name", NO_MESSAGES)
@pytest.mark.parametrize("dialect", [None, JSON])
def test_what_is_no_message_is_answered_and_the_connection_goes_on(
    target: Target, dialect: str | None, name: str
) -> None:
    def case() -> None:
        with Peer(target.port, dialect) as peer:
            if dialect is not None:
                peer.auth()
            peer.say(NO_MESSAGES[name])
            answer = peer.message()
            error = answer if dialect is not None else answer["data"]
            assert error["type"] == "error"
            # To plain, an object that is nothing of its own is an unknown message.
            admitted = (BAD_REQUEST, UNKNOWN_TYPE) if dialect is None else (BAD_REQUEST,)
            assert error["code"] in admitted
            assert error.get("requestId") is None
            assert len(error["message"]) < 500
            peer.say('{"type":"ping"}')
            assert peer.message()["type"] == "pong"

    target.attack(case)


@pytest.mark.parametrize("dialect", [None, JSON, MSGPACK])
def test_the_eleventh_of_them_within_a_minute_closes_with_4400(
    target: Target, dialect: str | None
) -> None:
    def case() -> None:
        with Peer(target.port, dialect) as peer:
            if dialect == JSON:
                peer.auth()
            peer.say(*[b"\xc1" if dialect == MSGPACK else b"{"] * 11)
            assert peer.code() == 4400

    target.attack(case)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"",
        b"\x91" * 100_000,
        b"\x81" * 100_000,
        b"\xdd\xff\xff\xff\xff",  # an array of four billion
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
        b"\xc6\xff\xff\xff\xff",
        b"\x93\x0c\xff",
        b"\x80",
        b"\xc7\x05\x01hello",
        msgspec.msgpack.encode([12, 1, "echo"]) + b"\xc0",
        msgspec.msgpack.encode(["12", 1, "echo"]),
    ],
)
def test_packed_nonsense_is_answered_and_the_connection_goes_on(
    target: Target, payload: bytes
) -> None:
    def case() -> None:
        with Peer(target.port, MSGPACK) as peer:
            peer.say(msgspec.msgpack.encode([1, 1]), payload, msgspec.msgpack.encode([17, 5]))
            seen = []
            while not seen or seen[-1][0] != 18:
                seen.append(msgspec.msgpack.decode(peer.frame().payload))
            (error,) = [one for one in seen if one[0] == 16]
            assert error[2] == BAD_REQUEST

    target.attack(case)


# ---- data that somebody's reader would refuse -------------------------------------------

BAD_DATA: dict[str, str] = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "1e400": "1e400",
    "minus 1e400, inside": '{"a":[-1e400]}',
    "a lone surrogate": '"\\ud800"',
    "a lone surrogate as a key": '{"\\udfff":1}',
    "2^64": "18446744073709551616",
    "a number of 5 000 digits": "1" * 5000,
    "depth 33": "[" * 33 + "]" * 33,
    "depth 900": "[" * 900 + "]" * 900,
    "depth 900 of objects": '{"a":' * 900 + "1" + "}" * 900,
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_a_reader_would_refuse_is_refused_where_it_enters(
    target: Target, name: str
) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as reader, Peer(target.port, JSON) as peer:
            reader.auth(subscribe=[{"channel": "c"}])
            peer.auth()
            peer.say(PUBLISH % (fresh(), BAD_DATA[name]))
            assert says_bad_request(peer.message())
            peer.say(f'{{"type":"query","id":7,"name":"echo","payload":{BAD_DATA[name]}}}')
            assert says_bad_request(peer.message())
            peer.say(PUBLISH % (fresh(), '"fine"'))
            assert peer.message()["type"] == "response"
            assert reader.message()["data"] == "fine"  # and nothing before it

    target.attack(case)


BAD_FIELDS: list[tuple[str, int]] = [
    ('{"type":"query","id":9007199254740993,"name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":18446744073709551616,"name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":-1,"name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":1.5,"name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":true,"name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":null,"name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":"","name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":"%s","name":"echo"}' % ("x" * 129), BAD_REQUEST),
    ('{"type":"query","id":"\\ud800","name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":[],"name":"echo"}', BAD_REQUEST),
    ('{"type":"query","id":5}', BAD_REQUEST),
    ('{"type":"query","id":5,"name":{}}', BAD_REQUEST),
    ('{"type":"query","id":5,"name":"toString"}', UNKNOWN_TYPE),
    ('{"type":"query","id":5,"name":"__proto__"}', UNKNOWN_TYPE),
    ('{"type":"query","id":5,"name":"__class__"}', UNKNOWN_TYPE),
    ('{"type":"command","id":5,"name":"constructor"}', UNKNOWN_TYPE),
    ('{"type":"query","id":5,"name":"echo","timeout":-1}', BAD_REQUEST),
    ('{"type":"query","id":5,"name":"echo","timeout":1e9}', BAD_REQUEST),
    ('{"type":"toString","id":5}', UNKNOWN_TYPE),
    ('{"type":"error ","id":5}', UNKNOWN_TYPE),
    ('{"type":"publish","id":5,"channel":"c","data":1}', BAD_REQUEST),
    ('{"type":"publish","id":"m-1","channel":"\\ud800","data":1}', BAD_REQUEST),
    ('{"type":"publish","id":"m-1","channel":"a\\nb","data":1}', BAD_CHANNEL),
    ('{"type":"publish","id":"m-1","channel":[],"data":1}', BAD_REQUEST),
    ('{"type":"publish","id":"m-1","channel":"c"}', BAD_REQUEST),
    ('{"type":"subscribe","id":5,"channels":"c"}', BAD_REQUEST),
    ('{"type":"subscribe","id":5,"channels":[1]}', BAD_REQUEST),
    ('{"type":"subscribe","id":5,"channels":[null]}', BAD_REQUEST),
    *(
        (
            (
                '{"type":"subscribe","id":5,"channels":[{"channel":"c","position":'
                f'{{"epoch":"e","offset":{offset}}}}}]}}'
            ),
            BAD_REQUEST,
        )
        for offset in ("9007199254740993", "-1", "1.5", '"1"', "true", "18446744073709551616")
    ),
]


@pytest.mark.parametrize(("text", "code"), BAD_FIELDS)
def test_a_field_of_the_wrong_kind_is_an_error_and_nothing_else(
    target: Target, text: str, code: int
) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth().say(text)
            answer = peer.message()
            assert (answer["type"], answer["code"]) == ("error", code), answer
            assert len(answer["message"]) < 500
            assert peer.query("echo", "still here")["payload"] == "still here"

    target.attack(case)


@pytest.mark.parametrize(
    "name", ["toString", "__proto__", "error", "", "x" * 5000, "\0", "disconnect"]
)
@pytest.mark.parametrize("dialect", [None, JSON])
def test_an_event_that_nobody_knows_is_nothing_whatever_it_is_called(
    target: Target, dialect: str | None, name: str
) -> None:
    def case() -> None:
        with Peer(target.port, dialect) as peer:
            if dialect is None:
                peer.say({"type": "event", "id": 1, "payload": {"event": name, "data": {"a": 1}}})
            else:
                peer.auth().say({"type": "event", "name": name, "data": {"a": 1}})
            peer.say({"type": "ping"})
            assert peer.message()["type"] == "pong"

    target.attack(case)


def test_of_equal_keys_the_last_one_wins_for_everybody(target: Target) -> None:
    """Data is written anew before it is sent on: no two readers can differ about it."""

    def case() -> None:
        with Peer(target.port, JSON) as reader, Peer(target.port, JSON) as peer:
            reader.auth(subscribe=[{"channel": "c"}])
            peer.auth()
            message_id = fresh()
            peer.say(
                f'{{"type":"ping","type":"publish","id":"m-0","id":"{message_id}","channel":"x","channel":"c",'
                '"data":1,"data":{"a":1,"b":{"k":1,"k":2},"a":3}}'
            )
            assert peer.message()["requestId"] == message_id
            frame = reader.frame()
            while b'"message"' not in frame.payload:
                frame = reader.frame()
            assert frame.payload.count(b'"a"') == frame.payload.count(b'"k"') == 1
            assert json.loads(frame.payload)["data"] == {"a": 3, "b": {"k": 2}}

    target.attack(case)


@pytest.mark.parametrize("dialect", [JSON, None])
def test_names_that_mean_something_to_some_language_are_data(
    target: Target, dialect: str | None
) -> None:
    data = {"__proto__": {"admin": 1}, "constructor": {"prototype": 1}, "toString": None, "": 0}

    def case() -> None:
        with Peer(target.port, dialect) as reader, Peer(target.port, JSON) as peer:
            if dialect is None:
                reader.say({"action": "subscribe", "channel": "__proto__"})
                reader.message()
            else:
                reader.auth(subscribe=[{"channel": "__proto__"}])
            peer.auth().say(
                {"type": "publish", "id": fresh(), "channel": "__proto__", "data": data}
            )
            assert reader.message()["data"] == data

    target.attack(case)


# ---- much of it -------------------------------------------------------------------------


def test_keys_made_to_collide_cost_no_more_than_others(target: Target) -> None:
    """Numbers as keys are refused in MessagePack; what matters is that it does not take long."""
    collide = [2**61 - 1, *((n << 44) for n in range(90_000))]
    head = b"\x94\x04\xa3m-1\xa1c\xdf" + len(collide).to_bytes(4, "big")
    packed = head + b"".join(b"\xcf" + key.to_bytes(8, "big") + b"\xc0" for key in collide)

    def case() -> None:
        with Peer(target.port, MSGPACK) as peer:
            peer.say(msgspec.msgpack.encode([1, 1]))
            before = target.cpu()
            peer.say(packed, msgspec.msgpack.encode([17, 5]))
            seen = []
            while not seen or seen[-1][0] != 18:
                seen.append(msgspec.msgpack.decode(peer.frame().payload))
            assert [one[2] for one in seen if one[0] == 16] == [BAD_REQUEST]
            assert target.cpu() - before < 1

    target.attack(case)


def test_ten_thousand_requests_at_once_are_all_answered(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth()
            for start in range(0, 10_000, 1000):
                peer.say(
                    *[
                        {"type": "query", "id": n, "name": "echo", "payload": n}
                        for n in range(start + 1000, start + 2000)
                    ]
                )
                answers = peer.messages(1000)
                assert min(answer["payload"] for answer in answers) == start + 1000

    target.attack(case)


def test_a_batch_above_the_limit_subscribes_nothing(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            channels = [{"channel": f"batch-{n}"} for n in range(201)]
            answer = peer.auth().ask({"type": "subscribe", "id": 5, "channels": channels})
            assert says_bad_request(answer)
            peer.say({"type": "publish", "id": "m-1", "channel": "batch-0", "data": 1})
            assert peer.message()["type"] == "response"  # the acknowledgement, and no message
            assert peer.query("echo", 1)["payload"] == 1

    target.attack(case)


# ---- out of turn --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"type": "query", "id": 1, "name": "echo"},
        {"type": "publish", "id": "m-1", "channel": "c", "data": 1},
        {"type": "subscribe", "id": 1, "channels": [{"channel": "c"}]},
        {"type": "event", "name": "x", "data": 1},
    ],
)
def test_a_request_before_auth_closes_with_4502(target: Target, message: dict[str, Any]) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.say(message)
            assert peer.code() == 4502

    target.attack(case)


def test_a_second_auth_while_one_is_worked_on_closes_with_4502(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.say({"type": "auth", "id": 1, "token": "slow"}, {"type": "auth", "id": 2})
            assert peer.code() == 4502

    target.attack(case)


def test_an_id_that_is_in_flight_closes_with_4502(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth().say(
                {"type": "query", "id": 5, "name": "slow"},
                {"type": "query", "id": 5, "name": "slow"},
            )
            assert peer.code() == 4502

    target.attack(case)


def test_a_large_first_message_closes_with_1009(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.say({"type": "auth", "id": 1, "token": "x" * 70_000})
            assert peer.code() == 1009

    target.attack(case)


def test_what_is_sent_behind_auth_without_waiting_may_be_large(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.say(
                {"type": "auth", "id": 1, "token": "slow"},
                {"type": "publish", "id": "m-1", "channel": "large", "data": "x" * 70_000},
            )
            assert [answer["requestId"] for answer in peer.messages(2)] == [1, "m-1"]

    target.attack(case)


def test_a_message_above_the_limit_is_refused_and_above_the_hard_cap_closes(target: Target) -> None:
    def case() -> None:
        with Peer(target.port, JSON) as peer:
            peer.auth().say(PUBLISH % ("m-1", json.dumps("x" * (2**20 + 1))))
            answer = peer.message()
            assert (answer["name"], answer["requestId"]) == ("too_big", "m-1")
            peer.say(PUBLISH % ("m-2", json.dumps("x" * 2**22)))
            assert peer.code() in (1009, 1006)  # 1006: what was unread killed the close frame

    target.attack(case)
