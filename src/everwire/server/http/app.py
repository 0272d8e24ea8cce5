"""The HTTP application: its routes, and what every answer has in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...codes import ErrorCode
from ...errors import BadRequest, ConfigError, EverwireError, Forbidden, RequestError, Unavailable
from .answers import answer, refusal
from .api import OPERATIONS, Operation
from .bodies import Health
from .intake import Idempotency, Keys, Refused, read_body, understand
from .metrics import Exposition
from .openapi import document

if TYPE_CHECKING:
    from ..app import Everwire

Endpoint = Callable[[Request], Awaitable[Response]]


def make(wire: Everwire, api_key: str | Sequence[str] | None) -> Starlette:
    """See :meth:`everwire.Everwire.http`.

    Raises:
        ConfigError: a key is too short.
    """
    keys = Keys(api_key)
    idempotency = Idempotency(wire.limits.dedupe_window, monotonic)
    described = document()

    async def healthz(_request: Request) -> Response:
        return answer(Health(status="ok"))

    async def readyz(_request: Request) -> Response:
        return _readiness(wire)

    async def openapi(_request: Request) -> Response:
        return answer(described)

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", Exposition(wire).answer),
        Route("/openapi.json", openapi),
    ]
    routes += [
        Route(one.path, _endpoint(wire, one, keys, idempotency), methods=["POST"])
        for one in OPERATIONS
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused_by_starlette})
    app.router.redirect_slashes = False  # a redirection would be to whatever Host says
    return app


def _readiness(wire: Everwire) -> Response:
    """Whether clients should be sent here."""
    try:
        stats = wire.stats()
    except ConfigError:
        return answer(Health(status="stopped"), HTTPStatus.SERVICE_UNAVAILABLE)
    if stats.draining:
        return answer(Health(status="draining"), HTTPStatus.SERVICE_UNAVAILABLE)
    if stats.broker_failing:
        return answer(Health(status="broker_failing"), HTTPStatus.SERVICE_UNAVAILABLE)
    return answer(Health(status="ok"))


def _endpoint(
    wire: Everwire, operation: Operation, keys: Keys, idempotency: Idempotency
) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            keys.check(request)
            return answer(await perform(request))
        except Refused as refused:
            return refusal(refused.error, refused.status)
        except EverwireError as error:
            return refusal(error)
        except Exception:
            _log_defect(wire, operation)
            return refusal(RequestError(code=ErrorCode.INTERNAL))

    async def perform(request: Request) -> Any:
        try:
            node = wire.node
        except ConfigError:
            raise Unavailable("the node does not run") from None
        body = understand(await read_body(request, node.limits), operation.takes, node.limits)
        key = idempotency.key_of(request, operation.path, body) if operation.keyed else ""
        return await operation.do(wire, body, key)

    return endpoint


def _log_defect(wire: Everwire, operation: Operation) -> None:
    wire.node.log_defect(f"POST {operation.path}")


async def _refused_by_starlette(_request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    assert isinstance(error, HTTPException)
    codes: dict[int, RequestError] = {
        HTTPStatus.NOT_FOUND: RequestError("there is no such path", code=ErrorCode.UNKNOWN_TYPE),
        HTTPStatus.METHOD_NOT_ALLOWED: BadRequest("this path has another method; see Allow"),
    }
    known = codes.get(error.status_code, Forbidden(error.detail))
    return refusal(known, error.status_code, dict(error.headers or {}))
