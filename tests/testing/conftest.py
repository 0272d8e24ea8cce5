from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from everwire.net.transport import Transport
from everwire.testing import Handshake, Link, Network

URL = "ws://node/ws"


class Recorder:
    """A receiver that writes down what it is told, with the time."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.times: list[float] = []
        self.transport: Any = None
        self.handshake: Handshake | None = None

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self.times.append(asyncio.get_running_loop().time())

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        self._note("received", opcode, bytes(payload))

    def heard(self) -> None:
        self._note("heard")

    def closed(self, code: int, reason: str) -> None:
        self._note("closed", code, reason)

    def pause_writing(self) -> None:
        self._note("pause_writing")

    def resume_writing(self) -> None:
        self._note("resume_writing")

    @property
    def payloads(self) -> list[bytes]:
        return [event[2] for event in self.events if event[0] == "received"]

    @property
    def closings(self) -> list[tuple[int, str]]:
        return [(event[1], event[2]) for event in self.events if event[0] == "closed"]


class Opened(NamedTuple):
    """A link and what listens at its ends."""

    client: Recorder
    server: Recorder
    link: Link


Dial = Callable[..., Awaitable[Opened]]


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def dial() -> Dial:
    """Listen if nobody does, connect, and return both ends and the link."""
    servers: list[Recorder] = []

    def accept(transport: Transport, handshake: Handshake) -> Recorder:
        server = Recorder()
        server.transport, server.handshake = transport, handshake
        servers.append(server)
        return server

    async def dial(
        network: Network,
        *,
        url: str = URL,
        client: Recorder | None = None,
        server_max: int = 2**22,
        client_max: int = 2**22,
        subprotocols: Sequence[str] = (),
        headers: dict[str, str] | None = None,
    ) -> Opened:
        with suppress(OSError):
            network.listen(url, accept, max_message=server_max)
        client = client or Recorder()
        client.transport = await network.connect(
            url, client, subprotocols=subprotocols, headers=headers, max_message=client_max
        )
        return Opened(client, servers[-1], network.links[-1])

    return dial
