"""Publishing: from a client's message to the broker's acknowledgement.

Rule 2 of the delivery contract: a publisher's messages of a channel take effect in the
order of the calls. So while one of them waits for anything, the later ones of that
channel wait behind it; and when one failed for the moment, those that were pipelined
behind it are refused as ``held``, until the client sends them again with a higher run.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from ..brokers.base import Publication, Published, PublishOutcome
from ..codes import ErrorCode
from ..errors import BadData, BrokerUnavailable, Forbidden, RequestError
from ..protocol import messages as m
from ..protocol.data import check_data, pack_data
from .access import Channelled

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

_json = msgspec.json.Encoder()
WORST_GROWTH = 6  # a byte of packed data makes at most six of JSON (\u0000)


class Publishing:
    """What a connection's publishes need to know of each other; made for the first one."""

    __slots__ = ("failed_runs", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, list[tuple[m.RequestId, m.Publish]]] = {}
        """publishes of channels that the rule's handler is being asked about"""
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
            raise RequestError(str(error), code=ErrorCode.BAD_REQUEST) from None
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
            if channelled is not None:
                _publish(node, connection, message, channelled)
                return
            waiting = _publishing(connection).waiting[message.channel] = []
            node.tasks.start(_ask(node, connection, message.channel, waiting), "authorise")
        key = message.id or connection.internal_id()
        connection.begin(key, None)
        waiting.append((key, message))
    except RequestError as error:
        refuse_publish(connection, message, error)


async def _ask(
    node: Node,
    connection: Connection,
    channel: str,
    waiting: list[tuple[m.RequestId, m.Publish]],
) -> None:
    """Ask the rule's handler, then publish what has gathered meanwhile, in order."""
    channelled: Channelled | None = None
    failure = RequestError(code=ErrorCode.INTERNAL)
    try:
        channelled = await node.access.ask(connection, channel)
    except RequestError as error:
        failure = error
    except Exception:
        node.log_defect(f"the handler of channel {channel!r}", "a channel's handler")
    finally:
        if connection.publishing is not None:  # otherwise it was closed
            connection.publishing.waiting.pop(channel, None)
    for key, message in waiting:
        connection.end(key)
        try:
            if channelled is None:
                raise failure
            _publish(node, connection, message, channelled)
        except RequestError as error:
            refuse_publish(connection, message, error)


def _publish(
    node: Node, connection: Connection, message: m.Publish, channelled: Channelled
) -> None:
    """Hand a message to the broker.

    Raises:
        RequestError: it is refused before that.
    """
    if not channelled.grant.publish:
        raise Forbidden(f"not allowed to publish to {message.channel!r}")
    if connection.publishing is not None and connection.publishing.failed_runs:
        _check_run(connection.publishing.failed_runs, message)
    payload = payload_of(message.data, node.limits.message)
    message_id, user = message.id, connection.identity.user
    key = message_id or connection.internal_id()
    outcome = node.broker.publish(
        Publication(
            channelled.key,
            message_id,
            payload,
            user or (_scope_of(payload) if message_id else ""),
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

    With what is published in the scope, a resent message still finds itself, and nobody
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
