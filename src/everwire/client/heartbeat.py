"""Whether a link is alive, told from times alone: a policy without I/O and without a timer.

Silence is the peer's fault only if we listened. So before a link is given up, a silence
that may be our own doing (the loop was busy, the machine was suspended) earns it one probe.
"""

from __future__ import annotations

import math
from enum import Enum

CHECKS = 8  # looks at the clock within a deadline: how finely a busy loop is noticed
LATE = 0.25  # part of the deadline by which a look must come late to count as our own fault
DRIFT = 5.0  # seconds by which the wall clock must run ahead to mean that we were suspended
GRAIN = 1e-3  # timers may come early by less than this


class Verdict(Enum):
    """What to do about a link."""

    ALIVE = "alive"
    PING = "ping"
    PROBE = "probe"
    DEAD = "dead"


class Heartbeat:
    """Decides when silence means death.

    Args:
        deadline: seconds of silence that are too long.
        probe: seconds that a probe is given.
        always_probe: ask before giving up in any case; where the peer is not bound to send.
        ping_every: seconds between pings of ours, None for none.
        now: the loop's time.
        wall: the wall clock's time.

    Attributes:
        heard_at: the loop's time of the last sign of life: set it on each.
        probing: since when a probe is under way, None without one: clear it on each.
        paused: we do not read, so that silence says nothing: see :meth:`pause`.
    """

    __slots__ = ("_always", "_deadline", "_drift", "_due", "_late_at", "_ping_at", "_ping_every",
                 "_probe", "heard_at", "paused", "probing")  # fmt: skip

    def __init__(
        self,
        deadline: float,
        probe: float,
        *,
        now: float,
        wall: float,
        always_probe: bool = False,
        ping_every: float | None = None,
    ) -> None:
        self._deadline = deadline
        self._probe = probe
        self._always = always_probe
        self._ping_every = ping_every
        self._ping_at = math.inf if ping_every is None else now + ping_every
        self.paused = False
        self._drift = wall - now
        self._late_at = float("-inf")
        self.heard_at = now
        self.probing: float | None = None
        self._due = now
        self._plan(now)

    @property
    def due(self) -> float:
        """The loop's time at which to check next."""
        return self._due

    def pause(self, paused: bool, now: float) -> None:
        """We stop to read, or begin again: the peer then has the whole deadline anew."""
        self.paused = paused
        self.heard_at = now
        self.probing = None

    def check(self, now: float, wall: float, *, moved: bool = False) -> Verdict:
        """Look at the clocks.

        ``PROBE`` begins a probe, and ``PING`` is due: send something that is answered.

        Args:
            now: the loop's time.
            wall: the wall clock's.
            moved: bytes came or went since the last look, though no message did: as good
                a sign of life as any. The last look may have been a moment ago, so it
                counts at each of them, not just when silence has to be judged.
        """
        late = now - self._due
        drift, self._drift = wall - now - self._drift, wall - now
        if late > LATE * self._deadline:
            self._late_at = now
        if moved:
            self.heard_at, self.probing = now, None
        verdict = self._judge(now, suspended=drift > DRIFT and not moved)
        if verdict is Verdict.PROBE:
            self.probing = now
        elif verdict is Verdict.ALIVE and now >= self._ping_at - GRAIN:
            verdict = Verdict.PING
        if self._ping_every is not None and now >= self._ping_at - GRAIN:
            self._ping_at = now + self._ping_every
        self._plan(now)
        return verdict

    def _judge(self, now: float, suspended: bool) -> Verdict:
        if self.paused:
            return Verdict.ALIVE
        if self.probing is not None:
            over = now - self.probing >= self._probe - GRAIN
            return Verdict.DEAD if over else Verdict.ALIVE
        if now - self.heard_at < self._deadline - GRAIN:
            return Verdict.PROBE if suspended else Verdict.ALIVE
        ours = suspended or self._late_at >= self.heard_at
        return Verdict.PROBE if self._always or ours else Verdict.DEAD

    def _plan(self, now: float) -> None:
        if self.probing is not None:
            self._due = self.probing + self._probe
        else:
            silent_at = math.inf if self.paused else self.heard_at + self._deadline
            self._due = min(now + self._deadline / CHECKS, silent_at, self._ping_at)
