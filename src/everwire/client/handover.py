"""From one link to the next without a break, when the server says that it will go.

Rule 1: the old link works until the new one is ready; if that never comes about, it works on.
Rule 2: from the new link's ``hello`` on nothing new is asked on the old one, so that what
was asked is answered before the client moves: what may not be sent twice needs it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import RequestTimeout

if TYPE_CHECKING:
    from .link import Link

logger = logging.getLogger("everwire.client")

SETTLE = 3.0  # seconds for what is in flight on the old link
SETTLE_PART = 0.5  # and at most this part of the time until the server closes it


@dataclass(frozen=True, slots=True)
class Notice:
    """A server's word that it will go.

    Attributes:
        leave_in: seconds after which this client is to leave, counted from when it came.
        close_in: seconds after which the link is closed, from then on too.
        came_at: the loop's time.
    """

    leave_in: float
    close_in: float
    came_at: float

    @property
    def close_at(self) -> float:
        """The loop's time at which the link is closed."""
        return self.came_at + self.close_in


async def greeting(new: Link, seconds: float) -> None:
    """Wait for the server's ``hello`` on a link. Safe to cancel.

    Raises:
        RequestTimeout: not within ``seconds``.
        ConnectionClosed: the link ended.
    """
    try:
        async with asyncio.timeout(seconds):
            await new.greeted()
    except TimeoutError as error:
        raise RequestTimeout(f"no hello from the server within {seconds:g} s") from error


async def settle(old: Link) -> None:
    """Let what is in flight on a link that is held be answered, in bounded time.

    Returns when it is, when the link ended, or when there is no more time for it.
    Cancelling leaves the link held.
    """
    now = asyncio.get_running_loop().time()
    left = SETTLE if old.notice is None else max(0.0, old.notice.close_at - now) * SETTLE_PART
    try:
        async with asyncio.timeout(min(SETTLE, left)):
            await old.settled()
    except TimeoutError:
        logger.info("link %d: left with requests unanswered", old.number)
