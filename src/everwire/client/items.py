"""What a subscription hands to the application."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from ..protocol.messages import ChannelMessage, Position
from ..protocol.positions import Snapshot


class Message(msgspec.Struct, frozen=True):
    """A message of a channel.

    Attributes:
        channel: the channel's name, also where the subscription is to several: ``chat:*``.
        data: what was published.
        position: its place in the channel; None in a dialect without positions, and in a
            subscription to several.
        id: the message's id, the same for every reader.
        time: when the server took it, in seconds since 1970.
        publisher: the user who published it, where the server says so.
    """

    channel: str
    data: Any
    position: Position | None
    id: str = ""
    time: float = 0.0
    publisher: str | None = None


def message_at(position: Position | None, channel: str, message: ChannelMessage) -> Message:
    """What the application is handed for a message that came."""
    return Message(
        channel, message.data, position, message.id, message.time / 1000, message.publisher
    )


class Gap(msgspec.Struct, frozen=True):
    """Messages are missing here, and cannot be had any more.

    Attributes:
        channel: the channel's name.
        reason: ``expired`` (older than the history), ``epoch`` (the numbering began anew),
            ``slow`` or ``dropped`` (lost on the way, without a history to make up for it).
        position: where delivery goes on; None in a dialect without positions.
        from_: the offset behind which the gap begins, where it is known.
    """

    channel: str
    reason: str
    position: Position | None
    from_: int | None = None


Item: TypeAlias = Message | Gap | Snapshot
