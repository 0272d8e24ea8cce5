"""How much one address and one connection may ask for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..codes import CloseCode, ErrorCode
from ..errors import RequestError
from ..protocol import messages as m
from .publishing import refuse_publish

if TYPE_CHECKING:
    from .connection import Connection


class Addresses:
    """Counts connections by the address that they come from."""

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
        connection.close(CloseCode.RATE_LIMITED, "too many connections from your address")
        return False

    def left(self, connection: Connection) -> None:
        """Count it no more."""
        address = _address(connection)
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]


def _address(connection: Connection) -> str:
    return connection.remote.rpartition(":")[0] or connection.remote


def slow_down(connection: Connection, message: m.Message) -> None:
    """Too many messages within a second: the request is refused, in the end the connection."""
    node = connection.node
    node.count("rate_limited")
    if connection.came > 2 * node.limits.messages:
        connection.close(CloseCode.RATE_LIMITED, "too many messages")
        return
    error = RequestError(code=ErrorCode.RATE_LIMITED, retry_after=1.0)
    if isinstance(message, m.Publish):
        refuse_publish(connection, message, error)
    else:
        connection.refuse(getattr(message, "id", None) or None, error)
