"""What a client does for its server: answers queries, obeys commands, listens to events."""

from __future__ import annotations

import asyncio
import logging
import sys
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from ..codes import ErrorCode
from ..errors import BadData, BadRequest, Outcome, RequestError
from ..handling.handlers import CLIENT, Function, Handler, declare
from ..instrumentation import LimitedLog
from ..limits import ClientLimits
from ..net.tasks import TaskOwner
from ..protocol import messages as m
from ..protocol.data import check_data, plain_data
from ..protocol.messages import error_message
from .link import Link

if TYPE_CHECKING:
    from .client import Client

F = TypeVar("F", bound=Function)

logger = logging.getLogger("everwire.client")


class Handlers:
    """What the server may ask of a client. Give it to :func:`everwire.connect`.

    Like this::

        handlers = Handlers()

        @handlers.query
        async def confirm(client: Client, text: str) -> bool: ...

    A handler takes the client, and then what its annotations say of the payload, as a
    server's does. A plain function runs in a thread, where it may block; coroutines are
    called there by :func:`everwire.from_thread.run`. Any method of the client may be called
    in a handler. The same handlers may serve several clients.

    What a handler raises is logged, and the server is told no more than that; but for a
    :exc:`~everwire.RequestError`, as ``Forbidden("not now")``, which it is told whole.
    """

    def __init__(self) -> None:
        self.queries: dict[str, Handler] = {}
        self.commands: dict[str, Handler] = {}
        self.events: dict[str, Handler] = {}

    def query(self, function: F) -> F:
        """Declare a query: changes nothing; answered with what the function returns."""
        return declare(self.queries, function, first=CLIENT)

    def command(self, function: F) -> F:
        """Declare a command: the server puts each to one connection, once."""
        return declare(self.commands, function, first=CLIENT)

    def event(self, function: F) -> F:
        """Declare what happens on an event: it is not answered."""
        return declare(self.events, function, first=CLIENT)

    def __repr__(self) -> str:
        names = sorted({*self.queries, *self.commands, *self.events})
        return f"<Handlers {' '.join(names)}>"


