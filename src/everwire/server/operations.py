"""What an application calls: publishing, reading, asking; and what the node does for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..brokers.base import Page
from ..from_thread import awaitable_only
from ..limits import Limits
from ..protocol.messages import Member, Position
from . import asking, contents

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

    @awaitable_only
    async def publish(self, channel: str, data: Any, *, id: str = "") -> Position:  # noqa: A002
        """Publish to a channel; return where it is stored.

        Args:
            channel: its name.
            data: any data; see :mod:`everwire.protocol.data`.
            id: a second publish with the same id within five minutes has no effect.

        Cancelling does not take the message back.

        Raises:
            BadData: ``data`` cannot be put on the wire.
            RequestError: refused; ``temporary`` tells whether to try again.
            BrokerUnavailable: not stored, or not known to be (``outcome``).
        """
        return (await contents.publish(self._here(), channel, data, message_id=id)).position

    @awaitable_only
    async def history(self, channel: str, *, limit: int = 100) -> Page:
        """Return the last ``limit`` messages of a channel, as records. Safe to cancel.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        return await contents.history(self._here(), channel, limit=limit)

    @awaitable_only
    async def presence(self, channel: str) -> Sequence[Member]:
        """Return who is present in a channel. Safe to cancel.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        return (await contents.presence(self._here(), channel)).members

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

        A query to a user goes to all connections that the user has to this node, and the
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
        user = (tenant, target)
        return await asking.ask_user(node, user, seconds, kind, name, payload, type)
