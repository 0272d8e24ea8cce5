"""The operations of the HTTP API: what each is called, takes, does and answers."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...brokers import base
from ...protocol.data import from_base64
from .. import contents, reaching
from . import bodies
from .answers import problem_of

if TYPE_CHECKING:
    from ..app import Everwire

Do = Callable[["Everwire", Any, str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One path of the API.

    Attributes:
        path: below the application's root.
        summary: for people.
        takes: the body that is sent.
        gives: the body that is answered with.
        do: does it; takes the application, the body and the idempotency key.
        keyed: it takes an ``Idempotency-Key``.
    """

    path: str
    summary: str
    takes: type[bodies.Request]
    gives: type[bodies.Answer]
    do: Do
    keyed: bool = False


async def _publish(wire: Everwire, body: bodies.Publish, key: str) -> bodies.Published:
    published = await contents.publish(
        wire.node,
        body.channel,
        _data(body),
        message_id=body.id or key,
        tenant=body.tenant,
        publisher=body.publisher,
    )
    return bodies.Published(position=published.position, duplicate=published.duplicate)


async def _broadcast(wire: Everwire, body: bodies.Broadcast, key: str) -> bodies.BroadcastResults:
    outcomes = await contents.broadcast(
        wire.node,
        body.channels,
        _data(body),
        message_id=body.id or key,
        tenant=body.tenant,
        publisher=body.publisher,
    )
    return bodies.BroadcastResults(results=[_result(*each) for each in outcomes.items()])


def _result(channel: str, outcome: Any) -> bodies.BroadcastResult:
    if isinstance(outcome, base.Published):
        return bodies.BroadcastResult(
            channel=channel, position=outcome.position, duplicate=outcome.duplicate
        )
    return bodies.BroadcastResult(channel=channel, error=problem_of(outcome))


def _data(body: bodies.Publish | bodies.Broadcast) -> Any:
    return body.data if body.encoding is None else from_base64(body.data)


async def _history(wire: Everwire, body: bodies.History, _key: str) -> bodies.HistoryPage:
    page = await wire.history(body.channel, limit=body.limit, since=body.since, tenant=body.tenant)
    return bodies.HistoryPage(
        epoch=page.top.epoch,
        messages=[_stored(record) for record in page.records],
        top=page.top,
        recovered=page.recovered,
        complete=page.complete,
    )


def _stored(record: base.Record) -> bodies.StoredMessage:
    data = record.data
    binary = isinstance(data, bytes)
    return bodies.StoredMessage(
        offset=record.offset,
        id=record.id,
        time=record.time,
        data=base64.b64encode(data).decode() if binary else data,
        encoding="base64" if binary else None,
        publisher=record.publisher,
    )


async def _presence(wire: Everwire, body: bodies.Presence, _key: str) -> bodies.PresenceList:
    found = await contents.presence(wire.node, body.channel, tenant=body.tenant)
    return bodies.PresenceList(members=found.members, count=found.count)


async def _disconnect(wire: Everwire, body: bodies.Disconnect, _key: str) -> bodies.Disconnected:
    reaching.check_close_code(body.code)
    found = await wire.disconnect(body.user, code=body.code, reason=body.reason, tenant=body.tenant)
    return bodies.Disconnected(connections=found)


async def _unsubscribe(wire: Everwire, body: bodies.Unsubscribe, _key: str) -> bodies.Unsubscribed:
    found = await wire.unsubscribe(body.user, body.channel, code=body.code, tenant=body.tenant)
    return bodies.Unsubscribed(subscriptions=found)


OPERATIONS = (
    Operation(
        "/api/publish",
        "Publish to a channel",
        bodies.Publish,
        bodies.Published,
        _publish,
        keyed=True,
    ),
    Operation(
        "/api/broadcast",
        "Publish the same to many channels; each has a result of its own",
        bodies.Broadcast,
        bodies.BroadcastResults,
        _broadcast,
        keyed=True,
    ),
    Operation(
        "/api/history",
        "Read a channel's messages, the oldest first",
        bodies.History,
        bodies.HistoryPage,
        _history,
    ),
    Operation(
        "/api/presence",
        "List who is present in a channel",
        bodies.Presence,
        bodies.PresenceList,
        _presence,
    ),
    Operation(
        "/api/disconnect",
        "Close all connections of a user",
        bodies.Disconnect,
        bodies.Disconnected,
        _disconnect,
    ),
    Operation(
        "/api/unsubscribe",
        "End a user's subscriptions to a channel",
        bodies.Unsubscribe,
        bodies.Unsubscribed,
        _unsubscribe,
    ),
)
