"""The listening socket: from an address to connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

import aiofastnet

from ...errors import ConfigError
from ...limits import Limits
from ...net.heartbeat import Wheel
from ...net.transport import Handshake, Receiver, Transport
from ...net.websocket import SOCKET_BUFFER
from .front import Asset, Front, FrontOptions

BACKLOG = 4096


def bind(host: str, port: int) -> list[socket.socket]:
    """Make the listening sockets of an address.

    Their buffers are inherited by each connection: so the kernel hides 150 KiB of a
    reader that stands still from us, and not 4 MiB.

    Raises:
        ConfigError: the address cannot be used; the text says why, and what to do.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on {host!r}: {error.strerror}") from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            if port == 0 and len(sockets) > 1:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sock.bind(address)
            sock.setblocking(False)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; "
            "choose another --port (0 takes any free one), or stop what is listening there"
        ) from None
    return sockets


class Listener:
    """Accepts connections on an address and serves the handshake on each."""

    def __init__(
        self,
        *,
        limits: Limits,
        wheel: Wheel,
        accept: Callable[[Transport, Handshake], Receiver],
        paths: frozenset[str],
        assets: Mapping[str, Asset],
    ) -> None:
        self._options = FrontOptions(limits, wheel, accept, paths, assets, set())
        self._servers: list[asyncio.AbstractServer] = []
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one, see :attr:`port`.

        Raises:
            ConfigError: the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        sockets = bind(host, port)
        self.port = sockets[0].getsockname()[1]
        for sock in sockets:
            self._servers.append(
                await aiofastnet.create_server(
                    loop, lambda: Front(self._options), sock=sock, backlog=BACKLOG
                )
            )

    def refuse(self) -> None:
        """Answer new WebSockets with 503; small pages are still served."""
        self._options.draining = True

    def close(self) -> None:
        """Stop listening, and drop what is no WebSocket yet. Those go on."""
        for server in self._servers:
            server.close()
        for front in list(self._options.open):
            front.close()
