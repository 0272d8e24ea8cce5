"""What an answer means to whoever asked: an exception, or a result of the type wanted."""

from __future__ import annotations

from typing import Any

from ..codes import ERRORS, ErrorCode
from ..errors import BadData, RequestError, request_error
from . import messages as m
from .conversion import Converter, Mismatch


def answer_error(answer: m.Error) -> RequestError:
    """Make the exception for an error that the other side answered with."""
    temporary = answer.temporary
    if answer.name == "error" and answer.code in ErrorCode._value2member_map_:
        # The plain dialect carries the code alone.
        temporary = ERRORS[ErrorCode(answer.code)].temporary
    return request_error(
        answer.code,
        answer.message,
        temporary=temporary,
        outcome=answer.outcome,
        retry_after=None if answer.retry_after is None else answer.retry_after / 1000,
        details=answer.details,
    )


def convert_result(payload: Any, kind: Any, what: str) -> Any:
    """Turn a payload into ``kind``, any annotation; None leaves it as it is.

    Raises:
        BadData: it is not one; the text names the place.
    """
    if kind is None:
        return payload
    try:
        return Converter(kind)(payload, str_keys=True)
    except Mismatch as error:
        raise BadData(f"the answer to {what} is no {kind!r}: {error}") from None
