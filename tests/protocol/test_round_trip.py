"""What is encoded is decoded to the same, in every dialect."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import given, strategies as st

from everwire.protocol import messages as m
from everwire.protocol.data import check_data, json_data, pack_data, unpack_data
from everwire.protocol.dialects import Dialect, payload_field

from .wire import (
    DIALECTS,
    JSON,
    MSGPACK,
    NOW,
    PLAIN,
    V1,
    data,
    examples,
    ids,
    messages,
    shape,
    structs,
    texts,
    u53s,
)


@pytest.mark.parametrize("cls", m.MESSAGES, ids=lambda cls: cls.__name__)
def test_a_v1_message_is_read_as_it_was_written(cls: type[m.Message]) -> None:
    @examples(25)
    @given(structs(cls))
    def check(message: m.Message) -> None:
        before = shape(message)
        for one in V1:
            encoded = one.encode(message, NOW)
            assert shape(one.decode(encoded)) == before
            assert shape(one.decode(memoryview(bytearray(encoded)))) == before
        assert shape(message) == before, "encoding changed the message"

    check()


def as_plain_says(message: m.Message) -> m.Message | None:
    """What is left of a message in the dialect that knows no positions; None for nothing."""
    match message:
        case m.Ping():
            return m.Ping()
        case m.Pong():
            return m.Pong()
        case m.Subscribe(channels=[only]):
            return m.Subscribe("", [m.ChannelRequest(only.channel)])
        case m.Unsubscribe(channels=[only]):
            return m.Unsubscribe("", [only])
        case m.Publish():
            return m.Publish("", message.channel, message.data)
        case m.ChannelMessage(channel=str(channel)):
            return m.ChannelMessage(0, 0, "", 0, message.data, channel=channel)
        case m.Subscribed():
            return m.Subscribed(message.channel, 0, "", 0, "")
        case m.Unsubscribed(channel=str(channel)):
            return m.Unsubscribed(0, 0, channel=channel)
        case m.GapNotice(channel=str(channel)):
            return m.GapNotice(0, "", 0, "", message.reason, channel=channel)
        case m.Auth():
            token, credentials = message.token, message.credentials
            if credentials is None:
                credentials = {} if token is None else {"token": token}
            token = credentials.get("token") if isinstance(credentials, dict) else None
            return m.Auth(message.id, token if isinstance(token, str) else None, credentials)
        case m.Event():
            return m.Event(message.name, message.data)
        case m.Query():
            return m.Query(message.id, message.name, message.payload)
        case m.Command():
            return m.Command(message.id, message.name, message.payload)
        case m.Response():
            return m.Response(message.request_id, message.payload)
        case m.Error(request_id=None):
            return m.Error(None, message.code, "error", message.message, channel=message.channel)
        case m.Error():
            return m.Error(message.request_id, message.code, "error", message.message)
        case _:
            return None


@pytest.mark.parametrize("cls", m.MESSAGES, ids=lambda cls: cls.__name__)
def test_a_plain_message_is_read_as_far_as_plain_can_say_it(cls: type[m.Message]) -> None:
    @examples(25)
    @given(structs(cls))
    def check(message: m.Message) -> None:
        if getattr(message, "channel", None) == "system" and isinstance(message, m.ChannelMessage):
            return  # reserved: no channel is called so
        before, expected = shape(message), as_plain_says(message)
        encoded = PLAIN.encode(message, NOW)
        if expected is None:
            assert encoded == b""
        else:
            assert shape(PLAIN.decode(encoded)) == shape(expected)
        assert shape(message) == before, "encoding changed the message"

    check()


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


@examples(150)
@given(messages)
def test_text_dialects_write_what_any_json_reader_takes(message: m.Message) -> None:
    for one in (JSON, PLAIN):
        encoded = one.encode(message, NOW)
        if not encoded:
            continue
        value = json.loads(encoded.decode("utf-8"), parse_constant=no_constant)
        assert isinstance(value, dict)
        if one is JSON:
            assert next(iter(value)) == "type"
            field = payload_field(message)
            if field and "encoding" not in value and field in value:
                assert shape(value[field]) == shape(getattr(message, field))


@examples(150)
@given(messages)
def test_msgpack_writes_the_number_of_the_type_and_the_fields_in_order(message: m.Message) -> None:
    tag, *places = msgspec.msgpack.decode(MSGPACK.encode(message))
    assert m.MESSAGES[tag] is type(message)
    fields = msgspec.structs.fields(message)
    assert len(places) == len(fields)
    for field, found in zip(fields, places, strict=True):
        value = getattr(message, field.name)
        if isinstance(value, msgspec.Struct):
            assert isinstance(found, dict), "nested objects are maps"
            assert set(found) <= set(value.__struct_encode_fields__)
        elif field.encode_name in m.DATA_FIELDS or isinstance(value, str | int):
            assert shape(found) == shape(value)


@examples(150)
@given(messages)
def test_a_shorter_array_or_nil_stands_for_what_is_absent(message: m.Message) -> None:
    tag, *places = msgspec.msgpack.decode(MSGPACK.encode(message))
    fields = msgspec.structs.fields(message)
    # nil in every place whose field has its default
    for index, field in enumerate(fields):
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if not field.required and shape(getattr(message, field.name)) == shape(default):
            places[index] = None
    with_nils = msgspec.msgpack.encode([tag, *places])
    assert shape(MSGPACK.decode(with_nils)) == shape(message)
    # and all nils at the end left out, where they are not data
    while places and places[-1] is None and not fields[len(places) - 1].required:
        places.pop()
    assert shape(MSGPACK.decode(msgspec.msgpack.encode([tag, *places]))) == shape(message)


@examples(150)
@given(messages, st.dictionaries(st.text("ABCXYZ", min_size=1), st.integers() | texts, max_size=3))
def test_unknown_fields_are_ignored(message: m.Message, more: dict[str, Any]) -> None:
    value = msgspec.json.decode(JSON.encode(message))
    mixed = {**more, **value}
    assert shape(JSON.decode(msgspec.json.encode(mixed))) == shape(message)
    array = msgspec.msgpack.decode(MSGPACK.encode(message))
    longer = msgspec.msgpack.encode(
        [*array, *(None if type(x) is int else x for x in more.values())]
    )
    assert shape(MSGPACK.decode(longer)) == shape(message)


@examples(150)
@given(u53s, texts, u53s, st.none() | u53s, ids, u53s, data, st.none() | texts, st.none() | texts)
def test_encode_message_writes_what_encode_would(
    sid: int,
    channel: str,
    offset: int,
    prev: int | None,
    message_id: str,
    time: int,
    payload: Any,
    publisher: str | None,
    trace: str | None,
) -> None:
    if channel == "system":
        return
    packed = pack_data(payload)

    def encoded(one: Dialect) -> bytes:
        prefix = one.message_prefix(sid, channel)
        return one.encode_message(prefix, offset, prev, message_id, time, packed, publisher, trace)

    expected = m.ChannelMessage(sid, offset, message_id, time, payload, prev, publisher, trace)
    for one in V1:
        assert shape(one.decode(encoded(one))) == shape(expected)
    assert encoded(JSON) == JSON.encode(expected)
    in_plain = m.ChannelMessage(0, 0, "", 0, payload, channel=channel)
    assert shape(PLAIN.decode(encoded(PLAIN))) == shape(in_plain)
    assert encoded(PLAIN) == PLAIN.encode(in_plain)


@examples(150)
@given(ids | u53s, texts, u53s, st.booleans())
def test_the_answer_to_a_publish_is_written_as_any_response(
    request_id: m.RequestId, epoch: str, offset: int, duplicate: bool
) -> None:
    payload = {"epoch": epoch, "offset": offset, "duplicate": duplicate}
    for one in DIALECTS:
        if one.acknowledges:
            written = one.encode_published(request_id, epoch, offset, duplicate)
            assert written == one.encode(m.Response(request_id, payload), NOW)


@examples(150)
@given(data)
def test_what_is_packed_is_unpacked_to_the_same(payload: Any) -> None:
    packed = pack_data(payload)
    assert shape(unpack_data(packed)) == shape(payload)
    text, base64 = json_data(packed)
    assert base64 is isinstance(payload, bytes)
    if not base64:
        assert shape(json.loads(text, parse_constant=no_constant)) == shape(payload)


@examples(150)
@given(messages)
def test_what_one_dialect_brought_every_other_can_say(message: m.Message) -> None:
    for source in DIALECTS:
        encoded = source.encode(message, NOW)
        if encoded:
            read = source.decode(encoded)
            field = payload_field(read)
            if field:
                check_data(getattr(read, field))
            for target in V1:
                if getattr(read, "id", "x") != "":  # plain publishes and subscribes have no id
                    assert shape(target.decode(target.encode(read, NOW))) == shape(read)
