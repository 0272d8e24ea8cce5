"""The vectors in ``tests/vectors``: what every implementation of the protocol must agree upon."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from everwire.codes import ERRORS, CloseCode, ErrorCode, reconnects
from everwire.errors import BadData, ConfigError
from everwire.protocol import messages as m
from everwire.protocol.channels import ChannelPattern, check_channel
from everwire.protocol.data import check_data, pack_data
from everwire.protocol.dialects import BadMessage, dialect, payload_field
from everwire.protocol.positions import Place, place

from .wire import (
    BY_TYPE,
    JSON,
    MSGPACK,
    NOW,
    PLAIN,
    message_of,
    names,
    payload_of,
    shape,
    value_of,
    vectors,
)

MESSAGES = vectors("messages.json")
DECODE = vectors("decode.json")
INVALID = vectors("invalid.json")
FRAMES = vectors("plain.json", "frames")
EXCHANGES = vectors("plain.json", "exchanges")
ANY = "<any>"


def same_text(actual: bytes, expected: str) -> bool:
    """Tell whether a text is as expected, up to the ids that it makes up."""
    if ANY not in expected:
        return actual.decode() == expected
    found, wanted = json.loads(actual), json.loads(expected)
    assert isinstance(found["id"], str) and found["id"], "an id must be there and be true"
    return list(found.items()) == list({**wanted, "id": found["id"]}.items())


def checked(message: m.Message) -> None:
    """What a node does after decoding: judge the payload."""
    field = payload_field(message)
    if field:
        check_data(getattr(message, field))


# ---- messages -------------------------------------------------------------------


def test_there_is_a_vector_of_every_message() -> None:
    assert {vector["message"]["type"] for vector in MESSAGES} == set(BY_TYPE)


def test_there_is_a_vector_of_every_field() -> None:
    seen = {(v["message"]["type"], name) for v in MESSAGES for name in v["message"]}
    for name, cls in BY_TYPE.items():
        for field in cls.__struct_encode_fields__:
            assert field == "encoding" or (name, field) in seen, f"{name}.{field}"


@pytest.mark.parametrize("vector", MESSAGES, ids=names(MESSAGES))
def test_a_message_is_written_as_the_vector_says(vector: dict[str, Any]) -> None:
    message = message_of(vector["message"])
    assert JSON.encode(message, NOW).decode() == vector["json"]
    assert MSGPACK.encode(message, NOW).hex() == vector["msgpack"]
    if vector["plain"] is None:
        assert PLAIN.encode(message, NOW) == b""
    else:
        assert same_text(PLAIN.encode(message, NOW), vector["plain"])


@pytest.mark.parametrize("vector", MESSAGES, ids=names(MESSAGES))
def test_a_message_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    expected = shape(message_of(vector["message"]))
    for read in (
        JSON.decode(vector["json"].encode()),
        MSGPACK.decode(bytes.fromhex(vector["msgpack"])),
        MSGPACK.decode(memoryview(bytes.fromhex(vector["msgpack"]))),
    ):
        checked(read)
        assert shape(read) == expected


def as_json_says(message: dict[str, Any]) -> dict[str, Any]:
    """The object that a vector's message is in JSON, without any codec of ours."""
    said = {}
    for name, value in message.items():
        if isinstance(value, dict) and set(value) == {"$bytes"}:
            said[name] = b64encode(bytes.fromhex(value["$bytes"])).decode()
            said["encoding"] = "base64"
        else:
            said[name] = value_of(value)
    return said


@pytest.mark.parametrize("vector", MESSAGES, ids=names(MESSAGES))
def test_a_vector_says_the_same_in_its_forms(vector: dict[str, Any]) -> None:
    """Judged by readers that know nothing of messages."""
    message = vector["message"]
    assert json.loads(vector["json"]) == as_json_says(message)
    tag, *places = msgspec.msgpack.decode(bytes.fromhex(vector["msgpack"]))
    cls = m.MESSAGES[tag]
    assert cls is BY_TYPE[message["type"]]
    for field, found in zip(cls.__struct_encode_fields__, places, strict=True):
        if field in message:
            assert found == value_of(message[field])
        else:
            assert found in (None, 0, "", False, [], "none")


