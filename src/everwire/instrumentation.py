"""Being watched without being drowned: log lines that hostile input cannot multiply."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_CONTROL = {code: f"\\x{code:02x}" for code in [*range(32), 127, *range(128, 160)]}
MAX_KEYS = 1_000


def printable(text: object, limit: int = 200) -> str:
    """Text of unknown origin as it may stand in a log: one line, no escapes, not endless."""
    whole = str(text).translate(_CONTROL)
    return whole if len(whole) <= limit else f"{whole[:limit]}…"


class LimitedLog:
    """Writes at most one line for a key in ``interval`` seconds, and counts the others.

    Args:
        logger: where the lines go.
        clock: seconds that only grow.
        interval: seconds between two lines with the same key.
    """

    def __init__(
        self, logger: logging.Logger, clock: Callable[[], float], interval: float = 10.0
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._interval = interval
        self._keys: dict[str, list[float]] = {}  # when it was last written, and how many since

    def log(
        self,
        level: int,
        key: str,
        message: str,
        *args: Any,
        exc_info: BaseException | None = None,
    ) -> None:
        """Write ``message % args``, the arguments made printable; or only count it."""
        now = self._clock()
        state = self._keys.get(key)
        if state is not None and now - state[0] < self._interval:
            state[1] += 1
            return
        if state is None and len(self._keys) >= MAX_KEYS:
            self._keys.clear()
        left_out = int(state[1]) if state is not None else 0
        self._keys[key] = [now, 0]
        if left_out:
            message = f"{message} ({left_out} more like this were not logged)"
        self._logger.log(level, message, *map(printable, args), exc_info=exc_info)
