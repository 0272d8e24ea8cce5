"""Things to be done later, one for each name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """Calls a function with a name, after a time. A name that is set again is put off.

    Args:
        function: what to call.
    """

    __slots__ = ("_function", "_handles")

    def __init__(self, function: Callable[[str], None]) -> None:
        self._function = function
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def start(self, name: str, delay: float) -> None:
        """Call the function with ``name`` in ``delay`` seconds."""
        self.cancel(name)
        loop = asyncio.get_running_loop()
        self._handles[name] = loop.call_later(delay, self._due, name)

    def _due(self, name: str) -> None:
        del self._handles[name]
        self._function(name)

    def cancel(self, name: str) -> None:
        """Do nothing for ``name``."""
        handle = self._handles.pop(name, None)
        if handle is not None:
            handle.cancel()

    def clear(self) -> None:
        """Do nothing for any."""
        for name in list(self._handles):
            self.cancel(name)
