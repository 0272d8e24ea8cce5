"""How much one address, one user and one connection may ask for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..codes import CloseCode, ErrorCode
from ..errors import RequestError
from ..protocol import messages as m
from ..protocol.states import ConnectionState
from .identity.refusals import address
from .publishing import refuse_publish

if TYPE_CHECKING:
    from .connection import Connection
    from .inbound import Inbound
    from .node import Node
    from .rules import Identity


class PerAddress:
    """Counts connections by the address that they come from; of IPv6 by its network of 64 bits."""

    __slots__ = ("_counts", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()

    def admit(self, connection: Connection) -> bool:
        """Count a connection; close it if its address has too many."""
        address = _address(connection)
        self._counts[address] += 1
        if self._counts[address] <= self._limit:
            return True
        connection.node.count("address_full")
        connection.close(
            CloseCode.RATE_LIMITED, "too many connections from your address (limit connections)"
        )
        return False

    def left(self, connection: Connection) -> None:
        """Count it no more."""
        address = _address(connection)
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]


def _address(connection: Connection) -> str:
    remote = connection.remote
    return address(remote) or remote.rpartition(":")[0] or remote


class PerUser:
    """Counts connections by their user. The anonymous are many: they are not counted."""

    __slots__ = ("_counts", "_node", "_took")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._counts: Counter[tuple[str, str]] = Counter()
        self._took: dict[Connection, Connection] = {}
        """whose place each one took that has not arrived yet"""

    def admit(
        self, connection: Connection, identity: Identity, replaces: str | None = None
    ) -> bool:
        """Count a connection as one of its user; close it if there are too many.

        One that takes another's place, named by its secret, is counted instead of that.
        """
        user = (identity.tenant, identity.user)
        if connection.counted == user or not identity.user:
            return True
        self.left(connection)
        node = self._node
        old = None if replaces is None else node.connections.get(replaces)
        if old is not None and old.counted == user and old not in self._took:
            self.left(old)
            self._took[connection] = old
        if self._counts[user] >= node.limits.connections_user:
            node.count("user_full")
            connection.close(
                CloseCode.CONNECTION_LIMIT,
                f"the user has {node.limits.connections_user} connections, the most allowed "
                "(limit connections_user)",
            )
            return False
        self._counts[user] += 1
        connection.counted = user
        return True

    def left(self, connection: Connection) -> None:
        """Count it no more. Twice is once.

        One that ends before it arrived gives back the place that it took: the other one is
        still there.
        """
        old = self._took.pop(connection, None)
        user, connection.counted = connection.counted, None
        if user is None:
            return
        if old is not None and old.state not in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            old.counted = user
        else:
            self._counts[user] -= 1
            if not self._counts[user]:
                del self._counts[user]

    def arrived(self, connection: Connection) -> None:
        """It has replaced the one whose place it took."""
        self._took.pop(connection, None)


class ReadOn:
    """Reads on from a connection that sent too many bytes, when there is room for more."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Inbound) -> None:
        self._connection = connection

    def tick(self, now: float) -> float:
        connection = self._connection
        if connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return 0
        connection.run_out(now)
        if connection.came_bytes > connection.node.most_bytes:
            return 1.0
        connection.release_reading()
        return 0


def slow_down(connection: Connection, message: m.Message) -> None:
    """Too many messages at once: the request is refused, in the end the connection."""
    node = connection.node
    node.count("rate_limited")
    if connection.came > 2 * node.most_messages:
        connection.close(CloseCode.RATE_LIMITED, "too many messages (limit messages)")
        return
    wait = max(1.0, (connection.came - node.most_messages) / node.limits.messages)
    error = RequestError(
        f"slow down: {node.limits.messages:,} messages a second are allowed (limit messages)",
        code=ErrorCode.RATE_LIMITED,
        retry_after=wait,
    )
    if isinstance(message, m.Publish):
        refuse_publish(connection, message, error)
    else:
        connection.refuse(getattr(message, "id", None) or None, error)
