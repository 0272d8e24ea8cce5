"""What an application passes where it makes a client, a socket or a pool, checked there."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..limits import CLIENT_DEFAULTS, ClientLimits


def checked_limits(limits: Any) -> ClientLimits:
    """Return what an application gave as ``limits=``.

    Raises:
        ConfigError: it is something else.
    """
    if limits is None:
        return CLIENT_DEFAULTS
    if not isinstance(limits, ClientLimits):
        raise ConfigError(
            f"limits must be a ClientLimits, as ClientLimits(outbox_ttl=300), not {limits!r:.60}"
        )
    return limits


def check_seconds(name: str, value: Any, *, or_none: bool = True) -> None:
    """Check what an application gave as a duration.

    Raises:
        ConfigError: it is no number of seconds.
    """
    if value is None and or_none:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value >= 0:  # which nothing is to NaN
        none = ", or None" if or_none else ""
        raise ConfigError(f"{name} must be seconds, as 2.0{none}; not {value!r:.60}")
