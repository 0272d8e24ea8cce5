"""The HTTP port of a server: when there is one, and where."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import ConfigError
from ..server.app import Everwire
from ..server.http import missing
from .demo import is_loopback
from .options import ServerOptions

logger = logging.getLogger("everwire.cli")


@asynccontextmanager
async def http_beside(
    wire: Everwire, options: ServerOptions, *, by_default: bool
) -> AsyncIterator[None]:
    """Serve ``wire.http()`` as long as the block lasts.

    Where nobody asked for it, it is on the next port; if that cannot be, a line says so, and
    the server goes on without.

    Raises:
        ConfigError: it was asked for, and cannot be.
    """
    asked = options.http_port is not None or bool(options.api_key)
    port = options.http_port
    if port is None:
        port = options.port + 1 if options.port and (by_default or asked) else 0
    if not 0 < port < 65_536:
        yield
        return
    try:
        try:
            from ..server.http.port import HttpPort
        except ModuleNotFoundError as error:
            raise missing(error) from None
        http = HttpPort(wire.http(api_key=options.api_key))
        await http.start(options.http_host, port)
    except ConfigError as error:
        if asked:
            raise
        logger.warning("no HTTP port: %s (--http-port 0 does without)", error)
        yield
        return
    _announce(options, http.port)
    try:
        yield
    finally:
        await http.stop()


def _announce(options: ServerOptions, port: int) -> None:
    host = f"[{options.http_host}]" if ":" in options.http_host else options.http_host
    api = "with its API" if options.api_key else "the API is off, for there is no --api-key"
    logger.info("http://%s:%d: metrics and health; %s", host, port, api)
    if options.api_key and not is_loopback(options.http_host):
        logger.warning("API keys cross the network in the clear: put TLS before the HTTP port")
