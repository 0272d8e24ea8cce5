"""What a pool of clients is made of: many cores of clients, behaving as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from ..limits import ClientLimits
from ..protocol.states import ConnectionState as State
from .assigned import Assigned
from .core import Core
from .hooks import call_hook
from .link import Link
from .observations import Record
from .pool_life import PoolLife
from .pool_members import Member
from .pool_parts import PoolCalls, PoolPublisher, PoolSubscriptions
from .pool_strategies import Pick
from .stats import Counters, Stats, together
from .streams import Inflow


class PoolCore(PoolLife[Core]):
    """Publishes, requests and subscriptions over several clients' cores.

    It is an :class:`~.any_core.AnyCore`.

    Args:
        cores: of the members.
        pick: the strategy.
        limits: that each member has.
        random: where chance comes from.
        min_ready: members that must be ready before :meth:`open` returns.
        max_inflight: requests under way on a member.
        acquire_timeout: seconds that a request waits for a member.
        timeout: seconds that :meth:`open` waits; None for no end.
    """

    def __init__(
        self,
        cores: Sequence[Core],
        pick: Pick[Member[Core]],
        limits: ClientLimits,
        *,
        random: Random,
        min_ready: int,
        max_inflight: int,
        acquire_timeout: float,
        timeout: float | None,
    ) -> None:
        super().__init__(
            [_member(number, core) for number, core in enumerate(cores)],
            pick,
            min_ready=min_ready,
            max_requests=max_inflight,
            acquire_timeout=acquire_timeout,
            timeout=timeout,
        )
        self.on_event: Callable[[str, Any], None] | None = None
        self.limits = limits
        self.publisher = PoolPublisher(self.members)
        self.calls = PoolCalls(self.members, limits)
        self.counters = Counters()  # of subscriptions: they move from member to member
        self.subscriptions = PoolSubscriptions(
            self.members,
            limits,
            self.counters,
            positions=cores[0].subscriptions.shared.positions,
            random=random,
        )
        self.assigned = Assigned(self.subscriptions)
        for member in self.members:
            core = member.connection
            core.on_state = partial(self.changed, member)
            core.on_failure = partial(self.failed, member)
            core.on_end = partial(self.ended, member)
            core.on_event = self._event
            core.assigned.function = self.assigned.tell
            core.counters.on_record = self._record

    async def _open_member(self, member: Member[Core]) -> None:
        await member.connection.open()

    async def close(self, drain: float | None = None) -> None:
        """See :meth:`.client.Client.close`. Cancelling drops all connections at once."""
        await self._close(drain)

    async def _close_member(self, member: Member[Core], *how: Any) -> None:
        await member.connection.close(*how)

    def _move(self, member: Member[Core]) -> None:
        self.publisher.move(member)
        self.subscriptions.move(member)

    async def _wind_up(self) -> None:
        await self.subscriptions.shared.end(self.limits.close_timeout)

    def _event(self, name: str, data: Any) -> None:
        call_hook(self.on_event, name, data)

    def _record(self, record: Record) -> None:
        call_hook(self.counters.on_record, record)

    def _calls_close(self, member: Member[Core]) -> bool:
        return member.connection.answering.calling

    @property
    def acknowledges(self) -> bool:
        """Whether the dialect has more than order."""
        return self.subscriptions.shared.positions

    async def begin_stream(
        self, name: str, payload: Any, seconds: float, key: str | None = None
    ) -> Inflow:
        """Ask for a stream over any member; see :meth:`.client.Client.stream`."""
        core = await self._ready_core(key)
        return await core.begin_stream(name, payload, seconds)

    async def ready_link(self, key: str | None = None) -> Link:
        """Wait for a link of any member; see :meth:`.client.Client.event`."""
        core = await self._ready_core(key)
        return await core.ready_link()

    async def _ready_core(self, key: str | None) -> Core:
        member = await self.members.acquire(key, self.limits.request_timeout)
        self.members.release(member)
        return member.connection

    def drop(self) -> None:
        """Drop the connections of all members."""
        self.origin.check()
        for member in self.members:
            member.connection.drop()

    def __str__(self) -> str:
        return f"{super().__str__()}; subscriptions={len(self.subscriptions)}"

    @property
    def stats(self) -> Stats:
        """What all members counted, and what their subscriptions did."""
        every = [member.connection.stats for member in self.members]
        every.append(self.counters.snapshot())
        return together(every)


def _member(number: int, core: Core) -> Member[Core]:
    outbox, session = core.publisher.outbox, core.session
    return Member(
        number,
        core,
        url=lambda: core.url,
        queued=lambda: (len(outbox), outbox.size),
        failure=lambda: session.failure,
        stats=lambda: core.stats,
    )


class KeyedCore:
    """A pool's core in which everything has one key.

    It is an :class:`~.any_core.AnyCore`.
    """

    def __init__(self, core: PoolCore, key: str) -> None:
        self._core = core
        self._key = key
        self.limits = core.limits
        self.acknowledges = core.acknowledges
        self.subscriptions = core.subscriptions
        self.assigned = core.assigned
        self.counters = core.counters
        self.publisher = PoolPublisher(core.members, key)
        self.calls = PoolCalls(core.members, core.limits, key)
        self.open = core.open
        self.close = core.close
        self.check = core.check
        self.drop = core.drop

    @property
    def on_state(self) -> Callable[[State], None] | None:
        """The pool's."""
        return self._core.on_state

    @on_state.setter
    def on_state(self, function: Callable[[State], None] | None) -> None:
        self._core.on_state = function

    @property
    def on_event(self) -> Callable[[str, Any], None] | None:
        """The pool's."""
        return self._core.on_event

    @on_event.setter
    def on_event(self, function: Callable[[str, Any], None] | None) -> None:
        self._core.on_event = function

    @property
    def state(self) -> State:
        """The pool's."""
        return self._core.state

    @property
    def stats(self) -> Stats:
        """The pool's."""
        return self._core.stats

    async def begin_stream(self, name: str, payload: Any, seconds: float) -> Inflow:
        """Ask for a stream over the key's member. Cancelling before that asks for nothing."""
        return await self._core.begin_stream(name, payload, seconds, self._key)

    async def ready_link(self) -> Link:
        """Wait for a link of the key's member. Cancelling only ends the waiting."""
        return await self._core.ready_link(self._key)

    def __str__(self) -> str:
        return f"key={self._key!r} of {self._core}"
