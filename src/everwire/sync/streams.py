"""Written by scripts/sync-facade from everwire.client.streams: change that, not this."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..client.streams import Stream as AsyncStream, T
from .facade import Iterating


class Stream(Iterating[T]):
    """The parts of an answer: ``for part in client.stream("ticks")``.

    It begins when it is first iterated over, or entered with ``with``. The server is
    asked for no more than 16 parts ahead of what was taken here. Leaving, by whatever way,
    cancels the handler on the server: at the end of ``with`` at once, otherwise when
    Python lets go of the stream.
    """

    _inside: AsyncStream[T]

    def __enter__(self) -> Self:
        """Ask for it. Interrupting before that asks for nothing.

        Raises:
            NotSent: there was no connection in time.
            RequestError: too big.
            ConnectionClosed: the client ended.
        """
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit(kind, error, traceback)

    @property
    def name(self) -> str:
        """Of the query."""
        return self._do(lambda: self._inside.name)

    @property
    def received(self) -> int:
        """How many parts came so far, also those that were not taken yet."""
        return self._do(lambda: self._inside.received)

    def close(self) -> None:
        """End it, and cancel the handler on the server. Nothing to wait for, or to cancel."""
        self._wait(lambda: self._inside.aclose())
