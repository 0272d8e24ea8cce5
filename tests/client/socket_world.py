"""A server that is not ours, in memory, for sockets: it does as a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from everwire import Socket
from everwire.net.transport import Receiver, Transport
from everwire.protocol.frames import Opcode
from everwire.testing import Handshake, Network

from .world import loop

URL = "ws://foreign/socket"


class Peer:
    """The server's side of one connection."""

    def __init__(self, server: Server, transport: Transport, handshake: Handshake) -> None:
        self.server = server
        self.transport = transport
        self.handshake = handshake
        self.messages: list[str | bytes] = []
        self.close_code: int | None = None
        self.opened_at = loop().time()

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.transport.send(Opcode.TEXT, message.encode())
        else:
            self.transport.send(Opcode.BINARY, message)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.transport.close(code, reason)

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        message = str(payload, "utf-8") if opcode == Opcode.TEXT else bytes(payload)
        self.messages.append(message)
        if self.server.on_message is not None:
            self.server.on_message(self, message)

    def heard(self) -> None:
        self.server.pings += 1

    def closed(self, code: int, reason: str) -> None:
        self.close_code = code

    def pause_writing(self) -> None:
        self.server.paused += 1

    def resume_writing(self) -> None:
        self.server.paused -= 1


class Server:
    """Takes connections; ``on_message`` and ``on_open`` say what it does."""

    def __init__(
        self,
        network: Network,
        on_message: Callable[[Peer, str | bytes], None] | None = None,
        *,
        on_open: Callable[[Peer], None] | None = None,
        url: str = URL,
        subprotocols: Sequence[str] = (),
    ) -> None:
        self.on_message = on_message
        self.on_open = on_open
        self.peers: list[Peer] = []
        self.pings = 0
        self.paused = 0
        self.listener = network.listen(url, self._accept, subprotocols=subprotocols)

    def _accept(self, transport: Transport, handshake: Handshake) -> Receiver:
        peer = Peer(self, transport, handshake)
        self.peers.append(peer)
        if self.on_open is not None:
            self.on_open(peer)
        return peer

    @property
    def messages(self) -> list[str | bytes]:
        """All that came, over all connections."""
        return [message for peer in self.peers for message in peer.messages]


def echo(peer: Peer, message: str | bytes) -> None:
    peer.send(message)


def socket_to(network: Network, *, url: Any = URL, **options: Any) -> Socket:
    """A socket of the virtual world, with chance and time from its loop."""
    options.setdefault("random", loop().random)
    options.setdefault("wall", loop().wall)
    return Socket(url, network=network, **options)
