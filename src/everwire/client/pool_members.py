"""The members of a pool, whatever they are: who can take something, and who takes what.

Rule 1: what has a key stays on its member while anything of the key is under way there, so
that it stays in order. It moves when the member ends, or is quarantined: all of it, at once.
Rule 2: who waits for a member is served in turn.
Rule 3: all that changes something here is done without ``await``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import ConfigError, PoolTimeout
from ..limits import MAX_FAILURES, MAX_POOL
from ..protocol.states import ConnectionState as State
from .pool_strategies import Pick

logger = logging.getLogger("everwire.client")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A member of a pool, as it was at one moment.

    Attributes:
        number: its place in the pool, from 0.
        url: where it connects to, without what may be secret.
        state: of its connection.
        quarantined: it did not become ready time and again: nothing is given to it until
            it does.
        failures: attempts in a row that did not become ready.
        requests: that wait for their answer on it.
        queued: messages that wait for their acknowledgement on it.
        queued_bytes: how large these are.
        error: why its last attempt or link ended; None if none did.
        stats: what it counted.
    """

    number: int
    url: str
    state: State
    quarantined: bool
    failures: int
    requests: int
    queued: int
    queued_bytes: int
    error: Exception | None
    stats: Any


class Member(Generic[T]):
    """One of them.

    Args:
        number: its place in the pool, from 0.
        connection: what it is.
        url: says where it connects to, without what may be secret.
        queued: says how many messages wait on it, and their bytes.
        failure: says why its last attempt ended.
        stats: says what it counted.

    Attributes:
        state: of its connection.
        failures: attempts in a row that did not become ready.
        quarantined: there were too many of them.
        ended: why it is of no use any more, None while it may be.
        requests: that are under way on it.
    """

    __slots__ = ("_failure", "_queued", "_stats", "_url", "connection", "ended", "failures",
                 "number", "quarantined", "requests", "state")  # fmt: skip

    def __init__(
        self,
        number: int,
        connection: T,
        *,
        url: Callable[[], str],
        queued: Callable[[], tuple[int, int]],
        failure: Callable[[], Exception | None],
        stats: Callable[[], Any],
    ) -> None:
        self.number = number
        self.connection = connection
        self.state = State.CONNECTING
        self.failures = 0
        self.quarantined = False
        self.ended: Exception | None = None
        self.requests = 0
        self._url = url
        self._queued = queued
        self._failure = failure
        self._stats = stats

    @property
    def ready(self) -> bool:
        """It takes anything at once."""
        return self.state in (State.READY, State.DRAINING)

    @property
    def load(self) -> tuple[int, int]:
        """What is in flight: how many, and bytes."""
        messages, size = self._queued()
        return self.requests + messages, size

    def record(self) -> PoolMember:
        """Its state as the application sees it."""
        messages, size = self._queued()
        return PoolMember(
            self.number, self._url(), self.state, self.quarantined, self.failures, self.requests,
            messages, size, self.error, self._stats(),
        )  # fmt: skip

    @property
    def error(self) -> Exception | None:
        """Why its last attempt or link ended."""
        return self.ended or self._failure()

    def __str__(self) -> str:
        error = self.error
        how = "ended" if self.ended else "quarantined" if self.quarantined else str(self.state)
        why = "" if self.ready or error is None else f" ({type(error).__name__}: {error})"
        return f"member {self.number} {how}{why}"


class Route(Generic[T]):
    """The way of what has a key.

    Attributes:
        member: that takes it.
        pending: how much of it is under way.
    """

    __slots__ = ("_routes", "key", "member", "pending")

    def __init__(self, key: str, member: Member[T], routes: dict[str, Route[T]]) -> None:
        self.key = key
        self.member = member
        self.pending = 0
        self._routes = routes

    def entered(self) -> None:
        """Something more is under way."""
        self.pending += 1

    def left(self) -> None:
        """Something is not under way any more."""
        self.pending -= 1
        self.settle()

    def settle(self) -> None:
        """Forget it if nothing is under way."""
        if not self.pending and self._routes.get(self.key) is self:
            del self._routes[self.key]


