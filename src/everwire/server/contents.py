"""What a node does with a channel for the application itself: it asks nobody's permission."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..brokers.base import Members, Page, Publication, Published, PublishOutcome
from ..codes import ErrorCode
from ..errors import BrokerUnavailable, RequestError
from ..protocol.channels import channel_key
from ..protocol.data import plain_data
from .publishing import payload_of

if TYPE_CHECKING:
    from .node import Node
    from .rules import ChannelRule

SERVER_SCOPE = "\x00server"  # no user can have this name: ids of ours never meet theirs


async def publish(
    node: Node,
    channel: str,
    data: Any,
    *,
    message_id: str = "",
    tenant: str = "",
) -> Published:
    """See :meth:`everwire.Everwire.publish`."""
    rule = _rule(node, channel)
    answer: asyncio.Future[PublishOutcome] = asyncio.get_running_loop().create_future()

    def done(outcome: PublishOutcome) -> None:
        if not answer.done():
            answer.set_result(outcome)

    publication = Publication(
        channel_key(tenant, channel),
        message_id,
        payload_of(plain_data(data), node.limits.message),
        SERVER_SCOPE,
        options=rule.options,
    )
    outcome = node.broker.publish(publication, done)
    if outcome is None:
        outcome = await answer
    if not isinstance(outcome, Published):
        if isinstance(outcome, BrokerUnavailable):
            node.broker_failed()
        raise outcome
    return outcome


async def history(node: Node, channel: str, *, limit: int, tenant: str = "") -> Page:
    """See :meth:`everwire.Everwire.history`."""
    rule = _rule(node, channel)
    return await node.broker.latest(channel_key(tenant, channel), limit=limit, options=rule.options)


async def presence(node: Node, channel: str, *, tenant: str = "") -> Members:
    """See :meth:`everwire.Everwire.presence`; also how many there are."""
    return await node.broker.presence(channel_key(tenant, channel), node.limits.presence_members)


def _rule(node: Node, channel: str) -> ChannelRule:
    rule = node.access.place(channel).rule
    if rule is None:
        raise RequestError(f"there is no channel {channel!r}", code=ErrorCode.BAD_CHANNEL)
    return rule
