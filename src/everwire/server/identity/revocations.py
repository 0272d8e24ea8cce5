"""What was revoked: it ends what is open, and is refused for as long as it could be good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ...codes import CloseCode, ErrorCode
from ...errors import ConfigError, Unauthorized, Unavailable
from ...protocol.states import ConnectionState
from ..rules import Identity
from .rights import ChannelRights

if TYPE_CHECKING:
    from ..connection import Connection
    from ..node import Node

AT_ONCE = 200  # connections that are closed without a break for the others
PURGE_EVERY = 60.0  # seconds
_User = tuple[str, str | None]
_Token = tuple[str | None, str]


class Revocation(msgspec.Struct, frozen=True):
    """What is revoked: plain data, the same for every node.

    Attributes:
        tenant: of the user; the tenant whose users are all meant; None: of any (a token).
        user: whose tokens, None if it is not about a user.
        token_id: the one token that is meant, None if it is not about one.
        before: tokens that were issued before this are meant, in seconds since 1970.
        until: when all of them will have expired.
        live: whoever is connected now is meant, whatever the token says.
    """

    tenant: str | None
    user: str | None
    token_id: str | None
    before: float
    until: float
    live: bool = True

    def ends(self, holder: Identity | ChannelRights) -> bool:
        """Whether it ends what was opened with a token of this user and name."""
        if self.tenant is not None and holder.tenant != self.tenant:
            return False
        if self.token_id is not None:
            return holder.token_id == self.token_id
        if self.user is not None and holder.user != self.user:
            return False
        return self.live or holder.issued is None or _older(holder.issued, self.before)


def _older(issued: float, before: float) -> bool:
    """Whether a token is older than a moment; most say whole seconds only.

    One of the very same second may be the fresh one that was fetched after it.
    """
    return issued < (before // 1 if issued % 1 == 0 else before)


class Revocations:
    """Remembers what was revoked until it would have expired.

    Args:
        limit: how many are remembered; none is forgotten early.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._users: dict[_User, tuple[float, float]] = {}
        self._tokens: dict[_Token, float] = {}
        self._purged = 0.0

    def __len__(self) -> int:
        return len(self._users) + len(self._tokens)

    def add(self, revocation: Revocation, now: float) -> None:
        """Remember one.

        Raises:
            Unavailable: as many are remembered as are allowed.
        """
        if revocation.token_id is not None:
            self.add_token(revocation.tenant, revocation.token_id, revocation.until, now)
            return
        assert revocation.tenant is not None
        key = (revocation.tenant, revocation.user)
        self._make_room(now, key in self._users)
        before, until = self._users.get(key, (0.0, 0.0))
        self._users[key] = max(before, revocation.before), max(until, revocation.until)

    def add_token(self, tenant: str | None, token_id: str, until: float, now: float) -> None:
        """Remember one token.

        Raises:
            Unavailable: as many are remembered as are allowed.
        """
        key = (tenant, token_id)
        self._make_room(now, key in self._tokens)
        self._tokens[key] = max(until, self._tokens.get(key, 0.0))

    def _make_room(self, now: float, known: bool) -> None:
        if now - self._purged >= PURGE_EVERY or len(self) >= self._limit:
            self._purged = now
            self._users = {key: kept for key, kept in self._users.items() if kept[1] > now}
            self._tokens = {key: until for key, until in self._tokens.items() if until > now}
        if len(self) >= self._limit and not known:
            raise Unavailable(
                f"{self._limit} revocations are remembered already: raise limits.revocations, "
                "or let them end earlier (until=…)"
            )

    def check(self, holder: Identity | ChannelRights, now: float) -> None:
        """Refuse a token that was revoked.

        Raises:
            Unauthorized: it was.
        """
        if not self._users and not self._tokens:
            return
        tenant, issued = holder.tenant, holder.issued
        if issued is not None:
            for user in (holder.user, None):
                before, until = self._users.get((tenant, user), (0.0, 0.0))
                if now < until and _older(issued, before):
                    raise revoked()
        if holder.token_id:
            for scope in (tenant, None):
                if now < self._tokens.get((scope, holder.token_id), 0.0):
                    raise revoked()


def revoked() -> Unauthorized:
    """The error for a token that was good until somebody said no."""
    return Unauthorized("the token was revoked")


def revocation(
    node: Node,
    user: str | None,
    tenant: str | None,
    token_id: str | None,
    before: float | None,
    until: float | None,
) -> Revocation:
    """Make what :meth:`everwire.Everwire.revoke` was called with plain.

    Raises:
        ConfigError: nothing is named, or too much.
    """
    if token_id is not None and (user is not None or before is not None):
        raise ConfigError("wire.revoke(token_id=…) is about one token: no user=, no before=")
    if not token_id and user is None and not tenant:
        raise ConfigError("wire.revoke() needs user=, tenant= or token_id=")
    now = node.wall()
    return Revocation(
        tenant or "" if token_id is None else tenant,
        user,
        token_id,
        now if before is None else before,
        now + node.limits.revocation_ttl if until is None else until,
        live=before is None,
    )


def apply(node: Node, revocation: Revocation) -> None:
    """Do on this node what a revocation asks for; the same one twice is once.

    Whom it concerns is closed with 4402, all of them within a second, and is refused from now on.

    Raises:
        Unavailable: this node remembers as many as it may. Who is connected was closed.
    """
    now = node.wall()
    node.count("revocations")
    connections = _candidates(node, revocation)
    for connection in connections[:AT_ONCE]:
        _end(node, revocation, connection, now)
    if len(connections) > AT_ONCE:
        node.tasks.start(_end_all(node, revocation, connections[AT_ONCE:], now), "revoking")
    node.revocations.add(revocation, now)


def _candidates(node: Node, revocation: Revocation) -> list[Connection]:
    if revocation.token_id is None and revocation.user is not None:
        user = (revocation.tenant or "", revocation.user)
        return node.users.connections(user) + node.users.coming(user)
    return list(node.connections.values())


async def _end_all(
    node: Node, revocation: Revocation, connections: Sequence[Connection], now: float
) -> None:
    for number, connection in enumerate(connections):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        _end(node, revocation, connection, now)


def _end(node: Node, revocation: Revocation, connection: Connection, now: float) -> None:
    if connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
        return
    if revocation.ends(connection.identity):
        _remember(node, revocation, connection.identity, now)
        node.count("revoked_connections")
        connection.close(CloseCode.TOKEN_REFUSED, "the token was revoked")
    elif revocation.token_id is not None:
        _end_channels(node, revocation, connection)


def _remember(node: Node, revocation: Revocation, identity: Identity, now: float) -> None:
    """Refuse the very token that is in use, where its date alone would not tell."""
    if revocation.token_id is not None or not identity.token_id:
        return
    if identity.issued is None or _older(identity.issued, revocation.before):
        return
    until = revocation.until if identity.expires is None else identity.expires
    try:
        node.revocations.add_token(identity.tenant, identity.token_id, until + 1.0, now)
    except Unavailable as full:
        node.log.log(logging.ERROR, "revocations", "%s", full.message)


def _end_channels(node: Node, revocation: Revocation, connection: Connection) -> None:
    from ..subscribing import expel  # which is above this

    for granted in list(connection.channels.values()):
        if granted.rights is not None and revocation.ends(granted.rights):
            expel(node, connection, granted.name, ErrorCode.TOKEN_EXPIRED, temporary=True)
