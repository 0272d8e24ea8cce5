"""A connection of ``bench`` that reads: positions to recover from, and checks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..client.link import Answer, Link
from ..errors import ConnectionClosed, request_error
from ..protocol import messages as m
from ..protocol.answers import answer_error
from ..protocol.messages import Position
from .bench_check import Checker
from .bench_load import Load, Peer

AGAIN = 1.0  # seconds after which a channel is subscribed to again that was refused for now


class _Results(msgspec.Struct):
    subscriptions: list[m.ChannelResult] = []


class _Reader:
    """A channel on one connection."""

    __slots__ = ("checker", "epoch", "name", "position", "tail")

    def __init__(self, name: str, publishers: int) -> None:
        self.name = name
        self.checker = Checker(publishers)
        self.epoch = ""
        self.position: Position | None = None
        self.tail: m.ChannelMessage | None = None  # the last one after that position

    def reached(self) -> Position | None:
        if self.tail is not None:
            self.position = Position(self.epoch, self.tail.offset, self.tail.id)
            self.tail = None
        return self.position

    def moved(self, position: Position) -> None:
        self.position, self.epoch, self.tail = position, position.epoch, None


class Subscriber(Peer):
    """A connection that is subscribed, and checks all that comes.

    Args:
        load: what it counts into.
        channels: their indices.
    """

    def __init__(self, load: Load, channels: Sequence[int]) -> None:
        super().__init__(load)
        self.readers = {
            load.channels[index]: _Reader(load.channels[index], load.publishers)
            for index in channels
        }
        self._by_sid: dict[int, _Reader] = {}

    def session_auth(self, link: Link, auth: m.Auth) -> None:
        auth.subscribe = self._requests(self.readers)

    def _requests(self, names: Iterable[str]) -> list[m.ChannelRequest]:
        return [m.ChannelRequest(name, self.readers[name].reached()) for name in names]

    def session_ready(self, link: Link, payload: Any) -> None:
        super().session_ready(link, payload)
        self._confirmed(payload)

    def session_lost(self, link: Link, error: ConnectionClosed) -> None:
        super().session_lost(link, error)
        self._by_sid.clear()

    def _confirmed(self, payload: Any) -> None:
        for result in msgspec.convert(payload, _Results).subscriptions:
            reader = self.readers[result.channel]
            if result.error is not None:
                self._refused(result.channel, result.error)
            elif result.sid is not None:
                self._by_sid[result.sid] = reader
                if reader.position is None or result.recovered:
                    reader.moved(Position(result.epoch, result.offset, result.id))
        if len(self._by_sid) == len(self.readers):
            self._succeed()

    def _refused(self, channel: str, body: m.ErrorBody | m.Unsubscribed) -> None:
        text = getattr(body, "message", "")
        error = request_error(body.code, text, temporary=body.temporary)
        self._load.refused(error)
        if body.temporary:
            loop = asyncio.get_running_loop()
            loop.call_later(AGAIN, self._subscribe, self._link, channel)
        else:
            self._fail(error)

    def _subscribe(self, link: Link | None, channel: str) -> None:
        if link is None or link is not self._link:
            return
        request_id = link.next_id()
        encoded = link.encode(m.Subscribe(request_id, self._requests([channel])))
        link.ask(request_id, encoded, self._answered, channel)

    def _answered(self, channel: str, answer: Answer) -> None:
        if isinstance(answer, m.Response):
            self._confirmed(answer.payload)
        else:
            error = answer_error(answer)
            body = m.ErrorBody(error.code, error.name, error.message, error.temporary)
            self._refused(channel, body)

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        reader = self._by_sid.get(message.sid)
        if reader is None:
            return
        reader.tail = message
        load, data = self._load, message.data
        if not load.is_own(data):
            load.foreign += 1
            return
        due = data[3]
        load.totals.delivered += 1
        load.unique += reader.checker.received(data[1], data[2])
        if load.since is not None and due >= load.since:
            load.delivery.record(load.clock() - due)

    def link_pushed(self, link: Link, message: m.Message) -> None:
        match message:
            case m.GapNotice():
                reader = self._by_sid.get(message.sid)
                if reader is not None:
                    self._load.gaps[message.reason] += 1
                    reader.moved(Position(message.epoch, message.offset, message.id))
            case m.Unsubscribed():
                reader = self._by_sid.pop(message.sid, None)
                if reader is not None:
                    self._refused(reader.name, message)
            case _:
                super().link_pushed(link, message)
