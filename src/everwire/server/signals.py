"""What nodes say to each other, and the errors that they pass on. Plain data, as MessagePack.

A node that does not know a signal ignores it, and fields that it does not know as well: so
nodes of different versions get along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import (
    BadData,
    ClosedError,
    DeliveryUnknown,
    EverwireError,
    NotSent,
    RequestError,
    RequestTimeout,
    request_error,
)
from .identity.revocations import Revocation


class Target(msgspec.Struct, frozen=True, gc=False):
    """Whom: a user's connections, or the one of them that is given by its public id."""

    tenant: str
    user: str
    connection: str = ""


class Signal(msgspec.Struct, tag_field="signal", tag=str.lower, kw_only=True):
    """What one node says to another. ``ticket`` is by what an answer is known."""

    ticket: int


class Called(Signal):
    """A signal that is answered, to ``sender``."""

    sender: str


class Count(Called):
    """How many connections are there?"""

    target: Target


class Disconnect(Called):
    """Close the connections. Answered by how many there were, as all but :class:`Ask` are."""

    target: Target
    code: int
    reason: str


class Unsubscribe(Called):
    """End the subscriptions of the connections to a channel."""

    target: Target
    channel: str
    code: int


class Revoke(Called):
    """End what the tokens that are meant opened, and refuse them. Answered by 1."""

    revocation: Revocation


class Ask(Called):
    """Put this to the connections. Answered by their :class:`Number`, then by :class:`Answer`."""

    target: Target
    kind: Literal["query", "command"]
    name: str
    payload: bytes
    seconds: float


class Withdraw(Called):
    """What was asked is no longer wanted. Not answered."""


class Failure(msgspec.Struct, frozen=True):
    """An exception, on its way to who asked."""

    kind: str
    message: str
    code: int = 0
    temporary: bool = False
    outcome: Literal["none", "unknown"] = "none"
    retry_after: float | None = None
    details: Any = None


class Number(Signal):
    """How many there were: the answer to everything that is asked of all nodes."""

    node: str
    number: int


class Answer(Signal):
    """What a client answered; or why there is no answer."""

    node: str
    payload: bytes = b""
    failure: Failure | None = None


AnySignal: TypeAlias = Count | Disconnect | Unsubscribe | Revoke | Ask | Withdraw | Number | Answer

encode: Callable[[Signal], bytes] = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[AnySignal] = msgspec.msgpack.Decoder(AnySignal)


def decode(payload: bytes) -> AnySignal | None:
    """Read a signal; None for what is none, or is of a later version."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


_KINDS: dict[str, Callable[[Failure], EverwireError]] = {
    "request": lambda failure: request_error(
        failure.code,
        failure.message,
        temporary=failure.temporary,
        outcome=failure.outcome,
        retry_after=failure.retry_after,
        details=failure.details,
    ),
    "timeout": lambda failure: RequestTimeout(failure.message),
    "closed": lambda failure: ClosedError(failure.code, failure.message),
    "unknown": lambda failure: DeliveryUnknown(failure.message),
    "unsent": lambda failure: NotSent(failure.message),
    "data": lambda failure: BadData(failure.message),
}


_SIMPLE: dict[type[EverwireError], str] = {
    RequestTimeout: "timeout",
    DeliveryUnknown: "unknown",
    NotSent: "unsent",
    BadData: "data",
}


def failure_of(error: Exception) -> Failure:
    """Make what :func:`error_of` makes the same exception of; a defect of ours says nothing."""
    if isinstance(error, ClosedError):
        return Failure("closed", error.reason, error.code)
    for kind, name in _SIMPLE.items():
        if isinstance(error, kind):
            return Failure(name, str(error))
    if not isinstance(error, RequestError):
        error = RequestError(outcome="unknown")
    return Failure(
        "request",
        error.message,
        error.code,
        error.temporary,
        error.outcome,
        error.retry_after,
        error.details,
    )


def error_of(failure: Failure) -> EverwireError:
    """Undo :func:`failure_of`."""
    return _KINDS.get(failure.kind, _KINDS["request"])(failure)
