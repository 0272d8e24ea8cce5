"""A connection of ``bench`` that publishes, and repeats with their ids what was not answered."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ..client.link import Answer, Link
from ..protocol import messages as m
from ..protocol.answers import answer_error
from .bench_check import Numbers
from .bench_load import Load, Peer

PENALTY = 0.05  # seconds for which a refused publish keeps its place in the window
GRAIN = 10_000_000  # ns by which a message may be late for its timer alone
SMALLEST = 80  # bytes of a payload: what it carries to be checked by


class _Sent(msgspec.Struct, gc=False):
    """A publish that is not answered yet."""

    channel: int
    number: int
    due: int
    data: list[Any]
    run: int = 0


class Publisher(Peer):
    """A connection that publishes to all channels in turn.

    Without an interval it is a closed loop: ``window`` messages are in flight. With one it
    is an open loop: each message has a time at which it is due, and waits where the server
    takes no more. Its latency counts from that time, so that waiting is not left out.

    Attributes:
        numbers: the last one of each channel.
        excused: for each channel those that nobody need deliver: refused, or unanswered.
        pending: what is not answered, by id, in order.
    """

    def __init__(self, load: Load, index: int, *, window: int, interval: float) -> None:
        super().__init__(load)
        self._index = index
        self._turn = index
        self._window = window
        self._interval = interval * 1e9
        self._begin: int | None = None
        self._planned = 0
        self._timer: asyncio.TimerHandle | None = None
        self._penalties = 0
        self._serial = 0
        channels = len(load.channels)
        self._runs = [0] * channels
        self.numbers = [0] * channels
        self.excused = [Numbers() for _ in range(channels)]
        self.pending: dict[str, _Sent] = {}

    def start(self, begin: int) -> None:
        """Publish from now on; the first message is due at ``begin`` (ns)."""
        self._begin = begin
        self._planned = 0
        self.pump()

    def stop(self) -> int:
        """Publish no more. Returns how many messages were due and not sent."""
        begin, self._begin = self._begin, None
        if self._timer is not None:
            self._timer.cancel()
        if begin is None or not self._interval:
            return 0
        due = int((self._load.clock() - begin - GRAIN) / self._interval) + 1
        return max(0, due - self._planned)

    def give_up(self) -> int:
        """Wait for no more answers. Returns how many are missing."""
        for sent in self.pending.values():
            self.excused[sent.channel].add(sent.number, sent.number)
        return len(self.pending)

    # ---- SessionOwner

    def session_ready(self, link: Link, payload: Any) -> None:
        super().session_ready(link, payload)
        self._runs = [run + 1 for run in self._runs] if self.pending else self._runs
        for message_id, sent in self.pending.items():
            self._send(link, message_id, sent)
        self._succeed()
        self.pump()

    def link_writable(self, link: Link) -> None:
        self.pump()

    # ---- publishing

    def pump(self) -> None:
        """Send what may be sent."""
        link, load = self._link, self._load
        while link is not None and link.error is None and link.writable:
            window = min(self._window, link.window)
            if self._begin is None or len(self.pending) + self._penalties >= window:
                return
            now = load.clock()
            due = now
            if self._interval:
                due = self._begin + int(self._planned * self._interval)
                if due > now:
                    self._sleep((due - now) / 1e9)
                    return
                if load.since is not None and due >= load.since:
                    load.lateness.record(now - due)
            self._planned += 1
            self._publish(link, due)

    def _sleep(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.pump)

    def _publish(self, link: Link, due: int) -> None:
        channel = self._turn % len(self.numbers)
        self._turn += 1
        self.numbers[channel] += 1
        self._serial += 1
        sent = _Sent(channel, self.numbers[channel], due, self._payload(channel, due))
        message_id = f"{self.instance}-{self._serial}"
        self.pending[message_id] = sent
        self._load.totals.published += 1
        self._send(link, message_id, sent)

    def _payload(self, channel: int, due: int) -> list[Any]:
        load = self._load
        body = [load.tag, self._index, self.numbers[channel], due]
        taken = sum(map(len, map(str, body))) + len('[,,,,""]')
        return [*body, "x" * (load.size - taken)]

    def _send(self, link: Link, message_id: str, sent: _Sent) -> None:
        sent.run = self._runs[sent.channel]
        name = self._load.channels[sent.channel]
        encoded = link.encode(m.Publish(message_id, name, sent.data, run=sent.run))
        link.ask(message_id, encoded, self._answered, message_id)

    def _answered(self, message_id: str, answer: Answer) -> None:
        sent, load = self.pending.pop(message_id), self._load
        if isinstance(answer, m.Response):
            load.totals.acknowledged += 1
            load.expected += load.readers[sent.channel]
            if load.since is not None and sent.due >= load.since:
                load.acknowledgement.record(load.clock() - sent.due)
        else:
            error = answer_error(answer)
            load.refused(error)
            load.totals.refused += 1
            self.excused[sent.channel].add(sent.number, sent.number)
            if sent.run == self._runs[sent.channel]:
                self._runs[sent.channel] += 1  # or what follows would be held for this one
            self._penalties += 1
            asyncio.get_running_loop().call_later(PENALTY, self._forgive)
        self.pump()

    def _forgive(self) -> None:
        self._penalties -= 1
        self.pump()