@pytest.mark.parametrize("vector", DECODE, ids=names(DECODE))
def test_what_another_may_write_differently_is_read_the_same(vector: dict[str, Any]) -> None:
    read = dialect(vector["dialect"]).decode(payload_of(vector))
    checked(read)
    assert shape(read) == shape(message_of(vector["message"]))


@pytest.mark.parametrize("vector", INVALID, ids=names(INVALID))
def test_what_is_invalid_gets_the_verdict_of_the_vector(vector: dict[str, Any]) -> None:
    reader = dialect(vector["dialect"])
    if vector["stage"] == "data":
        message = reader.decode(payload_of(vector))
        assert getattr(message, "id", None) == (vector["requestId"] or "")
        with pytest.raises(BadData):
            checked(message)
        return
    with pytest.raises(BadMessage) as caught:
        reader.decode(payload_of(vector))
    verdict = caught.value
    assert str(verdict)
    assert ("unknown_type" if verdict.unknown_type else "bad_request") == vector["error"]
    assert shape(verdict.request_id) == shape(vector["requestId"])
    assert verdict.strike is vector["strike"]


# ---- plain ----------------------------------------------------------------------


@pytest.mark.parametrize("vector", FRAMES, ids=names(FRAMES))
def test_a_plain_text_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    text = vector["text"].replace(ANY, "x-1").encode()
    if "message" in vector:
        read = PLAIN.decode(text)
        checked(read)
        assert shape(read) == shape(message_of(vector["message"]))
        return
    with pytest.raises(BadMessage) as caught:
        PLAIN.decode(text)
    verdict, expected = caught.value, vector["refused"]
    assert ("unknown_type" if verdict.unknown_type else "bad_request") == expected["error"]
    assert (verdict.request_id, verdict.strike) == (expected["requestId"], expected["strike"])


WRITTEN = [vector for vector in FRAMES if vector.get("encodes")]


@pytest.mark.parametrize("vector", WRITTEN, ids=names(WRITTEN))
def test_a_plain_text_is_written_as_the_vector_says(vector: dict[str, Any]) -> None:
    assert same_text(PLAIN.encode(message_of(vector["message"]), NOW), vector["text"])


def test_there_is_a_plain_vector_of_each_class_of_the_original_document() -> None:
    classes = {
        "WebSocketConnectionPool",
        "HeartbeatWebSocket",
        "ReconnectingWebSocket",
        "QueuedWebSocket",
        "WebSocketProtocol",
        "ChannelWebSocket",
        "server",
    }
    assert {vector["seed"] for vector in FRAMES} == {*classes, None}


@pytest.mark.parametrize("exchange", EXCHANGES, ids=names(EXCHANGES))
def test_what_a_client_says_in_an_exchange_has_a_vector(exchange: dict[str, Any]) -> None:
    texts = {vector["text"] for vector in FRAMES} | {
        vector["text"] for vector in INVALID if vector["dialect"] == "plain" and "text" in vector
    }
    for sender, text in exchange["steps"]:
        assert sender in ("client", "server")
        assert sender == "server" or text in texts or '"channel":"system"' in text


@pytest.mark.parametrize("exchange", EXCHANGES, ids=names(EXCHANGES))
def test_what_a_server_says_in_an_exchange_can_be_read(exchange: dict[str, Any]) -> None:
    for sender, text in exchange["steps"]:
        if sender == "server":
            assert PLAIN.decode(text.encode()) is not None


# ---- data -----------------------------------------------------------------------

VALID_DATA = vectors("data.json", "valid")
INVALID_DATA = vectors("data.json", "invalid")


