"""The HTTP application on a port of its own, beside the listener and in its loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from ...errors import ConfigError
from ...limits import KiB
from ...net.tasks import TaskOwner

MAX_REQUESTS = 256  # at a time; beyond, uvicorn answers 503
IDLE = 10.0  # seconds without a request after which a connection is dropped, or up to twice that
START = 10.0  # seconds until it listens


class _Guest(uvicorn.Server):
    """A uvicorn that is not the master of its process: signals are somebody else's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class HttpPort:
    """Serves an ASGI application.

    Attributes:
        port: the port that it listens on.
    """

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,  # its lines go where everybody's go
            log_level="error",  # what strangers send is worth no lines
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_REQUESTS,
            h11_max_incomplete_event_size=16 * KiB,
            timeout_graceful_shutdown=1,
        )
        self.port = 0
        self._server = _Guest(config)
        self._tasks = TaskOwner("http port")
        self._weeding: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. Cancelling leaves it to be stopped.

        Raises:
            ConfigError: the address cannot be used.
        """
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} for HTTP: {error.strerror}"
            ) from None
        self.port = listening.getsockname()[1]
        serving = self._tasks.start(self._server.serve([listening]))
        up = self._tasks.start(self._server.up.wait())
        self._weeding = self._tasks.start(self._weed())
        await asyncio.wait({serving, up}, timeout=START, return_when=asyncio.FIRST_COMPLETED)
        if not self._server.up.is_set():
            await self.stop()
            raise ConfigError(f"uvicorn does not start on {host}:{port}; its log says why")

    async def stop(self) -> None:
        """Finish what is being answered, for about a second, and stop. Safe to call twice."""
        self._server.should_exit = True
        if self._weeding is not None:
            self._weeding.cancel()
        if not self._server.up.is_set():
            self._tasks.cancel_all()
        await self._tasks.wait_closed()

    async def _weed(self) -> None:
        """Drop whoever takes up a connection and asks nothing, or does not read the answer.

        uvicorn waits for a request, or the rest of it, for as long as it takes.
        """
        seen: dict[Any, Any] = {}
        while True:
            await asyncio.sleep(IDLE)
            before, seen = seen, {}
            connections: set[Any] = self._server.server_state.connections
            for one in list(connections):
                request = one.cycle
                if request and not request.response_complete and not one.flow.write_paused:
                    continue  # it is being worked on
                if one in before and before[one] is request:
                    one.transport.abort()
                else:
                    seen[one] = request
