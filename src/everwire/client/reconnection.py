"""When and whether to try again: the policy of everything here that keeps a link up.

It decides; the loop that makes the attempts belongs to :mod:`.session` and :mod:`.socket`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from ..codes import reconnects
from ..errors import ConnectionClosed, HandshakeRefused, Unauthorized
from ..limits import ClientLimits
from ..net.attempts import Attempts, endpoint_of
from ..net.backoff import Backoff
from .verdict import final_error, is_refused_token

logger = logging.getLogger("everwire.client")

MAX_REFUSALS = 2  # credentials refused one after the other, the second ones fresh
BEFORE_CLOSE = 0.5  # part of the time until a link is closed, after which it is left at the latest
HURRY = 1.0  # seconds within which an attempt is made that was hurried


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed, or a link that was lost.

    Attributes:
        error: why.
        held: seconds for which the link had been ready; None if it never was.
        retries: attempts in a row before it, since a link last held.
        by_us: we ended it, so that its close code is no verdict of the server.
    """

    error: Exception
    held: float | None
    retries: int
    by_us: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, ``delay`` seconds from now; None leaves that to the backoff."""

    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Try no more. ``error`` is what ends it; None stands for the failure's own."""

    error: Exception | None = None


Decide: TypeAlias = Callable[[Failure], Retry | Stop | float | None]
"""What to do after a failure; a number is a delay in seconds, None the default's answer."""


def decide_for_client(failure: Failure) -> Retry | Stop:
    """The default: what would end the same way is final, see :func:`everwire.codes.reconnects`."""
    if failure.by_us:
        return Retry()
    error = final_error(failure.error)
    return Retry() if error is None else Stop(error)


def decide_for_socket(failure: Failure) -> Retry | Stop:
    """The same for servers of any kind, to which 4500 to 4507 mean nothing in particular."""
    error = failure.error
    if failure.by_us:
        return Retry()
    if isinstance(error, ConnectionClosed):
        return Retry() if reconnects(error.code) else Stop()
    return Retry() if final_error(error) is None else Stop()


@dataclass(frozen=True, slots=True)
class Pause:
    """The time before the next attempt, in seconds; ``charged`` if it follows a failure."""

    seconds: float
    charged: bool


