"""Functions of the application that are asked anew for each connection: tokens, headers, URLs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ..errors import EverwireError, RequestTimeout
from ..handling.threads import in_thread

T = TypeVar("T")

PROVIDER_TIMEOUT = 10.0  # seconds that such a function has


async def ask(provider: Callable[[], T | Awaitable[T]], what: str) -> T:
    """Call a function; one that is not async runs in a thread, where it may block.

    Whatever it does, it is one failed attempt. Cancelling cancels it; a thread runs to its
    end.

    Args:
        provider: the function.
        what: it returns, for errors.

    Raises:
        EverwireError: it raised.
        RequestTimeout: it took too long.
    """
    task = asyncio.current_task()
    deadline = asyncio.timeout(PROVIDER_TIMEOUT)
    try:
        async with deadline:
            value: T = await _call(provider)
            return value
    except (Exception, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # we are; otherwise it is something that the function waited for
        if deadline.expired():
            raise RequestTimeout(f"no {what} within {PROVIDER_TIMEOUT:g} s") from error
        raise EverwireError(f"the {what} provider failed: {error!r}") from error


async def _call(provider: Callable[[], Any]) -> Any:
    if inspect.iscoroutinefunction(provider):
        return await provider()
    return await in_thread(provider)
