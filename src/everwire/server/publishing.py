"""Publishing: from a client's message to the broker's acknowledgement.

Rule 2 of the delivery contract: a publisher's messages of a channel take effect in the
order of the calls. So while one of them waits for anything, the later ones of that
channel wait behind it; and when one failed for the moment, those that were pipelined
behind it are refused as ``held``, until the client sends them again with a higher run.
What waits was received: it is published even if its connection ends meanwhile.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from ..brokers.base import Publication, Published, PublishOutcome
from ..codes import ErrorCode
from ..errors import BadData, BrokerUnavailable, Forbidden, RequestError
from ..protocol import messages as m
from ..protocol.data import check_data, pack_data, plain_data
from .access import Channelled
from .handlers import refusal

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

_json = msgspec.json.Encoder()
WORST_GROWTH = 6  # a byte of packed data makes at most six of JSON (\u0000)


Waiting: TypeAlias = deque[tuple[m.RequestId, m.Publish]]


class Publishing:
    """What a connection's publishes need to know of each other; made for the first one."""

    __slots__ = ("failed_runs", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}
        """publishes of channels about which the application is being asked"""
        self.failed_runs: dict[str, int] = {}
        """channels whose publishes of this run and before are held"""


def _publishing(connection: Connection) -> Publishing:
    if connection.publishing is None:
        connection.publishing = Publishing()
    return connection.publishing


def payload_of(data: object, limit: int) -> bytes:
    """Check and pack a payload.

    Raises:
        RequestError: it is not allowed, or too big for readers of JSON.
    """
    if type(data) is not str:
        try:
            check_data(data)
        except BadData as error:
            raise refusal(error) from None
    packed = pack_data(data)
    if len(packed) * WORST_GROWTH > limit and len(_json.encode(data)) > limit:
        raise RequestError(f"as JSON the data has more than {limit} bytes", code=ErrorCode.TOO_BIG)
    return packed


def on_publish(node: Node, connection: Connection, message: m.Publish) -> None:
    """Handle a client's ``publish``."""
    if connection.inflight and message.id in connection.inflight:
        node.violation(connection, f"the id {message.id!r} is in flight")
        return
    publishing = connection.publishing
    waiting = publishing.waiting.get(message.channel) if publishing is not None else None
    try:
        if waiting is None:
            channelled = connection.channels.get(message.channel) or node.access.known(
                connection, message.channel
            )
            if channelled is not None and channelled.filter is None:
                _publish(node, connection, message, channelled)
                return
            waiting = _publishing(connection).waiting[message.channel] = deque()
            node.tasks.start(_work(node, connection, message.channel, waiting), "publish")
        key = message.id or connection.internal_id()
        connection.begin(key, None)
        waiting.append((key, message))
    except RequestError as error:
        refuse_publish(connection, message, error)


async def _work(node: Node, connection: Connection, channel: str, waiting: Waiting) -> None:
    """Publish what waits, in order, for as long as anything does."""
    publishing = connection.publishing
    try:
        while waiting:
            channelled, failure = await _ask(node, connection, channel)
            if channelled is not None and channelled.filter is not None:
                await _publish_filtered(node, connection, *waiting.popleft(), channelled)
                continue
            while waiting:  # what comes from now on need not wait
                key, message = waiting.popleft()
                connection.end(key)
                try:
                    if channelled is None:
                        raise failure
                    _publish(node, connection, message, channelled)
                except RequestError as error:
                    refuse_publish(connection, message, error)
    finally:
        if publishing is not None:
            publishing.waiting.pop(channel, None)


async def _ask(
    node: Node, connection: Connection, channel: str
) -> tuple[Channelled | None, RequestError]:
    """What the connection is granted, or else why not."""
    failure = RequestError(code=ErrorCode.INTERNAL)
    try:
        return await node.access.ask(connection, channel), failure
    except RequestError as error:
        failure = error
    except Exception:
        node.log_defect(f"the handler of channel {channel!r}", "a channel's handler")
    return None, failure


