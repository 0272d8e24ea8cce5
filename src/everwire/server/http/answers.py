"""From an exception to an HTTP answer: one place that knows the statuses."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec
from starlette.responses import Response

from ...codes import ErrorCode
from ...errors import (
    BadData,
    BrokerUnavailable,
    ConfigError,
    EverwireError,
    RequestError,
    Unavailable,
)
from ...protocol.messages import milliseconds
from .bodies import Problem

LATER = 1.0  # seconds after which to try again, where nothing else is known

STATUSES = {
    ErrorCode.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
    ErrorCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
    ErrorCode.BAD_CHANNEL: HTTPStatus.NOT_FOUND,
    ErrorCode.UNKNOWN_TYPE: HTTPStatus.NOT_FOUND,
    ErrorCode.TIMEOUT: HTTPStatus.REQUEST_TIMEOUT,
    ErrorCode.KEY_REUSED: HTTPStatus.CONFLICT,
    ErrorCode.TOO_BIG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def answer(
    body: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a body of :mod:`.bodies`."""
    return Response(
        msgspec.json.encode(body), status, {**NO_STORE, **(headers or {})}, "application/json"
    )


def problem_of(error: EverwireError) -> Problem:
    """What is said of an error."""
    refused = as_request_error(error)
    return Problem(
        code=refused.code,
        name=refused.name,
        message=refused.message,
        temporary=refused.temporary,
        outcome=refused.outcome,
        retry_after=milliseconds(refused.retry_after),
    )


def as_request_error(error: EverwireError) -> RequestError:
    """What an operation raises, as it is answered over the protocol."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BrokerUnavailable):
        return Unavailable(outcome=error.outcome, retry_after=LATER)
    if isinstance(error, BadData | ConfigError):
        return RequestError(str(error), code=ErrorCode.BAD_REQUEST)
    return RequestError(code=ErrorCode.INTERNAL)


def refusal(
    error: EverwireError, status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Answer with an error; ``status`` is that of HTTP where it has one of its own."""
    problem, headers = problem_of(error), dict(headers or {})
    if status is None:
        later = HTTPStatus.SERVICE_UNAVAILABLE if problem.temporary else HTTPStatus.BAD_REQUEST
        status = STATUSES.get(ErrorCode(problem.code), later) if is_ours(problem) else later
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        seconds = LATER if problem.retry_after is None else problem.retry_after / 1000
        headers["Retry-After"] = str(max(1, ceil(seconds)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return answer(problem, status, headers)


def is_ours(problem: Problem) -> bool:
    """Whether the code is one of everwire's, not the application's own."""
    return problem.code in ErrorCode._value2member_map_
