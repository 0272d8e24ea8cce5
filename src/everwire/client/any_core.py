"""What a client stands on: one connection, or a pool of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..limits import ClientLimits
from ..protocol.states import ConnectionState
from .assigned import Assigned
from .entry import Ack
from .home import Home
from .link import Link
from .overflow import Overflow
from .stats import Counters, Stats
from .streams import Inflow
from .undelivered import Undelivered

if TYPE_CHECKING:
    from .durability import Durability


class AnyPublisher(Protocol):
    """Takes what is published."""

    on_drop: Callable[[Undelivered], None] | None
    on_undelivered: Callable[[Undelivered], None] | None

    @property
    def durability(self) -> Durability | None: ...

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Overflow | None = None,
        stored: bool = False,
    ) -> Ack:
        """See :meth:`.client.Client.publish`."""

    def publish_nowait(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Overflow | None = None,
    ) -> asyncio.Future[Ack]:
        """See :meth:`.client.Client.publish_nowait`."""

    def drain_queued(self) -> list[Undelivered]:
        """See :meth:`.client.Client.drain_queued`."""


class AnyCalls(Protocol):
    """Takes queries and commands."""

    def new_key(self) -> str:
        """An idempotency key that nobody else has."""

    async def run(
        self,
        kind: Literal["query", "command"],
        name: str,
        payload: Any,
        *,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
    ) -> Any:
        """Send and wait for the answer's payload. Cancelling cancels it on the server."""


class AnyCore(Protocol):
    """Everything of it that :class:`.client.Client` asks for."""

    on_state: Callable[[ConnectionState], None] | None
    on_event: Callable[[str, Any], None] | None

    @property
    def limits(self) -> ClientLimits: ...
    @property
    def acknowledges(self) -> bool: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def publisher(self) -> AnyPublisher: ...
    @property
    def calls(self) -> AnyCalls: ...
    @property
    def subscriptions(self) -> Home: ...
    @property
    def assigned(self) -> Assigned: ...
    @property
    def state(self) -> ConnectionState: ...
    @property
    def stats(self) -> Stats: ...

    async def open(self) -> None:
        """Connect, and wait until ready. Cancelling ends it."""

    async def close(self, drain: float | None = None) -> None:
        """End in order. Cancelling ends it at once."""

    def check(self) -> None:
        """Raise unless something may be begun."""

    def drop(self) -> None:
        """Drop what is connected."""

    async def begin_stream(self, name: str, payload: Any, seconds: float) -> Inflow:
        """Ask for a stream. Cancelling before that asks for nothing."""

    async def ready_link(self) -> Link:
        """Wait for a link. Cancelling only ends the waiting."""
