"""Every exception that the package raises.

* :exc:`EverwireError`
    * :exc:`ConfigError`: a setting cannot be used (also a ``ValueError``)
    * :exc:`ConnectionClosed`: the WebSocket is gone
        * :exc:`ClosedOK`: as agreed
        * :exc:`ClosedError`: otherwise
            * :exc:`StreamInterrupted`: in the middle of a stream
    * :exc:`HandshakeRefused`: the server did not accept the WebSocket
    * :exc:`RequestError`: the server answered with an error
        * :exc:`Unauthorized`, :exc:`Forbidden`, :exc:`BadRequest`, :exc:`Unavailable`
    * :exc:`RequestTimeout`: no answer in time (also a ``TimeoutError``)
    * :exc:`NotSent`: given up before anything was sent; sending again is safe
        * :exc:`Dropped`: by the overflow policy of a full queue
            * :exc:`Superseded`: in favour of a later message with the same key
        * :exc:`NotStored`: the file of a durable outbox could not be written
        * :exc:`PoolTimeout`: no member of a pool was free in time (also a ``TimeoutError``)
    * :exc:`DeliveryUnknown`: sent, and nobody knows whether it took effect
        * :exc:`StillQueued`: it stays in a durable outbox and will be sent again
    * :exc:`OutboxFull`: more is waiting to be sent than is allowed
    * :exc:`BrokerUnavailable`: the server's broker cannot be reached
    * :exc:`ProtocolError`: what was received breaks the protocol
        * :exc:`BadData`: a payload that is not allowed on the wire

The same classes serve both sides: a handler that raises ``Forbidden("staff only")``
on the server makes the client's call raise ``Forbidden`` with that text.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from .codes import ERRORS, CloseCode, ErrorCode

__all__ = [
    "BadData",
    "BadRequest",
    "BrokerUnavailable",
    "ClosedError",
    "ClosedOK",
    "ConfigError",
    "ConnectionClosed",
    "DeliveryUnknown",
    "Dropped",
    "EverwireError",
    "Forbidden",
    "HandshakeRefused",
    "NotSent",
    "NotStored",
    "OutboxFull",
    "PoolTimeout",
    "ProtocolError",
    "RequestError",
    "RequestTimeout",
    "StillQueued",
    "StreamInterrupted",
    "Superseded",
    "Unauthorized",
    "Unavailable",
    "request_error",
]

Outcome = Literal["none", "unknown"]


class EverwireError(Exception):
    """The root of all of them."""


class ConfigError(EverwireError, ValueError):
    """A setting cannot be used; the text names it and the remedy."""


class ConnectionClosed(EverwireError):
    """The WebSocket is closed.

    Attributes:
        code: the close code (RFC 6455 section 7.4.1; 1006 when none arrived).
        reason: the text that came with it.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        try:
            name = f" {CloseCode(self.code).name.lower()}"
        except ValueError:
            name = ""
        return f"connection closed: {self.code}{name}" + (
            f" ({self.reason})" if self.reason else ""
        )


class ClosedOK(ConnectionClosed):
    """Closed as agreed: 1000, or by our own ``close()``."""


class ClosedError(ConnectionClosed):
    """Closed otherwise."""


class StreamInterrupted(ClosedError):
    """The connection was lost in the middle of a stream, which is not begun anew by itself.

    Attributes:
        parts: how many parts of it had come; all of them were handed over before this.
    """

    def __init__(self, code: int, reason: str = "", *, parts: int = 0) -> None:
        super().__init__(code, reason)
        self.parts = parts

    def __str__(self) -> str:
        return f"the stream ended after {self.parts} parts: {super().__str__()}"


class HandshakeRefused(EverwireError):
    """The server answered the handshake with something else than a WebSocket.

    Attributes:
        status: the HTTP status; 0 where no HTTP answer came.
        temporary: whether trying again can help.
        retry_after: seconds that the server asked to wait, or None.
    """

    def __init__(
        self, status: int, reason: str, *, temporary: bool, retry_after: float | None = None
    ) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.temporary = temporary
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), temporary=self.temporary, retry_after=self.retry_after)
        return make, (self.status, self.reason), vars(self)

    def __str__(self) -> str:
        status = f"HTTP {self.status} " if self.status else ""
        return f"the server refused the WebSocket: {status}{self.reason}"


