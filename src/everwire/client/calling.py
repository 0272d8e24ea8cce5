"""The part of a client that asks: queries, commands, streams and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ..codes import ErrorCode
from ..errors import ConfigError, RequestError
from ..protocol import messages as m
from ..protocol.answers import convert_result
from ..protocol.data import plain_data
from .streams import Inflow, Stream

if TYPE_CHECKING:
    from .any_core import AnyCore

T = TypeVar("T")


class Caller:
    """What a client can ask of its server; see :class:`.client.Client`."""

    _core: AnyCore

    @overload
    async def query(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T: ...

    @overload
    async def query(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any: ...

    async def query(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,  # noqa: A002  # reads best at the call
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
    ) -> Any:
        """Ask for something that changes nothing. Sent again once if the connection drops.

        Args:
            name: of the query.
            payload: its parameters.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.

        Cancelling cancels the handler on the server.

        Raises:
            RequestError: the server refuses, as :exc:`Forbidden`.
            RequestTimeout: no answer in time.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: two connections were lost with it, or the client ended.
        """
        self._core.check()
        result = await self._core.calls.run("query", name, payload, timeout=timeout)
        return convert_result(result, type, f"query {name!r}")

    @overload
    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
        key: str | Literal[False] | None = None,
    ) -> T: ...

    @overload
    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
        key: str | Literal[False] | None = None,
    ) -> Any: ...

    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,  # noqa: A002  # reads best at the call
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
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

        Cancelling asks the server to cancel; the command may have run.

        Raises:
            RequestError: the server refuses; ``outcome`` says whether it may have run.
            NotSent: there was no connection in time.
            DeliveryUnknown: sent, and no answer in time: it may have run.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
            ConnectionClosed: the client had ended.
        """
        self._core.check()
        chosen = None if key is False else key or self._core.calls.new_key()
        result = await self._core.calls.run("command", name, payload, key=chosen, timeout=timeout)
        return convert_result(result, type, f"command {name!r}")

    @overload
    def stream(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,
    ) -> Stream[Any]: ...

    def stream(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,  # noqa: A002  # reads best at the call
        timeout: float | None = None,
    ) -> Stream[Any]:
        """Ask for an answer in parts: ``async for part in client.stream("ticks")``.

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
        core = self._core
        core.check()
        if not core.acknowledges:
            raise ConfigError("the dialect 'plain' has no streams; choose another one")
        seconds = core.limits.request_timeout if timeout is None else timeout
        plain = plain_data(payload)

        async def begin() -> Inflow:
            return await core.begin_stream(name, plain, seconds)

        return Stream(begin, name, type, seconds)

    async def event(self, name: str, data: Any = None) -> None:
        """Send an event: not answered, and lost if the connection is just being lost.

        Waits for a connection that takes more, at most ``request_timeout`` seconds. Cancelling
        before that sends nothing.

        Raises:
            NotSent: there was no connection in time, or the server does not read.
            BadData: the data cannot be put on the wire.
            RequestError: too big.
            ConnectionClosed: the client ended.
        """
        self._core.check()
        message = m.Event(name, plain_data(data))
        link = await self._core.ready_link()
        encoded = link.encode(message)
        if len(encoded) > link.message_limit:
            raise RequestError(f"event {name!r} is too big", code=ErrorCode.TOO_BIG)
        link.send_bytes(encoded)
