"""What an application does as connections come and go: ``on_connect``, ``on_disconnect``.

A connection is greeted when its user is known, before its ``auth`` is answered: what it asks
meanwhile waits. Whoever was greeted is seen off, once, whatever its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..codes import CloseCode, ErrorCode
from ..errors import ConfigError, RequestError, Unavailable
from ..protocol.messages import RequestId
from ..protocol.states import ConnectionState
from . import assigning

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

logger = logging.getLogger("everwire.server")

AT_A_TIME = 32  # connections that are seen off
MOST_WAITING = 100_000  # connections whose on_disconnect has not begun


async def greet(node: Node, connection: Connection, request_id: RequestId | None) -> bool:
    """Run ``on_connect`` for a connection whose user is known; tell whether it may stay.

    If not, it has been told so and closed. Cancelling leaves it as if it had not come.
    """
    if not node.greets:
        return True
    visit = assigning.visit_of(connection)
    try:
        channels = await _ask(node, connection)
    except RequestError as error:
        refused = error
    except Exception:
        node.log_defect("an on_connect handler")
        refused = RequestError(code=ErrorCode.INTERNAL)
    else:
        for channel in channels:
            visit.channels.setdefault(channel, None)
        if visit.ended is not None and not visit.greeted:  # it left while it was greeted
            visit.greeted = True
            node.farewells.add(connection)
        visit.greeted = True
        return visit.ended is None
    connection.refuse(request_id, refused)
    connection.close(_close_code(refused), refused.message)
    return False


async def _ask(node: Node, connection: Connection) -> list[str]:
    """What ``on_connect`` subscribes the connection to."""
    handlers, channels = node.app.handlers, []
    if handlers.own is not None and connection.user:
        channels.append(handlers.own.name(connection.user))
    try:
        async with asyncio.timeout(node.limits.request_timeout):
            for handler in handlers.on_connect:
                channels += _names(await handler.call(connection, {}), handler.function)
    except TimeoutError:
        raise Unavailable("on_connect took too long; try again") from None
    for channel in channels:
        try:
            node.access.rule_of(channel)
        except RequestError as error:
            raise ConfigError(f"a connection cannot be subscribed: {error.message}") from None
    return channels


def _names(returned: Any, function: Any) -> list[str]:
    if returned is None:
        return []
    if isinstance(returned, str):
        return [returned]
    if isinstance(returned, Iterable):
        names = list(returned)
        if all(isinstance(name, str) for name in names):
            return names
    raise TypeError(
        f"{function.__name__}() must return the names of channels, or None, not {returned!r}"
    )


def _close_code(error: RequestError) -> int:
    if error.code == ErrorCode.INTERNAL:
        return CloseCode.INTERNAL_ERROR
    if error.temporary:
        return CloseCode.TRY_AGAIN_LATER
    if error.code == ErrorCode.UNAUTHENTICATED:
        return CloseCode.UNAUTHORIZED
    return CloseCode.FORBIDDEN


def hold_back(connection: Connection) -> None:
    """Let what comes wait, until :func:`let_through`."""
    connection.backlog = []
    connection.hold_reading()


def let_through(connection: Connection) -> None:
    """Do what came meanwhile."""
    backlog, connection.backlog = connection.backlog or [], None
    connection.release_reading()
    for message in backlog:
        connection.node.dispatch(connection, message)


def greet_anonymous(node: Node, connection: Connection) -> None:
    """Let in one that is served without ``auth``."""
    connection.to(ConnectionState.AUTHENTICATING)
    hold_back(connection)
    node.tasks.start(_greet_anonymous(node, connection), "greet")


async def _greet_anonymous(node: Node, connection: Connection) -> None:
    try:
        if await greet(node, connection, None):
            connection.ready(connection.identity)
            assigning.announce(node, connection, await assigning.begin(node, connection))
    except RequestError as error:
        connection.refuse(None, error)
        connection.close(_close_code(error), error.message)
    except Exception:
        node.log_defect("what on_connect subscribes to")
        connection.close(CloseCode.INTERNAL_ERROR)
    finally:
        let_through(connection)


class Farewells:
    """Runs ``on_disconnect`` for connections that are gone, some at a time."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: deque[tuple[Connection, int, str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, connection: Connection) -> None:
        """A connection that was greeted has ended; whoever was not is not seen off."""
        visit = connection.visit
        if visit is None or visit.ended is None or not visit.greeted:
            return
        if not self._node.app.handlers.on_disconnect:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._node.count("farewells_dropped")
            return
        self._waiting.append((connection, *visit.ended))
        if len(self._tasks) < AT_A_TIME:
            task = self._node.tasks.start(self._run(), "on_disconnect")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait until all are seen off, at most ``seconds``. Safe to cancel."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        left = len(self._waiting) + len(self._tasks)
        if left:
            logger.warning("on_disconnect was not finished for %d connections", left)
        self._waiting.clear()

    async def _run(self) -> None:
        me = asyncio.current_task()
        try:
            while self._waiting:
                await self._see_off(*self._waiting.popleft())
        finally:  # at once: whoever leaves from now on needs another task
            self._tasks.discard(me)

    async def _see_off(self, connection: Connection, code: int, reason: str) -> None:
        for handler in self._node.app.handlers.on_disconnect:
            try:
                async with asyncio.timeout(self._node.limits.request_timeout):
                    await handler.call(connection, {"code": code, "reason": reason})
            except Exception:
                self._node.log_defect("an on_disconnect handler")
