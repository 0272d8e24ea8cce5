"""Which failures are final, and as what the application hears of them. Pure."""

from __future__ import annotations

import ssl

from ..codes import CloseCode, ErrorCode, reconnects
from ..errors import (
    ClosedError,
    ConfigError,
    ConnectionClosed,
    Forbidden,
    HandshakeRefused,
    RequestError,
    Unauthorized,
)


def is_refused_token(error: Exception) -> bool:
    """Whether a fresh token may help."""
    if isinstance(error, ConnectionClosed):
        return error.code == CloseCode.TOKEN_REFUSED
    return isinstance(error, RequestError) and error.code in (
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.TOKEN_EXPIRED,
    )


def final_error(error: Exception) -> Exception | None:
    """Return what to raise if trying again would end the same way, None if it may not.

    A refused token is not judged here: that takes a count.
    """
    if isinstance(error, ConnectionClosed):
        return _final_close(error)
    if isinstance(error, HandshakeRefused):
        final = not error.temporary
    elif isinstance(error, RequestError):
        # A server that failed over this once need not fail again.
        final = not error.temporary and error.code != ErrorCode.INTERNAL
    else:
        final = isinstance(error, (ConfigError, ssl.SSLCertVerificationError))
    return error if final else None


def _final_close(closed: ConnectionClosed) -> Exception | None:
    if closed.code == CloseCode.UNAUTHORIZED:
        return Unauthorized(closed.reason)
    if closed.code == CloseCode.FORBIDDEN:
        return Forbidden(closed.reason)
    return None if reconnects(closed.code) else ClosedError(closed.code, closed.reason)
