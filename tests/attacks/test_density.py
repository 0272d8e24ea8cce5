"""A megabyte of values of a byte or two each: what is refused, and what is allowed, hurts nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ..net.model import BINARY, TEXT, Frame
from .conftest import Target
from .peer import JSON, MSGPACK, Peer
from .test_messages import BAD_REQUEST, PUBLISH, fresh

ELEMENTS = 50_000  # the limit
SIZE = 2**20 - 100

DENSE: dict[str, tuple[Callable[[int], str], bytes]] = {
    # JSON of about so many values and keys; and the smallest of their kind in MessagePack
    "empty objects": (lambda n: "[" + "{}," * n + "{}]", b"\x80"),
    "empty arrays": (lambda n: "[" + "[]," * n + "[]]", b"\x90"),
    "deep arrays": (lambda n: "[" + ("[" * 20 + "]" * 20 + ",") * (n // 20) + "0]", b"\x91"),
    "deep objects": (
        lambda n: "[" + ('{"":' * 20 + "0" + "}" * 20 + ",") * (n // 41) + "0]",
        b"\x81\xa0",
    ),
    "numbers": (lambda n: "[" + "0," * n + "0]", b"\x00"),
    "floats": (lambda n: "[" + "1.5," * n + "0]", b"\xca\x00\x00\x00\x00"),
    "texts": (lambda n: "[" + '"",' * n + '""]', b"\xa0"),
    "keys": (lambda n: json.dumps({f"k{i}": i for i in range(n // 2)}), b"\xa1k\x00"),
    "keys of arrays": (lambda n: json.dumps({f"{i:x}": [] for i in range(n // 2)}), b"\xa1k\x90"),
    "keys like numbers": (
        lambda n: json.dumps({str(i << 40): 0 for i in range(n // 2)}),
        b"\xa20\xa00\xc0",
    ),
}


def too_dense(name: str, dialect: str | None) -> bytes:
    """A query of a megabyte that is made of nothing but such things."""
    in_json, packed = DENSE[name]
    if dialect == MSGPACK:
        count = SIZE // len(packed)
        head = b"\xdf" if name.startswith("keys") else b"\xdd"
        return b"\x94\x0c\x05\xa4echo" + head + count.to_bytes(4, "big") + packed * count
    text = in_json(SIZE // 2)[:SIZE].encode()
    if dialect == JSON:
        return b'{"type":"query","id":5,"name":"echo","payload":%b}' % text
    return b'{"type":"query","id":5,"payload":{"resource":"echo","parameters":%b}}' % text


def authenticated(port: int, dialect: str | None) -> Peer:
    peer = Peer(port, dialect)
    if dialect == MSGPACK:
        peer.say(msgspec.msgpack.encode([1, 1]))
        assert [peer.packed()[0] for _ in range(2)] == [0, 15]
    elif dialect == JSON:
        peer.auth()
    return peer


def error_of(peer: Peer) -> tuple[int, Any]:
    """The code and the request's id of the next message, an error."""
    if not peer.text:
        kind, request_id, code, *_ = peer.packed()
        assert kind == 16
        return code, request_id
    answer = peer.message()
    answer = answer.get("data", answer)
    assert answer["type"] == "error"
    return answer["code"], answer.get("requestId")


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("dialect", [None, JSON, MSGPACK])
def test_too_many_tiny_values_are_refused_and_the_eleventh_time_the_connection_ends(
    target: Target, dialect: str | None, name: str
) -> None:
    opcode = BINARY if dialect == MSGPACK else TEXT
    frame = Frame(opcode, too_dense(name, dialect)).encode()

    def case() -> None:
        with authenticated(target.port, dialect) as peer:
            for _ in range(10):
                peer.raw(frame)
                code, request_id = error_of(peer)
                assert code == BAD_REQUEST
                assert request_id in (5, None)  # none where it cannot be read
            peer.raw(frame)
            assert peer.code() == 4400

    target.attack(case)


def test_the_refusal_of_too_many_values_names_the_request(target: Target) -> None:
    with authenticated(target.port, JSON) as peer, authenticated(target.port, MSGPACK) as packed:
        peer.say(json.dumps({"type": "query", "id": 5, "name": "echo", "payload": [0] * ELEMENTS}))
        packed.say(msgspec.msgpack.encode([12, 5, "echo", [0] * ELEMENTS]))
        assert error_of(peer) == error_of(packed) == (BAD_REQUEST, 5)


@pytest.mark.parametrize("name", DENSE)
def test_the_densest_message_that_is_allowed_keeps_nobody_waiting_however_often_it_comes(
    target: Target, name: str
) -> None:
    """It is stored, and written anew for readers of three dialects."""
    text = DENSE[name][0](ELEMENTS - 100)
    value = json.loads(text)
    query = Frame(TEXT, b'{"type":"query","id":7,"name":"echo","payload":%b}' % text.encode())
    subscribe = {"action": "subscribe", "channel": "dense"}

    def case() -> None:
        with (
            authenticated(target.port, JSON) as peer,
            Peer(target.port, JSON) as reader,
            authenticated(target.port, MSGPACK) as packed,
            Peer(target.port) as plain,
        ):
            reader.auth(subscribe=[{"channel": "dense"}])
            plain.say(subscribe)
            plain.message()
            packed.say(msgspec.msgpack.encode([2, 2, [{"channel": "dense"}]]))
            packed.packed()
            for _ in range(6):
                peer.say(PUBLISH.replace('"c"', '"dense"') % (fresh(), text))
                assert peer.message()["type"] == "response"
                assert reader.message()["data"] == value
                assert plain.message()["data"] == value
                assert packed.packed()[5] == value
                peer.send(query)
                assert peer.message()["payload"] == value

    target.attack(case)
