"""Several clients of one server behind one: see :class:`Pool`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from random import Random, SystemRandom
from typing import Any, Self, TypedDict, Unpack

from ..errors import ConfigError
from ..limits import ClientLimits
from ..net.transport import Network
from .any_core import AnyCore
from .client import Client
from .connect import connect, connect_network
from .core import Core
from .handlers import Handlers
from .observations import Record
from .overflow import Overflow
from .pool_core import KeyedCore, PoolCore
from .pool_members import PoolMember, check_size
from .pool_network import PacedNetwork
from .pool_strategies import Strategy, picker
from .settings import check_seconds, checked_limits
from .tokens import Tokens, TokenSource


class ClientOptions(TypedDict, total=False):
    """What a pool hands on to each of its members; see :func:`everwire.connect`."""

    credentials: Any
    dialect: str
    name: str
    headers: Mapping[str, str] | None
    ssl: Any
    proxy: str | None
    handlers: Handlers | None
    wall: Callable[[], float]
    overflow: Overflow | None
    on_record: Callable[[Record], None] | None


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
        token: as for :func:`everwire.connect`; the members share what it fetches.
        limits: of each member.
        network: where WebSockets come from; the default is the real network.
        random: where chance comes from.
        connect_timeout: seconds for one attempt; one is made at a time for each host.
        timeout: seconds for which entering waits; None for no end, 0 does not wait.
        options: more of :func:`everwire.connect`.

    Raises:
        ConfigError: one of these cannot be used.
    """

    _core: AnyCore

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
        check_size(size, min_ready)
        if "outbox" in options:
            raise ConfigError(
                "a pool has no durable outbox: publish over a client that has one, or make "
                "several clients with a file each"
            )
        on_record = options.pop("on_record", None)
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ConfigError("a pool needs at least one URL")
        if max_inflight < 1:
            raise ConfigError(f"max_inflight must be at least 1, not {max_inflight!r}")
        limits = checked_limits(limits)
        for name, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            check_seconds(name, seconds)
        check_seconds("acquire_timeout", acquire_timeout, or_none=False)
        random = random or SystemRandom()
        door = PacedNetwork(
            network or connect_network(),
            connect_timeout=limits.connect_timeout if connect_timeout is None else connect_timeout,
            random=random,
        )
        tokens = token if isinstance(token, Tokens) else Tokens(token)
        cores: list[Core] = []
        for number in range(size):
            member = connect(
                urls[number % len(urls)],
                token=tokens,
                limits=limits,
                network=door,
                random=random,
                connect_timeout=door.patience(size),
                timeout=None,
                **options,
            )
            core = member._core  # noqa: SLF001  # a pool is made of what clients stand on
            assert isinstance(core, Core)
            core.answering.client = self
            cores.append(core)
        self._pool = self._core = PoolCore(
            cores,
            picker(strategy, random),
            limits,
            random=random,
            min_ready=min_ready,
            max_inflight=max_inflight,
            acquire_timeout=acquire_timeout,
            timeout=timeout,
        )

        self.on_record = on_record

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    @property
    def members(self) -> list[PoolMember]:
        """The members as they are now; a snapshot."""
        return [member.record() for member in self._pool.members]

    def keyed(self, key: str) -> Client:
        """Return the same pool for what belongs to ``key``: ``pool.keyed(order).publish(...)``.

        What is published that way stays in order for the key rather than for the channel, and
        goes where the strategy puts the key; so do requests and events, while their member is
        ready. It has no life of its own: it is open while the pool is.
        """
        return _Keyed(KeyedCore(self._pool, key))

    def __repr__(self) -> str:
        return f"<Pool {self._core}>"


class _Keyed(Client):
    def __init__(self, core: KeyedCore) -> None:
        self._core = core
