"""The connections of ``bench``: sessions without the comfort above them, to be fast.

A session reconnects, authenticates and keeps the heartbeat as for every client. What a
subscription and an outbox would do is done in :mod:`.bench_subscriber` and
:mod:`.bench_publisher` in the least that it takes.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .. import __version__
from ..client.link import Link
from ..client.session import Session
from ..client.stats import Counters
from ..client.target import Target
from ..codes import CloseCode
from ..errors import ClosedOK, ConnectionClosed, EverwireError, RequestError
from ..limits import ClientLimits
from ..net.transport import Network
from ..protocol import messages as m
from ..protocol.answers import answer_error
from ..protocol.states import ConnectionState
from .bench_histogram import Histogram

REMEDIES = {
    "403 dedupe_full": "a channel remembers so many message ids and no more: spread the load "
    "over more --channels, or lower --rate or --duration",
    "401 rate_limited": "the server limits the messages of a connection: use more --publishers",
    "300 bad_channel": "channels that the server has are chosen with --channel: if it declares "
    "chat:{room}, with --channel chat:bench",
    "202 forbidden": "choose channels that may be published to with --channel, or another --token",
}


@dataclass(slots=True)
class Totals:
    """Counts since the beginning."""

    published: int = 0
    acknowledged: int = 0
    refused: int = 0
    delivered: int = 0


@dataclass(slots=True, kw_only=True)
class Load:
    """What all connections share.

    Attributes:
        tag: of this run: in the names of its channels and in every payload.
        readers: subscribers of each channel.
        since: latencies count for messages that were due at or after this (ns), None: none.
        expected: deliveries that the acknowledgements so far promise.
        unique: deliveries so far, what came twice left out.
        foreign: deliveries of what this run did not publish.
        closes: connections lost, by close code or reason.
        errors: what the server refused, by code and name.
    """

    target: Target
    limits: ClientLimits
    network: Network
    random: Random
    channels: Sequence[str]
    readers: Sequence[int]
    publishers: int
    tag: int
    size: int
    clock: Callable[[], int] = time.monotonic_ns
    since: int | None = None
    expected: int = 0
    unique: int = 0
    foreign: int = 0
    reconnects: int = 0
    totals: Totals = field(default_factory=Totals)
    delivery: Histogram = field(default_factory=Histogram)
    acknowledgement: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    gaps: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def is_own(self, data: Any) -> bool:
        """Tell whether a payload is of this run: tag, publisher, number, time, filling."""
        return (
            type(data) is list
            and len(data) == 5
            and data[0] == self.tag
            and type(data[1]) is type(data[2]) is type(data[3]) is int
            and 0 <= data[1] < self.publishers
            and data[2] > 0
        )

    def refused(self, error: RequestError) -> None:
        """Count an error of the server."""
        self.errors[f"{error.code} {error.name}"] += 1


class Peer:
    """One connection that stays.

    Attributes:
        ready: is done when it is connected, or never will be.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._link: Link | None = None
        self._was_ready = False
        self._closing = False
        self.instance = base64.urlsafe_b64encode(
            load.random.getrandbits(96).to_bytes(12, "big")
        ).decode()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.session = Session(
            load.target,
            load.limits,
            self,
            instance=self.instance,
            network=load.network,
            random=load.random,
            wall=time.time,
            version=__version__,
            counters=Counters(),
        )

    async def run(self) -> None:
        """Stay connected until closed, or until the server wants it no more."""
        try:
            await self.session.run()
        except (EverwireError, OSError) as error:
            self._load.closes[f"for good: {error}"] += 1
            self._fail(error)
        finally:
            self.session.ended()

    async def close(self) -> None:
        """Close politely; takes at most ``close_timeout`` seconds. Cancelling is safe."""
        self._closing = True
        if self.session.state is not ConnectionState.CLOSED:
            await self.session.close()

    def _fail(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)

    def _succeed(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    # ---- SessionOwner

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        """Nothing is subscribed to."""

    def link_pushed(self, link: Link, message: m.Message) -> None:
        if isinstance(message, m.Error):
            self._load.refused(answer_error(message))

    def link_writable(self, link: Link) -> None:
        """Nothing waits."""

    def session_auth(self, link: Link, auth: m.Auth) -> None:
        """Nothing to add."""

    def session_ready(self, link: Link, payload: Any) -> None:
        self._load.reconnects += self._was_ready
        self._was_ready = True
        self._link = link

    def session_failed(self, error: Exception) -> None:
        """It tries again."""

    def session_lost(self, link: Link, error: ConnectionClosed) -> None:
        if self._link is not None and not self._closing:
            code = error.code
            name = CloseCode(code).name.lower() if code in CloseCode._value2member_map_ else ""
            self._load.closes[f"{code} {name}".rstrip()] += 1
        self._link = None

    def session_retired(self, link: Link, error: ConnectionClosed) -> None:
        """Nothing was left on it that matters here."""

    def session_held(self, link: Link) -> None:
        # What comes on this link from now on comes on the next one, too.
        self.session_lost(link, ClosedOK(CloseCode.NORMAL, "moved to another connection"))

    def session_released(self, link: Link) -> None:
        link.abort()

    def session_moved(self, link: Link, payload: Any) -> None:
        self.session_ready(link, payload)

    def session_state(self, state: ConnectionState) -> None:
        """Of no interest."""
