"""The dialect ``plain``: small JSON texts that a shell script can write.

It promises order only: no acknowledgement, no position. ``docs/protocol.md`` section 1.1
lists every exchange. The same functions read what clients send and what servers send.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec

from ..codes import ErrorCode
from ..errors import BadData
from ..limits import MAX_INTEGER
from . import json_scan, messages as m
from .data import from_base64, json_data
from .dialects import BadMessage, Dialect
from .frames import Opcode
from .json_v1 import request_id_of, usable_id

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_serial = count(1)

ENVELOPES = ("auth", "event", "command", "query", "response", "error")


class Plain(Dialect):
    """JSON objects: channel actions, and request envelopes with an ``id``."""

    name = "plain"
    subprotocol: str | None = None
    opcode = Opcode.TEXT
    needs_auth = False
    acknowledges = False
    stamps = True

    def decode(self, payload: bytes | memoryview) -> m.Message:
        try:
            value = _decoder.decode(payload)
        except RecursionError:
            raise BadMessage("nested too deep") from None
        except (msgspec.DecodeError, ValueError) as error:
            raise BadMessage(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadMessage("a message is a JSON object")
        if "action" in value:
            return _action(value)
        kind = value.get("type")
        if kind in ENVELOPES:
            return _envelope(kind, value)
        if kind == "ping":
            return m.Ping()
        if kind == "pong":
            return m.Pong()
        if isinstance(value.get("channel"), str) and "data" in value:
            return _from_server(value["channel"], value["data"], value)
        raise BadMessage(
            "unknown message: expected an action (subscribe, unsubscribe, publish), "
            f"a ping, or an envelope ({', '.join(ENVELOPES)}) with an id",
            unknown_type=True,
            strike=False,
        )

    def has_more_than(self, payload: bytes | memoryview, most: int) -> bool:
        return json_scan.has_more_than(bytes(payload), most)

    def request_id(self, payload: bytes | memoryview) -> m.RequestId | None:
        return request_id_of(payload)

    def encode(self, message: m.Message, now: int = 0) -> bytes:
        write = _WRITERS.get(type(message).__name__)
        return write(message, now) if write and _can_say(message) else b""

    def message_prefix(self, sid: int, channel: str) -> Any:
        return b'{"channel":' + _encoder.encode(channel) + b',"data":'

    def encode_message(
        self,
        prefix: Any,
        offset: int,
        prev: int | None,
        message_id: str,
        time: int,
        data: bytes,
        publisher: str | None,
        trace: str | None,
    ) -> bytes:
        text, base64 = json_data(data)
        return bytes(prefix) + text + (b',"encoding":"base64"}' if base64 else b"}")


def _action(value: dict[str, Any]) -> m.Message:
    action, channel = value["action"], value.get("channel")
    if action not in ("subscribe", "unsubscribe", "publish"):
        raise BadMessage(
            f"unknown action{f' {action[:40]!r}' if isinstance(action, str) else ''}: "
            "expected subscribe, unsubscribe or publish",
            unknown_type=True,
            strike=False,
        )
    if not isinstance(channel, str):
        raise BadMessage(f"{action} needs a channel, as text")
    if action == "subscribe":
        return m.Subscribe("", [m.ChannelRequest(channel)])
    if action == "unsubscribe":
        return m.Unsubscribe("", [channel])
    if "data" not in value:
        raise BadMessage("publish needs data", channel=channel)
    return m.Publish("", channel, _data(value, "data"))


def _data(value: dict[str, Any], field: str, request_id: m.RequestId | None = None) -> Any:
    """The payload in ``field``; ``encoding`` beside it tells of bytes."""
    if value.get("encoding") != "base64":
        return value.get(field)
    try:
        return from_base64(value.get(field))
    except BadData as error:
        raise BadMessage(str(error), request_id=request_id) from None


def _if_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _code(value: dict[str, Any]) -> int:
    code = value.get("code")
    if type(code) is int and 0 <= code <= MAX_INTEGER:
        return code
    return int(ErrorCode.INTERNAL)


def _envelope(kind: str, value: dict[str, Any]) -> m.Message:
    request_id = usable_id(value.get("id"))
    if request_id is None:
        raise BadMessage(f"{kind} needs an id: text, or an integer")
    payload = value.get("payload")
    if kind in ("response", "error"):
        answers = usable_id(value.get("requestId"))
        if answers is None and kind == "response":
            raise BadMessage("response needs a requestId", request_id=request_id)
        if kind == "response":
            assert answers is not None
            return m.Response(answers, _data(value, "payload"))
        return m.Error(
            answers,
            _code(value),
            "error",
            _if_text(value.get("error")),
        )
    if kind == "auth":
        token = payload.get("token") if isinstance(payload, dict) else None
        return m.Auth(request_id, token if isinstance(token, str) else None, payload)
    if not isinstance(payload, dict):
        raise BadMessage(f"{kind} needs a payload: an object", request_id=request_id)
    names = {"query": "resource", "command": "action", "event": "event"}
    name = payload.get(names[kind])
    if not isinstance(name, str):
        raise BadMessage(f"{kind} needs payload.{names[kind]}, as text", request_id=request_id)
    if kind == "event":
        return m.Event(name, _data(payload, "data", request_id))
    parameters = _data(payload, "parameters", request_id)
    if kind == "query":
        return m.Query(request_id, name, parameters)
    return m.Command(request_id, name, parameters)


def _from_server(channel: str, data: Any, value: dict[str, Any]) -> m.Message:
    """What only a server says: a channel's message, or a system message."""
    if channel != "system":
        return m.ChannelMessage(0, 0, "", 0, _data(value, "data"), channel=channel)
    if isinstance(data, dict):
        about = data.get("channel")
        about = about if isinstance(about, str) else None
        match data.get("type"):
            case "subscription_confirm" if about is not None:
                return m.Subscribed(about, 0, "", 0, "")
            case "unsubscription_confirm" if about is not None:
                return m.Unsubscribed(0, 0, channel=about)
            case "gap" if about is not None:
                return m.GapNotice(0, "", 0, "", _if_text(data.get("reason")), channel=about)
            case "error":
                return m.Error(
                    None,
                    _code(data),
                    "error",
                    _if_text(data.get("message")),
                    channel=about,
                )
            case _:
                pass
    raise BadMessage("unknown system message", unknown_type=True, strike=False)


