"""Which connections are a user's: those of this node, and through the others, all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..codes import ErrorCode
from ..errors import BrokerUnavailable, ConfigError, RequestError, Unavailable
from ..protocol.states import ConnectionState
from . import asking, signals
from .others import SILENCE, Elsewhere
from .signals import Target

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node


class Users:
    """A node's connections by tenant and user; nobody is noted before it is first asked."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._all = connections
        self._coming: dict[Connection, None] = {}
        """those that are not served yet"""
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

    def find(self, target: Target) -> list[Connection]:
        """Those that are meant, of this node."""
        found = self.connections((target.tenant, target.user))
        return [one for one in found if target.connection in ("", one.id)]

    def coming(self, user: tuple[str, str]) -> list[Connection]:
        """Those of a user that are known to be this user's, and not served yet."""
        return [one for one in self._coming if (one.identity.tenant, one.identity.user) == user]

    def expect(self, connection: Connection) -> None:
        """The connection was opened: it will be added or removed."""
        self._coming[connection] = None

    def add(self, connection: Connection) -> None:
        """The connection has a user now."""
        self._coming.pop(connection, None)
        if self._found is not None:
            identity = connection.identity
            self._found.setdefault((identity.tenant, identity.user), {})[connection] = None

    def remove(self, connection: Connection) -> None:
        """The connection is gone, or about to have another user."""
        self._coming.pop(connection, None)
        if self._found is None:
            return
        user = (connection.identity.tenant, connection.identity.user)
        found = self._found.get(user)
        if found is not None:
            found.pop(connection, None)
            if not found:
                del self._found[user]


async def ask_user(
    node: Node,
    target: Target,
    seconds: float,
    kind: asking.Kind,
    name: str,
    payload: Any,
    kind_of_answer: Any,
) -> Any:
    """Put a request to the connections of a user, whichever nodes they are at.

    Cancelling and errors are those of :func:`.asking.ask`.

    Raises:
        RequestError: also ``ambiguous_target``: a command, and not exactly one connection;
            ``unavailable``: a query, and no connection; or the other nodes cannot be asked.
    """
    if not target.user:
        raise ConfigError("whom? name a user, or give a connection: the anonymous are many")
    here = node.users.find(target)
    what = f"{kind} {name!r}"
    try:
        elsewhere = await node.others.names()
        if kind == "command":
            within = min(SILENCE, seconds / 2)
            elsewhere = await _the_one(node, target, len(here), elsewhere, within, what)
    except BrokerUnavailable as error:
        if kind == "command" or not here:
            raise Unavailable(f"{what}: the other nodes cannot be asked: {error}") from None
        elsewhere = []
    if not here and not elsewhere:
        raise Unavailable(f"{what}: user {target.user!r} has no connection")
    there = Elsewhere(node.others, elsewhere, target) if elsewhere else None
    return await asking.ask(here, seconds, kind, name, payload, kind_of_answer, there)


async def _the_one(
    node: Node, target: Target, here: int, others: list[str], within: float, what: str
) -> list[str]:
    """Find the one connection of a user: the node that has it, or none if it is here.

    Raises:
        RequestError: there is not exactly one, or a node does not say.
        BrokerUnavailable: the others cannot be asked.
    """
    there = await node.others.tally(
        others,
        lambda ticket, sender: signals.Count(ticket=ticket, sender=sender, target=target),
        within,
    )
    count = here + sum(there.values())
    if count <= 1 and not there.keys() >= set(others):
        raise Unavailable(f"{what}: another node does not say whether the user is there; later")
    if count != 1:
        raise RequestError(
            f"{what}: user {target.user!r} has {count} connections; choose one of them",
            code=ErrorCode.AMBIGUOUS_TARGET,
        )
    return [name for name, number in there.items() if number]
