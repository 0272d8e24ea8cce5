"""Which connections of this node are a user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..protocol.states import ConnectionState

if TYPE_CHECKING:
    from .connection import Connection


class Users:
    """A node's connections by tenant and user; nobody is noted before it is first asked."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._all = connections
        self._found: dict[tuple[str, str], dict[Connection, None]] | None = None

    def connections(self, user: tuple[str, str]) -> list[Connection]:
        """Those of a user that are served."""
        if self._found is None:
            self._found = {}
            for connection in self._all.values():
                if connection.state is ConnectionState.READY:
                    self.add(connection)
        found = self._found.get(user, ())
        return [one for one in found if one.state is ConnectionState.READY]

    def add(self, connection: Connection) -> None:
        """The connection has a user now."""
        if self._found is not None:
            identity = connection.identity
            self._found.setdefault((identity.tenant, identity.user), {})[connection] = None

    def remove(self, connection: Connection) -> None:
        """The connection is gone, or about to have another user."""
        if self._found is None:
            return
        user = (connection.identity.tenant, connection.identity.user)
        found = self._found.get(user)
        if found is not None:
            found.pop(connection, None)
            if not found:
                del self._found[user]
