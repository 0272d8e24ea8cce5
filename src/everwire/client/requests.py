"""Queries and commands: one answer each, over whatever links it takes."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Literal

from ..codes import ErrorCode
from ..errors import (
    ClosedError,
    ConnectionClosed,
    DeliveryUnknown,
    NotSent,
    RequestError,
    RequestTimeout,
)
from ..limits import MAX_INTEGER, ClientLimits
from ..protocol import messages as m
from ..protocol.answers import answer_error
from ..protocol.data import plain_data
from .link import Answer, Link

QUERY_RESENDS = 1  # links that a query may lose


def error_body(answer: m.Error) -> m.ErrorBody:
    """The same for one channel of a request that failed as a whole."""
    error = answer_error(answer)
    return m.ErrorBody(error.code, answer.name, error.message, error.temporary, answer.retry_after)


class Call:
    """A query or a command that waits for its answer.

    Attributes:
        request_id: on the current link; None while it is not sent on one.
        sent: whether it was ever.
        resent: links that were lost with it.
    """

    __slots__ = ("deadline", "future", "key", "kind", "name", "payload", "request_id", "resent",
                 "sent", "timer")  # fmt: skip

    def __init__(
        self,
        kind: Literal["query", "command"],
        name: str,
        payload: Any,
        key: str | None,
        deadline: float,
        future: asyncio.Future[Any],
    ) -> None:
        self.kind = kind
        self.name = name
        self.payload = payload
        self.key = key
        self.deadline = deadline
        self.future = future
        self.request_id: int | None = None
        self.sent = False
        self.resent = 0
        self.timer: asyncio.TimerHandle | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Calls:
    """The queries and commands under way."""

    def __init__(self, limits: ClientLimits, *, random: Random) -> None:
        self._limits = limits
        self._random = random
        self._pending: dict[Call, None] = {}
        self._unsent: dict[Call, None] = {}  # of them, on this link
        self._link: Link | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def new_key(self) -> str:
        """An idempotency key that nobody else has."""
        return f"{self._random.getrandbits(96):024x}"

    async def run(
        self,
        kind: Literal["query", "command"],
        name: str,
        payload: Any,
        *,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
    ) -> Any:
        """Send and wait for the answer's payload.

        See :meth:`.client.Client.query` and :meth:`.client.Client.command`. Cancelling
        tells the server to cancel the handler.
        """
        loop = asyncio.get_running_loop()
        seconds = self._limits.request_timeout if timeout is None else timeout
        deadline = loop.time() + seconds
        call = Call(kind, name, plain_data(payload), key, deadline, loop.create_future())
        self._pending[call] = self._unsent[call] = None
        call.timer = loop.call_at(call.deadline, self._timed_out, call, seconds)
        try:
            self.pump()
            return await call.future
        except asyncio.CancelledError:
            if self._link is not None and call.request_id is not None:
                self._link.forget(call.request_id)
                self._link.send(m.Cancel(call.request_id))
            raise
        finally:
            call.timer.cancel()
            self._pending.pop(call, None)
            self._unsent.pop(call, None)

    def pump(self) -> None:
        """Send what may be sent: no more than the server reads."""
        link = self._link
        while self._unsent and link is not None and link is self._link:
            if link.held or not link.writable:
                return
            call = next(iter(self._unsent))
            del self._unsent[call]
            self._send(link, call)

    def _send(self, link: Link, call: Call) -> None:
        remaining = call.deadline - asyncio.get_running_loop().time()
        milliseconds = min(max(1, round(remaining * 1000)), MAX_INTEGER)
        request_id = link.next_id()
        message: m.Message
        if call.kind == "query":
            message = m.Query(request_id, call.name, call.payload, milliseconds)
        else:
            message = m.Command(request_id, call.name, call.payload, milliseconds, call.key)
        encoded = link.encode(message)
        if len(encoded) > link.message_limit:
            self._fail(
                call,
                RequestError(
                    f"{call} has {len(encoded)} bytes; the server takes {link.message_limit}",
                    code=ErrorCode.TOO_BIG,
                ),
            )
            return
        call.request_id = request_id
        call.sent = True
        link.ask(request_id, encoded, self._answered, call, timed=False)

    def _answered(self, call: Call, answer: Answer) -> None:
        call.request_id = None
        self._pending.pop(call, None)
        if call.future.done():
            return
        if isinstance(answer, m.Response):
            call.future.set_result(answer.payload)
            return
        error = answer_error(answer)
        if error.code == ErrorCode.TIMEOUT:
            # The server's clock was a little faster than ours.
            call.future.set_exception(_timeout(call, error, error.outcome != "none"))
        else:
            call.future.set_exception(error)

    def _timed_out(self, call: Call, seconds: float) -> None:
        if call.request_id is not None and self._link is not None:
            self._link.forget(call.request_id)
        error = RequestTimeout(f"{call}: no answer within {seconds:g} s")
        self._fail(call, _timeout(call, error, call.sent))

    def _fail(self, call: Call, error: BaseException) -> None:
        self._pending.pop(call, None)
        self._unsent.pop(call, None)
        if not call.future.done():
            call.future.set_exception(error)

    # ---- for the session ---------------------------------------------------------

    def attached(self, link: Link) -> None:
        """A link takes requests: send what waits, with the same keys as before."""
        self._link = link
        self._unsent = dict.fromkeys(call for call in self._pending if call.request_id is None)
        self.pump()

    def lost(self, error: ConnectionClosed) -> None:
        """The link is gone: decide for each call whether it may be sent again."""
        self._link = None
        for call in list(self._pending):
            if call.request_id is None:
                continue
            call.request_id = None
            call.resent += 1
            if call.kind == "query":
                if call.resent > QUERY_RESENDS:
                    self._fail(call, ClosedError(error.code, error.reason))
            elif call.key is None:
                self._fail(call, _unknown(call, "the connection was lost", error))

    def end(self, cause: BaseException) -> None:
        """The client ended: nothing will be answered any more."""
        self._link = None
        for call in list(self._pending):
            if call.kind == "query":
                self._fail(call, cause)
            elif call.sent:
                self._fail(call, _unknown(call, "the client ended", cause))
            else:
                self._fail(call, NotSent(f"{call}: the client ended"))


def _unknown(call: Call, why: str, cause: BaseException) -> DeliveryUnknown:
    error = DeliveryUnknown(f"{call}: {why} before the answer came; it may have run")
    error.__cause__ = cause
    return error


def _timeout(call: Call, cause: Exception, may_have_run: bool) -> Exception:
    """What a call that ran out of time raises: it depends on what may have happened."""
    if call.kind == "command" and may_have_run:
        return _unknown(call, "its time ran out", cause)
    if call.kind == "command" and not call.sent:
        error = NotSent(f"{call}: no connection before its time ran out")
        error.__cause__ = cause
        return error
    if isinstance(cause, RequestTimeout):
        return cause
    timeout = RequestTimeout(f"{call}: {cause}")
    timeout.__cause__ = cause
    return timeout
