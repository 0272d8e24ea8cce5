"""Many lines on their way at once, in order, and what became of each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from ..client import Ack, Client
from ..errors import DeliveryUnknown, EverwireError, NotSent, OutboxFull

WINDOW = 256  # lines that wait for their acknowledgement
SHOWN = 10  # ranges of lines named for one reason
REASONS = 20  # reasons told apart


class Sender:
    """Publishes lines to a channel, a window of them unacknowledged.

    Attributes:
        read: lines read so far; also the number of the last one.
        size: bytes read so far.
        acknowledged: of them.
        failures: for each verdict and reason, the lines, as ranges.
    """

    def __init__(self, channel: str, parse: Callable[[bytes], Any], seconds: float) -> None:
        self.read = 0
        self.size = 0
        self.acknowledged = 0
        self.waiting = 0
        self.begun = False
        self.failures: dict[tuple[str, str], list[list[int]]] = {}
        self._channel = channel
        self._parse = parse
        self._seconds = seconds
        self._settled = asyncio.Event()

    async def send(self, client: Client, lines: AsyncIterator[bytes]) -> None:
        """Publish each line. Cancelling stops between two lines.

        Raises:
            EverwireError: the client ended for good.
        """
        self.begun = True
        async for line in lines:
            self.read += 1
            self.size += len(line) + 1
            try:
                data = self._parse(line)
            except (ValueError, RecursionError) as error:
                self._failed(self.read, "refused", _reason(error))
                continue
            await self._publish(client, self.read, data)

    async def _publish(self, client: Client, number: int, data: Any) -> None:
        while True:
            await self._below(WINDOW)
            try:
                future = client.publish_nowait(self._channel, data, ttl=self._seconds)
            except OutboxFull as error:
                if not self.waiting:
                    self._failed(number, "refused", str(error))
                    return
                await self._below(self.waiting)
            except EverwireError as error:
                self._failed(number, "refused", str(error))
                return
            else:
                self.waiting += 1
                future.add_done_callback(partial(self._done, number))
                return

    async def settled(self) -> None:
        """Wait until the fate of every line is known. Safe to cancel."""
        await self._below(1)

    async def _below(self, limit: int) -> None:
        while self.waiting >= limit:
            self._settled.clear()
            await self._settled.wait()

    def _done(self, number: int, future: asyncio.Future[Ack]) -> None:
        self.waiting -= 1
        self._settled.set()
        error = None if future.cancelled() else future.exception()
        if error is None:
            self.acknowledged += 1
        elif isinstance(error, NotSent):
            self._failed(number, "not sent", _reason(error))
        elif isinstance(error, DeliveryUnknown):
            self._failed(number, "unknown", _reason(error))
        else:
            self._failed(number, "refused", _reason(error))

    def _failed(self, number: int, verdict: str, reason: str) -> None:
        if len(self.failures) >= REASONS and (verdict, reason) not in self.failures:
            reason = "for other reasons"
        ranges = self.failures.setdefault((verdict, reason), [])
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])

    def summary(self, accepted: str) -> list[str]:
        """Say what became of the lines: one text for each verdict and reason."""
        lines = "line" if self.read == 1 else "lines"
        head = f"{self.acknowledged} of {self.read} {lines} {accepted}"
        return [
            head,
            *(
                f"{verdict}: {_ranges(ranges)}: {reason}"
                for (verdict, reason), ranges in self.failures.items()
            ),
        ]


def _reason(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    # The same for many lines, so without the message's id.
    return re.sub(r"^message \S+ to '.*?': ", "", str(error))


def _ranges(ranges: list[list[int]]) -> str:
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:SHOWN]]
    more = sum(last - first + 1 for first, last in ranges[SHOWN:])
    plural = "line" if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else "lines"
    return f"{plural} {', '.join(shown)}" + (f" and {more} more" if more else "")
