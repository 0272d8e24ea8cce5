"""Every limit and default of the system, with its unit and its reason.

Durations are float seconds and sizes are bytes, unless a line says otherwise.
``docs/limits.md`` is made from this file (see ``tests/test_docs.py``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

from .errors import ConfigError

KiB = 1024
MiB = 1024 * KiB

MAX_DEPTH = 32  # nesting of a payload: a deeper one is refused at the edge
MAX_CHANNEL = 255  # bytes of a channel name
MAX_USER = 255  # bytes of a user's name, and of a tenant's
MAX_ID = 128  # characters of a request or message id, or of an idempotency key
STREAM_CREDIT = 16  # parts of a stream that may be sent before the first credit
MAX_INTEGER = 2**53 - 1  # integers of the protocol itself: what every JSON reader holds exactly
MAX_ATTEMPTS = 10  # attempts a minute after failures, for an endpoint and all of a process
MAX_POOL = 16  # members of a pool: who needs more connections needs more processes
MAX_FAILURES = 5  # attempts in a row that fail before a member of a pool is quarantined
CONNECT_PAUSE = 0.25  # seconds between a pool's attempts at one host, more or less a quarter


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one node allows. ``hello`` tells each client those that concern it."""

    # sizes
    message: int = 1 * MiB
    """a message, after inflation; above it: ``too_big``"""
    hard_cap: int = 4 * MiB
    """a WebSocket message; above it the connection is closed with 1009"""
    auth: int = 64 * KiB
    """the first message, before the user is known"""
    elements: int = 50_000
    """values and keys in a message, however small: each takes up to half a microsecond of the loop"""
    assembling: int = 64 * MiB
    """unfinished, fragmented messages of all connections of a process; beyond: 1013"""
    handshake: int = 16 * KiB
    """the HTTP request of the handshake; above it: 431"""
    subscribe_batch: int = 200
    """channels in one ``subscribe``"""
    subscribe_bytes: int = 64 * KiB
    """names, tokens and positions in one ``subscribe``; beyond: ``too_big``"""

    # counts for each connection
    subscriptions: int = 1_000
    """subscriptions of a connection"""
    subscribes: int = 100
    """channels a second to which a connection subscribes in the long run; twice ``subscriptions``
    at once; beyond: ``rate_limited``"""
    inflight: int = 256
    """requests being worked on for a connection; at the limit the node stops reading from it"""
    streams: int = 64
    """streams being sent to a connection; beyond: ``rate_limited``"""
    asked: int = 64
    """requests of the server that a connection has not answered; beyond: ``unavailable``"""
    strikes: int = 10
    """bad messages a minute; the next one closes with 4400"""
    messages: int = 100_000
    """messages a second of a connection; beyond: ``rate_limited``, beyond twice that: 4429"""
    bytes: int = 16 * MiB
    """bytes a second of a connection, after inflation; beyond, the node reads from it more slowly"""
    burst: float = 1.0
    """seconds' worth of ``messages`` and ``bytes`` that a connection may send at once"""

    # who somebody is
    token: int = 8 * KiB
    """characters of a token; a longer one is refused before it is looked at"""
    refused_auths: int = 600
    """refused auths a minute from one address; then its next ones are closed with 4429, unread"""
    revocations: int = 100_000
    """revocations that a node remembers; beyond: ``unavailable``, none is forgotten early"""
    revocation_ttl: float = 86_400.0
    """how long a revocation is remembered: the longest life of a token"""
    # counts for all of a node
    connections: int = 20_000
    """connections from one address, or one IPv6 network of 64 bits; the next one is closed with 4429"""
    connections_user: int = 1_000
    """connections of one user, the anonymous one excepted; the next one is closed with 4506"""
    handlers: int = 10_000
    """requests being worked on, streams and events included; beyond: ``unavailable``"""

    # a reader that cannot keep up
    write_high: int = 1 * MiB
    """unsent bytes at which the node stops pushing to a connection"""
    write_low: int = 64 * KiB
    """unsent bytes at which it goes on, from history"""
    overflow_messages: int = 100
    """messages that wait for a reader of a channel without history; then ``on_overflow``"""
    overflow_bytes: int = 256 * KiB
    """bytes of payload of them; one message may always wait"""
    stall: float = 30.0
    """seconds without progress of a full write buffer; then 4430"""

    # time
    handshake_timeout: float = 10.0
    """from the TCP connection to the end of the HTTP request"""
    auth_timeout: float = 5.0
    """from the handshake to ``auth``; then 4401"""
    request_timeout: float = 10.0
    """a query or command that names no timeout of its own"""
    request_timeout_max: float = 300.0
    """the longest that one may ask for, unless its handler has a timeout; also for events"""
    ping_interval: float = 20.0
    """between pings of the server, at least 1: it looks once a second; proxies cut idle
    connections at 60 s"""
    ping_grace: float = 10.0
    """beyond the interval without an inbound byte; then the connection is dead (4408)"""
    probe: float = 5.0
    """a last chance when the silence may have been our own doing"""
    close_timeout: float = 3.0
    """for the closing handshake; then the connection is aborted"""
    message_timeout: float = 60.0
    """from the first fragment of a message to its last; then 4408"""

    # publishing
    dedupe_window: float = 300.0
    """how long a message id is remembered"""
    dedupe_max: int = 100_000
    """ids remembered for a channel; beyond: ``dedupe_full``, never an id forgotten early"""

    # history of a channel, unless its pattern says otherwise
    history: int = 100
    """messages kept for a channel"""
    history_ttl: float = 300.0
    """how long they are kept"""
    history_bytes: int = 1 * MiB
    """bytes of payload kept for a channel"""
    history_total: int = 256 * MiB
    """bytes of payload kept by a process; the channels unused for longest give theirs up first"""
    channels: int = 250_000
    """channels whose numbering a process keeps in memory; beyond: ``unavailable``"""
    meta_ttl: float = 86_400.0
    """how long an unused channel keeps its numbering"""
    page: int = 100
    """messages read from history at a time while a reader catches up"""

    # presence
    presence_lease: float = 15.0
    """how long a member outlives a node that died"""
    presence_members: int = 1_000
    """members listed; beyond that only counted"""
    presence_info: int = 4 * KiB
    """what is shown of a member, as JSON; beyond: ``too_big``"""
    presence_grace: float = 5.0
    """how long a member whose connection was lost stays, for the same client to come back"""

    # commands with an idempotency key
    command_answer: int = 64 * KiB
    """bytes of an answer that is remembered; a retry of a command with more: ``outcome_unknown``"""
    command_keys_user: int = 10_000
    """commands of a user that are remembered; beyond: ``dedupe_full``"""
    command_keys: int = 100_000
    """commands of all users that are remembered; beyond: ``dedupe_full``"""
    command_bytes: int = 128 * MiB
    """bytes of memory that remembered commands take; beyond: ``dedupe_full``"""

    def announced(self) -> dict[str, int]:
        """What ``hello`` tells a client; the window in milliseconds."""
        return {
            "message": self.message,
            "auth": self.auth,
            "elements": self.elements,
            "inflight": self.inflight,
            "streams": self.streams,
            "subscriptions": self.subscriptions,
            "subscribeBatch": self.subscribe_batch,
            "dedupeWindow": int(self.dedupe_window * 1000),
        }

    def __post_init__(self) -> None:
        may_be_zero = ("history", "presence_grace")
        _check_numbers(self, [name for name in self.__slots__ if not name.startswith(may_be_zero)])
        if self.ping_interval < 1.0:
            raise ConfigError(
                f"limit ping_interval must be at least 1 s, not {self.ping_interval!r}: a node "
                "looks at its connections once a second"
            )
        if self.write_low >= self.write_high:
            raise ConfigError("limit write_low must be below write_high")
        if self.burst < 1:
            raise ConfigError("limit burst must be 1 or more: what may come in a second")
        if self.hard_cap < self.message:
            raise ConfigError("limit hard_cap must not be below message")