def publish_of(vector: dict[str, Any], form: str) -> m.Message:
    if form == "json":
        encoding = ',"encoding":"base64"' if "encoding" in vector else ""
        text = f'{{"type":"publish","id":"i","channel":"c","data":{vector["json"]}{encoding}}}'
        return JSON.decode(text.encode())
    return MSGPACK.decode(b"\x94\x04\xa1i\xa1c" + bytes.fromhex(vector["msgpack"]))


@pytest.mark.parametrize("vector", VALID_DATA, ids=names(VALID_DATA))
def test_legal_data_is_the_same_in_every_dialect(vector: dict[str, Any]) -> None:
    from_json, from_msgpack = publish_of(vector, "json"), publish_of(vector, "msgpack")
    assert isinstance(from_json, m.Publish)
    checked(from_json)
    assert shape(from_json) == shape(from_msgpack)
    assert pack_data(from_json.data).hex() == vector["msgpack"]


@pytest.mark.parametrize("vector", INVALID_DATA, ids=names(INVALID_DATA))
def test_illegal_data_is_refused_at_the_stage_of_the_vector(vector: dict[str, Any]) -> None:
    forms = [form for form in ("json", "msgpack") if form in vector]
    assert forms
    for form in forms:
        if vector["stage"] == "decode":
            with pytest.raises(BadMessage):
                publish_of(vector, form)
        else:
            message = publish_of(vector, form)
            with pytest.raises(BadData):
                checked(message)


def test_the_written_form_of_data_in_vectors_is_unambiguous() -> None:
    assert value_of([{"$bytes": "00"}, {"$int": "9007199254740993"}, {"a": 1}]) == [
        b"\0",
        9007199254740993,
        {"a": 1},
    ]


# ---- positions, names, codes --------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("positions.json", "places"))
def test_a_place_is_as_the_vector_says(vector: dict[str, Any]) -> None:
    assert place(vector["at"], vector["offset"], vector["prev"]).value == vector["place"]


RUNS = vectors("positions.json", "runs")


@pytest.mark.parametrize("vector", RUNS, ids=names(RUNS))
def test_a_reader_goes_on_from_what_is_next_only(vector: dict[str, Any]) -> None:
    at, places = vector["at"], []
    for offset, prev in vector["messages"]:
        where = place(at, offset, prev)
        places.append(where.value)
        if where is Place.NEXT:
            at = offset
    assert places == vector["places"]


@pytest.mark.parametrize("vector", vectors("channels.json", "names"), ids=lambda v: v["why"])
def test_a_channel_name_is_valid_or_not(vector: dict[str, Any]) -> None:
    if vector["valid"]:
        assert check_channel(vector["name"]) == vector["name"]
    else:
        with pytest.raises(BadData):
            check_channel(vector["name"])


@pytest.mark.parametrize("vector", vectors("channels.json", "patterns"))
def test_a_pattern_matches_as_the_vector_says(vector: dict[str, Any]) -> None:
    assert ChannelPattern(vector["pattern"]).match(vector["channel"]) == vector["match"]


@pytest.mark.parametrize("pattern", vectors("channels.json", "badPatterns"))
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        ChannelPattern(pattern)


@pytest.mark.parametrize("vector", vectors("codes.json", "closes"), ids=lambda v: str(v["code"]))
def test_a_close_code_keeps_its_meaning(vector: dict[str, Any]) -> None:
    assert reconnects(vector["code"]) is vector["reconnect"]
    if vector["name"] is not None:
        assert CloseCode(vector["code"]).name.lower() == vector["name"]


@pytest.mark.parametrize("vector", vectors("codes.json", "errors"), ids=lambda v: v["name"])
def test_an_error_code_keeps_its_meaning(vector: dict[str, Any]) -> None:
    code = ErrorCode(vector["code"])
    assert code.wire_name == vector["name"]
    assert ERRORS[code].temporary is vector["temporary"]


def test_every_code_has_a_vector() -> None:
    assert {v["code"] for v in vectors("codes.json", "errors")} == set(ErrorCode)
    named = {v["code"] for v in vectors("codes.json", "closes") if v["name"]}
    assert named == set(CloseCode)
