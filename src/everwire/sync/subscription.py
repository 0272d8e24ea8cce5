"""Written by scripts/sync-facade from everwire.client.subscription: change that, not this."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..client.items import Gap, Item, Message
from ..client.subscription import Reading as AsyncReading, T
from ..protocol.messages import Member, Position
from ..protocol.states import SubscriptionState as State
from .facade import Iterating


class Reading(Iterating[T]):
    """What all subscriptions have in common."""

    _inside: AsyncReading[T]

    def __enter__(self) -> Self:
        """Subscribe, and wait until the server confirms: over drops, as long as it takes.

        Interrupting unsubscribes.

        Raises:
            Forbidden: or another :exc:`RequestError`: refused for good.
            ConfigError: the client has a subscription to this channel already.
            ConnectionClosed: the client ended.
        """
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit(kind, error, traceback)

    def open(self) -> Self:
        """Do what ``with`` does at its beginning, and return it, open."""
        return self.__enter__()

    @property
    def channel(self) -> str:
        """The channel's name."""
        return self._do(lambda: self._inside.channel)

    @property
    def members(self) -> dict[str, Member]:
        """Who is present, by connection; kept up to date with ``presence=True``."""
        return self._do(lambda: dict(self._inside.members))

    @property
    def member_count(self) -> int:
        """How many are present; ``members`` holds no more than the server lists."""
        return self._do(lambda: self._inside.member_count)

    @property
    def state(self) -> State:
        """Whether messages come: ``subscribed``, or on the way there, or why not."""
        return self._do(lambda: self._inside.state)

    @property
    def position(self) -> Position | None:
        """The position of the last item handed over; ``since=`` takes it up again.

        An item is handed over when iteration returned it, or when the function that it was
        given to has returned. Before the first: where the subscription began. With
        ``get_state`` a gap does not count, but the snapshot after it: whoever stores the
        position with the state is told of the gap again, if there was a crash in between.
        """
        return self._do(lambda: self._inside.position)

    def unsubscribe(self) -> None:
        """End the subscription; iteration stops at once, what is queued is dropped.

        Waits until the server has confirmed, at most ``close_timeout`` seconds. A callback
        that is running is not interrupted; none follows it. Interrupting only ends the
        waiting. A second call does nothing.
        """
        self._wait(lambda: self._inside.unsubscribe())

    def wait_ended(self) -> None:
        """With ``on_message``: wait until it ended, and the last callback has returned.

        Interrupting only ends the waiting.

        Raises:
            RequestError: the server ended the subscription for good.
            ConnectionClosed: the client ended for good.
            Exception: what a callback raised, with ``stop_on_error``.
            ConfigError: there is no callback, or it was not entered.
        """
        self._wait(lambda: self._inside.wait_ended())

    @property
    def queued(self) -> int:
        """Items that have come and were not handed over yet."""
        return self._do(lambda: self._inside.queued)


class Subscription(Reading[Message | Gap]):
    """A channel's messages: ``with client.subscribe(...) as room: for item in room``.

    Iterating goes on over drops and reconnections. It ends when the subscription does
    (:meth:`unsubscribe`, or the client's ``close()``), and raises if the server ended it.
    Who wants neither to iterate nor to leave a block awaits it: ``room = client.subscribe("chat:lobby", on_message=show)``.
    """


class StatefulSubscription(Reading[Item]):
    """A subscription with ``get_state``: it yields snapshots as well."""
