"""What an application declares: who may connect, its channels, what happens then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from ..brokers.base import ChannelOptions, Overflow
from ..errors import ConfigError
from ..handling.handlers import Handler
from ..limits import Limits
from ..protocol.channels import ChannelPattern, OwnChannel
from .callables import Callables
from .filters import Filter
from .handlers import check_parameters
from .rules import ChannelRule, Grant, checked_overflow

if TYPE_CHECKING:
    from .identity.jwt import JWT

AUTHENTICATE = ("token", "credentials", "headers", "cookies", "remote")

F = TypeVar("F", bound=Callable[..., Any])


class Declarations(Callables):
    """The decorators of :class:`~everwire.Everwire`."""

    limits: Limits
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
        own: bool = False,
        latest: bool = False,
        state: Callable[..., Any] | None = None,
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
            own: these are the users' own channels, as ``"user:{user}"``: each connection is
                subscribed to that of its user by the server, and nobody else may be; there
                is no function to decorate, and a ``grant`` is what the user is granted. The
                pattern goes before all others. See :meth:`Everwire.user_channel`.
            latest: only the last message is kept, for a day unless ``history_ttl`` says
                otherwise, and whoever subscribes is sent it first: for what is a value more
                than a message. A reader that is slow, or was away, is told of a gap and goes
                on with the last one.
            state: says what the channel's messages have come to; see :meth:`state`.

        Raises:
            ConfigError: the arguments do not go together, or the pattern is none.
        """
        if latest:
            if history not in (None, 1):
                raise ConfigError("latest keeps one message: leave history out")
            history = 1
            history_ttl = self.limits.meta_ttl if history_ttl is None else history_ttl
        options = self._options(history, history_ttl, history_bytes)
        if on_overflow is not None:
            options = replace(options, on_overflow=checked_overflow(on_overflow, options))
        parsed = self._parse(pattern)
        if token and (self.channel_tokens is None or grant is not None or own):
            remedy = (
                "verify them by Everwire(channel_tokens=JWT(…)); they go with no grant and no own"
            )
            raise ConfigError(f"channel {pattern!r} wants tokens: {remedy}")
        rules = self.handlers.rules
        rule = ChannelRule(parsed, options, presence, None, grant, token, latest=latest)
        whole = own or grant is not None or token  # without a function, too
        if own:
            self._declare_own(dataclasses.replace(rule, grant=grant or Grant()))
        elif whole:
            rules.append(rule)
        if whole and state is not None:
            self.state(pattern)(state)

        def declare(function: F) -> F:
            if own or grant is not None:
                raise ConfigError(f"channel {pattern!r} has a grant; it takes no function")
            handler = Handler(pattern, function)
            handler.takes(parsed.names, f"the channel {pattern!r}")
            if whole:
                at = next(n for n, one in enumerate(rules) if one.pattern is parsed)
                rules[at] = dataclasses.replace(rules[at], handler=handler)
            else:
                rules.append(dataclasses.replace(rule, handler=handler))
            if state is not None and not whole:
                self.state(pattern)(state)
            return function

        return declare

    def state(self, pattern: str) -> Callable[[F], F]:
        """Declare what the messages of the channels ``pattern`` have come to: a board, a total.

        The decorated function takes the connection and the pattern's parameters, as the
        channel's own, and returns data, or ``Snapshot(data, position)``. Clients ask for it
        where history does not reach back: see ``get_state=True`` of the client's
        ``subscribe``, and its ``snapshot()``.

        The channel's last position is read before the function is called, and delivery goes
        on after that. So nothing is missing if **the state changes before the message is
        published** that tells of it. A message that is published while the function runs may
        be in the data and still follow; with ``Snapshot(data, position)``, the position being
        that of the last message in ``data``, none does.

        Raises:
            ConfigError: there is no such channel, or it has a state already.
        """
        rules = self.handlers.rules
        index = next((n for n, rule in enumerate(rules) if rule.pattern.text == pattern), None)
        if index is None:
            raise ConfigError(f"declare the channel {pattern!r} before its state")
        if rules[index].state is not None:
            raise ConfigError(f"the state of the channel {pattern!r} is declared twice")

        def declare(function: F) -> F:
            handler = Handler(f"the state of {pattern}", function)
            handler.takes(rules[index].pattern.names, f"the channel {pattern!r}")
            rules[index] = dataclasses.replace(rules[index], state=handler)
            return function

        return declare

    def wildcard(self, pattern: str, *, on_overflow: Overflow = "drop_oldest") -> Callable[[F], F]:
        """Declare a subscription to all channels whose names begin alike: ``"chat:*"``.

        For clients that are trusted with all of them: the decorated function takes the
        connection and the pattern's parameters, as ``"org:{org}:*"`` has one, and decides
        alone; the channels' own functions are not asked. Who subscribes to ``chat:*`` is sent
        what is published from then on, each message with its channel; there is no history,
        no position, and a gap after each drop.

        Args:
            pattern: ends in ``*``, which stands for any characters, also none. Before it,
                parameters are as in :meth:`channel`.
            on_overflow: what becomes of messages for a reader that is too slow; ``conflate``
                keeps the last one of each channel. See :meth:`channel`.

        Raises:
            ConfigError: it cannot be declared like this; the text says why.
        """
        if not isinstance(pattern, str):
            raise ConfigError('write @wire.wildcard("names*"): it takes how the names begin')
        if not pattern.endswith("*") or "*" in pattern[:-1]:
            raise ConfigError(f'a wildcard ends in its only *, as "chat:*"; not {pattern!r}')
        options = ChannelOptions(history=0)
        options = replace(options, on_overflow=checked_overflow(on_overflow, options))
        parsed = ChannelPattern(pattern)
        if any(rule.pattern.text == pattern for rule in self.handlers.rules):
            raise ConfigError(f"wildcard {pattern!r} is declared twice")

        def declare(function: F) -> F:
            handler = Handler(pattern, function)
            handler.takes(parsed.names, f"the wildcard {pattern!r}")
            rule = ChannelRule(parsed, options, False, handler, None, wildcard=True)
            # Before the others, which could take the star for a part of a name.
            self.handlers.rules.insert(0, rule)
            return function

        return declare

    def _parse(self, pattern: str) -> ChannelPattern:
        if not isinstance(pattern, str):
            raise ConfigError('write @wire.channel("a-pattern"): it takes the channels\' names')
        if any(rule.pattern.text == pattern for rule in self.handlers.rules):
            raise ConfigError(f"channel {pattern!r} is declared twice")
        return ChannelPattern(pattern)

    def _options(
        self, history: int | None, history_ttl: float | None, history_bytes: int | None
    ) -> ChannelOptions:
        limits = self.limits
        given: dict[str, Any] = {
            "history": history,
            "history_ttl": history_ttl,
            "history_bytes": history_bytes,
        }
        for name, value in given.items():
            if value is not None and not (isinstance(value, (int, float)) and value >= 0):
                raise ConfigError(f"{name} must be a number not below zero, not {value!r}")
        return ChannelOptions(
            history=limits.history if history is None else history,
            history_ttl=limits.history_ttl if history_ttl is None else history_ttl,
            history_bytes=limits.history_bytes if history_bytes is None else history_bytes,
        )

    def _declare_own(self, rule: ChannelRule) -> None:
        if self.handlers.own is not None:
            raise ConfigError(f"users have own channels already: {self.handlers.own.text!r}")
        self.handlers.own = OwnChannel(rule.pattern.text)
        self.handlers.rules.insert(0, dataclasses.replace(rule, own=self.handlers.own))

    def user_channel(self, user: str) -> str:
        """Return the name of a user's own channel, to publish to.

        Characters that a channel's name cannot have are written as ``%`` and digits.

        Raises:
            ConfigError: users have no channels of their own.
        """
        if self.handlers.own is None:
            raise ConfigError('declare them: Everwire(user_channel="user:{user}")')
        return self.handlers.own.name(user)

    def on_publish(self, pattern: str) -> Callable[[F], F]:
        """Declare what sees a client's message before it is stored: a filter.

        The decorated function takes the connection, the pattern's parameters and ``data``,
        which is checked against its annotation: a client that sends anything else is
        answered ``bad_request`` with the field's name. It may raise
        :exc:`~everwire.Forbidden`, or another error for the client; it may return other data
        to be published, or None for what was sent. It is asked once a client may publish,
        with one message of a connection and channel at a time, so that their order stays. A
        message that is sent again is filtered again, and stored once all the same.

        Of several the first whose pattern fits is asked. What the application publishes
        itself is not filtered.

        Args:
            pattern: as for :meth:`channel`.

        Raises:
            ConfigError: it is none, or is declared twice.
        """
        if not isinstance(pattern, str):
            raise ConfigError('write @wire.on_publish("a-pattern"): it takes the channels\' names')
        if any(one.pattern.text == pattern for one in self.handlers.filters):
            raise ConfigError(f"on_publish is declared twice for {pattern!r}")

        parsed = ChannelPattern(pattern)

        def declare(function: F) -> F:
            self.handlers.filters.append(Filter(parsed, function))
            return function

        return declare

    def on_connect(self, function: F) -> F:
        """Declare what happens when a connection's user is known.

        The function takes the connection. It may raise :exc:`~everwire.Forbidden`, or another
        error for the client, to turn it away; it may return the names of channels to which
        the connection is then subscribed, without any permission. There may be several; they
        are called in the order of declaration, and have ``request_timeout`` in all. What the
        client asks meanwhile waits.
        """
        handler = Handler(function.__name__, function)
        handler.takes((), "on_connect")
        self.handlers.on_connect.append(handler)
        return function

    def on_disconnect(self, function: F) -> F:
        """Declare what happens when a connection is gone: ``async def left(conn, code, reason)``.

        It is called once for each connection that ``on_connect`` let in, with the close code
        (1006 where the connection was lost) and the reason, and has ``request_timeout``. A
        node that stops waits for it no longer than ``close_timeout``.
        """
        handler = Handler(function.__name__, function)
        handler.takes(("code", "reason"), "on_disconnect")
        self.handlers.on_disconnect.append(handler)
        return function
