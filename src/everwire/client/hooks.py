"""Calling what the application gave us to call."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError

logger = logging.getLogger("everwire.client")


def call_hook(function: Callable[..., object] | None, *args: Any) -> None:
    """Call a hook, if there is one. What it raises is logged: it is not for us to fail."""
    if function is None:
        return
    try:
        result = function(*args)
        if inspect.iscoroutine(result):
            result.close()
            raise ConfigError("a hook is a plain function; let it start a task")
    except Exception:
        logger.exception("a hook of the application failed")
