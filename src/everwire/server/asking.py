"""What a server asks of its clients: queries and commands, each put once.

To a connection, or to several, here and at other nodes: of a query the first answer wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..codes import CloseCode, ErrorCode
from ..errors import (
    BadData,
    BrokerUnavailable,
    ClosedError,
    DeliveryUnknown,
    NotSent,
    RequestError,
    RequestTimeout,
    Unavailable,
)
from ..limits import MAX_INTEGER
from ..protocol import messages as m
from ..protocol.answers import answer_error, convert_result
from ..protocol.data import check_data, plain_data, unpack_data
from ..protocol.states import ConnectionState

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node
    from .others import Elsewhere, Outcome, Question

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
        self,
        kind: Kind,
        name: str,
        payload: Any,
        seconds: float,
        targets: Sequence[Connection],
        elsewhere: Elsewhere | None,
    ) -> None:
        self._kind = kind
        self._name = name
        self._payload = plain_data(payload)
        self._seconds = seconds
        self._targets = targets
        self._elsewhere = elsewhere
        self._outstanding = len(targets) + (len(elsewhere.nodes) if elsewhere else 0)
        self._put: list[tuple[Connection, int]] = []
        self._failures: list[Exception] = []
        self._result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __str__(self) -> str:
        return f"{self._kind} {self._name!r}"

    async def run(self) -> Any:
        deadline = asyncio.timeout(self._seconds)
        question: Question | None = None
        try:
            for connection in self._targets:
                try:
                    self._put_to(connection)
                except (NotSent, RequestError) as error:
                    self._failed(error)
            async with deadline:
                if self._elsewhere is not None:
                    question = await self._put_elsewhere(self._elsewhere)
                return await self._result
        except TimeoutError as error:
            if not deadline.expired():  # it is what was answered
                raise
            late = RequestTimeout(f"{self}: no answer within {self._seconds:g} s")
            raise self._unknown("its time ran out", late) from error
        finally:
            if question is not None:
                question.close()
            for connection, request_id in self._put:
                if connection.asked is not None and connection.asked.forget(request_id):
                    connection.send(m.Cancel(request_id))
            if self._result.done() and not self._result.cancelled():
                self._result.exception()  # nobody may have come to wait for it

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

    async def _put_elsewhere(self, elsewhere: Elsewhere) -> Question | None:
        try:
            return await elsewhere.put(
                self._kind, self._name, self._payload, self._seconds, self._told
            )
        except BrokerUnavailable as error:
            for _ in elsewhere.nodes:
                lost = Unavailable(f"{self}: other nodes cannot be asked: {error}")
                self._failed(self._unknown("the broker failed", lost))
            return None

    def _told(self, outcome: Outcome) -> None:
        """What became of it at another node."""
        if isinstance(outcome, bytes):
            self._responded(unpack_data(outcome))
        else:
            self._failed(outcome)

    def _answered(self, answer: Answer | None) -> None:
        if answer is None:
            lost = ClosedError(CloseCode.ABNORMAL, f"lost before {self} was answered")
            self._failed(self._unknown("the connection was lost", lost))
        elif isinstance(answer, m.Error):
            self._failed(self._refused(answer_error(answer)))
        else:
            self._responded(answer.payload)

    def _responded(self, payload: Any) -> None:
        try:
            check_data(payload)
        except BadData as error:
            self._failed(error)
        else:
            if not self._result.done():
                self._result.set_result(payload)

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

    def _failed(self, error: Exception | None) -> None:
        """There is no answer from one of those asked; None: nobody is there."""
        self._outstanding -= 1
        if error is not None:
            self._failures.append(error)
        if self._outstanding or self._result.done():
            return
        # Of several failures, one of those who know what was asked.
        told = [one for one in self._failures if getattr(one, "code", 0) != _UNKNOWN]
        nobody = Unavailable(f"{self}: the user has no connection")
        self._result.set_exception([*told, *self._failures, nobody][0])


async def ask(
    targets: Sequence[Connection],
    seconds: float,
    kind: Kind,
    name: str,
    payload: Any,
    kind_of_answer: Any,
    elsewhere: Elsewhere | None = None,
) -> Any:
    """Put a request to connections, all at once; return the first answer.

    Cancelling cancels the clients' handlers.

    Raises:
        RequestError: what a client answers; or too big; or too many are unanswered; or
            ``unavailable``: there is nobody ``elsewhere``.
        RequestTimeout: no answer to a query in time.
        ClosedError: the connection was lost before a query was answered.
        DeliveryUnknown: either of them, for a command.
        NotSent: the connection is not open.
        BadData: the payload cannot be put on the wire, or the answer is not what was wanted.
    """
    result = await _Request(kind, name, payload, seconds, targets, elsewhere).run()
    return convert_result(result, kind_of_answer, f"{kind} {name!r}")


def on_answer(node: Node, connection: Connection, message: Answer) -> None:
    """A client answers; to nothing, if that was given up meanwhile."""
    if connection.asked is None or not connection.asked.answer(message):
        node.count("unexpected_messages")
        if not connection.dialect.acknowledges:
            error = RequestError("a server does not take this", code=ErrorCode.UNKNOWN_TYPE)
            connection.refuse(None, error)
