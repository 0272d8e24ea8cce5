"""Accepting connections, also when there are no file descriptors left for them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

import aiofastnet

from ...instrumentation import LimitedLog
from ...net.tasks import TaskOwner
from .proxied import UNIX, NotProxied, receive_proxy_header
from .tls import Tls, quiet_handshakes

logger = logging.getLogger("everwire.server")

BACKLOG = 4096
A_TURN = 64  # connections taken in a turn of the loop, so that others get theirs
RETRY = 1.0
REMIND = 60.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Takes the connections of one listening socket.

    Args:
        sock: where they come in; bound, not listening yet.
        factory: makes the protocol of a connection, from the client's address if a PROXY
            header has told it.
        tls: the certificate, if they are to be encrypted.
        timeout: seconds for the TLS handshake, and for the PROXY header.
        proxied: every connection begins with a PROXY header; of others, this is told.

    The loops of asyncio and aiofastnet do not stop when the descriptors have run out:
    they try again at once, thousands of times, with a traceback in the log for each.
    """

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[str | None], asyncio.BaseProtocol],
        *,
        tls: Tls | None,
        timeout: float,
        proxied: LimitedLog | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._factory = factory
        self._tls = tls
        self._timeout = timeout
        self._proxied = proxied
        self._tasks = TaskOwner("accept")
        self._retry: asyncio.TimerHandle | None = None
        self._told = float("-inf")

    def start(self) -> None:
        """Begin to listen."""
        if self._tls is not None:
            quiet_handshakes(self._loop)
        self._sock.listen(BACKLOG)
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Listen no more. Connections go on; a TLS handshake under way does not."""
        if self._retry is not None:
            self._retry.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        self._tasks.cancel_all()

    def _accept(self) -> None:
        for _ in range(A_TURN):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._wait(error)
                return
            sock.setblocking(False)
            self._tasks.start(self._connect(sock))

    def _wait(self, error: OSError) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._retry = self._loop.call_later(RETRY, self._resume)
        now = self._loop.time()
        if now - self._told >= REMIND:
            self._told = now
            logger.error(
                "connections have to wait: %s; raise the limit (ulimit -n)", error.strerror
            )

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    async def _connect(self, sock: socket.socket) -> None:
        try:
            # The PROXY header stands before everything else, the TLS handshake too.
            remote = await self._read_proxy_header(sock) if self._proxied is not None else None
            await aiofastnet.connect_accepted_socket(
                self._loop,
                lambda: self._factory(remote),
                sock,
                ssl=self._tls.context() if self._tls is not None else None,
                ssl_handshake_timeout=self._timeout if self._tls is not None else None,
            )
        except (OSError, TimeoutError, NotProxied):  # gone already, or no TLS: the peer's affair
            sock.close()

    async def _read_proxy_header(self, sock: socket.socket) -> str | None:
        try:
            async with asyncio.timeout(self._timeout):
                return await receive_proxy_header(sock)
        except NotProxied as error:
            assert self._proxied is not None
            message = "a connection from %s dropped: %s"
            self._proxied.log(logging.WARNING, "proxy", message, _peer(sock), error)
            raise
        except asyncio.CancelledError:
            sock.close()
            raise


def _peer(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:  # gone
        return "somebody"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else UNIX
