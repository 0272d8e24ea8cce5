"""Replaces a link's token before it expires, while everything goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import Any

from ..errors import EverwireError
from ..limits import ClientLimits
from ..net.backoff import Backoff
from ..protocol import messages as m
from ..protocol.answers import answer_error
from .link import Answer, Link
from .tokens import Token, Tokens, life_left, refresh_in

logger = logging.getLogger("everwire.client")


class Refreshing:
    """Does so for the links of a client, one after the other.

    Args:
        tokens: where the next one comes from: renewable.
        limits: the backoff's, and the time for the answer to ``auth``.
        random: where chance comes from.
        now: the server's time, in seconds since 1970.
    """

    def __init__(
        self,
        tokens: Tokens,
        limits: ClientLimits,
        *,
        random: Random,
        now: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._limits = limits
        self._random = random
        self._now = now

    async def run(
        self, link: Link, token: Token, payload: Any, renewed: Callable[[Token], None]
    ) -> None:
        """Refresh, again and again.

        Args:
            link: is ready. Who ends it cancels this: what is fetched then is not for the next.
            token: with which it became ready.
            payload: what ``auth`` was answered with.
            renewed: is called with each token before it is sent.

        Ends if the token never expires, or the server refuses the next one: then the server
        closes the link. Cancelling ends it at once.
        """
        while (life := life_left(token, payload, self._now())) is not None:
            await asyncio.sleep(refresh_in(life, self._random))
            token = await self._fetch(token)
            renewed(token)
            answer = await self._authenticate(link, token)
            if isinstance(answer, m.Error):
                logger.info("link %d: token refused: %s", link.number, answer_error(answer))
                return
            payload = answer.payload

    async def _fetch(self, token: Token) -> Token:
        """Get the next one. Its failures leave the link alone: it is good for a while yet."""
        limits = self._limits
        backoff = Backoff(
            base=limits.backoff_base,
            cap=limits.backoff_cap,
            floor=limits.backoff_floor,
            random=self._random,
        )
        while True:
            try:
                fresh = await self._tokens.get(self._now(), instead_of=token)
            except EverwireError as error:
                delay = backoff.delay()
                logger.warning("the token is not refreshed: %s; again in %.2f s", error, delay)
                await asyncio.sleep(delay)
            else:
                assert fresh is not None
                return fresh

    async def _authenticate(self, link: Link, token: Token) -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        auth = m.Auth(link.next_id(), token.value)
        within = self._limits.auth_timeout
        link.ask(auth.id, link.encode(auth), _answered, answered, within=within)
        return await answered


def _answered(answered: asyncio.Future[Answer], answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)