def _check_numbers(limits: Limits | ClientLimits, above_zero: Collection[str]) -> None:
    for field in fields(limits):
        name, value = field.name, getattr(limits, field.name)
        number = isinstance(value, (int, float)) and value >= 0  # which NaN is not
        if not number or (value == 0 and name in above_zero):
            least = "above zero" if name in above_zero else "not below zero"
            raise ConfigError(f"limit {name} must be a number {least}, not {value!r}")


DEFAULTS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """What one client allows itself."""

    connect_timeout: float = 10.0
    """for one attempt: name, TCP, TLS and WebSocket handshake"""
    auth_timeout: float = 10.0
    """for the answer to ``auth``"""
    request_timeout: float = 10.0
    """a query or command that names no timeout of its own"""
    close_timeout: float = 3.0
    """for the closing handshake; then the connection is aborted"""
    ping_grace: float = 10.0
    """beyond the server's ping interval without an inbound byte; then the link is dead"""
    probe: float = 5.0
    """a last chance when the silence may have been our own doing"""

    first_retry: float = 2.0
    """the first attempt after a loss comes within U(0, this)"""
    backoff_base: float = 1.0
    """attempt n waits U(floor, min(cap, base * growth**n))"""
    backoff_growth: float = 2.0
    """the factor by which the wait may grow from attempt to attempt"""
    backoff_cap: float = 20.0
    """the longest wait between attempts"""
    backoff_floor: float = 0.1
    """the shortest wait between attempts after a failed one"""
    stable_after: float = 30.0
    """a link that held this long resets the number of attempts"""

    outbox_messages: int = 1_000
    """messages waiting for their acknowledgement"""
    outbox_bytes: int = 8 * MiB
    """bytes waiting for their acknowledgement"""
    outbox_ttl: float = 60.0
    """how long a message waits for its acknowledgement; in a durable outbox: to be sent at all"""
    outbox_block: float = 5.0
    """how long ``publish`` waits for room in a full outbox"""
    outbox_undelivered: int = 1_000
    """messages of a durable outbox that are kept although they were given up; not more bytes than
    waiting ones may have; beyond either the oldest are forgotten"""

    queue_messages: int = 1_024
    """messages of a subscription that the application has not taken yet"""
    queue_bytes: int = 4 * MiB
    """bytes of them; beyond either the subscription goes on from its position"""
    queued_bytes: int = 64 * MiB
    """bytes of all subscriptions; beyond, the largest one goes on from its position"""
    stream_bytes: int = 1 * MiB
    """bytes of a stream that the application has not taken yet, after its first 16 parts"""
    handlers: int = 64
    """handlers of the application that run at a time; beyond: ``unavailable``"""
    message: int = 1 * MiB
    """a message, until the server's ``hello`` says otherwise"""
    subscribe_batch: int = 200
    """channels in one ``subscribe``"""

    def __post_init__(self) -> None:
        _check_numbers(self, ("message", "subscribe_batch"))


CLIENT_DEFAULTS = ClientLimits()