# ---- writing ----------------------------------------------------------------


def _can_say(message: m.Message) -> bool:
    """Here a channel has no number, only its name, and a text speaks of one channel."""
    if isinstance(message, (m.ChannelMessage, m.GapNotice, m.Unsubscribed)):
        return message.channel is not None
    if isinstance(message, (m.Subscribe, m.Unsubscribe)):
        return len(message.channels) == 1
    return True


def _marked(value: dict[str, Any], field: str) -> dict[str, Any]:
    """Say beside the payload in ``field`` that it is base64 for bytes, if it is."""
    if type(value.get(field)) is bytes:
        value["encoding"] = "base64"
    return value


def _text(value: dict[str, Any], field: str = "data") -> bytes:
    return _encoder.encode(_marked(value, field))


def _system(kind: str, **fields: Any) -> bytes:
    data = {"type": kind, **{name: value for name, value in fields.items() if value is not None}}
    return _encoder.encode({"channel": "system", "data": data})


def _enveloped(
    kind: str, request_id: m.RequestId | None, payload: Any, now: int, **more: Any
) -> bytes:
    if request_id is None:
        request_id = f"{kind}-{next(_serial)}"
    value = {"id": request_id, "type": kind, "timestamp": now, **more}
    if payload is not msgspec.UNSET:
        value["payload"] = payload
    return _text(value, "payload")


def _error(message: m.Error, now: int) -> bytes:
    if message.request_id is None:
        return _system("error", message=message.message, code=message.code, channel=message.channel)
    return _enveloped(
        "error",
        None,
        msgspec.UNSET,
        now,
        requestId=message.request_id,
        error=message.message,
        code=message.code,
    )


def _auth(message: m.Auth, now: int) -> bytes:
    credentials = message.credentials
    if credentials is None and message.token is not None:
        credentials = {"token": message.token}
    return _enveloped("auth", message.id, {} if credentials is None else credentials, now)


def _request(message: m.Query | m.Command, name: str) -> dict[str, Any]:
    return _marked({name: message.name, "parameters": message.payload}, "parameters")


def _gap(message: m.GapNotice, now: int) -> bytes:
    return _system("gap", channel=message.channel, reason=message.reason)


_WRITERS: dict[str, Any] = {
    "Ping": lambda message, now: b'{"type":"ping"}',
    "Pong": lambda message, now: b'{"type":"pong"}',
    "Subscribe": lambda message, now: _encoder.encode(
        {"action": "subscribe", "channel": message.channels[0].channel}
    ),
    "Unsubscribe": lambda message, now: _encoder.encode(
        {"action": "unsubscribe", "channel": message.channels[0]}
    ),
    "Publish": lambda message, now: _text(
        {"action": "publish", "channel": message.channel, "data": message.data}
    ),
    "ChannelMessage": lambda message, now: _text(
        {"channel": message.channel, "data": message.data}
    ),
    "Subscribed": lambda message, now: _system("subscription_confirm", channel=message.channel),
    "Unsubscribed": lambda message, now: _system("unsubscription_confirm", channel=message.channel),
    "GapNotice": _gap,
    "Error": _error,
    "Auth": _auth,
    "Event": lambda message, now: _enveloped(
        "event", None, _marked({"event": message.name, "data": message.data}, "data"), now
    ),
    "Query": lambda message, now: _enveloped(
        "query", message.id, _request(message, "resource"), now
    ),
    "Command": lambda message, now: _enveloped(
        "command", message.id, _request(message, "action"), now
    ),
    "Response": lambda message, now: _enveloped(
        "response", None, message.payload, now, requestId=message.request_id
    ),
}

DIALECT = Plain()
