"""The messages of the protocol, as both sides hold them in memory.

One class a message; ``docs/protocol.md`` section 2 says what each field means and
which breach yields which code. The classes encode as the JSON dialect has them
(``type`` first, camelCase, absent fields left out); the order of the fields is the
order of the MessagePack dialect's arrays, so new fields are only ever appended.

Times are integer milliseconds since 1970 (UTC); durations are milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..errors import RequestError
from ..limits import MAX_ID, MAX_INTEGER

U53: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
RequestId: TypeAlias = U53 | Id


class Message(
    msgspec.Struct, tag_field="type", tag="", rename="camel", omit_defaults=True, gc=False
):
    """What goes over the wire, one a frame."""


class Position(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A place in a channel's history: the message with this offset and id.

    Offsets of different epochs cannot be compared: the numbering began anew.
    Offset 0 with an empty id is the place before the first message.
    """

    epoch: str
    offset: U53
    id: str = ""


class ClientInfo(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """Who connects: ``instance`` is new at each start of the client's process."""

    instance: Id
    name: str = ""
    version: str = ""


class ChannelRequest(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """One channel of a ``subscribe``; ``position`` asks for what came after it."""

    channel: str
    position: Position | None = None
    token: str | None = None
    presence: bool = False


class ErrorBody(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """An error inside a response."""

    code: U53
    name: str
    message: str
    temporary: bool = False
    retry_after: U53 | None = None


class ChannelResult(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """The answer for one channel: where delivery starts, or ``error``."""

    channel: str
    sid: U53 | None = None
    epoch: str = ""
    offset: U53 = 0
    id: str = ""
    recovered: bool = False
    recoverable: bool = False
    error: ErrorBody | None = None


class PublishResult(msgspec.Struct, gc=False):
    """The payload of the answer to a ``publish``."""

    epoch: str
    offset: U53
    duplicate: bool


class Member(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """One connection that is present in a channel."""

    connection: str
    user: str = ""
    info: Any = None


class Hello(Message, tag="hello"):
    version: U53
    node: str
    connection: str
    time: U53
    features: list[str]
    ping_interval: U53
    limits: dict[str, U53]


class Auth(Message, tag="auth"):
    id: RequestId
    token: str | None = None
    credentials: Any = None
    client: ClientInfo | None = None
    replaces: str | None = None
    require: list[str] = []
    subscribe: list[ChannelRequest] = []


class Subscribe(Message, tag="subscribe"):
    id: RequestId
    channels: list[ChannelRequest]


class Unsubscribe(Message, tag="unsubscribe"):
    id: RequestId
    channels: list[str]


class Publish(Message, tag="publish"):
    id: Id
    channel: str
    data: Any
    timeout: U53 | None = None
    run: U53 = 0
    encoding: Literal["base64"] | None = None


class ChannelMessage(Message, tag="message"):
    sid: U53
    offset: U53
    id: str
    time: U53
    data: Any
    prev: U53 | None = None
    publisher: str | None = None
    trace: str | None = None
    channel: str | None = None
    encoding: Literal["base64"] | None = None


class GapNotice(Message, tag="gap"):
    sid: U53
    epoch: str
    offset: U53
    id: str
    reason: str
    from_: U53 | None = msgspec.field(default=None, name="from")
    channel: str | None = None


class Presence(Message, tag="presence"):
    sid: U53
    full: bool
    joined: list[Member]
    left: list[str]
    count: U53
    channel: str | None = None


class Subscribed(Message, tag="subscribed"):
    channel: str
    sid: U53
    epoch: str
    offset: U53
    id: str
    recovered: bool = False


class Unsubscribed(Message, tag="unsubscribed"):
    sid: U53
    code: U53
    temporary: bool = False
    retry_after: U53 | None = None
    channel: str | None = None


class Event(Message, tag="event"):
    name: str
    data: Any
    encoding: Literal["base64"] | None = None


class Command(Message, tag="command"):
    id: RequestId
    name: str
    payload: Any = None
    timeout: U53 | None = None
    key: Id | None = None
    stream: bool = False
    encoding: Literal["base64"] | None = None


class Query(Message, tag="query"):
    id: RequestId
    name: str
    payload: Any = None
    timeout: U53 | None = None
    stream: bool = False
    encoding: Literal["base64"] | None = None


class Credit(Message, tag="credit"):
    id: RequestId
    n: U53


class Cancel(Message, tag="cancel"):
    id: RequestId


class Response(Message, tag="response"):
    request_id: RequestId
    payload: Any
    more: bool = False
    encoding: Literal["base64"] | None = None


class Error(Message, tag="error"):
    request_id: RequestId | None
    code: U53
    name: str
    message: str
    temporary: bool = False
    outcome: Literal["none", "unknown"] = "none"
    retry_after: U53 | None = None
    details: Any = None
    channel: str | None = None


class Ping(Message, tag="ping"):
    time: U53 = 0


class Pong(Message, tag="pong"):
    time: U53 = 0


class Drain(Message, tag="drain"):
    reconnect_in: U53
    close_in: U53


# In the order of their MessagePack tags: append, never insert.
MESSAGES: tuple[type[Message], ...] = (
    Hello, Auth, Subscribe, Unsubscribe, Publish, ChannelMessage, GapNotice, Presence,
    Subscribed, Unsubscribed, Event, Command, Query, Credit, Cancel, Response, Error,
    Ping, Pong, Drain,
)  # fmt: skip

# Those that are answered, by a response or an error with their id.
REQUESTS: tuple[type[Message], ...] = (Auth, Subscribe, Unsubscribe, Publish, Command, Query)

# The fields that hold anybody's data: null is a value there. Elsewhere it means absent.
DATA_FIELDS = frozenset({"data", "payload", "credentials", "details", "info"})


def milliseconds(seconds: float | None) -> int | None:
    """A duration as it goes over the wire."""
    return None if seconds is None else int(seconds * 1000)


def error_message(
    request_id: RequestId | None, error: RequestError, channel: str | None = None
) -> Error:
    """The message that makes the other side raise ``error``."""
    return Error(
        request_id,
        error.code,
        error.name,
        error.message,
        error.temporary,
        error.outcome,
        milliseconds(error.retry_after),
        error.details,
        channel,
    )
