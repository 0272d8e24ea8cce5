"""Who connects, by the word of the application that we live in.

A host that has signed its users in already hands them over: by a dependency of FastAPI, or
by a function of the WebSocket. That is called as the framework calls it for a route of its
own, with all that belongs to it; but after the upgrade, for a browser is not told why an
upgrade failed, and before the connection begins, so that nothing the dependency holds (a
database session, say) is held for as long as the connection lives.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, get_origin
from uuid import UUID

from ..codes import CloseCode
from ..errors import ConfigError, Forbidden, RequestError, Unauthorized
from ..from_thread import remember_loop
from ..handling.threads import in_thread
from ..protocol.frames import may_be_sent
from .asgi import Asgi, Scope, TurnedAway
from .auth import check_still_good
from .identity.origins import may_use_cookies, normal_origin, read_origin
from .rules import Identity

if TYPE_CHECKING:
    from .app import Everwire
    from .node import Node

FOUND = "everwire.user"

BY_STATUS = {
    401: CloseCode.UNAUTHORIZED,
    403: CloseCode.FORBIDDEN,
    408: CloseCode.TRY_AGAIN_LATER,
    429: CloseCode.RATE_LIMITED,
}


class Host:
    """What a Starlette or FastAPI application says of those who connect.

    Args:
        wire: the application that they connect to.
        router: the host's.
        user: the dependency or the function that finds out who it is; None: it is not asked.
        origins: pages that may connect, beside those of the same host.

    Raises:
        ConfigError: ``user`` cannot be called, or an origin is none.
    """

    def __init__(
        self, wire: Everwire, router: Any, user: Any, origins: Sequence[str] | None
    ) -> None:
        if not (user is None or callable(user) or _is_dependency(user)):
            raise ConfigError(f"user= takes a function or a dependency, not {user!r}")
        self._wire = wire
        self._router = router
        self._user = user
        self.origins = None if origins is None else frozenset(map(read_origin, origins))
        self._gates: dict[tuple[int, tuple[str, ...]], Asgi] = {}

    async def identify(self, scope: Scope, headers: Mapping[str, str]) -> Identity | None:
        """Find out who connects; None: that is left to ``auth``. Safe to cancel.

        Raises:
            TurnedAway: whoever it is, it is not let in.
            ConfigError: the application does not run.
        """
        node = self._wire.node
        handed_over = self._user is not None
        try:
            self._check_page(node, scope, headers)
            if not handed_over and not getattr(self._router, "dependencies", None):
                return None
            async with asyncio.timeout(node.limits.request_timeout):
                found = await self._ask(scope)
            identity = identity_of(found) if handed_over else None
            if identity is not None:
                check_still_good(node, identity)
        except TurnedAway:
            raise
        except RequestError as error:
            raise TurnedAway(_code_of(error), error.message) from None
        except TimeoutError:
            text = "authentication took too long; try again"
            raise TurnedAway(CloseCode.TRY_AGAIN_LATER, text) from None
        except Exception:
            node.log_defect("what attach(user=…) was given")
            raise TurnedAway(CloseCode.INTERNAL_ERROR, "") from None
        if identity is None and handed_over and not self._may_be_nobody():
            raise TurnedAway(CloseCode.UNAUTHORIZED, "sign in first")
        return identity

    def _check_page(self, node: Node, scope: Scope, headers: Mapping[str, str]) -> None:
        as_user, secure = self._user is not None, scope.get("scheme") == "wss"
        if not as_user and self.origins is None:
            return
        try:
            check_page(headers, self.origins, as_user=as_user, secure=secure)
        except Forbidden:
            node.count("origins_refused")
            raise

    def _may_be_nobody(self) -> bool:
        """Whether somebody whom the host does not know can still get in, by a token or as is."""
        return self._wire.has_authenticator or self._wire.allow_anonymous

    async def _ask(self, scope: Scope) -> Any:
        """Have the framework call what finds out, and read what it answers instead."""
        inner = {**scope, "extensions": {"websocket.http.response": {}}}
        said = _Answer()
        await self._gate(scope)(inner, said.receive, said.send)
        if FOUND in inner:
            return inner[FOUND]
        raise said.refusal()

    def _gate(self, scope: Scope) -> Asgi:
        """The route that is asked; made once for an application and the names in its path."""
        application, names = scope.get("app"), tuple(scope.get("path_params") or ())
        key = (id(application), names)
        if key not in self._gates:
            if hasattr(self._router, "add_api_websocket_route"):
                gate = _fastapi_gate(self._user, self._router, application, names)
            else:
                gate = _starlette_gate(self._user)
            self._gates[key] = gate
        return self._gates[key]


class _Answer:
    """What a route says to a WebSocket that it has not accepted."""

    def __init__(self) -> None:
        self._code: int = CloseCode.FORBIDDEN
        self._reason: Any = ""
        self._body: bytes | None = None
        self._connected = False

    async def receive(self) -> dict[str, Any]:
        if self._connected:
            await asyncio.get_running_loop().create_future()  # what it says is not for them
        self._connected = True
        return {"type": "websocket.connect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.close":
            self._code = _code_of_close(message.get("code", 1000))
            self._reason = message.get("reason") or ""
        elif kind == "websocket.http.response.start":
            self._code = _code_of_status(message["status"])
            self._body = b""
        elif kind == "websocket.http.response.body" and self._body is not None:
            self._body = (self._body + message.get("body", b""))[:4096]

    def refusal(self) -> TurnedAway:
        reason = self._reason
        if self._body is not None:
            reason = self._body.decode(errors="replace")
            with suppress(ValueError, TypeError, KeyError):
                reason = json.loads(reason)["detail"]
        if isinstance(reason, list):  # FastAPI's errors of validation
            reason = "; ".join(map(_invalid, reason))
        return TurnedAway(self._code, reason if isinstance(reason, str) else json.dumps(reason))


def _invalid(error: Any) -> str:
    try:
        return f"{' '.join(map(str, error['loc']))}: {error['msg']}"
    except (TypeError, KeyError):
        return str(error)


def _fastapi_gate(user: Any, router: Any, application: Any, names: tuple[str, ...]) -> Asgi:
    from fastapi import Depends
    from fastapi.routing import APIWebSocketRoute
    from starlette.websockets import WebSocket

    async def found(websocket: WebSocket, user: Any = None) -> None:
        websocket.scope[FOUND] = user

    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("websocket", place, annotation=WebSocket)]
    if get_origin(user) is Annotated:
        parameters.append(inspect.Parameter("user", place, annotation=user))
    elif user is not None:
        default = user if _is_dependency(user) else Depends(user)
        parameters.append(inspect.Parameter("user", place, default=default))
    found.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    provider = application if hasattr(application, "dependency_overrides") else None
    path = "".join(f"/{{{name}}}" for name in names) or "/"
    route = APIWebSocketRoute(
        path, found, dependencies=router.dependencies, dependency_overrides_provider=provider
    )
    gate: Asgi = route.app
    return gate


def _starlette_gate(user: Callable[[Any], Any]) -> Asgi:
    from starlette.routing import WebSocketRoute

    async def found(websocket: Any) -> None:
        remember_loop()
        if inspect.iscoroutinefunction(user):
            value = await user(websocket)
        else:
            value = await in_thread(partial(user, websocket))
        websocket.scope[FOUND] = value

    gate: Asgi = WebSocketRoute("/", found).app
    return gate


def _is_dependency(user: Any) -> bool:
    """Whether it is ``Depends(…)``, or ``Annotated[…, Depends(…)]``, of FastAPI."""
    return get_origin(user) is Annotated or hasattr(user, "dependency")


def identity_of(found: Any) -> Identity | None:
    """What a host's user is to us: None, a name, an ``Identity``, or what has one of them.

    Raises:
        TypeError: it is nothing of that; the text says what it may be.
    """
    if found is None or isinstance(found, Identity):
        return found
    if isinstance(found, str | int | UUID) and not isinstance(found, bool):
        return Identity(str(found)) if found != "" else None
    # What has a user is a session or the like, and its id is not the user's.
    for name in ("user", "id"):
        if hasattr(found, name):
            return identity_of(getattr(found, name))
    raise TypeError(
        f"attach(user=…) got {type(found).__name__}: return the user's name, an Identity, an "
        "object with .user or .id, or None for nobody"
    )


def check_page(
    headers: Mapping[str, str], allowed: frozenset[str] | None, *, as_user: bool, secure: bool
) -> None:
    """Refuse the pages of others: a browser sends our cookies along for any page.

    Args:
        headers: of the handshake, names in lower case.
        allowed: origins that may connect.
        as_user: it will act as the host's user. So pages of the host may connect as well, and
            cookies without an ``Origin`` may not: that is no browser, and may not act as one.
        secure: it came over TLS.

    Raises:
        Forbidden: it may not connect.
    """
    if as_user:
        told = "origin" in headers or "cookie" in headers
        refused = told and not may_use_cookies(headers, allowed, secure=secure)
    else:
        refused = "origin" in headers and normal_origin(headers["origin"]) not in (allowed or ())
    if refused:
        raise Forbidden(
            "this page may not connect; the server names those that may in origins="
            if "origin" in headers
            else "cookies without an Origin are not accepted"
        )


def _code_of(error: RequestError) -> CloseCode:
    if isinstance(error, Unauthorized):
        return CloseCode.TOKEN_REFUSED if error.temporary else CloseCode.UNAUTHORIZED
    if isinstance(error, Forbidden):
        return CloseCode.FORBIDDEN
    return CloseCode.TRY_AGAIN_LATER if error.temporary else CloseCode.UNAUTHORIZED


def _code_of_status(status: int) -> CloseCode:
    if status >= 500:
        return CloseCode.TRY_AGAIN_LATER
    return BY_STATUS.get(status, CloseCode.UNAUTHORIZED)


def _code_of_close(code: int) -> int:
    """FastAPI closes with 1008 whatever was missing; our clients are told more by 4500."""
    known = may_be_sent(code) and code not in (CloseCode.NORMAL, CloseCode.POLICY_VIOLATION)
    return code if known else CloseCode.UNAUTHORIZED
