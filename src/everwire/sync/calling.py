"""Written by scripts/sync-facade from everwire.client.calling: change that, not this."""

from __future__ import annotations

from typing import Any, Literal, overload

from ..client.calling import Caller as AsyncCaller, T
from .facade import Facade
from .streams import Stream


class Caller(Facade):
    """What a client can ask of its server; see :class:`.client.Client`."""

    _inside: AsyncCaller

    @overload
    def query(
        self, name: str, payload: Any = None, *, type: type[T], timeout: float | None = None
    ) -> T: ...

    @overload
    def query(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Any: ...

    def query(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Any:
        """Ask for something that changes nothing. Sent again once if the connection drops.

        Args:
            name: of the query.
            payload: its parameters.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.

        Interrupting cancels the handler on the server.

        Raises:
            RequestError: the server refuses, as :exc:`Forbidden`.
            RequestTimeout: no answer in time.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: two connections were lost with it, or the client ended.
        """
        return self._wait(lambda: self._inside.query(name, payload, type=type, timeout=timeout))

    @overload
    def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,
        key: str | Literal[False] | None = None,
    ) -> T: ...

    @overload
    def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,
        key: str | Literal[False] | None = None,
    ) -> Any: ...

    def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,
        key: str | Literal[False] | None = None,
    ) -> Any:
        """Have something done, once: a retry after a drop carries the same key.

        Args:
            name: of the command.
            payload: its parameters.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.
            key: two commands of a user with the same name and key are one; None takes a
                new key, False sends none: then it is not retried.

        Interrupting asks the server to cancel; the command may have run.

        Raises:
            RequestError: the server refuses; ``outcome`` says whether it may have run.
            NotSent: there was no connection in time.
            DeliveryUnknown: sent, and no answer in time: it may have run.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: the client had ended.
        """
        return self._wait(
            lambda: self._inside.command(name, payload, type=type, timeout=timeout, key=key)
        )

    @overload
    def stream(
        self, name: str, payload: Any = None, *, type: type[T], timeout: float | None = None
    ) -> Stream[T]: ...

    @overload
    def stream(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Stream[Any]: ...

    def stream(
        self, name: str, payload: Any = None, *, type: Any = None, timeout: float | None = None
    ) -> Stream[Any]:
        """Ask for an answer in parts: ``for part in client.stream("ticks")``.

        The server sends no more than is taken here. A stream that is interrupted is not
        begun anew: :exc:`~everwire.StreamInterrupted` says how many parts came. A query
        that does not stream has one part, its answer (none, if that is null).

        Args:
            name: of a query whose handler yields.
            payload: its parameters.
            type: what to turn each part into: anything that msgspec understands.
            timeout: seconds that each part may take; the default is ``request_timeout``.

        Raises:
            BadData: the payload cannot be put on the wire.
            ConfigError: the dialect ``plain`` has no streams.
            ConnectionClosed: the client ended.
        """
        inside = self._do(lambda: self._inside.stream(name, payload, type=type, timeout=timeout))
        return Stream(self._background, inside)

    def event(self, name: str, data: Any = None) -> None:
        """Send an event: not answered, and lost if the connection is just being lost.

        Waits for a connection that takes more, at most ``request_timeout`` seconds. Interrupting
        before that sends nothing.

        Raises:
            NotSent: there was no connection in time, or the server does not read.
            BadData: the data cannot be put on the wire.
            RequestError: too big.
            ConnectionClosed: the client ended.
        """
        self._wait(lambda: self._inside.event(name, data))
