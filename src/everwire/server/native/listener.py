"""The listening socket: from an address to connections."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from ssl import SSLContext

from ...errors import ConfigError
from ...instrumentation import LimitedLog
from ...limits import Limits
from ...net.heartbeat import Wheel
from ...net.transport import Handshake, Receiver, Transport
from ...net.websocket import SOCKET_BUFFER
from .accept import Acceptor
from .front import Asset, Front, FrontOptions
from .proxied import networks
from .request import normal_origin

logger = logging.getLogger("everwire.server")

# Dead peers that no heartbeat finds, as those in the middle of a handshake.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}


def bind(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
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
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _inherit(sock)
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


def _inherit(sock: socket.socket) -> None:
    """Set what each accepted connection inherits from the listening socket."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def bind_unix(path: str) -> socket.socket:
    """Make a listening Unix socket; one that nobody listens on any more is replaced.

    Raises:
        ConfigError: the path cannot be used.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _inherit(sock)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            Path(path).unlink()
            sock.bind(path)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror}") from None
    return sock


def _is_abandoned(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


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
        origins: Sequence[str] | None = None,
        proxy_protocol: bool = False,
        trusted_proxies: Sequence[str] = (),
        compression: bool = False,
    ) -> None:
        log = LimitedLog(logger, lambda: wheel.now)
        allowed = None if origins is None else frozenset(map(normal_origin, origins))
        self._options = FrontOptions(
            limits, wheel, accept, paths, assets, set(), log, allowed, proxy_protocol,
            networks(trusted_proxies), compression,
        )  # fmt: skip
        self._acceptors: list[Acceptor] = []
        self._unix: list[str] = []
        self.port = 0

    async def start(
        self, host: str, port: int, *, ssl: SSLContext | None = None, reuse_port: bool = False
    ) -> None:
        """Listen. Port 0 takes a free one, see :attr:`port`.

        Raises:
            ConfigError: the address cannot be used.
        """
        sockets = bind(host, port, reuse_port=reuse_port)
        self.port = sockets[0].getsockname()[1]
        for sock in sockets:
            await self._serve(sock, ssl)

    async def start_unix(self, path: str) -> None:
        """Listen on a Unix socket.

        Raises:
            ConfigError: the path cannot be used.
        """
        await self._serve(bind_unix(path), None)
        self._unix.append(path)

    async def _serve(self, sock: socket.socket, ssl: SSLContext | None) -> None:
        timeout = self._options.limits.handshake_timeout if ssl is not None else None
        acceptor = Acceptor(sock, lambda: Front(self._options), ssl=ssl, ssl_timeout=timeout)
        acceptor.start()
        self._acceptors.append(acceptor)

    def refuse(self) -> None:
        """Answer new WebSockets with 503; small pages are still served."""
        self._options.draining = True

    def close(self) -> None:
        """Stop listening, and drop what is no WebSocket yet. Those go on."""
        for acceptor in self._acceptors:
            acceptor.close()
        for path in self._unix:
            Path(path).unlink(missing_ok=True)
        self._unix.clear()
        for front in list(self._options.open):
            front.close()
