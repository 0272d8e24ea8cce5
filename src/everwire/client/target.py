"""Where a client connects to, and as whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..protocol.dialects import Dialect
from .tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a client connects to, and as whom; see :func:`everwire.connect`."""

    url: str
    dialect: Dialect
    tokens: Tokens
    credentials: Any
    name: str
    headers: Mapping[str, str] | None
    ssl: Any
    proxy: str | None
    connect_timeout: float
