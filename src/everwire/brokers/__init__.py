"""Brokers: where a channel's messages get their numbers and are kept."""

from __future__ import annotations

from collections.abc import Callable
from time import time
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..limits import Limits
from .base import Broker

SCHEMES = ("memory",)
PLANNED = ("sqlite", "redis", "rediss", "redis+sentinel", "redis+cluster", "nats")


def open_broker(
    url: str, limits: Limits | None = None, *, wall: Callable[[], float] = time
) -> Broker:
    """Make the broker that ``url`` names, not yet started. ``auto`` is ``memory://``.

    Raises:
        ConfigError: there is no such broker; the text names those that exist.
    """
    scheme = "memory" if url in ("auto", "") else urlsplit(url).scheme or url
    if scheme == "memory":
        from .memory import MemoryBroker

        return MemoryBroker(limits, wall=wall)
    known = ", ".join(f"{name}://" for name in SCHEMES)
    if scheme in PLANNED:
        raise ConfigError(f"the broker {scheme}:// is not built yet; use {known}")
    raise ConfigError(f"there is no broker {url!r}; use {known}")


__all__ = ["Broker", "open_broker"]
