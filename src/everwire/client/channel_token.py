"""The token of a subscription, where the server wants one for a channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..codes import ErrorCode
from ..errors import EverwireError
from ..net.backoff import Backoff
from ..net.tasks import TaskOwner
from .tokens import TokenSource, ask_token

logger = logging.getLogger("everwire.client")

TOKEN_CODES = (ErrorCode.UNAUTHENTICATED, ErrorCode.TOKEN_EXPIRED, ErrorCode.FORBIDDEN)


class ChannelToken:
    """The token of a subscription: fetched before it is first needed, and once after a refusal.

    Args:
        source: the token, or who knows it.
        channel: its channel's name.
        tasks: owns the asking.
        backoff: between failed attempts.
        fetched: is called when there is another token.

    Attributes:
        value: the token; None if there is none, or none yet.
        size: bytes that it takes on the wire, rather too many.
    """

    __slots__ = (
        "_backoff",
        "_channel",
        "_fetched",
        "_source",
        "_task",
        "_tasks",
        "_tried",
        "value",
    )

    def __init__(
        self,
        source: TokenSource,
        channel: str,
        tasks: TaskOwner,
        backoff: Backoff,
        fetched: Callable[[], None],
    ) -> None:
        self.value = None if callable(source) else source
        self._source = source
        self._channel = channel
        self._tasks = tasks
        self._backoff = backoff
        self._fetched = fetched
        self._task: asyncio.Task[None] | None = None
        self._tried = False  # fetched after a refusal, and not accepted since

    @property
    def size(self) -> int:
        return 0 if self.value is None else 2 * len(self.value.encode())

    @property
    def fetching(self) -> bool:
        """Whether a token is awaited: until then there is none to show."""
        return self._task is not None

    def fetch(self) -> None:
        """Ask whoever knows it, for as long as it takes."""
        if callable(self._source) and self._task is None:
            self._task = self._tasks.start(self._fetch(), f"token {self._channel!r}")

    def accepted(self) -> None:
        """The server took it."""
        self._tried = False

    def refused(self, code: int) -> bool:
        """The server refuses; return whether a fresh token is being asked for."""
        if code not in TOKEN_CODES or not callable(self._source) or self._tried:
            return False
        self._tried = True
        self.fetch()
        return True

    def cancel(self) -> None:
        """Ask nobody any more."""
        if self._task is not None:
            self._task.cancel()

    async def _fetch(self) -> None:
        while True:
            try:
                self.value = await ask_token(self._source)
                break
            except EverwireError as error:
                delay = self._backoff.delay()
                logger.warning("%r: %s; again in %.2f s", self._channel, error, delay)
                await asyncio.sleep(delay)
        self._task = None
        self._backoff.reset()
        self._fetched()
