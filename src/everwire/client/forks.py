"""A client belongs to the process that opened it.

A child of ``os.fork`` inherits the sockets, and the loop's selector with them: a byte that it
wrote, even a socket that it took out of the selector, would be its parent's loss. So it is
told, before anything is touched.
"""

from __future__ import annotations

import os

from ..errors import ConfigError

_generation = 0


def _forked() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Origin:
    """Remembers in which process it was made: make it anew where something is opened.

    Args:
        what: belongs to that process, for the error's text.
    """

    __slots__ = ("_generation", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._generation = _generation

    @property
    def here(self) -> bool:
        """Whether this is the process in which it was made."""
        return self._generation == _generation

    def check(self) -> None:
        """Raise in any other process than that.

        Raises:
            ConfigError: this process was forked from it.
        """
        if not self.here:
            raise ConfigError(
                f"this {self._what} belongs to the process that this one was forked from; "
                "connect anew in each process"
            )
