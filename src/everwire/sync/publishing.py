"""Written by scripts/sync-facade from everwire.client.publishing: change that, not this."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Literal

from ..client.entry import Ack
from ..client.overflow import Overflow
from ..client.publishing import Publishing as AsyncPublishing
from ..client.undelivered import Undelivered
from .facade import Facade


class Publishing(Facade):
    """Methods of :class:`.client.Client`."""

    _inside: AsyncPublishing

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Overflow | None = None,
        wait: Literal["acknowledged", "stored"] = "acknowledged",
    ) -> Ack:
        """Publish, and wait until the server has stored it: once, over whatever drops.

        In the dialect ``plain`` nothing is acknowledged: this returns as soon as the
        message is written to an open connection, with ``position=None``.

        Args:
            channel: its name.
            data: anything that :func:`everwire.protocol.data.plain_data` takes.
            ttl: seconds for which it is tried; the default is ``outbox_ttl``, and in a durable
                outbox, once it was sent, as long as the server remembers it.
            key: with ``overflow="coalesce"`` it takes the place of a message of the channel
                with this key that was not sent yet.
            overflow: what happens when the outbox is full (:data:`~.overflow.Overflow`); the
                default is that of :func:`everwire.sync.connect`, and ``block`` without one.
            wait: ``"stored"``: return as soon as it is in the durable outbox's file. If it is
                given up after that, ``on_undelivered`` is told.

        Interrupting ends the waiting alone: the message stays in the outbox, and is sent. If
        it waited for room in the outbox, it is not sent.

        Raises:
            BadData: the data or the channel's name cannot be put on the wire.
            RequestError: refused for good, as :exc:`Forbidden`, or too big.
            NotSent: given up before it was sent; :exc:`Dropped` by the overflow policy,
                :exc:`NotStored` because the durable outbox's file cannot be written.
            DeliveryUnknown: sent and given up before it was acknowledged; or
                :exc:`StillQueued`: the client ended, and the file keeps it.
            OutboxFull: no room within ``outbox_block`` seconds, or at once, as the policy says.
            ConfigError: there is no such policy, or no durable outbox to be stored in.
            ConnectionClosed: the client ended.
        """
        return self._wait(
            lambda: self._inside.publish(
                channel, data, ttl=ttl, key=key, overflow=overflow, wait=wait
            )
        )

    def publish_nowait(
        self,
        channel: str,
        data: Any,
        *,
        ttl: float | None = None,
        key: str | None = None,
        overflow: Literal["reject", "drop_oldest", "drop_newest", "coalesce"] | None = None,
    ) -> Future[Ack]:
        """Publish without waiting; the future is given what :meth:`publish` returns or raises.

        Args:
            channel: its name.
            data: as for :meth:`publish`.
            ttl: as for :meth:`publish`.
            key: as for :meth:`publish`.
            overflow: what happens when the outbox is full; the default is that of
                :func:`everwire.sync.connect`, but ``reject`` instead of ``block``.

        Raises:
            BadData: the data or the channel's name cannot be put on the wire.
            RequestError: too big.
            OutboxFull: there is no room.
            ConfigError: there is no such policy, or it is ``block``.
            ConnectionClosed: the client ended.
        """
        return self._future(
            lambda: self._inside.publish_nowait(channel, data, ttl=ttl, key=key, overflow=overflow)
        )

    def drain_queued(self) -> list[Undelivered]:
        """Take back what was not sent yet, in order: it will not be sent any more.

        Who waits for it gets :exc:`~everwire.NotSent`. After :meth:`close`, this is what could
        not be sent in time; of a durable outbox nothing is taken back then: it stays in the file.
        """
        return self._do(lambda: list(self._inside.drain_queued()))

    def undelivered(self) -> list[Undelivered]:
        """Read what a durable outbox gave up while nobody heard of it, the oldest first.

        These are messages of former processes and those published with ``wait="stored"``, or
        by a call that was cancelled. They stay in the file, ``outbox_undelivered`` of them at
        most, until :meth:`forget_undelivered`. Interrupting changes nothing.

        Raises:
            NotStored: the file cannot be read.
            ConfigError: the outbox is not durable.
            ConnectionClosed: the client ended.
        """
        return self._wait(lambda: self._inside.undelivered())

    def forget_undelivered(self, messages: Iterable[Undelivered]) -> None:
        """Have the durable outbox's file forget messages that :meth:`undelivered` returned.

        Raises:
            ConnectionClosed: the client ended.
        """
        self._do(lambda: self._inside.forget_undelivered(messages))

    @property
    def on_drop(self) -> Callable[[Undelivered], None] | None:
        """Is called with each message that a full outbox drops, or that is superseded."""
        return self._do(lambda: self._inside.on_drop)

    @on_drop.setter
    def on_drop(self, function: Callable[[Undelivered], None] | None) -> None:
        def assign() -> None:
            self._inside.on_drop = function

        self._do(assign)

    @property
    def on_undelivered(self) -> Callable[[Undelivered], None] | None:
        """Is called with each message of :meth:`undelivered`, when it is given up.

        Set it before the client is opened, to hear of those of former processes.
        """
        return self._do(lambda: self._inside.on_undelivered)

    @on_undelivered.setter
    def on_undelivered(self, function: Callable[[Undelivered], None] | None) -> None:
        def assign() -> None:
            self._inside.on_undelivered = function

        self._do(assign)
