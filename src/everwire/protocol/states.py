"""The states of a connection and of a subscription, and every way between them.

Rule 1: all that may change a state stands in these tables.
Rule 2: the tables do not know who asks; both sides use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar


class ConnectionState(StrEnum):
    """A connection, on the server and on the client.

    ``READY`` means: authenticated, requests are served. ``SUSPECT`` means: silent for too
    long, but perhaps by our own doing; one probe decides. ``DRAINING`` means: the node is
    about to go, and the connection works until another one has taken its place.
    """

    CONNECTING = "connecting"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    SUSPECT = "suspect"
    DRAINING = "draining"
    CLOSING = "closing"
    CLOSED = "closed"


class SubscriptionState(StrEnum):
    """A subscription, on the server and on the client.

    ``RECOVERING`` means: subscribed, and being sent history until it is at the top.
    """

    UNSUBSCRIBED = "unsubscribed"
    SUBSCRIBING = "subscribing"
    RECOVERING = "recovering"
    SUBSCRIBED = "subscribed"
    FAILED = "failed"


_C = ConnectionState
CONNECTION: Mapping[ConnectionState, frozenset[ConnectionState]] = {
    _C.CONNECTING: frozenset({_C.AUTHENTICATING, _C.READY, _C.CLOSING, _C.CLOSED}),
    _C.AUTHENTICATING: frozenset({_C.READY, _C.CLOSING, _C.CLOSED}),
    _C.READY: frozenset({_C.SUSPECT, _C.DRAINING, _C.CLOSING, _C.CLOSED}),
    _C.SUSPECT: frozenset({_C.READY, _C.CLOSING, _C.CLOSED}),
    _C.DRAINING: frozenset({_C.READY, _C.CLOSING, _C.CLOSED}),
    _C.CLOSING: frozenset({_C.CLOSED}),
    _C.CLOSED: frozenset({_C.CONNECTING}),
}

_S = SubscriptionState
SUBSCRIPTION: Mapping[SubscriptionState, frozenset[SubscriptionState]] = {
    _S.UNSUBSCRIBED: frozenset({_S.SUBSCRIBING}),
    _S.SUBSCRIBING: frozenset({_S.RECOVERING, _S.SUBSCRIBED, _S.FAILED, _S.UNSUBSCRIBED}),
    _S.RECOVERING: frozenset({_S.SUBSCRIBED, _S.SUBSCRIBING, _S.FAILED, _S.UNSUBSCRIBED}),
    _S.SUBSCRIBED: frozenset({_S.RECOVERING, _S.SUBSCRIBING, _S.FAILED, _S.UNSUBSCRIBED}),
    _S.FAILED: frozenset({_S.SUBSCRIBING, _S.UNSUBSCRIBED}),
}

S = TypeVar("S", ConnectionState, SubscriptionState)


class StateError(AssertionError):
    """A transition that the tables do not have: a defect in this package."""


def check_way(table: Mapping[S, frozenset[S]], state: S, to: S) -> None:
    """Check that the table has a way from ``state`` to ``to``; staying is always allowed.

    Raises:
        StateError: there is none.
    """
    if to is not state and to not in table[state]:
        raise StateError(f"{type(state).__name__}: no way from {state} to {to}")


class Machine(Generic[S]):
    """Holds a state and refuses ways that the table does not have."""

    __slots__ = ("state", "table")

    def __init__(self, state: S, table: Mapping[S, frozenset[S]]) -> None:
        self.state: S = state
        self.table: Mapping[S, frozenset[S]] = table

    def to(self, state: S) -> None:
        """Go to ``state``; staying is always allowed.

        Raises:
            StateError: there is no such way.
        """
        check_way(self.table, self.state, state)
        self.state = state
