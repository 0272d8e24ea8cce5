"""Written by scripts/sync-facade from everwire.client.pool: change that, not this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Unpack

from ..client.pool import ClientOptions, Pool as AsyncPool
from ..client.pool_members import PoolMember
from ..client.pool_strategies import Strategy
from ..client.tokens import Tokens, TokenSource
from ..limits import ClientLimits
from ..net.transport import Network
from .background import background
from .client import Client


class Pool(Client):
    """Several connections behind the interface of one :class:`~everwire.Client`.

    One connection carries any number of channels and requests already. A pool helps where one
    is the bottleneck: to spread over the nodes behind a load balancer, to let a large answer
    not hold up others, to live on while one node restarts. See ``docs/pools.md``.

    What is published to a channel stays in order: all of it that is under way goes over one
    member, and when that is lost for good it goes on over another, with the same ids. A
    subscription lives on one member, and moves with its position. A request goes to any
    member that is ready.

    Args:
        url: ``ws://host:port/path`` or ``wss://…``; several are taken in turn.
        size: members, 1 to 16.
        min_ready: members that must be ready before entering returns; the others follow.
        strategy: who takes what; see :data:`~.pool_strategies.Strategy`. A function is called
            with the members to choose from (:class:`~everwire.PoolMember`) and the key, which
            may be None, and returns one of them.
        acquire_timeout: seconds that a request waits until a member is ready and free.
        max_inflight: requests that are under way on a member.
        token: as for :func:`everwire.sync.connect`; the members share what it fetches.
        limits: of each member.
        network: where WebSockets come from; the default is the real network.
        random: where chance comes from.
        connect_timeout: seconds for one attempt; one is made at a time for each host.
        timeout: seconds for which entering waits; None for no end, 0 does not wait.
        options: more of :func:`everwire.sync.connect`.

    Raises:
        ConfigError: one of these cannot be used.
    """

    _inside: AsyncPool

    def __init__(
        self,
        url: str | Sequence[str],
        size: int = 3,
        *,
        min_ready: int = 1,
        strategy: Strategy | Callable[[Sequence[PoolMember], str | None], PoolMember] = "keyed",
        acquire_timeout: float = 5.0,
        max_inflight: int = 256,
        token: TokenSource | Tokens = None,
        limits: ClientLimits | None = None,
        network: Network | None = None,
        random: Random | None = None,
        connect_timeout: float | None = None,
        timeout: float | None = 30.0,
        **options: Unpack[ClientOptions],
    ) -> None:
        home = background()
        super().__init__(
            home,
            home.do(
                lambda: AsyncPool(
                    url,
                    size,
                    min_ready=min_ready,
                    strategy=strategy,
                    acquire_timeout=acquire_timeout,
                    max_inflight=max_inflight,
                    token=token,
                    limits=limits,
                    network=network,
                    random=random,
                    connect_timeout=connect_timeout,
                    timeout=timeout,
                    **options,
                )
            ),
        )

    @property
    def members(self) -> list[PoolMember]:
        """The members as they are now; a snapshot."""
        return self._do(lambda: list(self._inside.members))

    def keyed(self, key: str) -> Client:
        """Return the same pool for what belongs to ``key``: ``pool.keyed(order).publish(...)``.

        What is published that way stays in order for the key rather than for the channel, and
        goes where the strategy puts the key; so do requests and events, while their member is
        ready. It has no life of its own: it is open while the pool is.
        """
        inside = self._do(lambda: self._inside.keyed(key))
        return Client(self._background, inside)
