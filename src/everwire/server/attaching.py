"""Living inside somebody else's application: its routes, its lifespan and its signals."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..net.tasks import TaskOwner
from .asgi import AsgiApp
from .host_user import Host

if TYPE_CHECKING:
    from .app import Everwire

DRAIN_WINDOW = 0.5  # seconds over which a host that ends sends its clients away
DRAIN_GRACE = 0.5  # seconds more for those that do not answer; then they are dropped


def attach(
    wire: Everwire, api: Any, path: str, *, user: Any = None, origins: Sequence[str] | None = None
) -> None:
    """See :meth:`everwire.Everwire.attach`."""
    router = getattr(api, "router", api)
    if not hasattr(router, "lifespan_context"):
        raise ConfigError(
            f"{api!r} is not a Starlette or FastAPI application; for others mount wire.asgi()"
        )
    if not path.startswith("/"):
        raise ConfigError(f"a path begins with a slash, not as {path!r}")
    from starlette.routing import WebSocketRoute

    app = AsgiApp(wire, lifespan=False, host=Host(wire, router, user, origins))
    bare = getattr(router, "prefix", "") + path.rstrip("/")
    for one in dict.fromkeys((bare or "/", f"{bare}/")):
        router.routes.insert(0, WebSocketRoute(one, app))
    if wire in (lives := _lives(router)):
        return  # a second route to it: one life is enough
    lives.append(wire)
    inner = router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        async with inner(application) as state:
            await wire.start()
            try:
                with drain_first(wire):
                    yield state
            finally:
                await wire.stop()

    lifespan.everwires = lives  # type: ignore[attr-defined]
    router.lifespan_context = lifespan


def _lives(router: Any) -> list[Everwire]:
    """Those that start and stop with this router already."""
    found: list[Everwire] = getattr(router.lifespan_context, "everwires", [])
    return found


@contextmanager
def drain_first(wire: Everwire) -> Iterator[None]:
    """Drain on SIGTERM and SIGINT before the host hears of them and closes the sockets.

    The same signal a second time goes to the host at once; another one waits with the
    first, for a supervisor passes its own on to a child that heard Ctrl-C already. Where
    signals cannot be handled (not in the main thread), the host closes the sockets and
    the clients come back by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    tasks = TaskOwner("drain")
    before: dict[int, Callable[[int, Any], Any]] = {}
    waiting: dict[int, None] = {}
    drained = False

    async def drain() -> None:
        nonlocal drained
        try:
            await _drain(wire)
        finally:
            drained = True
            for number in waiting:
                before[number](number, None)

    def handle(number: int, frame: Any) -> None:
        if drained or number in waiting:
            before[number](number, frame)
            return
        waiting[number] = None
        if len(waiting) == 1:
            wire.node.draining = True
            loop.call_soon_threadsafe(lambda: tasks.start(drain()))

    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(previous := signal.getsignal(number)):
            before[number] = previous
            signal.signal(number, handle)
    try:
        yield
    finally:
        for chained, previous in before.items():
            if signal.getsignal(chained) is handle:
                signal.signal(chained, previous)
        tasks.cancel_all()


async def _drain(wire: Everwire) -> None:
    node = wire.node
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_WINDOW + DRAIN_GRACE):
            await node.drain(DRAIN_WINDOW)
    for connection in list(node.connections.values()):
        connection.transport.abort()  # the host would wait for it, some of them for ever
