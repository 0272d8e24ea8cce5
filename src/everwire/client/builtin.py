"""The queries that every node answers: a channel's history and state, and who is present."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..errors import BadData
from ..protocol.data import from_base64
from ..protocol.messages import Member, Position
from ..protocol.positions import Snapshot
from .items import Message


class ChannelPresence(msgspec.Struct, frozen=True):
    """Who is present in a channel.

    Attributes:
        members: the connections, as many as the server lists.
        count: how many there are.
    """

    members: list[Member]
    count: int


class _Entry(msgspec.Struct):
    offset: int
    id: str
    time: int
    data: Any
    publisher: str | None = None
    encoding: Literal["base64"] | None = None


class _History(msgspec.Struct):
    epoch: str
    offset: int
    messages: list[_Entry]


def messages_of(channel: str, payload: Any) -> list[Message]:
    """Read the answer to ``everwire.history``.

    Raises:
        BadData: it is none.
    """
    try:
        history = msgspec.convert(payload, _History)
    except msgspec.ValidationError as error:
        raise BadData(f"the answer to everwire.history is none: {error}") from None
    return [
        Message(
            channel,
            from_base64(entry.data) if entry.encoding else entry.data,
            Position(history.epoch, entry.offset, entry.id),
            entry.id,
            entry.time / 1000,
            entry.publisher,
        )
        for entry in history.messages
    ]


class _State(msgspec.Struct):
    epoch: str
    offset: int
    id: str
    data: Any
    encoding: Literal["base64"] | None = None


def state_of(channel: str, payload: Any) -> Snapshot:
    """Read the answer to ``everwire.state``.

    Raises:
        BadData: it is none.
    """
    try:
        state = msgspec.convert(payload, _State)
    except msgspec.ValidationError as error:
        raise BadData(f"the answer to everwire.state is none: {error}") from None
    data = from_base64(state.data) if state.encoding else state.data
    return Snapshot(data, Position(state.epoch, state.offset, state.id), channel)


def presence_of(payload: Any) -> ChannelPresence:
    """Read the answer to ``everwire.presence``.

    Raises:
        BadData: it is none.
    """
    try:
        return msgspec.convert(payload, ChannelPresence)
    except msgspec.ValidationError as error:
        raise BadData(f"the answer to everwire.presence is none: {error}") from None
