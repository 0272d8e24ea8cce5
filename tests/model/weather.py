"""The broker as the model test has it: it notes what it is given, and fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from everwire.brokers.base import Completion, Publication, Published, PublishOutcome
from everwire.brokers.memory import MemoryBroker
from everwire.errors import BrokerUnavailable, RequestError
from everwire.limits import Limits
from everwire.protocol import messages as m
from everwire.protocol.data import unpack_data

from ..server.nodes import Severable
from .log import Position

if TYPE_CHECKING:
    from .world import World

T = TypeVar("T")
LIMITS = Limits(
    message=8 * 1024,
    inflight=8,
    write_high=8 * 1024,
    write_low=1024,
    page=3,
    dedupe_window=120.0,
    dedupe_max=40,
    ping_interval=5.0,
    ping_grace=5.0,
    probe=2.0,
    overflow_messages=5,
)


def position_of(position: m.Position | None) -> Position | None:
    return None if position is None else (position.epoch, position.offset, position.id)


class Weather:
    """How the broker is.

    Attributes:
        faults: what becomes of the next publishes: ``refused`` (not stored), ``lost``
            (perhaps stored: it is not) or ``unknown`` (perhaps stored: it is).
        down: nothing is answered but that it cannot be reached.
        stalled: what came while the broker was stalled, None while it is not.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.down = False
        self.stalled: list[tuple[SpiedBroker, Publication, Completion]] | None = None

    def release(self, stored: int, told: int) -> None:
        """Go on after a stall: of what came, some were stored, and some of these are told so."""
        waiting, self.stalled = self.stalled or [], None
        for n, (broker, publication, done) in enumerate(waiting):
            outcome = broker.store(publication) if n < stored else None
            if broker.severed:
                continue
            if outcome is None or n >= told:
                outcome = broker.fail(publication, "unknown")
            done(outcome)


class SpiedBroker(Severable):
    """The memory broker: it notes what it is given, and fails as the weather is."""

    def __init__(self, world: World, life: int, beside: SpiedBroker | None) -> None:
        self._world = world
        # Shared, as the memory is.
        self._life: list[int] = beside._life if beside is not None else [life]
        epochs = count(1)
        super().__init__(
            LIMITS,
            wall=world.loop.wall,
            new_epoch=lambda: f"{self._life[0]}.{next(epochs)}",
            beside=beside,
        )

    def forget(self, life: int) -> None:
        """Lose all channels; nobody is told."""
        memory = self.memory
        memory.streams.clear()
        memory.holding.clear()
        memory.held = 0
        self._life[0] = life

    def publish(  # type: ignore[override]
        self, publication: Publication, done: Completion
    ) -> PublishOutcome | None:
        weather = self._world.weather
        self._note("offered", publication)
        if weather.down or self.severed:
            return self.fail(publication, "none")
        if weather.stalled is not None:
            weather.stalled.append((self, publication, done))
            return None
        if not weather.faults:
            return self.store(publication)
        fault = weather.faults.pop(0)
        if fault == "unknown":
            self.store(publication)
        return self.fail(publication, "none" if fault == "refused" else "unknown")

    def store(self, publication: Publication) -> PublishOutcome:
        outcome = MemoryBroker.publish(self, publication, lambda _: None)
        if isinstance(outcome, Published):
            at, duplicate = position_of(outcome.position), outcome.duplicate
            self._note("stored", publication, position=at, duplicate=duplicate, refused=0)
        elif isinstance(outcome, RequestError):
            self._note("stored", publication, refused=outcome.code)
            self._note("failed", publication)
        return outcome

    def fail(self, publication: Publication, outcome: Any) -> BrokerUnavailable:
        self._note("failed", publication)
        return BrokerUnavailable("as the test says", outcome=outcome)

    def _note(self, kind: str, publication: Publication, **about: Any) -> None:
        about.setdefault("id", publication.id or (about.get("position") or ("", 0, ""))[2])
        self._world.note(
            kind,
            channel=publication.channel,
            data=unpack_data(publication.payload),
            size=len(publication.payload),
            life=self._life[0],
            **about,
        )

    async def _through(self, call: Awaitable[T]) -> T:
        if not (self._world.weather.down or self.severed):
            return await call
        assert isinstance(call, Coroutine)
        call.close()
        await asyncio.sleep(0)
        raise BrokerUnavailable("as the test says")
