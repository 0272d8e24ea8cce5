"""Work on requests: each in a task, so many on a node, and answered whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ..codes import ErrorCode
from ..errors import BrokerUnavailable, Outcome, RequestError, RequestTimeout, Unavailable
from ..handling.handlers import Handler
from ..protocol import messages as m
from ..protocol.states import ConnectionState

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

T = TypeVar("T")
Work: TypeAlias = Callable[[], Coroutine[Any, Any, T]]

RETRY_AFTER = 1.0  # seconds that a node asks for which works on as much as it may
FAIR_SHARE = 8  # requests of a connection that are worked on also if the node has much to do


class Slots:
    """What calls of a handler have to acquire, where only so many may run at a time."""

    def __init__(self) -> None:
        self._found: dict[Handler, asyncio.Semaphore] = {}

    def of(self, handler: Handler) -> asyncio.Semaphore | None:
        """The handler's own; None if any number may run."""
        if handler.concurrency is None:
            return None
        found = self._found.get(handler)
        if found is None:
            found = self._found[handler] = asyncio.Semaphore(handler.concurrency)
        return found


def check_room(node: Node, connection: Connection) -> None:
    """Check that the node may begin to work on something more for a connection.

    The second half of the limit is for those who have asked for little: a few connections
    cannot take all of it.

    Raises:
        Unavailable: it works on as much as it may.
    """
    # Commands with a key run on when their caller is gone.
    working, most = max(len(node.working), len(node.commands)), node.limits.handlers
    if working * 2 < most:
        return
    if working < most and len(connection.inflight) + len(connection.streams) < FAIR_SHARE:
        return
    node.count("handlers_full")
    raise Unavailable(
        f"the node works on {working} requests of {most} (limit handlers); later",
        retry_after=RETRY_AFTER,
    )


def start(
    node: Node,
    connection: Connection,
    request_id: m.RequestId,
    work: Work[None],
    name: str,
    *,
    cancellable: bool = True,
    ended: Callable[[], None] | None = None,
) -> None:
    """Work on a request in a task of its own. ``name`` is what the log calls it.

    ``ended`` is called in the end, also where the work never began.

    Who asks for it has looked whether there is room: :func:`check_room`.
    """
    answer_to: m.RequestId | None = request_id
    if request_id == "":  # the plain dialect's channel actions have no id to answer to
        answer_to, request_id = None, connection.internal_id()
    if is_in_flight(node, connection, request_id):
        if ended is not None:
            ended()
        return
    guarded = guard(node, connection, request_id, answer_to, work, name)
    task = node.working.start(guarded, name)
    if ended is not None:
        task.add_done_callback(lambda _: ended())
    connection.begin(request_id, task)
    if not cancellable:
        connection.uncancellable = connection.uncancellable or {}
        connection.uncancellable[request_id] = None


def is_in_flight(node: Node, connection: Connection, request_id: m.RequestId) -> bool:
    """Whether the id is in use: that ends the connection."""
    used = request_id in connection.inflight or request_id in connection.streams
    if used:
        node.violation(connection, f"the id {request_id!r} is in flight")
    return used


async def guard(
    node: Node,
    connection: Connection,
    request_id: m.RequestId,
    answer_to: m.RequestId | None,
    work: Work[None],
    name: str,
) -> None:
    """See to it that a request is answered, whatever happens."""
    try:
        await work()
    except RequestError as error:
        connection.refuse(answer_to, error)
    except asyncio.CancelledError:
        if connection.state is ConnectionState.READY:
            connection.refuse(answer_to, RequestError(code=ErrorCode.CANCELLED))
        raise
    except Exception as error:
        connection.refuse(answer_to, failure(node, error, name))
    finally:
        connection.end(request_id)


def failure(node: Node, error: Exception, name: str, outcome: Outcome = "none") -> RequestError:
    """What a client is told of an exception, which is being handled: never its text."""
    if isinstance(error, RequestTimeout):  # of what the handler asked somebody else
        return RequestError(code=ErrorCode.TIMEOUT, outcome=outcome)
    if isinstance(error, BrokerUnavailable):
        node.broker_failed()
        return RequestError(code=ErrorCode.UNAVAILABLE, outcome=outcome)
    node.log_defect(name)
    return RequestError(code=ErrorCode.INTERNAL, outcome=outcome)


def on_cancel(node: Node, connection: Connection, message: m.Cancel) -> None:
    # Not before it has begun: a task that never ran would leave the request unanswered.
    later = asyncio.get_running_loop().call_soon
    task = connection.inflight.get(message.id)
    if task is not None and message.id not in connection.uncancellable:
        later(task.cancel)
    elif message.id in connection.streams:
        later(connection.streams[message.id].cancel)
