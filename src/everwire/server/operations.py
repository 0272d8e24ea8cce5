"""What an application calls: publishing, reading, asking; and what the node does for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..brokers.base import Page, Published
from ..codes import CloseCode, ErrorCode
from ..errors import BrokerUnavailable, RequestError
from ..from_thread import awaitable_only
from ..limits import Limits
from ..protocol.messages import Member, Position
from . import asking, contents, reaching
from .identity import revocations
from .signals import Target
from .users import ask_user

if TYPE_CHECKING:
    from .connection import Connection
    from .node import Node

T = TypeVar("T")


class Operations(ABC):
    """What a running :class:`~everwire.Everwire` does when it is asked to."""

    limits: Limits

    @abstractmethod
    def _here(self) -> Node:
        """The running node, asked from its own loop."""

    # ---- channels --------------------------------------------------------------------

    @awaitable_only
    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        id: str = "",  # noqa: A002  # the field's name
        tenant: str = "",
        publisher: str | None = None,
    ) -> Position:
        """Publish to a channel; return where it is stored.

        Args:
            channel: its name.
            data: any data; see :mod:`everwire.protocol.data`.
            id: a second publish with the same id within five minutes has no effect.
            tenant: the channel's.
            publisher: the user whom readers are told to have published it.

        Cancelling does not take the message back.

        Raises:
            BadData: ``data`` cannot be put on the wire.
            RequestError: refused; ``temporary`` tells whether to try again.
            BrokerUnavailable: not stored, or not known to be (``outcome``).
        """
        published = await contents.publish(
            self._here(), channel, data, message_id=id, tenant=tenant, publisher=publisher
        )
        return published.position

    @awaitable_only
    async def broadcast(
        self,
        channels: Iterable[str],
        data: Any,
        *,
        id: str = "",  # noqa: A002  # as for publish
        tenant: str = "",
        publisher: str | None = None,
    ) -> dict[str, Position | RequestError | BrokerUnavailable]:
        """Publish the same to many channels: it is checked and encoded once.

        Args:
            channels: their names; what is repeated counts once.
            data: as for :meth:`publish`, like the others.
            id: of the message in each of the channels.
            tenant: the channels'.
            publisher: the user whom readers are told to have published it.

        Returns:
            For each channel where it is stored, or the error: one channel's failure does
            not touch the others. The same ``id`` again makes good what failed, and nothing
            twice.

        Cancelling leaves the channels that had not had their turn without it.

        Raises:
            BadData: ``data`` cannot be put on the wire.
            RequestError: it is too big.
        """
        outcomes = await contents.broadcast(
            self._here(), channels, data, message_id=id, tenant=tenant, publisher=publisher
        )
        return {
            channel: outcome.position if isinstance(outcome, Published) else outcome
            for channel, outcome in outcomes.items()
        }

    @awaitable_only
    async def history(
        self,
        channel: str,
        *,
        limit: int = 100,
        since: Position | None = None,
        tenant: str = "",
    ) -> Page:
        """Return messages of a channel, the oldest first. Safe to cancel.

        Args:
            channel: its name.
            limit: how many.
            since: the first ``limit`` of those after this position, instead of the last
                ones; ``page.recovered`` tells whether all of them are held,
                ``page.complete`` whether there are more.
            tenant: the channel's.

        Returns:
            A page: ``page.top`` is the position of the channel's last message, and each of
            ``page.records`` has ``data``, ``position``, ``id``, ``time`` and ``publisher``.

        Raises:
            RequestError: there is no such channel.
            BrokerUnavailable: the broker does not answer.
        """
        return await contents.history(
            self._here(), channel, limit=limit, since=since, tenant=tenant
        )

    @awaitable_only
    async def presence(self, channel: str, *, tenant: str = "") -> Sequence[Member]:
        """Return who is present in a channel. Safe to cancel.

        Raises:
            RequestError: there is no such channel.
            BrokerUnavailable: the broker does not answer.
        """
        return list((await contents.presence(self._here(), channel, tenant=tenant)).members)

    # ---- connections -----------------------------------------------------------------

    @awaitable_only
    async def unsubscribe(
        self,
        target: str | Connection,
        channel: str,
        *,
        code: int = ErrorCode.FORBIDDEN,
        tenant: str = "",
    ) -> int:
        """End a subscription: of a connection, or of all that a user has.

        The client is told ``code``, by which its subscription ends; it may subscribe again,
        and the channel's handler is asked again.

        Args:
            target: the user's name, or a connection.
            channel: its name.
            code: an error code, see :class:`everwire.codes.ErrorCode`.
            tenant: the user's.

        Returns:
            How many subscriptions there were, at all nodes that answered in time.

        Cancelling leaves those that were not ended yet.

        Raises:
            ConfigError: ``code`` is none, or nobody is named.
            BrokerUnavailable: other nodes were not told; here it was done.
        """
        reaching.check_error_code(code)
        whom = reaching.target_of(target, tenant)
        return await reaching.unsubscribe_everywhere(self._here(), whom, channel, code)

    @awaitable_only
    async def disconnect(
        self,
        target: str | Connection,
        *,
        code: int = CloseCode.DISCONNECTED,
        reason: str = "",
        tenant: str = "",
    ) -> int:
        """Close a connection, or all that a user has.

        Args:
            target: the user's name, or a connection.
            code: clients stay away after 4500 to 4999 (the default is 4504) and come back
                after 4000 to 4499.
            reason: for people; 123 bytes at most.
            tenant: the user's.

        Returns:
            How many connections there were, at all nodes that answered in time.

        Here it is done at once. Cancelling leaves other nodes told, or not.

        Raises:
            ConfigError: ``code`` is none to close with, or nobody is named.
            BrokerUnavailable: other nodes were not told; here it was done.
        """
        reaching.check_close_code(code)
        whom = reaching.target_of(target, tenant)
        return await reaching.disconnect_everywhere(self._here(), whom, code, reason)

    @awaitable_only
    async def revoke(
        self,
        *,
        user: str | None = None,
        tenant: str | None = None,
        token_id: str | None = None,
        before: float | None = None,
        until: float | None = None,
    ) -> None:
        """Revoke tokens: of a user, of a whole tenant, or one by its id.

        Live connections that they opened are closed with 4402 within a second, so that a
        client fetches a fresh token; then whoever shows one of them is refused, for as long
        as it could be good.

        Args:
            user: whose tokens.
            tenant: the user's; with it alone, those of all its users.
            token_id: the one token (its ``jti``; :attr:`Identity.token_id`), of connections
                and of channels.
            before: those that were issued before this, in seconds since 1970; now, if it is
                not given, and then whoever is connected is meant, whatever the token says.
            until: when they will all have expired; after ``limits.revocation_ttl`` if it is
                not given.

        At this node it is done at once, at the others as soon as they are told. Cancelling
        only ends the waiting for their answers.

        Raises:
            ConfigError: nothing is named, or a token's id together with a user.
            Unavailable: this node remembers as many as it may. Who is connected was closed.
            BrokerUnavailable: this node has done it; the others may not know of it.
        """
        node = self._here()
        meant = revocations.revocation(node, user, tenant, token_id, before, until)
        await reaching.revoke_everywhere(node, meant)

    @overload
    async def request(
        self,
        target: str | Connection,
        name: str,
        payload: Any = None,
        *,
        kind: asking.Kind = "query",
        type: type[T],
        timeout: float | None = None,  # noqa: ASYNC109
        tenant: str = "",
    ) -> T: ...

    @overload
    async def request(
        self,
        target: str | Connection,
        name: str,
        payload: Any = None,
        *,
        kind: asking.Kind = "query",
        type: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
        tenant: str = "",
    ) -> Any: ...

    @awaitable_only
    async def request(
        self,
        target: str | Connection,
        name: str,
        payload: Any = None,
        *,
        kind: asking.Kind = "query",
        type: Any = None,  # noqa: A002  # as the client's own
        timeout: float | None = None,  # noqa: ASYNC109  # it goes over the wire as well
        tenant: str = "",
    ) -> Any:
        """Ask a user, or the client of one connection; return the answer.

        A query to a user goes to all connections that the user has, at any node, and the
        first answer wins; a command needs exactly one. Each is tried once.

        Args:
            target: the user's name, or a connection.
            name: of the query or command, as the client's ``Handlers`` declare it.
            payload: its parameters.
            kind: ``"query"``, which changes nothing, or ``"command"``.
            type: what to turn the answer into: anything that msgspec understands.
            timeout: seconds until the answer; the default is ``request_timeout``.
            tenant: the user's.

        Cancelling cancels the clients' handlers; a command may have run.

        Raises:
            RequestError: the client refuses, or serves no such request; a user has no
                connection (``unavailable``), or not exactly one (``ambiguous_target``).
            RequestTimeout: no answer to a query in time.
            ClosedError: the connection was lost before a query was answered.
            DeliveryUnknown: either of them, for a command: it may have run.
            NotSent: the connection is not open.
            BadData: the answer is no ``type``, or the payload cannot be put on the wire.
        """
        node = self._here()
        seconds = self.limits.request_timeout if timeout is None else timeout
        if not isinstance(target, str):
            return await asking.ask([target], seconds, kind, name, payload, type)
        user = Target(tenant, target)
        return await ask_user(node, user, seconds, kind, name, payload, type)