class Reconnection:
    """Counts attempts and refusals, and says what follows a failure.

    Args:
        limits: the backoff's, and ``stable_after``.
        attempts: the budget that everything in the process shares.
        random: where chance comes from.
        decide: overrides the default where it does not answer None.
        max_attempts: attempts in a row after a failure; None for no end.
        has_credentials: there is something that the server could refuse once and take
            the next time.
        fresh_credentials: they are fetched for each attempt.
        is_refusal: tells errors that fresh credentials may help against.
        default: what is done after a failure where ``decide`` has no answer.

    Attributes:
        leaving_at: the loop's time at which the server wants the link to end, None
            before it said so.
    """

    def __init__(
        self,
        limits: ClientLimits,
        *,
        attempts: Attempts,
        random: Random,
        decide: Decide | None = None,
        max_attempts: int | None = None,
        has_credentials: bool = False,
        fresh_credentials: bool = False,
        is_refusal: Callable[[Exception], bool] = is_refused_token,
        default: Callable[[Failure], Retry | Stop] = decide_for_client,
        on_retry: Callable[[float, int, Exception], None] | None = None,
    ) -> None:
        self._on_retry = on_retry
        self.leaving_at: float | None = None
        self._attempts = attempts
        self._random = random
        self._decide = decide
        self._max_attempts = max_attempts
        self._has_credentials = has_credentials
        self._fresh_credentials = fresh_credentials
        self._is_refusal = is_refusal
        self._default = default
        self._stable_after = limits.stable_after
        self._backoff = Backoff(
            first=limits.first_retry,
            base=limits.backoff_base,
            growth=limits.backoff_growth,
            cap=limits.backoff_cap,
            floor=limits.backoff_floor,
            stable_after=limits.stable_after,
            random=random,
        )
        self._endpoint = ""
        self._ready_at: float | None = None
        self._refusals = 0
        self._retries = 0
        self._stable: asyncio.TimerHandle | None = None
        self._pausing: asyncio.Timeout | None = None

    # ---- what happens ----------------------------------------------------------

    def begin(self, url: str) -> None:
        """An attempt begins, at ``url``; what there is of a link before it counts no more."""
        self.stop()
        self._endpoint = endpoint_of(url)
        self._ready_at = self.leaving_at = None

    def ready(self) -> None:
        """The link is ready: its credentials are accepted, and its time counts."""
        loop = asyncio.get_running_loop()
        self._ready_at = loop.time()
        self._refusals = 0
        self._stable = loop.call_later(self._stable_after, self._held)

    def _held(self) -> None:
        self._retries = 0
        self._backoff.reset()
        self._attempts.restore(self._endpoint)

    def stop(self) -> None:
        """There will be no other attempt, and the link counts no more."""
        if self._stable is not None:
            self._stable.cancel()
            self._stable = None

    def leave(self, seconds: float, within: float = 0.0) -> float:
        """The server wants the link to be left; return the loop's time at which to do so.

        Servers that all send us on are no busy loop: a young link is left later, as after
        a failure, where there is the time.

        Args:
            seconds: when the server wants it.
            within: seconds after which the server closes it.
        """
        now = asyncio.get_running_loop().time()
        held = 0.0 if self._ready_at is None else now - self._ready_at
        if held < self._stable_after:
            longest = within * BEFORE_CLOSE if within >= 1.0 else math.inf
            seconds = max(seconds, min(self._backoff.delay(held), longest))
        self.leaving_at = now + seconds
        return self.leaving_at

    # ---- what follows ----------------------------------------------------------

    @property
    def retries(self) -> int:
        """Attempts in a row after a failure, since a link last held."""
        return self._retries

    def after(self, error: Exception, *, by_us: bool = False, standing: bool = False) -> Pause:
        """Say when to try again after an attempt or a link ended with ``error``.

        Args:
            error: why it ended.
            by_us: whether that was our doing.
            standing: the link before it still works: so nothing is final yet.

        Raises:
            EverwireError: or whatever ``error`` is: there is no use in trying again.
        """
        self.stop()
        since, self._ready_at = self._ready_at, None
        held = None if since is None else asyncio.get_running_loop().time() - since
        refused = not by_us and self._is_refusal(error)
        chosen = self._choose(Failure(error, held, self._retries, by_us), refused)
        if isinstance(chosen, Stop):
            if not standing:
                raise chosen.error or error
            chosen = Retry()
        if self._max_attempts is not None and self._retries >= self._max_attempts:
            error.add_note(f"given up after {self._retries} attempts in a row")
            raise error
        self._retries += 1
        charged = self.leaving_at is None and (held is None or held < self._stable_after)
        if chosen.delay is not None:
            return Pause(chosen.delay, charged)
        return Pause(self._delay(error, held, refused), charged)

    def _choose(self, failure: Failure, refused: bool) -> Retry | Stop:
        self._refusals += refused
        chosen = None if self._decide is None else self._decide(failure)
        if isinstance(chosen, (int, float)):
            return Retry(float(chosen))
        if chosen is not None:
            return chosen
        if not refused:
            return self._default(failure)
        if self._has_credentials and self._refusals < MAX_REFUSALS:
            return Retry()
        return Stop(_refusal(failure.error))

    def _delay(self, error: Exception, held: float | None, refused: bool) -> float:
        if self.leaving_at is not None:
            return max(0.0, self.leaving_at - asyncio.get_running_loop().time())
        stable = held is None or held >= self._stable_after
        if refused and self._fresh_credentials and stable and self._refusals < MAX_REFUSALS:
            return 0.0  # with fresh ones; a second refusal is final
        return self._backoff.delay(held, getattr(error, "retry_after", None))

    async def again(
        self, error: Exception, *, by_us: bool, number: int, standing: bool = False
    ) -> None:
        """Wait until link ``number + 1`` may be tried. Cancelling is safe.

        Args:
            error: why the last one ended, or did not come about.
            by_us: whether that was our doing.
            number: of the last one, for the log.
            standing: the link before it still works.

        Raises:
            EverwireError: or whatever ``error`` is: there is no use in trying again.
        """
        opening = number == 1 and self._ready_at is None
        pause = self.after(error, by_us=by_us, standing=standing)
        why = str(error) or type(error).__name__
        if opening:  # whoever waits wonders why; the attempts that follow are details
            text = "not connected to %s yet: %s; again in %.2f s, and so on"
            logger.warning(text, self._endpoint, why, pause.seconds)
        else:
            logger.info("link %d: %s; again in %.2f s", number, why, pause.seconds)
        if self._on_retry is not None:
            self._on_retry(pause.seconds, self._retries, error)
        await self.wait(pause)

    async def wait(self, pause: Pause) -> None:
        """Let the pause pass, and take what is charged from the budget.

        Cancelling takes nothing from it.
        """
        try:
            async with asyncio.timeout(None) as self._pausing:
                await asyncio.sleep(pause.seconds)
                if pause.charged and self._endpoint:
                    await self._attempts.take(self._endpoint, self._random)
        except TimeoutError:
            pass  # hurried
        finally:
            self._pausing = None

    def hurry(self) -> None:
        """End the pause within a second: the network, or the user, has come back."""
        pausing = self._pausing
        if pausing is not None and pausing.when() is None and not pausing.expired():
            now = asyncio.get_running_loop().time()
            pausing.reschedule(now + self._random.uniform(0.0, HURRY))


def _refusal(error: Exception) -> Exception:
    if isinstance(error, HandshakeRefused):
        return error
    reason = error.reason if isinstance(error, ConnectionClosed) else str(error)
    return Unauthorized(reason or "the server refuses the token")
