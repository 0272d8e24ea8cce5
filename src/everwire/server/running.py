"""A node that listens: started, drained and stopped in a written order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from ..net.websocket import TRIM_EVERY, Trimmer
from .identity.origins import is_loopback
from .native.front import Asset
from .native.listener import Listener
from .native.tls import Tls

if TYPE_CHECKING:
    from .app import Everwire
    from .node import Node

logger = logging.getLogger("everwire.server")

_CACHE = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
_PAGE_POLICY = {
    **_CACHE,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; "
        "connect-src 'self' ws: wss:; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
}


class Server:
    """The native listener in front of a node.

    Attributes:
        port: the port that it listens on.
    """

    def __init__(
        self,
        wire: Everwire,
        node: Node,
        *,
        paths: Sequence[str],
        page: bytes | None,
        **options: Any,
    ) -> None:
        self._wire = wire
        self.node = node
        self._tls: Tls | None = None
        script = files("everwire").joinpath("web/everwire.js")
        assets = {
            "/healthz": Asset("application/json", self._health, _CACHE),
            "/everwire.js": Asset("text/javascript; charset=utf-8", script.read_bytes(), _CACHE),
        }
        if page is not None:
            assets["/"] = Asset("text/html; charset=utf-8", page, _PAGE_POLICY)
        self._listener = Listener(
            limits=wire.limits,
            wheel=node.wheel,
            accept=node.accept,
            paths=frozenset(paths),
            assets=assets,
            **options,
        )

    @property
    def port(self) -> int:
        return self._listener.port

    async def start(
        self, host: str, port: int, *, tls: Tls | None = None, reuse_port: bool = False
    ) -> None:
        """Listen on an address. Cancelling leaves it unbound, or bound until ``close()``.

        Raises:
            ConfigError: it cannot be used.
        """
        self._tls = tls
        if not is_loopback(host):
            self._warn()
        self.node.wheel.add(Trimmer(), TRIM_EVERY)
        await self._listener.start(host, port, tls=tls, reuse_port=reuse_port)

    def _warn(self) -> None:
        """Say what is fine at home, and not where everybody can come."""
        if self._wire.allow_anonymous and self._wire.has_authenticator:
            self.node.count("insecure_settings")
            logger.warning(
                "insecure: allow_anonymous=True lets everybody in without a token, on an address "
                "that others can reach; leave it out, or listen on 127.0.0.1"
            )

    async def start_unix(self, path: str) -> None:
        """Listen on a Unix socket, too. Cancelling is as in :meth:`start`.

        Raises:
            ConfigError: the path cannot be used.
        """
        await self._listener.start_unix(path)

    def reload_tls(self) -> None:
        """Read the certificate again, for new connections; open ones go on.

        Raises:
            ConfigError: it cannot be read; the old one stays in use.
        """
        if self._tls is not None:
            self._tls.reload()

    async def drain(self, window: float = 2.0, hasten: asyncio.Event | None = None) -> None:
        """Send the clients away, each at its own moment within ``window`` seconds.

        In this order: no new connections; each client is told when to reconnect; requests
        in flight are finished; what is left is closed (4440; plain: 1012). Returns when
        all are gone, at the latest a closing time-out after the window.

        Args:
            window: seconds over which the clients are spread.
            hasten: when set, what is left is closed at once.

        Cancelling stops waiting; the clients stay told.
        """
        self._listener.refuse()
        await self.node.drain(window, hasten)

    def close(self) -> None:
        """Stop listening; connections go on until the node is stopped."""
        self._listener.close()

    def _health(self) -> tuple[HTTPStatus, bytes]:
        node = self.node
        status = "draining" if node.draining else "ok"
        body = {"status": status, "connections": len(node.connections), "node": node.id}
        code = HTTPStatus.SERVICE_UNAVAILABLE if node.draining else HTTPStatus.OK
        return code, msgspec.json.encode(body)
