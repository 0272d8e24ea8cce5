"""What a token claims, read strictly (RFC 7519 section 4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...codes import ErrorCode
from ...errors import Unauthorized

LAST_DATE = 253_402_300_800.0  # the year 10000; what is later is no date
Claims = dict[str, Any]


def refused(why: str) -> Unauthorized:
    """The error for a token that cannot be accepted; it says nothing of what is in it."""
    return Unauthorized(f"the token is refused: {why}")


def expired() -> Unauthorized:
    """The error for a token that was good once."""
    return Unauthorized("the token has expired", code=ErrorCode.TOKEN_EXPIRED, temporary=True)


def date(claims: Mapping[str, Any], name: str) -> float | None:
    """Read a date, in seconds since 1970; None if there is none.

    Raises:
        Unauthorized: it is no finite number, or no date.
    """
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(f"{name} is not a number")
    if not 0 <= value < LAST_DATE:  # nor is what is not finite
        raise refused(f"{name} is not a date")
    return float(value)


def text(claims: Mapping[str, Any], name: str) -> str:
    """Read a text that must be there.

    Raises:
        Unauthorized: it is not.
    """
    value = claims.get(name)
    if not isinstance(value, str):
        raise refused(f"{name} is missing or is not text")
    return value


def flag(claims: Mapping[str, Any], name: str, default: bool) -> bool:
    """Read a flag.

    Raises:
        Unauthorized: it is something else.
    """
    value = claims.get(name, default)
    if not isinstance(value, bool):
        raise refused(f"{name} is not true or false")
    return value


def check_dates(claims: Mapping[str, Any], now: float, leeway: float, *, expires: bool) -> None:
    """Check that a token is good now.

    Args:
        claims: what it claims.
        now: seconds since 1970.
        leeway: seconds by which clocks may differ.
        expires: it must say when it ends.

    Raises:
        Unauthorized: it is not; ``token_expired`` where it was once.
    """
    begin, issued, end = date(claims, "nbf"), date(claims, "iat"), date(claims, "exp")
    if end is None and expires:
        raise refused("it does not say when it expires (exp)")
    if end is not None and now >= end + leeway:
        raise expired()
    if begin is not None and now < begin - leeway:
        raise refused("it is not good yet (nbf)")
    if issued is not None and now < issued - leeway:
        raise refused("it was issued in the future (iat)")


def ends(claims: Mapping[str, Any], now: float, leeway: float) -> float | None:
    """When a token that was accepted at ``now`` ends what it opened.

    At its end; one that is taken beyond its end, for the sake of clocks that differ, when
    the leeway is over.
    """
    end = date(claims, "exp")
    return end if end is None or now < end else end + leeway


def check_audience(claims: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Check that a token is meant for us. One that names no audience is for everybody.

    Raises:
        Unauthorized: it is meant for others, or we expect to be named and are not.
    """
    named = claims.get("aud")
    if named is None and not allowed:
        return
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise refused("aud is not text or a list of texts")
    if not any(name in allowed for name in names):
        raise refused("it is meant for others (aud)")
