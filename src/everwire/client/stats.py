"""What a client counts and measures, and whom it tells what happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from .hooks import call_hook
from .observations import GapFound, Record, RetryScheduled
from .observe import show_record

if TYPE_CHECKING:
    from .items import Gap

SMOOTHING = 1 / 8  # weight of a new round trip, as TCP has it (RFC 6298)


@dataclass(slots=True)
class Traffic:
    """What links count and measure, one after the other.

    Attributes:
        bytes_out: of the messages written.
        bytes_in: of the messages that came.
        rtt: seconds that the last round trip took, the server's work included; None before
            the first. Measured are the answers to auth, publishes and probes.
        smoothed_rtt: the same, smoothed.
        loop_lag: seconds by which our event loop was late when a link looked at the clock.
    """

    bytes_out: int = 0
    bytes_in: int = 0
    rtt: float | None = None
    smoothed_rtt: float | None = None
    loop_lag: float = 0.0


def measured(traffic: Traffic, seconds: float) -> None:
    """Note the time of a round trip."""
    traffic.rtt, before = seconds, traffic.smoothed_rtt
    traffic.smoothed_rtt = seconds if before is None else before + (seconds - before) * SMOOTHING


@dataclass(slots=True)
class Stats(Traffic):
    """What a client has done since it began, and what it holds. A snapshot.

    Attributes:
        sent: publishes written to a link, repetitions included.
        acknowledged: publishes that the server accepted.
        received: messages of channels, those put aside included.
        duplicates: of them, those that the application had been handed already.
        gaps: gaps handed to subscriptions.
        connects: links that became ready.
        reconnects: of them, those after the first.
        failures: attempts that failed, and links that were lost, after which it tried again.
        suspects: times that a link was probed because nothing came.
        dropped: publishes that a full outbox dropped.
        superseded: publishes that a later one with the same key took the place of.
        outbox: messages that wait for their acknowledgement.
        outbox_bytes: bytes of them.
        in_flight: of them, those that were sent on the current link.
        calls: queries and commands that wait for their answer.
        subscriptions: that were entered and have not ended.
        queued: items that they hold for the application.
    """

    sent: int = 0
    acknowledged: int = 0
    received: int = 0
    duplicates: int = 0
    gaps: int = 0
    connects: int = 0
    reconnects: int = 0
    failures: int = 0
    suspects: int = 0
    dropped: int = 0
    superseded: int = 0
    outbox: int = 0
    outbox_bytes: int = 0
    in_flight: int = 0
    calls: int = 0
    subscriptions: int = 0
    queued: int = 0


@dataclass(slots=True)
class Counters(Stats):
    """The same, being counted; and who wants to hear of what cannot be counted.

    Attributes:
        on_record: see :class:`.client.Client`.
    """

    on_record: Callable[[Record], None] | None = None

    def tell(self, record: Record) -> None:
        """Something happened."""
        show_record(record)
        call_hook(self.on_record, record)

    def retrying(self, delay: float, attempt: int, cause: Exception) -> None:
        """There will be another attempt."""
        self.failures += 1
        self.tell(RetryScheduled(delay=delay, attempt=attempt, cause=cause))

    def gap(self, gap: Gap) -> None:
        """A subscription is handed a gap."""
        self.gaps += 1
        self.tell(
            GapFound(channel=gap.channel, reason=gap.reason, position=gap.position, from_=gap.from_)
        )

    def snapshot(self, **held: int) -> Stats:
        """Make a copy that changes no more; ``held`` is what is not counted but looked at."""
        now: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(Stats)}
        return Stats(**{**now, **held})


S = TypeVar("S", bound="Traffic")
_DURATIONS = ("rtt", "smoothed_rtt", "loop_lag")


def together(every: Sequence[S]) -> S:
    """What several counted: sums, and of durations the longest."""
    values: dict[str, Any] = {}
    for field in fields(every[0]):
        each = [getattr(one, field.name) for one in every]
        if field.name in _DURATIONS:
            values[field.name] = max((one for one in each if one is not None), default=None)
        else:
            values[field.name] = sum(each)
    return type(every[0])(**values)