class RequestError(EverwireError):
    """A request was answered with an error.

    Attributes:
        code: the number (:class:`everwire.codes.ErrorCode`).
        name: its name on the wire, as ``forbidden``.
        message: the text, for people.
        temporary: whether the same request may succeed later.
        outcome: ``"none"``: nothing happened; ``"unknown"``: it may have happened.
        retry_after: seconds to wait first, or None.
        details: anything more, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: int = ErrorCode.INTERNAL,
        temporary: bool | None = None,
        outcome: Outcome = "none",
        retry_after: float | None = None,
        details: Any = None,
    ) -> None:
        known = ErrorCode(code) if code in ErrorCode._value2member_map_ else None
        self.code = int(code)
        self.name = known.wire_name if known else f"error_{code}"
        self.message = message or (ERRORS[known].meaning if known else "")
        self.temporary = (
            temporary if temporary is not None else bool(known and ERRORS[known].temporary)
        )
        self.outcome = outcome
        self.retry_after = retry_after
        self.details = details
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.name} ({self.code}): {self.message}"


class _Named(RequestError):
    """An error whose class says its code."""

    CODE = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str = "",
        *,
        temporary: bool | None = None,
        outcome: Outcome = "none",
        retry_after: float | None = None,
        details: Any = None,
        code: int | None = None,
    ) -> None:
        super().__init__(
            message,
            code=self.CODE if code is None else code,
            temporary=temporary,
            outcome=outcome,
            retry_after=retry_after,
            details=details,
        )


class BadRequest(_Named):
    """A field is missing, or of the wrong kind."""

    CODE = ErrorCode.BAD_REQUEST


class Unauthorized(_Named):
    """The token or the credentials are refused. Raised by an ``authenticate`` handler.

    With ``temporary=True`` a fresh token may help (the connection is closed with 4402);
    otherwise the client is told to stay away (4500).
    """

    CODE = ErrorCode.UNAUTHENTICATED


class Forbidden(_Named):
    """The user may not do this. Raised by handlers; what it says reaches the client."""

    CODE = ErrorCode.FORBIDDEN


class Unavailable(_Named):
    """It cannot be done now: the broker does not answer, or too much is being done."""

    CODE = ErrorCode.UNAVAILABLE


class RequestTimeout(EverwireError, TimeoutError):
    """No answer arrived in time. What was asked may still happen."""


class NotSent(EverwireError):
    """Given up before it was sent for the first time: it had no effect and may be sent again."""


class Dropped(NotSent):
    """The overflow policy of a full queue dropped it; it was not sent."""


class Superseded(Dropped):
    """A later message with the same key took its place before it was sent."""


class NotStored(NotSent):
    """The file of the durable outbox could not be written: the disk is full, or broken.

    The text says what the system said. The message was not sent, and will not be.
    """


class PoolTimeout(NotSent, TimeoutError):
    """No member of a pool was ready and free in time; the text says what they were at."""


class DeliveryUnknown(EverwireError):
    """It was sent, and no acknowledgement came: it may or may not have taken effect."""


class StillQueued(DeliveryUnknown):
    """The client ended first; the message stays in the durable outbox's file.

    It goes out when that file is opened again: do not publish it a second time.
    """


class OutboxFull(EverwireError):
    """As many messages, or bytes, are waiting to be sent as are allowed.

    Wait for acknowledgements, raise the limit, or choose another overflow policy.
    """


class BrokerUnavailable(EverwireError):
    """The broker does not answer.

    Attributes:
        outcome: ``"unknown"`` if what was asked may have been done nevertheless.
    """

    def __init__(self, message: str, *, outcome: Outcome = "none") -> None:
        super().__init__(message)
        self.outcome = outcome


class ProtocolError(EverwireError):
    """The other side sent something that the protocol does not allow."""


class BadData(ProtocolError, ValueError):
    """A payload holds something that is not allowed on the wire; the text says what."""


_BY_CODE: dict[int, type[_Named]] = {
    ErrorCode.BAD_REQUEST: BadRequest,
    ErrorCode.UNAUTHENTICATED: Unauthorized,
    ErrorCode.TOKEN_EXPIRED: Unauthorized,
    ErrorCode.FORBIDDEN: Forbidden,
    ErrorCode.UNAVAILABLE: Unavailable,
}


def request_error(
    code: int,
    message: str,
    *,
    temporary: bool,
    outcome: Outcome = "none",
    retry_after: float | None = None,
    details: Any = None,
) -> RequestError:
    """Make the exception whose class fits ``code``."""
    return _BY_CODE.get(code, RequestError)(
        message,
        code=code,
        temporary=temporary,
        outcome=outcome,
        retry_after=retry_after,
        details=details,
    )
