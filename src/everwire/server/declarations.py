"""What an application declares: who may connect, its channels, queries, commands, events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from ..brokers.base import ChannelOptions, Overflow
from ..errors import ConfigError
from ..handling.handlers import Handler, declare
from ..limits import Limits
from ..protocol.channels import ChannelPattern
from .handlers import check_parameters
from .rules import ChannelRule, Grant, Handlers, checked_overflow

if TYPE_CHECKING:
    from .identity.jwt import JWT

AUTHENTICATE = ("token", "credentials", "headers", "cookies", "remote")

F = TypeVar("F", bound=Callable[..., Any])


class Declarations:
    """The decorators of :class:`~everwire.Everwire`."""

    limits: Limits
    handlers: Handlers
    channel_tokens: JWT | None

    @property
    def has_authenticator(self) -> bool:
        """Whether an ``authenticate`` handler was declared."""
        return self.handlers.authenticate is not None

    def authenticate(self, function: F) -> F:
        """Declare who may connect: ``async def who(token: str) -> Identity``.

        The function may take ``token``, ``credentials``, ``headers``, ``cookies`` and
        ``remote``, by these names, and raises :exc:`~everwire.Unauthorized` to refuse.
        Cookies are handed over for pages of the same host, and of ``origins``. For signed
        tokens it is ``wire.authenticate(JWT(…))``: see :class:`everwire.JWT`.
        """
        if self.handlers.authenticate is not None:
            raise ConfigError("there is an authenticate handler already")
        check_parameters(function, AUTHENTICATE)
        self.handlers.authenticate = function
        return function

    def channel(
        self,
        pattern: str,
        *,
        history: int | None = None,
        history_ttl: float | None = None,
        history_bytes: int | None = None,
        presence: bool = False,
        grant: Grant | None = None,
        on_overflow: Overflow | None = None,
        token: bool = False,
    ) -> Callable[[F], F]:
        """Declare the channels that fit ``pattern``, as ``"chat:{room}"``.

        The decorated function authorises: it takes the connection and the pattern's
        parameters, and returns a :class:`Grant`, or None for one to subscribe only, or
        raises :exc:`~everwire.Forbidden`. Patterns are tried in the order of declaration.

        Args:
            pattern: ``{name}`` stands for characters other than ``:`` and ``/``,
                ``{name:path}`` for any.
            history: messages kept; 0 keeps none.
            history_ttl: seconds for which they are kept.
            history_bytes: bytes of payload kept.
            presence: whether subscribers are shown to each other.
            grant: what everybody is granted; then there is no function to decorate.
            on_overflow: without history, what becomes of the messages for a reader that is
                too slow: ``drop_oldest`` (the default) and ``drop_newest`` let
                ``overflow_messages`` wait, ``conflate`` only the last one; the reader is told
                of each gap. ``disconnect`` closes the connection with 4430.
            token: a signed token of the channel is needed, which says what its user may do
                (``Everwire(channel_tokens=JWT(…))``). A decorated function is asked as well,
                and allows no more than the token does.

        Raises:
            ConfigError: it cannot be declared like this; the text says why.
        """
        limits = self.limits
        options = ChannelOptions(
            history=limits.history if history is None else history,
            history_ttl=limits.history_ttl if history_ttl is None else history_ttl,
            history_bytes=limits.history_bytes if history_bytes is None else history_bytes,
        )
        if on_overflow is not None:
            options = replace(options, on_overflow=checked_overflow(on_overflow, options))
        if not isinstance(pattern, str):
            raise ConfigError('write @wire.channel("a-pattern"): it takes the channels\' names')
        parsed = ChannelPattern(pattern)
        if any(rule.pattern.text == pattern for rule in self.handlers.rules):
            raise ConfigError(f"channel {pattern!r} is declared twice")
        if token and (self.channel_tokens is None or grant is not None):
            remedy = "verify them by Everwire(channel_tokens=JWT(…)), and leave grant= out"
            raise ConfigError(f"channel {pattern!r} wants tokens: {remedy}")
        declared = ChannelRule(parsed, options, presence, None, grant, token)
        if grant is not None or token:
            self.handlers.rules.append(declared)

        def declare(function: F) -> F:
            if grant is not None:
                raise ConfigError(f"channel {pattern!r} has a grant; it takes no function")
            handler = Handler(pattern, function)
            handler.takes(parsed.names, f"the channel {pattern!r}")
            rule = ChannelRule(parsed, options, presence, handler, None, token)
            rules = self.handlers.rules
            if token:  # which is a rule without a function, too
                rules[rules.index(declared)] = rule
            else:
                rules.append(rule)
            return function

        return declare

    def query(self, function: F) -> F:
        """Declare a query: safe to repeat; answered with what the function returns.

        What an async generator yields is sent item by item, as fast as the client takes
        it: see :meth:`everwire.Client.stream`. It is closed when nobody listens any more.
        """
        return declare(self.handlers.queries, function, may_stream=True)

    def command(self, function: F) -> F:
        """Declare a command: runs once for its key, however often it is sent."""
        return declare(self.handlers.commands, function)

    def event(self, function: F) -> F:
        """Declare what happens on an event: it is not answered."""
        return declare(self.handlers.events, function)