class Members(Generic[T]):
    """Chooses among members, and lets who needs one wait.

    Args:
        members: at least one.
        pick: the strategy.
        max_requests: that a member has under way at most.
        acquire_timeout: seconds for which :meth:`acquire` waits.
        hand_over: is called with a member that can take nothing while others can: give
            what waits on it to those that :attr:`Route.member` and :meth:`choose` say.
    """

    def __init__(
        self,
        members: Sequence[Member[T]],
        pick: Pick[Member[T]],
        *,
        max_requests: int,
        acquire_timeout: float,
        hand_over: Callable[[Member[T]], None],
    ) -> None:
        self._members = tuple(members)
        self._pick = pick
        self._max_requests = max_requests
        self._acquire_timeout = acquire_timeout
        self._hand_over = hand_over
        self._routes: dict[str, Route[T]] = {}
        self._line: deque[tuple[asyncio.Future[Member[T]], str | None]] = deque()

    def __iter__(self) -> Iterator[Member[T]]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def ready(self) -> int:
        """How many are ready."""
        return sum(member.ready for member in self._members)

    @property
    def alive(self) -> int:
        """How many have not ended."""
        return sum(member.ended is None for member in self._members)

    @property
    def state(self) -> State:
        """That of the member which is furthest."""
        order = (State.READY, State.DRAINING, State.SUSPECT, State.AUTHENTICATING, State.CONNECTING)
        states = {member.state for member in self._members if member.ended is None}
        return next((state for state in order if state in states), State.CLOSED)

    # ---- what happens to them ----------------------------------------------------

    def changed(self, member: Member[T], state: State) -> None:
        """A member has a new state."""
        member.state = state
        if state is not State.READY:
            return
        if member.quarantined:
            logger.info("member %d of the pool is back", member.number)
        member.quarantined = False
        member.failures = 0
        for other in self._members:
            if other.quarantined:
                self._rehash(other)
        self._admit()

    def failed(self, member: Member[T]) -> None:
        """A member failed to become ready once more."""
        member.failures += 1
        if member.failures >= MAX_FAILURES and not member.quarantined:
            member.quarantined = True
            logger.warning(
                "member %d of the pool failed %d times: quarantined", member.number, member.failures
            )
            self._rehash(member)

    def ended(self, member: Member[T], error: Exception) -> None:
        """A member is of no use any more."""
        if member.ended is not None:
            return
        member.ended = error
        member.state = State.CLOSED
        if self.alive:
            self._rehash(member)
        else:
            self.end(error)

    def end(self, error: Exception) -> None:
        """Nobody gets a member any more."""
        line, self._line = self._line, deque()
        for turn, _ in line:
            if not turn.done():
                turn.set_exception(error)

    def _rehash(self, member: Member[T]) -> None:
        """Give what a member has to others, if there are any that are better."""
        if member.ended is None and not self.ready:
            return
        for route in self._routes.values():
            if route.member is member:
                route.member = self.choose(route.key)
        self._hand_over(member)

    # ---- what stays with one ------------------------------------------------------

    def choose(self, key: str | None) -> Member[T]:
        """Return a member that takes something now, or may later: the strategy's choice.

        Those that are ready come first, then those that are not quarantined.
        """
        alive = [member for member in self._members if member.ended is None] or self._members
        sound = [member for member in alive if not member.quarantined]
        ready = [member for member in sound if member.ready]
        return self._pick(ready or sound or alive, key)

    def route(self, key: str) -> Route[T]:
        """Return the way of what has a key; call its ``settle`` when it was not used."""
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(key, self.choose(key), self._routes)
        return route

    # ---- what is answered -----------------------------------------------------------

    async def acquire(self, key: str | None, seconds: float) -> Member[T]:
        """Wait for a member that is ready and not too busy; :meth:`release` it.

        First come, first served. Cancelling takes none.

        Args:
            key: for the strategy.
            seconds: to wait, if that is less than ``acquire_timeout``.

        Raises:
            PoolTimeout: there was none in time.
            EverwireError: or what else ended the last member.
        """
        if (member := self._free(key)) is not None:  # so nobody waits
            member.requests += 1
            return member
        seconds = min(seconds, self._acquire_timeout)
        turn: asyncio.Future[Member[T]] = asyncio.get_running_loop().create_future()
        waiting = turn, key
        self._line.append(waiting)
        try:
            async with asyncio.timeout(seconds):
                return await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled():
                return turn.result()  # its turn came in the very same moment
            raise PoolTimeout(self._excuse(seconds)) from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())
            raise
        finally:
            if waiting in self._line:
                self._line.remove(waiting)

    def release(self, member: Member[T]) -> None:
        """What a member was acquired for is done."""
        member.requests -= 1
        self._admit()

    def _free(self, key: str | None) -> Member[T] | None:
        limit = self._max_requests
        free = [member for member in self._members if member.ready and member.requests < limit]
        return self._pick(free, key) if free else None

    def _admit(self) -> None:
        while self._line:
            turn, key = self._line[0]
            if not turn.done():
                member = self._free(key)
                if member is None:
                    return
                member.requests += 1
                turn.set_result(member)
            self._line.popleft()

    def _excuse(self, seconds: float) -> str:
        if self.ready:
            return (
                f"every member of the pool had {self._max_requests} requests under way for "
                f"{seconds:.3g} s; enlarge the pool, or wait for answers"
            )
        members = ", ".join(map(str, self._members))
        return f"no member of the pool was ready within {seconds:.3g} s: {members}"


def check_size(size: int, min_ready: int) -> None:
    """Raise unless a pool may have so many members.

    Raises:
        ConfigError: it may not.
    """
    if not 1 <= size <= MAX_POOL:
        raise ConfigError(f"a pool has 1 to {MAX_POOL} members, not {size!r}")
    if not 0 <= min_ready <= size:
        raise ConfigError(f"min_ready must be from 0 to the size, {size}, not {min_ready!r}")
