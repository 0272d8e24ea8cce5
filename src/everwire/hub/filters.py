"""Readers of a channel that are sent only some of its messages, by the server's choice.

Those who were granted the same function share a lane, so it is asked once for a message and
dialect, however many readers there are. To them ``prev`` is the last message that passed
before: what comes is contiguous, and they do not learn what did not pass.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..protocol.data import unpack_data
from .registry import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..brokers.base import Record
    from ..protocol.dialects import Wire
    from .registry import Channel


class ReaderFilter:
    """A function of the application that says of a message's data whether it is sent.

    Two of the same function are equal.

    Args:
        function: is handed the data; not a coroutine function.
        failed: is called, inside of the ``except``, when it raises. Then the message does
            not pass.
    """

    __slots__ = ("_failed", "_function")

    def __init__(self, function: Callable[[Any], object], failed: Callable[[], None]) -> None:
        if inspect.iscoroutinefunction(function):
            raise TypeError("a filter is asked for each message: it cannot be a coroutine function")
        self._function = function
        self._failed = failed

    def passes(self, record: Record) -> bool:
        """Whether a message is sent."""
        try:
            return bool(self._function(unpack_data(record.payload)))
        except Exception:  # noqa: BLE001  # the application's, in the middle of a fan-out
            self._failed()
            return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReaderFilter) and other._function == self._function

    def __hash__(self) -> int:
        return hash(self._function)


def after(record: Record, prev: int) -> Record:
    """The message as the one that follows the offset ``prev``."""
    return record if prev == record.offset - 1 else replace(record, prev=prev)


class FilteredLane(Lane):
    """A lane for readers with the same filter.

    Attributes:
        passed: what each of the readers was sent last, or something before it.
    """

    __slots__ = ("filter", "passed")

    def __init__(self, channel: Channel, wire: Wire, filter: ReaderFilter, passed: int) -> None:  # noqa: A002
        super().__init__(channel, wire)
        self.filter = filter
        self.passed = passed

    def frame(self, record: Record) -> bytes:
        if not self.filter.passes(record):
            return b""
        before, self.passed = self.passed, record.offset
        return super().frame(after(record, before))
