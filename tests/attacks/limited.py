"""An application that allows little: ``everwire serve limited:limited``."""

from __future__ import annotations

from app import make  # type: ignore[import-not-found]

from everwire.limits import Limits

limited = make(limits=Limits(messages=100, connections=20))
