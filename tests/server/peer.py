"""A client that does only what a test tells it, over the in-memory network."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from everwire import Everwire, Grant
from everwire.limits import Limits
from everwire.net.transport import Transport
from everwire.protocol import messages as m
from everwire.protocol.dialects import dialect
from everwire.server.node import Node
from everwire.testing import Link, Network, VirtualLoop

URL = "ws://node/ws"
M = TypeVar("M", bound=m.Message)


class Peer:
    """One WebSocket, message by message."""

    def __init__(self, network: Network, name: str = "json", url: str = URL) -> None:
        self.network = network
        self.url = url
        self.dialect = dialect(name)
        self.inbox: list[m.Message] = []
        self.close_code: int | None = None
        self.transport: Transport
        self._news = asyncio.Event()
        self.link: Link

    async def open(self) -> Peer:
        wanted = self.dialect.subprotocol
        before = set(self.network.links)
        self.transport = await self.network.connect(
            self.url, self, subprotocols=(wanted,) if wanted else (), max_message=1 << 24
        )
        (self.link,) = set(self.network.links) - before or {self.network.links[-1]}
        return self

    async def auth(self, **fields: Any) -> m.Message:
        """Open, authenticate, and return the answer."""
        await self.open()
        self.send(m.Auth(1, **fields))
        return await self.answer(1)

    def send(self, message: m.Message) -> None:
        self.transport.send(self.dialect.opcode, self.dialect.encode(message))

    def send_raw(self, payload: bytes) -> None:
        self.transport.send(self.dialect.opcode, payload)

    async def next(self, kind: type[M], where: Callable[[M], object] = lambda _: True) -> M:
        """Take the first message of a kind, waiting for it."""
        while True:
            for message in self.inbox:
                if isinstance(message, kind) and where(message):
                    self.inbox.remove(message)
                    return message
            assert self.close_code is None, f"closed with {self.close_code}; has {self.inbox}"
            self._news.clear()
            await self._news.wait()

    async def answer(self, request_id: m.RequestId) -> m.Message:
        """Take the response or the error to a request."""
        return await self.next(
            m.Message,
            lambda message: (
                isinstance(message, (m.Response, m.Error)) and message.request_id == request_id
            ),
        )

    async def ask(self, message: m.Message) -> Any:
        """Send a request; return its response's payload, or the error message."""
        self.send(message)
        answer = await self.answer(message.id)  # type: ignore[attr-defined]
        return answer.payload if isinstance(answer, m.Response) else answer

    async def publish(self, message_id: str, channel: str, data: Any, **more: Any) -> Any:
        return await self.ask(m.Publish(message_id, channel, data, **more))

    async def subscribe(self, channel: str, position: m.Position | None = None) -> dict[str, Any]:
        """Subscribe to one channel; return its result."""
        request = m.ChannelRequest(channel, position)
        payload = await self.ask(m.Subscribe(self._serial(), [request]))
        assert isinstance(payload, dict), payload
        return dict(payload["subscriptions"][0])

    _last = 1000

    def _serial(self) -> int:
        Peer._last += 1
        return Peer._last

    def messages(self) -> list[m.ChannelMessage]:
        """The channel messages so far, without taking them."""
        return [one for one in self.inbox if isinstance(one, m.ChannelMessage)]

    async def until_closed(self) -> int:
        """Wait for the end; return the code."""
        while self.close_code is None:
            self._news.clear()
            await self._news.wait()
        return self.close_code

    # ---- Receiver ---------------------------------------------------------------

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        assert opcode == self.dialect.opcode
        message = self.dialect.decode(bytes(payload))
        if isinstance(message, m.Ping) and self.dialect.needs_auth:
            self.send(m.Pong(message.time))
        self.inbox.append(message)
        self._news.set()

    def heard(self) -> None:
        """Nothing hangs on it here."""

    def closed(self, code: int, reason: str) -> None:
        self.close_code = code
        self._news.set()

    def pause_writing(self) -> None:
        """Tests write little."""

    resume_writing = pause_writing


def open_app(**options: Any) -> Everwire:
    """An application in which everybody may do everything."""
    wire = Everwire(**options)
    wire.channel("{name:path}", presence=True, grant=Grant(publish=True))
    return wire


@asynccontextmanager
async def serving(
    wire: Everwire | None = None, *, limits: Limits | None = None, **network: Any
) -> AsyncIterator[tuple[Network, Node]]:
    """A node on the in-memory network."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    wire = wire if wire is not None else open_app(limits=limits)
    wire.wall = loop.wall
    net = Network(**network)
    node = await wire.start()
    node.random = loop.random
    listener = net.listen(URL, node.accept)
    try:
        yield net, node
    finally:
        listener.close()
        await wire.stop()


def alive(kind: type[object]) -> int:
    """How many objects of a class there are that anything still holds."""
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())
