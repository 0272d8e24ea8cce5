"""Tokens: where they come from, for how long they are good, and when to fetch another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from random import Random
from typing import Any, TypeAlias

from ..errors import ConfigError, EverwireError
from .provider import ask

EARLY = 30.0  # seconds before its end from which on a token is as good as expired
SHORTEST = 1.0  # seconds between two refreshes, however short a token's life


@dataclass(frozen=True, slots=True)
class Token:
    """What a provider may return: a token, and how long it is good.

    Attributes:
        value: the token.
        expires_at: when it expires, in seconds since 1970; None if that is not known. Until
            30 s before, it is used for new connections, too, and the provider is not asked.
    """

    value: str = field(repr=False)
    expires_at: float | None = None


Provider: TypeAlias = Callable[[], str | Token | Awaitable[str | Token]]
TokenSource: TypeAlias = str | Provider | None
"""A token, or who knows it; see :class:`Tokens`."""


class Tokens:
    """Asks a provider for tokens: once at a time, however many wait for it.

    Clients that are given the same one share what it fetches.

    Args:
        source: the token itself; or a function that returns it, async or not (then it runs
            in a thread); or None.

    Raises:
        ConfigError: it is none of these.
    """

    def __init__(self, source: TokenSource) -> None:
        given: Any = source
        if not (given is None or isinstance(given, str) or callable(given)):
            called = "; give the function, without calling it" if isawaitable(given) else ""
            kind = type(given).__name__  # what it is may be secret
            raise ConfigError(f"a token is text, or a function that returns it, not {kind}{called}")
        self._source = source
        self._kept: Token | None = None
        self._asking: asyncio.Future[Token | None] | None = None

    @property
    def renewable(self) -> bool:
        """Whether there can be another one, if one is refused or expires."""
        return callable(self._source)

    async def get(self, now: float, *, instead_of: Token | None = None) -> Token | None:
        """Return a token that is good, asking for it if need be; None where there is none.

        Args:
            now: the server's time, in seconds since 1970.
            instead_of: one that is not wanted any more.

        Cancelling leaves others that wait for the same token waiting.

        Raises:
            RequestTimeout: not within 10 s.
            EverwireError: the provider raised, or returned something else.
        """
        if not callable(self._source):
            return None if self._source is None else Token(self._source)
        kept = self._kept
        if kept is not None and kept is not instead_of and _is_good(kept, now):
            return kept
        while (asking := self._asking) is not None:
            token = await asyncio.shield(asking)
            if token is not None:  # otherwise who asked was cancelled
                return token
        return await self._ask(self._source)

    async def _ask(self, provider: Provider) -> Token:
        asking = self._asking = asyncio.get_running_loop().create_future()
        try:
            token = self._kept = await fetch(provider)
        except EverwireError as error:
            asking.set_exception(error)
            asking.exception()  # perhaps nobody else waits
            raise
        else:
            asking.set_result(token)
            return token
        finally:
            self._asking = None
            if not asking.done():
                asking.set_result(None)

    def __repr__(self) -> str:
        return f"<Tokens {'of a provider' if self.renewable else 'fixed'}>"


async def fetch(provider: Provider) -> Token:
    """Ask a provider once. Cancelling cancels it; a thread runs to its end.

    Raises:
        RequestTimeout: not within 10 s.
        EverwireError: it raised, or returned something else.
    """
    token: Any = await ask(provider, "token")
    if isinstance(token, str):
        token = Token(token)
    if not isinstance(token, Token):  # what it is may be secret
        raise EverwireError(
            f"the token provider must return text or a Token, not {type(token).__name__}"
        )
    return token


async def ask_token(source: TokenSource) -> str | None:
    """Return a token, asking its provider if there is one. Cancelling cancels the provider.

    Raises:
        EverwireError: as :func:`fetch`.
    """
    return (await fetch(source)).value if callable(source) else source


def _is_good(token: Token, now: float) -> bool:
    return token.expires_at is not None and token.expires_at - now >= EARLY


def refresh_in(life: float, random: Random) -> float:
    """Return in how many seconds to replace a token that is good for ``life`` seconds.

    After 75 to 90 % of it, so that those who were given theirs together do not come
    together, and 30 s before its end if half of it has passed by then.
    """
    at = random.uniform(0.75, 0.9) * life
    if life >= 2 * EARLY:
        at = min(at, life - EARLY)
    return max(at, SHORTEST)


def life_left(token: Token, payload: Any, now: float) -> float | None:
    """Return for how many seconds a token is good, None if for ever.

    Args:
        token: what its provider said of it.
        payload: what ``auth`` was answered with.
        now: the server's time, in seconds since 1970.
    """
    expires_in = payload.get("expiresIn") if isinstance(payload, dict) else None
    lives = [] if token.expires_at is None else [token.expires_at - now]
    if isinstance(expires_in, (int, float)):
        lives.append(expires_in / 1000)
    return min(lives, default=None)
