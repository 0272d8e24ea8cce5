"""``on_publish``: what the application does with a client's message before it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_type_hints

from ..codes import ErrorCode
from ..errors import BadRequest, RequestError
from ..handling.handlers import Handler
from ..protocol.channels import ChannelPattern
from ..protocol.conversion import Converter, Mismatch, join

if TYPE_CHECKING:
    from .connection import Connection

DATA = "data"


class Filter:
    """A pattern of channels, and the function that sees what clients publish there.

    Raises:
        ConfigError: the function does not fit the pattern.
    """

    __slots__ = ("_converters", "handler", "pattern")

    def __init__(self, pattern: ChannelPattern, function: Callable[..., Any]) -> None:
        self.pattern = pattern
        self.handler = Handler(pattern.text, function)
        self.handler.takes((*pattern.names, DATA), f"publishes to {pattern.text!r}")
        hints = get_type_hints(function, include_extras=True)
        self._converters = {
            name: Converter(hints.get(name, Any)) for name in (*pattern.names, DATA)
        }

    def of(self, channel: str) -> ChannelFilter | None:
        """The filter of one channel, if the pattern fits it."""
        found = self.pattern.match(channel)
        if found is None:
            return None
        try:
            texts = {
                name: self._converters[name](text, strict=False) for name, text in found.items()
            }
        except Mismatch as error:
            refusal = RequestError(
                f"there is no channel {channel!r}: {error}", code=ErrorCode.BAD_CHANNEL
            )
            return ChannelFilter(self.handler, self._converters[DATA], {}, refusal)
        return ChannelFilter(self.handler, self._converters[DATA], texts, None)


class ChannelFilter:
    """What is called for each message that a client publishes to one channel."""

    __slots__ = ("_convert", "_handler", "_refusal", "_texts")

    def __init__(
        self,
        handler: Handler,
        convert: Converter,
        texts: dict[str, Any],
        refusal: RequestError | None,
    ) -> None:
        self._handler = handler
        self._convert = convert
        self._texts = texts
        self._refusal = refusal

    async def call(self, connection: Connection, data: Any) -> Any:
        """Return what is to be published instead of ``data``; None for ``data`` as it is.

        Cancelling cancels the function.

        Raises:
            RequestError: it is refused, does not fit, or took too long.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            converted = self._convert(data)
        except Mismatch as error:
            place = join(DATA, error.place)
            raise BadRequest(f"{place}: {error.text}", details={"field": place}) from None
        try:
            async with asyncio.timeout(connection.node.limits.request_timeout):
                return await self._handler.call(connection, {**self._texts, DATA: converted})
        except TimeoutError:
            raise RequestError("on_publish took too long", code=ErrorCode.TIMEOUT) from None
