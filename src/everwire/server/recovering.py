"""Sending history to a subscription until it is where its channel is.

New subscriptions, readers that were too slow and holes all go this way: a page at a time, as
the reader can take it; and when the last message that the hub knows of is reached, the
subscription joins live, in one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..brokers.base import Record
from ..errors import BrokerUnavailable
from ..hub.filters import ReaderFilter, after
from ..hub.patterns import Pattern
from ..hub.registry import Subscription
from ..protocol import messages as m
from ..protocol.positions import NOWHERE
from ..protocol.states import ConnectionState, SubscriptionState

if TYPE_CHECKING:
    from ..hub.backlog import Backlog
    from .connection import Connection
    from .node import Node

RETRY = 0.5  # seconds between tries to read history while the broker does not answer
ALIVE = (ConnectionState.AUTHENTICATING, ConnectionState.READY)


def has_room(connection: Connection) -> bool:
    """Whether a page of history may be sent at once; if not, it is read again when it may.

    Many requests that are answered in one turn must not fill memory before the first write.
    """
    waiting = sum(map(len, connection.out or ()))
    return not connection.paused and waiting < connection.node.limits.write_low


def push(connection: Connection, subscription: Subscription, records: Sequence[Record]) -> None:
    """Send messages out of history, as they would have been sent live."""
    if not records:
        return
    channel = subscription.channel
    lane = channel.lanes.get(connection.wire) or channel.make_lane(connection.wire)
    last = records[-1]
    if subscription.filter is not None:
        records = _passing(subscription, subscription.filter, records)
    if records:
        connection.queue(b"".join([lane.frame(record) for record in records]))
        connection.node.hub.delivered(len(records))
    subscription.move(m.Position(last.epoch, last.offset, last.id))


def _passing(
    subscription: Subscription, chosen: ReaderFilter, records: Sequence[Record]
) -> Sequence[Record]:
    """Those of the messages that the reader may have, each as the one after the one before."""
    passing: list[Record] = []
    for record in records:
        if chosen.passes(record):
            passing.append(after(record, subscription.sent))
            subscription.sent = record.offset
    return passing


def send_gap(
    connection: Connection,
    subscription: Subscription,
    start: m.Position,
    reason: str,
    asked: m.Position,
) -> None:
    """Tell that what is between ``asked`` and ``start`` is missing."""
    channel = subscription.channel
    subscription.sent = start.offset
    connection.node.count("gaps")
    if isinstance(channel, Pattern):  # its numbers are nobody's business
        asked, start = NOWHERE, NOWHERE
    connection.send(
        m.GapNotice(
            channel.sid,
            start.epoch,
            start.offset,
            start.id,
            reason,
            asked.offset if asked.epoch == start.epoch and start.epoch else None,
            None if connection.dialect.acknowledges else channel.name,
        )
    )


def settle(node: Node, connection: Connection, subscription: Subscription) -> None:
    """Join live if the channel's last message is reached; otherwise read on."""
    if not connection.paused and node.hub.join(subscription):
        connection.behind.pop(subscription, None)
    else:
        recover(node, connection, subscription)


def recover(node: Node, connection: Connection, subscription: Subscription) -> None:
    """Have a subscription sent what follows its position, as the reader can take it."""
    if connection.state not in ALIVE:
        return
    connection.behind = connection.behind or {}
    connection.behind[subscription] = None
    if not connection.catching_up:
        connection.catching_up = True
        node.count("catch_ups")
        node.tasks.start(_catch_up(node, connection), "catch-up")


async def _catch_up(node: Node, connection: Connection) -> None:
    """Send pages of history to a connection, one task for all its subscriptions."""
    try:
        while connection.behind and connection.state in ALIVE:
            await connection.writable()
            for subscription in list(connection.behind):
                await _catch_up_one(node, connection, subscription)
                await asyncio.sleep(0)  # let it be written, and the buffer be measured
                if connection.paused:
                    break
    finally:
        connection.catching_up = False


async def _catch_up_one(node: Node, connection: Connection, subscription: Subscription) -> None:
    channel, position = subscription.channel, subscription.position
    if subscription.backlog is not None:
        _push_backlog(node, connection, subscription, subscription.backlog)
        return
    try:
        page = await node.broker.read(
            channel.key,
            position,
            limit=node.limits.page,
            limit_bytes=node.limits.write_low,
            options=channel.options,
        )
    except BrokerUnavailable:
        node.broker_failed()
        await asyncio.sleep(RETRY)
        return
    if subscription.state is not SubscriptionState.RECOVERING:
        connection.behind.pop(subscription, None)
        return
    node.hub.learn(channel, page.top)
    if connection.paused:
        return  # meanwhile; it is read again
    # Of a place that it was told without an id, for want of the message, nobody can say more.
    if not page.recovered and page.start != position:
        lost = "slow" if channel.options.history > 0 else "dropped"
        reason = lost if page.reason == "expired" else page.reason
        send_gap(connection, subscription, page.start, reason, position)
        subscription.move(page.start)
    push(connection, subscription, page.records)
    _go_on(node, connection, subscription)


def _push_backlog(
    node: Node, connection: Connection, subscription: Subscription, backlog: Backlog
) -> None:
    """Send what was kept of a channel without history, and what of it was not."""
    records = backlog.take(node.limits.page, node.limits.write_low)
    if not records:
        asked, start = subscription.position, backlog.resume()
        if start.epoch != asked.epoch or start.offset > asked.offset:
            reason = "dropped" if start.epoch == asked.epoch else "epoch"
            send_gap(connection, subscription, start, reason, asked)
            subscription.move(start)
        records = backlog.take(node.limits.page, node.limits.write_low)
    push(connection, subscription, records)
    _go_on(node, connection, subscription)


def _go_on(node: Node, connection: Connection, subscription: Subscription) -> None:
    """Join live, or come here again; whoever is not live has what comes kept, if need be."""
    if node.hub.join(subscription):
        connection.behind.pop(subscription, None)
    else:
        node.hub.keep(subscription)
