"""Authentication: from ``auth`` to a connection that serves requests, or its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..codes import CloseCode, ErrorCode
from ..errors import Forbidden, RequestError, Unauthorized, Unavailable
from ..protocol import messages as m
from ..protocol.states import ConnectionState
from . import assigning, subscribing
from .connection import public_id
from .handlers import call_flexibly, checked
from .identity.cookies import read_cookies
from .identity.origins import NOT_WHO, may_use_cookies
from .turns import Turn
from .visits import greet, hold_back, let_through

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node
    from .rules import Identity

FEATURES = ["history", "presence", "recovery", "idempotency", "streams", "requests"]
AMBIENT = frozenset({"cookies", "headers"})  # what a browser sends for whichever page
_ENDED = (ConnectionState.CLOSING, ConnectionState.CLOSED)
TOKEN_OFFER = "everwire.token."  # a subprotocol that carries a token, for browsers


def on_auth(node: Node, connection: Connection, message: m.Auth) -> None:
    """Find out who it is. Until then, what else comes waits."""
    if _is_throttled(node, connection):
        return
    unknown = [feature for feature in message.require if feature not in FEATURES]
    if unknown:
        connection.close(CloseCode.FEATURE_UNKNOWN, f"unknown feature {unknown[0][:40]!r}")
        return
    first = connection.state is ConnectionState.CONNECTING
    connection.auth_in_flight = True
    if message.client is not None:
        connection.instance = message.client.instance
    if first:
        connection.to(ConnectionState.AUTHENTICATING)
        connection.transport.limit(node.limits.hard_cap)
        hold_back(connection)
    turn = Turn(connection, [request.channel for request in message.subscribe])
    node.tasks.start(_authenticate(node, connection, message, turn, first), "auth")


def _is_throttled(node: Node, connection: Connection) -> bool:
    """Close whoever comes from an address that had its chances; who is known stays."""
    blocked = node.refusals.blocked(connection.remote, node.wheel.now)
    if blocked and connection.identity is node.anonymous:
        node.count("auths_throttled")
        connection.close(CloseCode.RATE_LIMITED, "too many refused auths from your address")
        return True
    return False


async def _authenticate(
    node: Node, connection: Connection, message: m.Auth, turn: Turn, first: bool
) -> None:
    try:
        async with node.refusals.attempt(connection.remote, node.limits.request_timeout):
            # By those that came at the same time.
            if connection.state in _ENDED or _is_throttled(node, connection):
                return
            identity = await _identify(node, connection, message)
        check_still_good(node, identity)
        if connection.state not in (ConnectionState.AUTHENTICATING, ConnectionState.READY):
            return
        before, now = connection.identity, identity
        changed = (before.tenant, before.user) != (now.tenant, now.user)
        known = connection.dialect.needs_auth or before is not node.anonymous
        if not first and changed and known:
            raise Unauthorized("a connection cannot change its user")
        await _welcome(node, connection, message, turn, identity)
    except RequestError as error:
        _turn_away(node, connection, message, error)
    except Exception:
        node.log_defect("the authenticate handler")
        connection.refuse(message.id, RequestError(code=ErrorCode.INTERNAL))
        connection.close(CloseCode.INTERNAL_ERROR)
    finally:
        turn.end()
        connection.auth_in_flight = False
        if first:
            let_through(connection)


async def _identify(node: Node, connection: Connection, message: m.Auth) -> Identity:
    handed = connection.handed_over
    if handed is not None:
        return handed
    function = node.app.handlers.authenticate
    if function is None:
        return node.anonymous
    token = _token(connection, message)
    headers, own_page = _headers(node, connection)
    if token is None and message.credentials is None:
        session = own_page and "cookie" in headers and "cookies" in node.authenticate_takes
        if node.app.allow_anonymous and not session:
            return node.anonymous
    if not own_page and not _shows_something(node, token, message.credentials):
        _check_page(node, headers)
    _check_token(node, token)
    if not own_page:
        headers = _without_who(headers)
    offered = {
        "token": token,
        "credentials": message.credentials,
        "headers": headers,
        "cookies": read_cookies(headers["cookie"]) if "cookie" in headers else {},
        "remote": connection.remote,
    }
    if message.credentials is not None:
        checked(message.credentials)
    try:
        async with asyncio.timeout(node.limits.request_timeout):
            identity = await call_flexibly(function, offered)
    except TimeoutError:
        raise Unavailable("authentication took too long; try again") from None
    if not hasattr(identity, "user"):
        raise TypeError(f"authenticate must return an Identity, not {identity!r}")
    return identity  # type: ignore[no-any-return]


def _headers(node: Node, connection: Connection) -> tuple[dict[str, str], bool]:
    """The handshake's headers, and whether its page may act with its browser's cookies.

    Nothing where nobody asks for them.
    """
    handshake = connection.handshake
    if handshake is None or not node.takes_ambient:
        return {}, False
    headers = dict(handshake.headers)
    return headers, may_use_cookies(headers, handshake.origins, secure=handshake.secure)


def _without_who(headers: dict[str, str]) -> dict[str, str]:
    """What a page of others may be told by of its browser; a program says what it wants."""
    if "origin" in headers:
        return {name: text for name, text in headers.items() if name in NOT_WHO}
    headers.pop("cookie", None)
    return headers


def _shows_something(node: Node, token: str | None, credentials: object) -> bool:
    """Whether the function is told of what no browser sends by itself."""
    takes = node.authenticate_takes
    return (token is not None and "token" in takes) or (
        credentials is not None and "credentials" in takes
    )


def _check_token(node: Node, token: str | None) -> None:
    """Refuse what nobody need look at."""
    if token is None and "token" in node.authenticate_needs:
        raise Unauthorized("a token is needed")
    if token is not None and len(token) > node.limits.token:
        raise Unauthorized(f"a token may have {node.limits.token} characters")


def _check_page(node: Node, headers: dict[str, str]) -> None:
    """Refuse a page of others that would act as its browser's user.

    Raises:
        Forbidden: it is one, or there are cookies and nobody says whose page it is.
    """
    if "cookie" in headers or "origin" in headers:
        node.count("origins_refused")
        raise Forbidden(
            "cookies are taken from pages of this host alone, by their Origin; allow others by "
            "origins=[…]"
        )


def check_still_good(node: Node, identity: Identity) -> None:
    """Refuse what has ended already, or was revoked."""
    now = node.wall()
    if identity.expires is not None and identity.expires <= now:
        raise Unauthorized("the token has expired", code=ErrorCode.TOKEN_EXPIRED, temporary=True)
    node.revocations.check(identity, now)


async def _welcome(
    node: Node, connection: Connection, message: m.Auth, turn: Turn, identity: Identity
) -> None:
    if not node.per_user.admit(connection, identity, message.replaces):
        return
    again = connection.state is ConnectionState.READY
    before = connection.identity
    if again:
        connection.serve(identity)
        await subscribing.reauthorise(node, connection)
    connection.identity = identity
    changed = (before.tenant, before.user) != (identity.tenant, identity.user)
    if (changed or not again) and not await greet(node, connection, message.id):
        return
    if not again:
        connection.serve(identity)
    async with turn:
        await _subscribe(node, connection, message)


async def _subscribe(node: Node, connection: Connection, message: m.Auth) -> None:
    """Answer, with the subscriptions that are asked for; then those of the application."""
    identity = connection.identity
    old = _replaced(node, connection, message)
    wanted = message.subscribe[: node.limits.subscribe_batch]
    # Where it is at another node, the broker knows whose it is.
    instead = None if message.replaces is None else public_id(message.replaces)
    results, begun = await subscribing.subscribe(node, connection, wanted, instead)
    assigned = await assigning.begin(node, connection, instead)
    expires = None
    if identity.expires is not None:
        expires = max(0, int((identity.expires - node.wall()) * 1000))
    connection.respond(
        message.id,
        {
            "user": identity.user,
            "expiresIn": expires,
            "subscriptions": [subscribing.result_payload(result) for result in results],
        },
    )
    subscribing.follow(node, connection, begun)
    assigning.announce(node, connection, assigned)
    if old is not None and connection.state is ConnectionState.READY:
        # Not before the new one has been answered: until then, the old one is all there is.
        old.close(CloseCode.REPLACED, "replaced by a newer connection")
    node.per_user.arrived(connection)


def _replaced(node: Node, connection: Connection, message: m.Auth) -> Connection | None:
    """The connection whose place this one takes: it is known by its secret, and to its user."""
    old = None if message.replaces is None else node.connections.get(message.replaces)
    if old is None or old is connection or not _same_user(old, connection):
        return None
    return old


def _same_user(one: Connection, other: Connection) -> bool:
    return (one.identity.tenant, one.user) == (other.identity.tenant, other.user)


def _token(connection: Connection, message: m.Auth) -> str | None:
    """The token of an ``auth``, or the one that the handshake brought."""
    if message.token is not None or message.credentials is not None:
        return message.token
    offers = connection.handshake.subprotocols if connection.handshake is not None else ()
    found = (offer for offer in offers if offer.startswith(TOKEN_OFFER))
    token = next(found, None)
    return token.removeprefix(TOKEN_OFFER) if token is not None else None


def _turn_away(node: Node, connection: Connection, message: m.Auth, error: RequestError) -> None:
    """Say no after the upgrade: a browser is not told why an upgrade was refused."""
    if isinstance(error, (Unauthorized, Forbidden)):
        node.count("auths_refused")
        if node.refusals.add(connection.remote, node.wheel.now):
            node.log.log(
                logging.WARNING, "refused auths",
                "%s: %s auths were refused within a minute; more are closed unread. If this is "
                "your proxy, name it in trusted_proxies=",
                connection.remote, node.limits.refused_auths,
            )  # fmt: skip
    connection.refuse(message.id, error)
    if not connection.dialect.needs_auth:
        connection.strike()
        return
    if isinstance(error, Unauthorized):
        with_token = _token(connection, message) is not None
        code = CloseCode.TOKEN_REFUSED if with_token else CloseCode.UNAUTHORIZED
    elif isinstance(error, Forbidden):
        code = CloseCode.FORBIDDEN
    elif error.temporary:
        code = CloseCode.TRY_AGAIN_LATER
    else:
        code = CloseCode.UNAUTHORIZED
    connection.close(code, error.message)