async def _publish_filtered(
    node: Node,
    connection: Connection,
    key: m.RequestId,
    message: m.Publish,
    channelled: Channelled,
) -> None:
    """Publish what the application makes of a message, unless it refuses."""
    assert channelled.filter is not None
    try:
        _check_publish(connection, message, channelled)
        sent = payload_of(message.data, node.limits.message)
        data = await channelled.filter.call(connection, message.data)
        payload = sent if data is None else payload_of(plain_data(data), node.limits.message)
        connection.end(key)
        _publish(node, connection, message, channelled, payload, sent)
        return
    except RequestError as error:
        refused = error
    except Exception:
        node.log_defect(f"on_publish for {channelled.name!r}", "on_publish")
        refused = RequestError(code=ErrorCode.INTERNAL)
    connection.end(key)
    refuse_publish(connection, message, refused)


def _check_publish(connection: Connection, message: m.Publish, channelled: Channelled) -> None:
    """Raise :exc:`RequestError` if the message is refused whatever it says."""
    if not channelled.grant.publish:
        raise Forbidden(f"not allowed to publish to {message.channel!r}")
    if connection.publishing is not None and connection.publishing.failed_runs:
        _check_run(connection.publishing.failed_runs, message)


def _publish(
    node: Node,
    connection: Connection,
    message: m.Publish,
    channelled: Channelled,
    payload: bytes | None = None,
    sent: bytes | None = None,
) -> None:
    """Hand a message to the broker: as it was sent, or with another payload.

    Raises:
        RequestError: it is refused before that.
    """
    if connection.publishing is not None or not channelled.grant.publish:
        _check_publish(connection, message, channelled)
    if payload is None:
        payload = payload_of(message.data, node.limits.message)
    message_id, user = message.id, connection.identity.user
    key = message_id or connection.internal_id()
    outcome = node.broker.publish(
        Publication(
            channelled.key,
            message_id,
            payload,
            user or (_scope_of(sent or payload) if message_id else ""),
            user or None,
            None,
            channelled.options,
        ),
        partial(_done, node, connection, key, message),
    )
    if outcome is None:
        connection.begin(key, None)
    else:
        _answer(connection, message, outcome)


def _check_run(failed_runs: dict[str, int], message: m.Publish) -> None:
    failed = failed_runs.get(message.channel)
    if failed is not None:
        if message.run <= failed:
            raise RequestError(code=ErrorCode.HELD)
        del failed_runs[message.channel]


def _scope_of(payload: bytes) -> str:
    """Whose ids an anonymous client's are: they can be guessed by other anonymous ones.

    With what it sent in the scope, a resent message still finds itself, and nobody
    can take an id away from a message with other data.
    """
    return "\x00" + blake2b(payload, digest_size=8).hexdigest()


def _done(
    node: Node,
    connection: Connection,
    key: m.RequestId,
    message: m.Publish,
    outcome: PublishOutcome,
) -> None:
    """The broker's answer came later."""
    connection.end(key)
    _answer(connection, message, outcome)


def _answer(connection: Connection, message: m.Publish, outcome: PublishOutcome) -> None:
    if isinstance(outcome, Published):
        tally = connection.node.tally
        tally.published += 1
        if outcome.duplicate:
            tally.duplicates += 1
        if message.id:
            position = outcome.position
            connection.send_payload(
                connection.dialect.encode_published(
                    message.id, position.epoch, position.offset, outcome.duplicate
                )
            )
        return
    if isinstance(outcome, BrokerUnavailable):
        connection.node.broker_failed()
        outcome = RequestError(str(outcome), code=ErrorCode.UNAVAILABLE, outcome=outcome.outcome)
    refuse_publish(connection, message, outcome)


def refuse_publish(connection: Connection, message: m.Publish, error: RequestError) -> None:
    """Refuse a publish; if only for now, those behind it are held."""
    if error.temporary or error.outcome == "unknown":
        publishing = _publishing(connection)
        failed = publishing.failed_runs.get(message.channel, -1)
        publishing.failed_runs[message.channel] = max(failed, message.run)
        if len(publishing.failed_runs) > connection.node.limits.subscriptions:
            del publishing.failed_runs[next(iter(publishing.failed_runs))]
    connection.refuse(message.id or None, error, message.channel)
