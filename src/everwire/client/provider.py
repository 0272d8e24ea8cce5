"""Functions of the application that are asked anew for each connection: tokens, headers, URLs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from ..errors import EverwireError, RequestTimeout

T = TypeVar("T")
Token: TypeAlias = str | Callable[[], str | Awaitable[str]] | None

PROVIDER_TIMEOUT = 10.0  # seconds that such a function has


async def ask(provider: Callable[[], T | Awaitable[T]], what: str) -> T:
    """Call a function, async or not. Whatever it does, it is one failed attempt.

    Cancelling cancels it.

    Args:
        provider: the function.
        what: it returns, for errors.

    Raises:
        EverwireError: it raised.
        RequestTimeout: it took too long.
    """
    deadline = asyncio.timeout(PROVIDER_TIMEOUT)
    try:
        async with deadline:
            value = provider()
            return await value if inspect.isawaitable(value) else value
    except Exception as error:
        if deadline.expired():
            raise RequestTimeout(f"no {what} within {PROVIDER_TIMEOUT:g} s") from error
        raise EverwireError(f"the {what} provider failed: {error!r}") from error


async def ask_token(source: Token) -> str | None:
    """Return a token, asking its provider if there is one. Cancelling cancels the provider.

    Raises:
        EverwireError: it raised, took too long, or returned no text.
    """
    if not callable(source):
        return source
    token = await ask(source, "token")
    if not isinstance(token, str):
        raise EverwireError(f"the token provider must return text, not {type(token).__name__}")
    return token
