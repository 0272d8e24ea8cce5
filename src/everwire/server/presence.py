"""Who is in a channel: joining, being shown, and telling those who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..brokers.base import PresenceChange
from ..hub.registry import Channel, Subscription
from ..protocol import messages as m
from ..protocol.data import plain_data
from ..protocol.states import SubscriptionState
from .access import shown_info

if TYPE_CHECKING:
    from .access import Channelled
    from .connection import Connection
    from .node import Node

_LIVE = (SubscriptionState.RECOVERING, SubscriptionState.SUBSCRIBED)


async def appear(
    node: Node,
    connection: Connection,
    granted: Channelled,
    subscription: Subscription,
    instead: str | None,
) -> None:
    """Make the connection present, unless it left meanwhile."""
    if subscription.state is SubscriptionState.UNSUBSCRIBED:
        return
    info = shown_info(connection, granted)
    member = m.Member(connection.id, connection.user, plain_data(info))
    await node.broker.presence_add(granted.key, member, connection.instance, instead)


async def show_presence(node: Node, connection: Connection, subscription: Subscription) -> None:
    """Send who is present, and from now on who comes and goes."""
    channel = subscription.channel
    if subscription.state in _LIVE:
        channel.watchers[connection] = subscription
    members = await node.broker.presence(channel.key, node.limits.presence_members)
    if subscription.state in _LIVE:
        connection.send(m.Presence(channel.sid, True, list(members.members), [], members.count))


def tell_presence(channel: Channel, change: PresenceChange) -> None:
    """Send who came and went to those who want to know; encoded once for each dialect."""
    encoded: dict[object, bytes] = {}
    for reader, subscription in channel.watchers.items():
        if reader.paused:  # it is sent the whole when it can take it
            missed = reader.presence_missed = reader.presence_missed or {}  # type: ignore[attr-defined]
            missed[subscription] = None
            continue
        dialect = reader.wire.dialect
        payload = encoded.get(dialect)
        if payload is None:
            joined, left = list(change.joined), list(change.left)
            message = m.Presence(channel.sid, False, joined, left, change.count)
            payload = encoded[dialect] = dialect.encode(message)
        if payload:
            reader.send_payload(payload)  # type: ignore[attr-defined]
