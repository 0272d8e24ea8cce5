"""A WebSocket and no more: what the clients are made of that the edge cases were found in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self, TypeVar

from everwire.net.transport import Transport
from everwire.protocol import messages as m
from everwire.protocol.dialects import dialect
from everwire.testing import Network

from .world import URL

M = TypeVar("M", bound=m.Message)
T = TypeVar("T")


class Wire:
    """One connection to a node, whose messages are decoded and kept; nothing is repaired.

    Attributes:
        messages: all that came.
        lost: set when the connection is gone.
        on_message: is called with each message.
        on_closed: is called with the close code.
        pongs: signs of life that were no messages.
    """

    def __init__(self, name: str = "everwire.v1.json") -> None:
        self.dialect = dialect(name)
        self.messages: list[m.Message] = []
        self.lost = asyncio.Event()
        self.on_message: Callable[[m.Message], None] = lambda message: None
        self.on_closed: Callable[[int], None] = lambda code: None
        self.pongs = 0
        self.transport: Transport
        self._news = asyncio.Event()
        self._serial = 0

    async def open(self, network: Network, token: str | None = None) -> Self:
        """Connect, and say who we are.

        Raises:
            ConnectionResetError: the connection was lost before the answer.
        """
        wanted = self.dialect.subprotocol
        self.transport = await network.connect(
            URL, self, subprotocols=(wanted,) if wanted else (), max_message=2**24
        )
        if self.dialect.needs_auth:
            await self.answer(self.send(m.Auth(self.next_id(), token, None, m.ClientInfo("naive"))))
        return self

    def next_id(self) -> int:
        self._serial += 1
        return self._serial

    def send(self, message: Any) -> Any:
        """Send a message, and return it."""
        self.transport.send(self.dialect.opcode, self.dialect.encode(message, 1))
        return message

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.messages if isinstance(message, kind)]

    async def answer(self, request: Any) -> m.Response | m.Error:
        """Wait for the answer to a request.

        Raises:
            ConnectionResetError: the connection was lost before it.
        """

        def find() -> m.Response | m.Error | None:
            answers: list[m.Response | m.Error] = [*self.of(m.Response), *self.of(m.Error)]
            return next((one for one in answers if one.request_id == request.id), None)

        return await self.first(find)

    async def first(self, find: Callable[[], T | None]) -> T:
        """Wait until ``find`` finds something among what came."""
        while (found := find()) is None:
            if self.lost.is_set():
                raise ConnectionResetError
            self._news.clear()
            await self._news.wait()
        return found

    # ---- Receiver --------------------------------------------------------------

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        message = self.dialect.decode(bytes(payload))
        self.messages.append(message)
        self._news.set()
        self.on_message(message)

    def heard(self) -> None:
        self.pongs += 1

    def closed(self, code: int, reason: str) -> None:
        self.lost.set()
        self._news.set()
        self.on_closed(code)

    def pause_writing(self) -> None:
        """It writes on."""

    resume_writing = pause_writing
