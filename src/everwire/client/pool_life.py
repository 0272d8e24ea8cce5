"""How a pool lives, of whatever it is: opened, looked after, closed, ended."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from ..codes import CloseCode
from ..errors import ClosedOK, ConfigError, EverwireError, RequestTimeout
from ..net.tasks import TaskOwner
from ..protocol.states import ConnectionState as State
from .forks import Origin
from .hooks import call_hook
from .pool_members import Member, Members
from .pool_strategies import Pick

logger = logging.getLogger("everwire.client")

T = TypeVar("T")


class PoolLife(ABC, Generic[T]):
    """Members, and the tasks that open them. A subclass says what a member is.

    Args:
        members: at least one.
        pick: the strategy.
        min_ready: members that must be ready before :meth:`open` returns.
        max_requests: under way on a member.
        acquire_timeout: seconds that a request waits for a member.
        timeout: seconds that :meth:`open` waits; None for no end, 0 does not wait.

    Attributes:
        on_state: is called with each new state.
    """

    def __init__(
        self,
        members: Sequence[Member[T]],
        pick: Pick[Member[T]],
        *,
        min_ready: int,
        max_requests: int,
        acquire_timeout: float,
        timeout: float | None,
    ) -> None:
        self.on_state: Callable[[State], None] | None = None
        self.origin = Origin("pool")
        self.members: Members[T] = Members(
            members,
            pick,
            max_requests=max_requests,
            acquire_timeout=acquire_timeout,
            hand_over=self._hand_over,
        )
        self._min_ready = min_ready
        self._timeout = timeout
        self._state = State.CONNECTING
        self._tasks = TaskOwner("everwire pool")
        self._opened: asyncio.Future[None] | None = None
        self._end: Exception | None = None
        self._closing = False
        self._closed = asyncio.Event()

    # ---- what a subclass says ----------------------------------------------------

    @abstractmethod
    async def _open_member(self, member: Member[T]) -> None:
        """Connect a member, for as long as it takes. Raises what ended it."""

    @abstractmethod
    async def _close_member(self, member: Member[T], *how: Any) -> None:
        """Close a member, in bounded time. Cancelling drops its connection."""

    @abstractmethod
    def _move(self, member: Member[T]) -> None:
        """Give what a member holds to others; see :class:`.pool_members.Members`."""

    def _calls_close(self, member: Member[T]) -> bool:
        """Whether the current task is one of a member: it closes that one itself, at last."""
        return False

    def _over(self) -> None:
        """The pool ended."""

    async def _wind_up(self) -> None:
        """All members are closed. Cancelling only ends the waiting."""

    # ---- life ------------------------------------------------------------------

    async def open(self) -> None:
        """Connect the members, and wait for the first of them. Cancelling ends the pool.

        Raises:
            EverwireError: too many were refused for good; or too few were ready in time, for
                the last reason there was.
            OSError: too few were ready in time, because there was no connection.
        """
        if self._opened is not None:
            if not self._opened.done():
                raise ConfigError("this pool is being opened already; await it once")
            self.check()
            return
        self.origin = Origin("pool")
        self._opened = asyncio.get_running_loop().create_future()
        for member in self.members:
            self._tasks.start(self._opening(member), f"member {member.number}")
        self._check_opened()
        if self._timeout == 0:
            self._opened.cancel()  # nobody waits for it
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._opened
        except TimeoutError:
            await self._close()
            self._raise_late()
        except BaseException:
            await self._close()
            raise

    async def _opening(self, member: Member[T]) -> None:
        try:
            await self._open_member(member)
        except (EverwireError, OSError) as error:
            logger.info("member %d of the pool ended: %s", member.number, error)

    def _check_opened(self) -> None:
        opened = self._opened
        if opened is None or opened.done():
            return
        if self.members.ready >= self._min_ready:
            opened.set_result(None)
        elif self.members.alive < self._min_ready:
            ended = (member.ended for member in self.members)
            opened.set_exception(next(error for error in ended if error is not None))

    def _raise_late(self) -> None:
        late = (
            f"{self._min_ready} of {len(self.members)} members of the pool were to be ready "
            f"within {self._timeout:g} s; is the server running there?"
        )
        failures = (member.error for member in self.members)
        last = next((error for error in failures if error is not None), None)
        if last is None:
            raise RequestTimeout(late) from None
        last.add_note(late)
        raise last from None

    async def _close(self, *how: Any) -> None:
        """End in order; ``how`` is for :meth:`_close_member`. A second call waits for the first.

        Cancelling drops all connections at once.
        """
        self.origin.check()
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        try:
            self._to(State.CLOSING)
            ours = [member for member in self.members if self._calls_close(member)]
            async with asyncio.TaskGroup() as group:
                for member in self.members:
                    if member not in ours:
                        group.create_task(self._close_member(member, *how))
            for member in ours:
                await self._close_member(member, *how)
        finally:
            self._finish(ClosedOK(CloseCode.NORMAL, "the pool was closed"))
            try:
                self._tasks.cancel_all()
                await self._tasks.wait_closed()
                await self._wind_up()
            finally:
                self._closed.set()

    def _finish(self, error: Exception) -> None:
        if self._end is not None:
            return
        self._end = error
        self.members.end(error)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        self._to(State.CLOSED)
        self._over()

    def check(self) -> None:
        """Raise unless something may be begun."""
        self.origin.check()
        if self._end is not None:
            raise self._end.with_traceback(None)
        if self._closing:
            raise ClosedOK(CloseCode.NORMAL, "the pool is being closed")
        if self._opened is None:
            raise ConfigError('open the pool first: "async with" or "await"')

    # ---- what it is like ---------------------------------------------------------

    @property
    def state(self) -> State:
        """That of the member which is furthest."""
        return self._state

    def __str__(self) -> str:
        members = ", ".join(map(str, self.members))
        url = next(iter(self.members)).record().url
        return f"{url} {self.state} ready={self.members.ready}/{len(self.members)}: {members}"

    # ---- what the members tell ------------------------------------------------------

    def failed(self, member: Member[T], error: Exception) -> None:
        """A member failed to connect."""
        if member.ended is None and not self._closing:
            self.members.failed(member)

    def changed(self, member: Member[T], state: State) -> None:
        """A member has a new state."""
        if member.ended is not None or self._closing:
            member.state = state
            return
        self.members.changed(member, state)
        self._check_opened()
        self._to(self.members.state)

    def ended(self, member: Member[T], error: Exception) -> None:
        """A member ended for good; nothing was given up for it yet."""
        if self._closing:
            return
        self.members.ended(member, error)
        self._check_opened()
        if self.members.alive:
            self._to(self.members.state)
        else:
            self._finish(error)

    def _hand_over(self, member: Member[T]) -> None:
        if not self._closing:
            self._move(member)

    def _to(self, state: State) -> None:
        if state is self._state or self._state is State.CLOSED:
            return
        self._state = state
        call_hook(self.on_state, state)
