"""What is sent to the HTTP API and what it answers: these validate, and these are documented.

Names and units are those of the protocol: camelCase, milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...codes import CloseCode, ErrorCode
from ...limits import MAX_CHANNEL, MAX_ID, MAX_USER
from ...protocol.messages import Member, Position

MAX_CHANNELS = 1_000  # of one broadcast
MAX_HISTORY = 1_000  # messages of one answer

ChannelName = Annotated[str, Meta(min_length=1, max_length=MAX_CHANNEL, examples=["chat:lobby"])]
Data = Annotated[Any, Meta(description="any JSON; with `encoding`, text in base64")]
MessageId = Annotated[
    str,
    Meta(max_length=MAX_ID, description="the same id again within five minutes has no effect"),
]
Encoding = Annotated[Literal["base64"] | None, Meta(description="`data` means the bytes")]
# A control character keeps a tenant apart from a channel: none may come from outside.
Tenant = Annotated[str, Meta(max_length=MAX_CHANNEL, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]
UserName = Annotated[str, Meta(min_length=1, max_length=MAX_CHANNEL, examples=["ada"])]
Publisher = Annotated[
    Annotated[str, Meta(max_length=MAX_USER)] | None,
    Meta(description="the user whom readers are told to have published it"),
]


class Request(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A body that is sent; what is not known is refused, for it may be a slip of the pen."""


class Answer(msgspec.Struct, rename="camel", kw_only=True):
    """A body that is answered with."""


class Publish(Request):
    channel: ChannelName
    data: Data
    encoding: Encoding = None
    id: MessageId = ""
    publisher: Publisher = None
    tenant: Tenant = ""


class Published(Answer):
    position: Position
    duplicate: bool


class Broadcast(Request):
    channels: Annotated[list[ChannelName], Meta(min_length=1, max_length=MAX_CHANNELS)]
    data: Data
    encoding: Encoding = None
    id: MessageId = ""
    publisher: Publisher = None
    tenant: Tenant = ""


class Problem(Answer):
    """Why something was refused: an error of the protocol."""

    code: int
    name: str
    message: str
    temporary: Annotated[bool, Meta(description="the same may succeed later")]
    outcome: Annotated[
        Literal["none", "unknown"], Meta(description="`unknown`: it may have happened")
    ] = "none"
    retry_after: Annotated[int | None, Meta(description="milliseconds to wait first")] = None


class BroadcastResult(Answer):
    """What became of one channel: `position` and `duplicate`, or `error`."""

    channel: str
    position: Position | None = None
    duplicate: bool = False
    error: Problem | None = None


class BroadcastResults(Answer):
    results: Sequence[BroadcastResult]


class History(Request):
    channel: ChannelName
    limit: Annotated[int, Meta(ge=1, le=MAX_HISTORY)] = 100
    since: Annotated[
        Position | None, Meta(description="the first ones after this, instead of the last ones")
    ] = None
    tenant: Tenant = ""


class StoredMessage(Answer):
    offset: int
    id: str
    time: Annotated[int, Meta(description="milliseconds since 1970")]
    data: Data
    encoding: Encoding = None
    publisher: str | None = None


class HistoryPage(Answer):
    epoch: Annotated[str, Meta(description="of all offsets")]
    messages: Sequence[StoredMessage]
    top: Annotated[Position, Meta(description="the last message of the channel")]
    recovered: Annotated[bool, Meta(description="nothing is missing after `since`")]
    complete: Annotated[bool, Meta(description="there are no more after these")]


class Presence(Request):
    channel: ChannelName
    tenant: Tenant = ""


class PresenceList(Answer):
    members: Sequence[Member]
    count: Annotated[int, Meta(description="of all members; the list may be shorter")]


class Disconnect(Request):
    user: UserName
    code: Annotated[
        int, Meta(description="clients stay away after 4500 to 4999, come back after 4000 to 4499")
    ] = CloseCode.DISCONNECTED.value
    reason: Annotated[str, Meta(max_length=123)] = ""
    tenant: Tenant = ""


class Disconnected(Answer):
    connections: Annotated[int, Meta(description="that were open")]


class Unsubscribe(Request):
    user: UserName
    channel: ChannelName
    code: Annotated[int, Meta(description="the error by which the subscription ends")] = (
        ErrorCode.FORBIDDEN.value
    )
    tenant: Tenant = ""


class Unsubscribed(Answer):
    subscriptions: Annotated[int, Meta(description="that there were")]


class Health(Answer):
    status: Literal["ok", "draining", "broker_failing", "stopped"]
