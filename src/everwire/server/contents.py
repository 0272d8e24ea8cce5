"""What a node does with a channel for the application itself: it asks nobody's permission."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..brokers.base import Members, Page, Publication, Published, PublishOutcome
from ..errors import BrokerUnavailable, ConfigError, RequestError
from ..limits import MAX_ID, MiB
from ..protocol.channels import channel_key
from ..protocol.data import plain_data
from ..protocol.messages import Position
from .publishing import payload_of

if TYPE_CHECKING:
    from .node import Node

SERVER_SCOPE = "\x00server"  # no user can have this name: ids of ours never meet theirs
HISTORY_BYTES = 16 * MiB  # of payload in one page that the application reads
AT_A_TIME = 64  # channels of a broadcast until others get their turn


async def publish(
    node: Node,
    channel: str,
    data: Any,
    *,
    message_id: str = "",
    tenant: str = "",
    publisher: str | None = None,
) -> Published:
    """See :meth:`everwire.Everwire.publish`."""
    _check_id(message_id)
    payload = payload_of(plain_data(data), node.limits.message)
    return await _publish(node, tenant, channel, payload, message_id, publisher)


async def broadcast(
    node: Node,
    channels: Iterable[str],
    data: Any,
    *,
    message_id: str = "",
    tenant: str = "",
    publisher: str | None = None,
) -> dict[str, Published | RequestError | BrokerUnavailable]:
    """See :meth:`everwire.Everwire.broadcast`."""
    if isinstance(channels, str):
        raise ConfigError("broadcast takes several channels: for one there is publish()")
    _check_id(message_id)
    payload = payload_of(plain_data(data), node.limits.message)
    outcomes: dict[str, Published | RequestError | BrokerUnavailable] = {}
    for count, channel in enumerate(dict.fromkeys(channels), 1):
        try:
            outcome = await _publish(node, tenant, channel, payload, message_id, publisher)
        except (RequestError, BrokerUnavailable) as error:
            outcomes[channel] = error
        else:
            outcomes[channel] = outcome
        if count % AT_A_TIME == 0:
            await asyncio.sleep(0)
    return outcomes


async def _publish(
    node: Node,
    tenant: str,
    channel: str,
    payload: bytes,
    message_id: str,
    publisher: str | None,
) -> Published:
    publication = Publication(
        channel_key(tenant, channel),
        message_id,
        payload,
        SERVER_SCOPE,
        publisher,
        options=node.access.rule_of(channel).options,
    )
    answer: asyncio.Future[PublishOutcome] = asyncio.get_running_loop().create_future()

    def done(outcome: PublishOutcome) -> None:
        if not answer.done():
            answer.set_result(outcome)

    outcome = node.broker.publish(publication, done)
    if outcome is None:
        outcome = await answer
    if not isinstance(outcome, Published):
        if isinstance(outcome, BrokerUnavailable):
            node.broker_failed()
        raise outcome
    return outcome


async def history(
    node: Node,
    channel: str,
    *,
    limit: int,
    since: Position | None = None,
    tenant: str = "",
) -> Page:
    """See :meth:`everwire.Everwire.history`."""
    options, key, limit = (
        node.access.rule_of(channel).options,
        channel_key(tenant, channel),
        max(0, limit),
    )
    if since is None:
        return await node.broker.latest(key, limit=limit, options=options)
    return await node.broker.read(
        key, since, limit=max(1, limit), limit_bytes=HISTORY_BYTES, options=options
    )


async def presence(node: Node, channel: str, *, tenant: str = "") -> Members:
    """See :meth:`everwire.Everwire.presence`; also how many there are."""
    node.access.rule_of(channel)
    return await node.broker.presence(channel_key(tenant, channel), node.limits.presence_members)


def _check_id(message_id: str) -> None:
    if len(message_id) > MAX_ID:
        raise ConfigError(f"a message's id may have {MAX_ID} characters, not {len(message_id)}")
