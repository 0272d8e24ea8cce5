"""What a client tells of itself, one frozen record an event; see ``on_record``.

For logs, metrics and tests::

    def watch(record: Record) -> None:
        match record:
            case LinkLost(code=code, by_us=False):
                losses.labels(code).inc()
            case RetryScheduled(delay=delay, cause=cause):
                log.info("again in %.1f s: %s", delay, cause)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..protocol.messages import Position
from ..protocol.states import ConnectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Any of those below."""

    mark: ClassVar[str] = "="  # before it in the debug log


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Record):
    """The connection is in another state."""

    state: ConnectionState
    previous: ConnectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOpened(Record):
    """A link is ready: connected, and let in.

    Attributes:
        number: counts the links that were tried, from 1.
        url: where to, without what may be secret.
        dialect: that is spoken.
        seconds: that it took, the token included.
    """

    number: int
    url: str
    dialect: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLost(Record):
    """A link is gone; also the last one, which was closed.

    Attributes:
        number: of the link.
        code: the close code; 1006 if none came.
        reason: the text that came with it, or says what went wrong.
        by_us: we ended it.
        held: seconds for which it was ready; None if it never was.
    """

    mark: ClassVar[str] = "x"
    number: int
    code: int
    reason: str
    by_us: bool
    held: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Record):
    """There will be another attempt.

    Attributes:
        delay: seconds until then.
        attempt: how many have been made in a row, with this one, since a link held.
        cause: why the last one failed, or the link was lost.
    """

    mark: ClassVar[str] = "!"
    delay: float
    attempt: int
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatSuspect(Record):
    """Nothing has come for too long, which may be our own doing: the link is being probed.

    Attributes:
        number: of the link.
        rtt: seconds that a round trip takes, smoothed; None if it was never measured.
        lag: seconds by which our own event loop was late.
    """

    mark: ClassVar[str] = "!"
    number: int
    rtt: float | None
    lag: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefreshed(Record):
    """The token function returned a token, for a new link or the one that is up.

    Attributes:
        expires_at: when it expires, in seconds since 1970, where the function said so.
    """

    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFound(Record):
    """A subscription is handed a :class:`~everwire.Gap`; the attributes are the gap's."""

    mark: ClassVar[str] = "!"
    channel: str
    reason: str
    position: Position | None
    from_: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishDropped(Record):
    """A publish was given up: dropped from a full outbox, refused, or out of time.

    Attributes:
        channel: where it was to go.
        id: of the message.
        cause: what the publish raises.
    """

    mark: ClassVar[str] = "!"
    channel: str
    id: str
    cause: Exception
