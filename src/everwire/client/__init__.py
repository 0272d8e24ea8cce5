"""The client: connects, stays connected, and loses nothing without saying so.

An application uses :func:`connect` and what it returns. The layers, each useful alone:
:mod:`.link` (one connection, no retry), :mod:`.session` (one after the other),
:mod:`.outbox`, :mod:`.requests`, :mod:`.subscription` (what outlives a connection),
:mod:`.streams`, :mod:`.handlers` (what does not),
:mod:`.client` (all of it together).
"""

from __future__ import annotations

from ..limits import ClientLimits
from ..protocol.messages import Member, Position
from ..protocol.positions import Snapshot
from ..protocol.states import ConnectionState, SubscriptionState
from .builtin import ChannelPresence
from .client import Client
from .connect import connect
from .entry import Ack
from .handlers import Handlers
from .items import Gap, Message
from .observations import (
    GapFound,
    HeartbeatSuspect,
    LinkLost,
    LinkOpened,
    PublishDropped,
    Record,
    RetryScheduled,
    StateChanged,
    TokenRefreshed,
)
from .overflow import Overflow
from .records import SqliteOutbox
from .stats import Stats
from .streams import Stream
from .subscription import StatefulSubscription, Subscription
from .tokens import Token, Tokens
from .undelivered import Undelivered

__all__ = [
    "Ack",
    "ChannelPresence",
    "Client",
    "ClientLimits",
    "ConnectionState",
    "Gap",
    "GapFound",
    "Handlers",
    "HeartbeatSuspect",
    "LinkLost",
    "LinkOpened",
    "Member",
    "Message",
    "Overflow",
    "Position",
    "PublishDropped",
    "Record",
    "RetryScheduled",
    "Snapshot",
    "SqliteOutbox",
    "StateChanged",
    "StatefulSubscription",
    "Stats",
    "Stream",
    "Subscription",
    "SubscriptionState",
    "Token",
    "TokenRefreshed",
    "Tokens",
    "Undelivered",
    "connect",
]
