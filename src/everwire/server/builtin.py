"""The built-in queries: ``everwire.history``, ``everwire.presence`` and ``everwire.state``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import BadRequest, Forbidden
from ..protocol import messages as m
from ..protocol.data import plain_data, unpack_data
from ..protocol.positions import Snapshot
from .access import filter_of
from .turns import Turn

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

MAX_HISTORY = 1_000

_json = msgspec.json.Encoder()


class HistoryQuery(msgspec.Struct):
    """The payload of ``everwire.history``."""

    channel: str
    limit: int = 100
    since: m.Position | None = None


class ChannelQuery(msgspec.Struct):
    """The payload of ``everwire.presence`` and ``everwire.state``."""

    channel: str


def _arguments(payload: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None


async def _history(node: Node, connection: Connection, message: m.Query) -> Any:
    query = _arguments(message.payload, HistoryQuery)
    granted = await node.access.ask(connection, query.channel)
    if not (granted.grant.subscribe and granted.grant.history):
        raise Forbidden(f"not allowed to read {query.channel!r}")
    limit = max(1, min(query.limit, MAX_HISTORY))
    size = node.limits.message // 2
    if query.since is not None:
        page = await node.broker.read(
            granted.key, query.since, limit=limit, limit_bytes=size, options=granted.options
        )
    else:
        page = await node.broker.latest(granted.key, limit=limit, options=granted.options)
    messages: list[dict[str, Any]] = []
    chosen = filter_of(node, granted)
    # Of those after a position the first, otherwise the last that fit into a message.
    for record in page.records if query.since is not None else reversed(page.records):
        if chosen is not None and not chosen.passes(record):
            continue
        entry = {"offset": record.offset, "id": record.id, "time": record.time}
        entry.update(_data(unpack_data(record.payload)))
        if record.publisher is not None:
            entry["publisher"] = record.publisher
        size -= len(_json.encode(entry))
        if size < 0 and messages:
            break
        messages.append(entry)
        await asyncio.sleep(0)  # a large one takes its time: let others have theirs
    if query.since is None:
        messages.reverse()
    top = page.top
    return {
        "epoch": top.epoch,
        "offset": top.offset,
        "id": top.id,
        "messages": messages,
        "recovered": query.since is not None and page.recovered,
    }


def _data(data: Any) -> dict[str, Any]:
    """The fields for data inside of a payload, where bytes cannot stand."""
    if type(data) is bytes:
        return {"data": msgspec.to_builtins(data), "encoding": "base64"}
    return {"data": data}


async def _state(node: Node, connection: Connection, message: m.Query) -> Any:
    """The position first, then the state: nothing is missing after it that is not in it."""
    query = _arguments(message.payload, ChannelQuery)
    granted = await node.access.ask(connection, query.channel)
    if not granted.grant.subscribe:
        raise Forbidden(f"not allowed to read {query.channel!r}")
    placed = node.access.place(query.channel)
    provider = placed.rule.state if placed.rule is not None else None
    if provider is None:
        raise BadRequest(f"the channel {query.channel!r} has no state")
    page = await node.broker.read(
        granted.key, None, limit=1, limit_bytes=1, options=granted.options
    )
    found = await provider.call(connection, provider.arguments(placed.parameters, strict=False))
    if not isinstance(found, Snapshot):
        found = Snapshot(found)
    at = found.position or page.top
    return {"epoch": at.epoch, "offset": at.offset, "id": at.id, **_data(plain_data(found.data))}


async def _presence(node: Node, connection: Connection, message: m.Query) -> Any:
    query = _arguments(message.payload, ChannelQuery)
    granted = await node.access.ask(connection, query.channel)
    if not (granted.grant.subscribe and granted.grant.presence):
        raise Forbidden(f"not allowed to see who is in {query.channel!r}")
    if not granted.presence:
        raise Forbidden(f"the channel {query.channel!r} is declared without presence=True")
    found = await node.broker.presence(granted.key, node.limits.presence_members)
    return {"members": msgspec.to_builtins(found.members), "count": found.count}


Builtin = Callable[["Node", "Connection", m.Query], Coroutine[Any, Any, Any]]


def _one_at_a_time(builtin: Builtin) -> Builtin:
    """What is short to ask and long to answer: the next one waits until this one has room.

    Otherwise as many as may be in flight would be made at once, for a reader that takes none.
    """

    async def wait_and_answer(node: Node, connection: Connection, message: m.Query) -> Any:
        async with Turn(connection, (message.name,)):
            await connection.writable()
            return await builtin(node, connection, message)

    return wait_and_answer


BUILTINS: dict[str, Builtin] = {
    "everwire.history": _one_at_a_time(_history),
    "everwire.presence": _one_at_a_time(_presence),
    "everwire.state": _state,
}
