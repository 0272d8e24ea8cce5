"""What an application declares for clients to call: queries, commands and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ..handling.handlers import Handler, declare
from .rules import Handlers

F = TypeVar("F", bound=Callable[..., Any])


class Callables:
    """The decorators of :class:`~everwire.Everwire` for handlers that answer."""

    handlers: Handlers

    @overload
    def query(self, function: F) -> F: ...

    @overload
    def query(
        self, *, concurrency: int | None = None, timeout: float | None = None
    ) -> Callable[[F], F]: ...

    def query(
        self,
        function: Any = None,
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Declare a query: safe to repeat; answered with what the function returns.

        What an async generator yields is sent item by item, as fast as the client takes
        it: see :meth:`everwire.Client.stream`. It is closed when nobody listens any more.

        Args:
            function: the handler; without one, this is to be called with settings first.
            concurrency: how many calls may run at a time on a node; others wait their
                turn, within their time. A stream counts for as long as it lasts.
            timeout: seconds that a call may take, waiting included (of a stream: each
                part). A client may ask for less, not for more.
        """
        return self._declare(
            self.handlers.queries,
            function,
            concurrency=concurrency,
            timeout=timeout,
            may_stream=True,
        )

    @overload
    def command(self, function: F) -> F: ...

    @overload
    def command(
        self,
        *,
        idempotent: bool = False,
        concurrency: int | None = None,
        timeout: float | None = None,
    ) -> Callable[[F], F]: ...

    def command(
        self,
        function: Any = None,
        *,
        idempotent: bool = False,
        concurrency: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Declare a command: runs once for its key, however often it is sent.

        Args:
            function: the handler; without one, this is to be called with settings first.
            idempotent: to run it twice is to run it once: where a node died while it ran, a
                retry runs it again. Otherwise nobody knows (``outcome_unknown``).
            concurrency: see :meth:`query`.
            timeout: see :meth:`query`; with a key, whose caller may be gone, the command
                has this time for itself.
        """
        return self._declare(
            self.handlers.commands,
            function,
            idempotent=idempotent,
            concurrency=concurrency,
            timeout=timeout,
        )

    @overload
    def event(self, function: F) -> F: ...

    @overload
    def event(
        self, *, concurrency: int | None = None, timeout: float | None = None
    ) -> Callable[[F], F]: ...

    def event(
        self,
        function: Any = None,
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Declare what happens on an event: it is not answered.

        Args:
            function: the handler; without one, this is to be called with settings first.
            concurrency: see :meth:`query`.
            timeout: see :meth:`query`.
        """
        return self._declare(
            self.handlers.events, function, concurrency=concurrency, timeout=timeout
        )

    @staticmethod
    def _declare(table: dict[str, Handler], function: Any, **settings: Any) -> Any:
        """Declare with or without parentheses."""

        def put(function: F) -> F:
            return declare(table, function, **settings)

        return put if function is None else put(function)
