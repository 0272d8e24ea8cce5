"""What a server asks of its clients: queries and commands, each put once.

To a connection, or to the connections of a user: of a query the first answer wins, and a
command needs exactly one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, overload

from ..codes import CloseCode, ErrorCode
from ..errors import (
    BadData,
    ClosedError,
    ConfigError,
    DeliveryUnknown,
    NotSent,
    RequestError,
    RequestTimeout,
    Unavailable,
)
from ..limits import MAX_INTEGER
from ..protocol import messages as m
from ..protocol.answers import answer_error, convert_result
from ..protocol.data import check_data, plain_data
from ..protocol.states import ConnectionState

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

T = TypeVar("T")
Kind: TypeAlias = Literal["query", "command"]
Answer: TypeAlias = m.Response | m.Error
Answered: TypeAlias = Callable[[Answer | None], None]

_UNKNOWN = ErrorCode.UNKNOWN_TYPE


class Asked:
    """The requests that a connection was put and has not answered."""

    __slots__ = ("_serial", "_waiting")

    def __init__(self) -> None:
        self._serial = 0
        self._waiting: dict[m.RequestId, Answered] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, answered: Answered) -> int:
        """Note a request; return its id. ``answered(None)`` means: the connection is gone."""
        self._serial += 1
        self._waiting[self._serial] = answered
        return self._serial

    def forget(self, request_id: m.RequestId) -> bool:
        """Ignore the answer; return whether it had not come."""
        return self._waiting.pop(request_id, None) is not None

    def answer(self, message: Answer) -> bool:
        """An answer came; return whether it was one to anything."""
        if message.request_id is None:
            return False
        answered = self._waiting.pop(message.request_id, None)
        if answered is not None:
            answered(message)
        return answered is not None

    def lost(self) -> None:
        """The connection is gone: nothing will be answered."""
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            answered(None)


class _Request:
    """One request, put to some connections. The first response is its result."""

    def __init__(
        self, kind: Kind, name: str, payload: Any, seconds: float, targets: Sequence[Connection]
    ) -> None:
        self._kind = kind
        self._name = name
        self._payload = plain_data(payload)
        self._seconds = seconds
        self._targets = targets
        self._put: list[tuple[Connection, int]] = []
        self._failures: list[Exception] = []
        self._result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __str__(self) -> str:
        return f"{self._kind} {self._name!r}"

    async def run(self) -> Any:
        deadline = asyncio.timeout(self._seconds)
        try:
            for connection in self._targets:
                try:
                    self._put_to(connection)
                except (NotSent, RequestError) as error:
                    self._failed(error)
            async with deadline:
                return await self._result
        except TimeoutError as error:
            if not deadline.expired():  # it is what was answered
                raise
            late = RequestTimeout(f"{self}: no answer within {self._seconds:g} s")
            raise self._unknown("its time ran out", late) from error
        finally:
            for connection, request_id in self._put:
                if connection.asked is not None and connection.asked.forget(request_id):
                    connection.send(m.Cancel(request_id))

    def _put_to(self, connection: Connection) -> None:
        if connection.state is not ConnectionState.READY:
            raise NotSent(f"{self}: the connection is not open")
        if not connection.dialect.acknowledges:
            raise RequestError(
                f"{self}: a client of the dialect plain is asked nothing",
                code=ErrorCode.UNKNOWN_TYPE,
            )
        if connection.asked is None:
            connection.asked = Asked()
        limits = connection.node.limits
        # Less than are worked on for it: otherwise handlers that wait for the client's
        # answers could be so many that nothing is read from it any more.
        if len(connection.asked) >= min(limits.asked, max(1, limits.inflight // 2)):
            raise Unavailable(f"{self}: the connection has many requests to answer; later")
        request_id = connection.asked.begin(self._answered)
        milliseconds = min(max(1, round(self._seconds * 1000)), MAX_INTEGER)
        kind = m.Query if self._kind == "query" else m.Command
        encoded = connection.dialect.encode(
            kind(request_id, self._name, self._payload, milliseconds)
        )
        if len(encoded) > limits.message:
            connection.asked.forget(request_id)
            raise RequestError(
                f"{self} has {len(encoded)} bytes; a message may have {limits.message}",
                code=ErrorCode.TOO_BIG,
            )
        self._put.append((connection, request_id))
        connection.send_payload(encoded)

    def _answered(self, answer: Answer | None) -> None:
        if self._result.done():
            return
        if answer is None:
            lost = ClosedError(CloseCode.ABNORMAL, f"lost before {self} was answered")
            self._failed(self._unknown("the connection was lost", lost))
        elif isinstance(answer, m.Error):
            self._failed(self._refused(answer_error(answer)))
        else:
            try:
                check_data(answer.payload)
            except BadData as error:
                self._failed(error)
            else:
                self._result.set_result(answer.payload)

    def _refused(self, error: RequestError) -> Exception:
        if error.code != ErrorCode.TIMEOUT:
            return error
        if error.outcome != "none":
            return self._unknown("its time ran out", error)
        return RequestTimeout(f"{self}: {error}")

    def _unknown(self, why: str, cause: Exception) -> Exception:
        """What is raised where nobody answered: a command may have run."""
        if self._kind == "query":
            return cause
        error = DeliveryUnknown(f"{self}: {why} before the answer came; it may have run")
        error.__cause__ = cause
        return error

    def _failed(self, error: Exception) -> None:
        self._failures.append(error)
        if len(self._failures) == len(self._targets):
            # Of several failures, one of those who know what was asked.
            told = [one for one in self._failures if getattr(one, "code", 0) != _UNKNOWN]
            self._result.set_exception((told or self._failures)[0])


async def ask(
    targets: Sequence[Connection],
    seconds: float,
    kind: Kind,
    name: str,
    payload: Any,
    kind_of_answer: Any,
) -> Any:
    """Put a request to connections, all at once; return the first answer.

    Cancelling cancels the clients' handlers.

    Raises:
        RequestError: what a client answers; or too big; or too many are unanswered.
        RequestTimeout: no answer to a query in time.
        ClosedError: the connection was lost before a query was answered.
        DeliveryUnknown: either of them, for a command.
        NotSent: the connection is not open.
        BadData: the payload cannot be put on the wire, or the answer is not what was wanted.
    """
    result = await _Request(kind, name, payload, seconds, targets).run()
    return convert_result(result, kind_of_answer, f"{kind} {name!r}")


async def ask_user(
    node: Node,
    user: tuple[str, str],
    seconds: float,
    kind: Kind,
    name: str,
    payload: Any,
    kind_of_answer: Any,
) -> Any:
    """Put a request to the connections of a user, given with the tenant before the name.

    Cancelling and errors are those of :func:`ask`.

    Raises:
        RequestError: also ``ambiguous_target``: a command, and not exactly one connection;
            ``unavailable``: a query, and no connection.
    """
    if not user[1]:
        raise ConfigError("whom? name a user, or give a connection: the anonymous are many")
    targets = node.users.connections(user)
    if kind == "command" and len(targets) != 1:
        raise RequestError(
            f"command {name!r}: user {user[1]!r} has {len(targets)} connections here; "
            "choose one of them",
            code=ErrorCode.AMBIGUOUS_TARGET,
        )
    if not targets:
        raise Unavailable(f"query {name!r}: user {user[1]!r} has no connection here")
    return await ask(targets, seconds, kind, name, payload, kind_of_answer)


def on_answer(node: Node, connection: Connection, message: Answer) -> None:
    """A client answers; to nothing, if that was given up meanwhile."""
    if connection.asked is None or not connection.asked.answer(message):
        node.count("unexpected_messages")
        if not connection.dialect.acknowledges:
            error = RequestError("a server does not take this", code=ErrorCode.UNKNOWN_TYPE)
            connection.refuse(None, error)


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
