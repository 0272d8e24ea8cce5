"""The listening socket: from an address to connections."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...errors import ConfigError
from ...instrumentation import LimitedLog
from ...limits import Limits
from ...net.heartbeat import Wheel
from ...net.transport import Handshake, Receiver, Transport
from ...net.websocket import SOCKET_BUFFER
from ..identity.origins import read_origin
from .accept import Acceptor
from .front import Asset, Front, FrontOptions
from .proxied import networks
from .tls import Tls

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
    if not 0 <= port < 65536:  # getaddrinfo would take the rest of a division
        raise ConfigError(f"cannot listen on port {port}: ports are 0 to 65535")
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on {host!r}: {error.strerror}") from None
    except UnicodeError:  # a label that is empty or too long
        raise ConfigError(f"cannot listen on {host!r}: no host can have this name") from None
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
        remedy = (
            "--host must be an address of this machine"
            if error.errno == errno.EADDRNOTAVAIL
            else "choose another --port (0 takes any free one), or stop what is listening there"
        )
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from None
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
    if not path:  # the kernel would choose a name that nobody knows
        raise ConfigError("cannot listen on a Unix socket without a path")
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
        in_use = "; something else is at this path" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}{in_use}") from None
    return sock


def _is_abandoned(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            # Connecting to an ordinary file is refused, too, and that is somebody's file.
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                return False
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _inode(path: str) -> tuple[int, int] | None:
    """What is at ``path``, so that it can be told from what others put there later."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
        self._proxied = LimitedLog(logger, lambda: wheel.now) if proxy_protocol else None
        allowed = None if origins is None else frozenset(map(read_origin, origins))
        self._options = FrontOptions(
            limits, wheel, accept, paths, assets, set(), allowed, networks(trusted_proxies),
            compression,
        )  # fmt: skip
        self._acceptors: list[Acceptor] = []
        self._unix: dict[str, tuple[int, int] | None] = {}
        self.port = 0

    async def start(
        self, host: str, port: int, *, tls: Tls | None = None, reuse_port: bool = False
    ) -> None:
        """Listen. Port 0 takes a free one, see :attr:`port`.

        Raises:
            ConfigError: the address, or the certificate, cannot be used.
        """
        if tls is not None:
            tls.context()
        sockets = bind(host, port, reuse_port=reuse_port)
        self.port = sockets[0].getsockname()[1]
        for sock in sockets:
            await self._serve(sock, tls)

    async def start_unix(self, path: str) -> None:
        """Listen on a Unix socket.

        Raises:
            ConfigError: the path cannot be used.
        """
        sock = bind_unix(path)
        self._unix[path] = _inode(path)
        await self._serve(sock, None)

    async def _serve(self, sock: socket.socket, tls: Tls | None) -> None:
        timeout = self._options.limits.handshake_timeout
        acceptor = Acceptor(
            sock,
            lambda remote: Front(self._options, remote),
            tls=tls,
            timeout=timeout,
            proxied=self._proxied,
        )
        acceptor.start()
        self._acceptors.append(acceptor)

    def refuse(self) -> None:
        """Answer new WebSockets with 503; small pages are still served."""
        self._options.draining = True

    def close(self) -> None:
        """Stop listening, and drop what is no WebSocket yet. Those go on."""
        for acceptor in self._acceptors:
            acceptor.close()
        for path, inode in self._unix.items():
            if inode is not None and _inode(path) == inode:
                Path(path).unlink(missing_ok=True)
        self._unix.clear()
        for front in list(self._options.open):
            front.close()
