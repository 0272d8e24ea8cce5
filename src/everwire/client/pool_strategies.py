"""Which member of a pool takes what: policies without I/O, the same for every kind of pool."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args

from ..errors import ConfigError

logger = logging.getLogger("everwire.client")

Strategy: TypeAlias = Literal["keyed", "least_inflight", "round_robin", "failover"]
"""Which of the members that can take something takes it:

* ``keyed``: the one that belongs to the key, the same in every process, by rendezvous hashing:
  of N members one that goes or comes moves 1/N of the keys. What has no key goes by
  ``least_inflight``;
* ``least_inflight``: of two chosen by chance the one with less in flight;
* ``round_robin``: one after the other;
* ``failover``: the first one.
"""


class Choosable(Protocol):
    """What is asked of a member."""

    @property
    def number(self) -> int:
        """Its place in the pool."""

    @property
    def load(self) -> tuple[int, int]:
        """What is in flight: how many, and bytes."""

    def record(self) -> Any:
        """The same for the application."""


M = TypeVar("M", bound=Choosable)
Pick: TypeAlias = Callable[[Sequence[M], str | None], M]


def rendezvous(members: Sequence[M], key: str) -> M:
    """Return the member that belongs to ``key``: that with the highest weight for it."""
    return max(members, key=lambda member: _weight(member.number, key))


def _weight(number: int, key: str) -> bytes:
    return blake2b(f"{number} {key}".encode(), digest_size=8).digest()


class _Keyed:
    def __init__(self, random: Random) -> None:
        self._without_key = _LeastInflight(random)

    def __call__(self, members: Sequence[M], key: str | None) -> M:
        return self._without_key(members, key) if key is None else rendezvous(members, key)


class _LeastInflight:
    """The power of two choices: nearly as even as asking all, and nobody runs to the same."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __call__(self, members: Sequence[M], key: str | None) -> M:
        some = self._random.sample(members, min(2, len(members)))
        return min(some, key=lambda member: member.load)


class _RoundRobin:
    def __init__(self) -> None:
        self._last = -1

    def __call__(self, members: Sequence[M], key: str | None) -> M:
        later = (member for member in members if member.number > self._last)
        chosen = next(later, members[0])
        self._last = chosen.number
        return chosen


def _first(members: Sequence[M], key: str | None) -> M:
    return members[0]


class _Chosen:
    """A function of the application's, which may fail."""

    def __init__(self, function: Callable[[Sequence[Any], str | None], Any], pick: Pick[M]) -> None:
        self._function = function
        self._otherwise: Pick[Any] = pick

    def __call__(self, members: Sequence[M], key: str | None) -> M:
        records = [member.record() for member in members]
        try:
            chosen = self._function(records, key)
            for record, member in zip(records, members, strict=True):
                if chosen is record:
                    return member
            raise ValueError(f"{chosen!r} is none of the members")
        except Exception:
            logger.exception("the strategy of the application failed; by its key instead")
            fallback: M = self._otherwise(members, key)
            return fallback


def picker(strategy: str | Callable[[Sequence[Any], str | None], Any], random: Random) -> Pick[Any]:
    """Return what picks one of the members, which are at least one, in the order of the pool.

    Raises:
        ConfigError: there is no such strategy.
    """
    if callable(strategy):
        return _Chosen(strategy, _Keyed(random))
    match strategy:
        case "keyed":
            return _Keyed(random)
        case "least_inflight":
            return _LeastInflight(random)
        case "round_robin":
            return _RoundRobin()
        case "failover":
            return _first
        case _:
            pass
    names = ", ".join(get_args(Strategy))
    raise ConfigError(f"strategy must be a function or one of {names}, not {strategy!r}")


def by_key(strategy: str | Callable[[Sequence[Any], str | None], Any], random: Random) -> Pick[Any]:
    """The same, but what has a key goes by it where the strategy would only take turns.

    Raises:
        ConfigError: there is no such strategy.
    """
    pick, keyed = picker(strategy, random), _Keyed(random)
    if strategy not in ("round_robin", "least_inflight"):
        return pick
    return lambda members, key: (pick if key is None else keyed)(members, key)
