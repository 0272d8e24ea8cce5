"""The durable outbox: which file it is in, what stands there, and what changes there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class SqliteOutbox:
    """An outbox that survives the process, in a file of its own.

    Args:
        path: of the file. SQLite keeps two more beside it while it is open (``-wal``,
            ``-shm``), and the lock of its owner stays there (``.lock``). It must be on a
            local disk.
        synchronous: ``"NORMAL"``: what is committed survives the process, but a power cut may
            take the last commits; ``"FULL"``: it survives that as well, for a wait for the
            disk with each group of commits.
        max_bytes: of the file, None for no bound but those of the outbox. What does not fit
            fails with ``NotStored``.
    """

    path: str | os.PathLike[str]
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.synchronous not in ("NORMAL", "FULL"):
            raise ConfigError(
                f"synchronous must be 'NORMAL' or 'FULL', not {self.synchronous!r:.40}"
            )


@dataclass(frozen=True, slots=True)
class Put:
    """A message, in its place: also instead of the one that was there."""

    place: int
    id: str
    channel: str
    key: str | None
    data: bytes
    size: int
    expires: float
    firm: bool
    first_sent: float | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A message is about to be sent for the first time."""

    place: int
    first_sent: float
    expires: float


@dataclass(frozen=True, slots=True)
class Delete:
    """A message is acknowledged, or its publisher was told that it is given up."""

    place: int


@dataclass(frozen=True, slots=True)
class Bury:
    """A message is given up and nobody has been told: keep it until somebody asks."""

    place: int
    sent: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """The application has taken note of an undelivered message."""

    number: int


Change: TypeAlias = Put | Mark | Delete | Bury | Forget


@dataclass(frozen=True, slots=True)
class Buried:
    """A row of the undelivered."""

    number: int
    id: str
    channel: str
    key: str | None
    data: bytes
    sent: bool
    reason: str
