"""Calling what the application gave us to call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("everwire.client")


def call_hook(function: Callable[..., object] | None, *args: Any) -> None:
    """Call a hook, if there is one. What it raises is logged: it is not for us to fail."""
    if function is None:
        return
    try:
        function(*args)
    except Exception:
        logger.exception("a hook of the application failed")
