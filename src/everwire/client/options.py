"""What a subscription is to be like."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from ..net.backoff import Backoff
from ..protocol.messages import Position
from ..protocol.states import SubscriptionState
from .tokens import TokenSource

GetState: TypeAlias = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """See :meth:`~.channels.Channels.subscribe`."""

    since: Position | None = None
    presence: bool = False
    priority: int = 0
    token: TokenSource = field(default=None, repr=False)
    get_state: GetState | None = None
    state_first: bool = False
    on_state: Callable[[SubscriptionState], object] | None = None


def retries(random: Random, *, first: float = 0.5) -> Backoff:
    """Make the delays between attempts at one channel: 0.5 to 20 s, full jitter."""
    return Backoff(first=first, base=0.5, cap=20.0, floor=0.1, stable_after=10.0, random=random)
