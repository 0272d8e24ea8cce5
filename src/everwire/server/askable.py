"""What handlers ask of the client that a connection is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from ..codes import ErrorCode
from ..errors import RequestError
from ..protocol import messages as m
from ..protocol.data import plain_data
from .asking import ask

if TYPE_CHECKING:
    from .connection import Connection

T = TypeVar("T")


class Askable:
    """The part of a connection that handlers ask things of its client with."""

    __slots__ = ()

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
        type: Any = None,  # noqa: A002  # as the client's own
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
    ) -> Any:
        """Ask the client for something that changes nothing; once.

        Args:
            name: of the query.
            payload: its parameters.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.

        Cancelling cancels the client's handler.

        Raises:
            RequestError: the client refuses, or serves no such query.
            RequestTimeout: no answer in time.
            ClosedError: the connection was lost before the answer; :exc:`NotSent`: before
                the question.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
        """
        return await ask(*_one(self, timeout), "query", name, payload, type)

    @overload
    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T: ...

    @overload
    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Any: ...

    async def command(
        self,
        name: str,
        payload: Any = None,
        *,
        type: Any = None,  # noqa: A002  # as the client's own
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
    ) -> Any:
        """Have the client do something; put to it once, and never again.

        The arguments are those of :meth:`query`. Cancelling asks the client to cancel; the
        command may have run.

        Raises:
            RequestError: the client refuses; ``outcome`` says whether it may have run.
            NotSent: the connection is not open.
            DeliveryUnknown: no answer in time, or the connection was lost: it may have run.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
        """
        return await ask(*_one(self, timeout), "command", name, payload, type)

    async def event(self, name: str, data: Any = None) -> None:
        """Send the client an event: not answered, and lost if the connection is.

        Waits while the client reads more slowly than it is sent to. Cancelling before that
        sends nothing.

        Raises:
            BadData: the data cannot be put on the wire.
            RequestError: too big.
        """
        connection = cast("Connection", self)
        node = connection.node
        encoded = connection.dialect.encode(m.Event(name, plain_data(data)), node.now_ms())
        if len(encoded) > node.limits.message:
            raise RequestError(f"event {name!r} is too big", code=ErrorCode.TOO_BIG)
        await connection.writable()
        connection.send_payload(encoded)


def _one(asked: Askable, timeout: float | None) -> tuple[Sequence[Connection], float]:
    connection = cast("Connection", asked)
    return (connection,), connection.node.limits.request_timeout if timeout is None else timeout