class Answering:
    """Runs a client's handlers, each in a task, so many at a time.

    Attributes:
        client: that the handlers are given.
    """

    def __init__(self, client: Client, handlers: Handlers, limits: ClientLimits) -> None:
        self.client = client
        self._handlers = handlers
        self._limits = limits
        self._tasks = TaskOwner("everwire client's handler")
        self._running: dict[tuple[int, m.RequestId], tuple[Link, asyncio.Task[None]]] = {}
        self._serial = count(-1, -1)  # events have no id; it is never one of the wire
        self._log: LimitedLog | None = None

    def __len__(self) -> int:
        return len(self._running)

    def asked(self, link: Link, message: m.Query | m.Command) -> None:
        """The server asks something."""
        kind = "query" if isinstance(message, m.Query) else "command"
        table = self._handlers.queries if kind == "query" else self._handlers.commands
        handler = table.get(message.name)
        key = (link.number, message.id)
        most = self._limits.handlers
        if handler is None:
            text = f"this client serves no {kind} {message.name[:80]!r}"
            _refuse(link, message, ErrorCode.UNKNOWN_TYPE, text)
        elif key in self._running:
            _refuse(link, message, ErrorCode.DUPLICATE_ID)
        elif len(self._running) >= most:
            text = f"{most} handlers of the client run, the most allowed; later"
            _refuse(link, message, ErrorCode.UNAVAILABLE, text)
        else:
            link.serving += 1
            task = self._tasks.start(self._answer(link, handler, message), message.name)
            self._running[key] = (link, task)

    async def _answer(self, link: Link, handler: Handler, message: m.Query | m.Command) -> None:
        """Run a handler, and see to it that the server is answered, whatever happens."""
        # A command that was stopped may have done something before.
        outcome: Outcome = "none" if isinstance(message, m.Query) else "unknown"
        deadline = asyncio.timeout(
            self._limits.request_timeout if message.timeout is None else message.timeout / 1000
        )
        try:
            async with deadline:
                result = await self._call(handler, message.payload)
            encoded = link.encode(m.Response(message.id, result))
            if len(encoded) > link.message_limit:
                text = f"the answer has {len(encoded)} bytes, and {link.message_limit} are allowed"
                _refuse(link, message, ErrorCode.TOO_BIG, text, outcome)
            else:
                link.send_bytes(encoded)
        except RequestError as error:
            link.send(error_message(message.id, error))
        except asyncio.CancelledError:
            _refuse(link, message, ErrorCode.CANCELLED, "", outcome)
            raise
        except Exception:  # noqa: BLE001  # what a handler raises is logged
            if deadline.expired():
                _refuse(link, message, ErrorCode.TIMEOUT, "", outcome)
            else:
                self._log_failure(message.name)
                text = "the client failed; its log says how"
                _refuse(link, message, ErrorCode.INTERNAL, text, outcome)
        finally:
            self._running.pop((link.number, message.id), None)
            link.served()

    async def _call(self, handler: Handler, payload: Any) -> Any:
        try:
            check_data(payload)
        except BadData as error:
            raise BadRequest(str(error)) from None
        return plain_data(await handler.call(self.client, handler.arguments(payload)))

    def event(self, link: Link, message: m.Event) -> None:
        """The server tells something; dropped if nobody listens, or too many handlers run."""
        handler = self._handlers.events.get(message.name)
        if handler is None:
            return
        most = self._limits.handlers
        if len(self._running) >= most:
            text = "event %r is dropped: %s handlers run, the most allowed"
            self._note(logging.WARNING, "event dropped", text, message.name, most)
            return
        key = (link.number, next(self._serial))
        task = self._tasks.start(self._listen(handler, message, key), message.name)
        self._running[key] = (link, task)

    async def _listen(
        self, handler: Handler, message: m.Event, key: tuple[int, m.RequestId]
    ) -> None:
        try:
            await self._call(handler, message.data)
        except Exception:  # noqa: BLE001  # it is nobody's answer
            self._log_failure(message.name)
        finally:
            self._running.pop(key, None)

    def _log_failure(self, name: str) -> None:
        """Log the exception that is being handled; not for every time that a server asks."""
        error = sys.exception()
        key = f"{type(error)} {name}"
        self._note(logging.ERROR, key, "the handler of %r failed", name, exc_info=error)

    def _note(
        self, level: int, key: str, text: str, *args: Any, exc_info: BaseException | None = None
    ) -> None:
        if self._log is None:
            self._log = LimitedLog(logger, asyncio.get_running_loop().time)
        self._log.log(level, key, text, *args, exc_info=exc_info)

    def cancel(self, link: Link, message: m.Cancel) -> None:
        """The server no longer wants an answer."""
        found = self._running.get((link.number, message.id))
        if found is not None:
            # Not before it has begun: a task that never ran would answer nothing.
            asyncio.get_running_loop().call_soon(found[1].cancel)

    def lost(self) -> None:
        """A link ended: nobody waits for what was asked there."""
        if not self._running:
            return
        current = asyncio.current_task()
        for link, task in list(self._running.values()):
            if link.error is not None and task is not current:
                task.cancel()

    def release(self) -> None:
        """The handler that calls this, if one does, is not cancelled with its link: it ends it."""
        current = asyncio.current_task()
        for key, (_, task) in list(self._running.items()):
            if task is current:
                del self._running[key]

    @property
    def calling(self) -> bool:
        """Whether a handler of this is what calls."""
        current = asyncio.current_task()
        return any(task is current for _, task in self._running.values())

    async def stop(self) -> None:
        """Cancel what runs; wait for it, but for the handler that calls this.

        Takes at most ``close_timeout`` seconds. Cancelling ends the waiting.
        """
        self._tasks.cancel_all()
        try:
            async with asyncio.timeout(self._limits.close_timeout):
                await self._tasks.wait_closed()
        except TimeoutError:
            logger.warning("handlers do not end: %r", self._tasks)


def _refuse(
    link: Link,
    message: m.Query | m.Command,
    code: ErrorCode,
    text: str = "",
    outcome: Outcome = "none",
) -> None:
    link.send(error_message(message.id, RequestError(text, code=code, outcome=outcome)))
