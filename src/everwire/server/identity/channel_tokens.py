"""Channels that want a signed token of their own: whom it lets in, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import ErrorCode
from ...errors import Forbidden, RequestError, Unauthorized
from ..rules import Grant
from .claims import expired
from .rights import ChannelRights

if TYPE_CHECKING:
    from ..access import Channelled
    from ..connection import Connection

LOOK_AGAIN = 30.0  # seconds after which an ended connection is let go at the latest


async def rights_of(
    connection: Connection, channel: str, token: str | ChannelRights | None
) -> ChannelRights:
    """Verify the token of a channel, or look again at what one allowed.

    It must be of this channel, and of the connection's user, and not be revoked.
    Cancelling is safe.

    Raises:
        RequestError: ``token_expired`` where a fresh one may help; ``forbidden``.
    """
    node = connection.node
    verifier = node.app.channel_tokens
    assert verifier is not None
    if token is None:
        raise Forbidden(f"the channel {channel!r} needs a token of its own")
    try:
        if isinstance(token, str):
            if len(token) > node.limits.token:
                raise Forbidden(f"a token may have {node.limits.token} characters")
            rights = await verifier.channel(token)
        else:
            rights = token
            if rights.expires is not None and rights.expires <= node.wall():
                raise expired()
        node.revocations.check(rights, node.wall())
    except Unauthorized as refused:
        node.count("channel_tokens_refused")
        if refused.code == ErrorCode.TOKEN_EXPIRED:
            raise RequestError(
                "the channel's token has expired", code=ErrorCode.TOKEN_EXPIRED
            ) from None
        raise Forbidden(refused.message) from None
    identity = connection.identity
    meant = (rights.channel, rights.tenant, rights.user)
    if meant != (channel, identity.tenant, identity.user):
        node.count("channel_tokens_refused")
        raise Forbidden("the token is for another channel or user")
    return rights


def check_rights(connection: Connection, granted: Channelled) -> None:
    """Check that what a token opened is still open, and this user's.

    Raises:
        RequestError: it is not; ``token_expired`` where a fresh one may help.
    """
    rights, identity = granted.rights, connection.identity
    if rights is None:
        return
    if rights.expires is not None and rights.expires <= connection.node.wall():
        raise RequestError("the channel's token has expired", code=ErrorCode.TOKEN_EXPIRED)
    if (rights.tenant, rights.user) != (identity.tenant, identity.user):
        raise Forbidden("the token is for another channel or user")


def hold(connection: Connection, granted: Channelled) -> None:
    """Have a subscription that begins now end with its token.

    What was granted may have been forgotten while the broker was waited for: there were
    too many other channels.

    Raises:
        RequestError: as :func:`check_rights`.
    """
    check_rights(connection, granted)
    if granted.rights is not None and connection.channels.get(granted.name) is not granted:
        connection.channels[granted.name] = granted
        watch(connection, granted)


def both(token: Grant, rule: Grant) -> Grant:
    """What a token and the rule's handler allow together."""
    return Grant(
        publish=token.publish and rule.publish,
        subscribe=token.subscribe and rule.subscribe,
        info=token.info if rule.info is None else rule.info,
        history=token.history and rule.history,
        presence=token.presence and rule.presence,
        filter=rule.filter,
    )


def watch(connection: Connection, granted: Channelled) -> None:
    """See to it that what a token opened ends with it."""
    rights = granted.rights
    if rights is not None and rights.expires is not None:
        node = connection.node
        left = rights.expires - node.wall()
        node.wheel.add(_Watch(connection, granted), min(LOOK_AGAIN, max(0.1, left)))


class _Watch:
    """On the node's wheel: ends a subscription when its token has expired."""

    __slots__ = ("_connection", "_granted")

    def __init__(self, connection: Connection, granted: Channelled) -> None:
        self._connection = connection
        self._granted = granted

    def tick(self, now: float) -> float:
        connection, granted = self._connection, self._granted
        if (
            connection.channels.get(granted.name) is not granted  # ended, left, or another token
            or granted.rights is None
            or granted.rights.expires is None
        ):
            return 0
        node = connection.node
        left = granted.rights.expires - node.wall()
        if left > 0:
            return min(LOOK_AGAIN, left)
        from ..subscribing import expel  # which is above this

        node.count("channel_tokens_expired")
        expel(node, connection, granted.name, ErrorCode.TOKEN_EXPIRED, temporary=True)
        return 0
