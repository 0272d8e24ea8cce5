"""Where subscriptions live: on one connection, or in a pool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .feed import Feed
    from .shared import Shared


class Home(Protocol):
    """Makes links agree with what the application wants."""

    @property
    def shared(self) -> Shared:
        """What all subscriptions have in common."""

    def want(self, feed: Feed) -> None:
        """Subscribe, and stay so.

        Raises:
            ConfigError: there is a subscription to the channel.
            ConnectionClosed: or what else ended the client.
        """

    def leave(self, feed: Feed) -> asyncio.Future[None] | None:
        """Unsubscribe. The future is done when the link knows it no more; None: it is so."""

    def resync(self, feed: Feed, delay: float) -> None:
        """Look at a feed again: now, or later; not before the server lets us."""
