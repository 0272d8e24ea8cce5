"""What is measured, with which load, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Versus:
    """The same load on the floor and on others, in turn."""

    key: str
    title: str
    mode: str
    metric: str
    options: dict[str, Any]
    target: float | None = None
    """ratio to the floor, at most"""
    limit: float | None = None
    """µs, at most"""
    fresh: bool = False
    """new channels each round: one channel remembers only so many ids"""
    most_rounds: int | None = None
    """of a point in the middle of a curve, which is not judged by itself"""

    @property
    def connections(self) -> int:
        """How many readers it has."""
        return int(self.options.get("subscribers") or self.options["channels"])


def _fanout(key: str, title: str, subscribers: int, window: int, **more: Any) -> Versus:
    options = {"subscribers": subscribers, "window": window, **more.pop("options", {})}
    return Versus(key, title, "fanout", "us_a_delivery", options, **more)


def _pairs(key: str, title: str, channels: int, window: int, **more: Any) -> Versus:
    options = {"channels": channels, "window": window}
    if channels < 100:
        options["count"] = 60_000  # below the ids that a channel remembers
    return Versus(key, title, "pairs", "us_a_message", options, fresh=channels < 100, **more)


VERSUS = (
    _fanout("P1", "fan-out, 1 000 subscribers, W=1", 1000, 1, target=1.12),
    _fanout("P2", "fan-out, W=64, one publisher", 1000, 64, target=1.2, limit=0.35),
    _fanout(
        "P2m", "fan-out, W=64, 64 publishers", 1000, 64,
        target=1.2, limit=0.35, options={"publishers": 64},
    ),
    _pairs("P3-1", "one to one, 1 000 channels, W=1", 1000, 1, target=1.35),
    _pairs("P3-16", "one to one, 1 000 channels, W=16", 1000, 16, target=1.5),
    _pairs("P3-64", "one to one, 1 000 channels, W=64", 1000, 64, target=1.6),
    _fanout("P8f-100", "fan-out, 100 subscribers, W=1", 100, 1),
    _fanout("P8f-300", "fan-out, 300 subscribers, W=1", 300, 1, most_rounds=5),
    _fanout("P8f-3000", "fan-out, 3 000 subscribers, W=1", 3000, 1, most_rounds=5),
    _fanout("P8f-10000", "fan-out, 10 000 subscribers, W=1", 10_000, 1),
    _pairs("P8p-1", "one to one, 1 channel, W=16", 1, 16),
    _pairs("P8p-100", "one to one, 100 channels, W=16", 100, 16, most_rounds=5),
    _pairs("P8p-300", "one to one, 300 channels, W=16", 300, 16, most_rounds=5),
    _pairs("P8p-3000", "one to one, 3 000 channels, W=16", 3000, 16, most_rounds=5),
    _pairs("P8p-10000", "one to one, 10 000 channels, W=16", 10_000, 16),
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """The cost of a unit of work as the number of connections grows."""

    key: str
    title: str
    unit: str
    cases: tuple[str, ...]
    """of :data:`VERSUS`, by the number of connections"""
    small: str
    large: str
    target: float = 1.15
    """the ratio to the floor at the large end, at most, ÷ that at the small end"""


CURVES = (
    Curve(
        "P8f", "fan-out, W=1", "delivery",
        ("P8f-100", "P8f-300", "P1", "P8f-3000", "P8f-10000"), "P8f-100", "P8f-10000",
    ),
    Curve(
        "P8p", "one to one, W=16", "message",
        ("P8p-100", "P8p-300", "P3-16", "P8p-3000", "P8p-10000"), "P8p-1", "P8p-10000",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Storm:
    """Connections made as fast as the server can."""

    key: str
    title: str
    connections: int
    least: float | None
    """connections a second of CPU"""
    options: dict[str, Any] = field(default_factory=dict)


STORMS = (
    Storm("P5", "connect, auth (HS256), subscribe", 10_000, 7000),
    Storm("P5c", "the same, each to a channel of its own", 10_000, None, {"channels": 10_000}),
    Storm("P5r", "the same, and recover 100 messages", 3_000, 4000, {"recover": 100}),
)


@dataclass(frozen=True)
class Memory:
    """Idle connections: what each costs in memory, and all of them in CPU."""

    key: str
    title: str
    connections: int
    most: float | None
    """KiB a connection"""
    options: dict[str, Any]
    heartbeat_key: str = ""
    most_cpu: float = 0.6
    """per cent of a core"""


HEADER = 1400  # bytes of a request: a browser's, with cookies

MEMORY = (
    Memory(
        "P4", "KiB a connection, one subscription, one channel", 9000, 12,
        {"header-bytes": HEADER}, heartbeat_key="P10",
    ),
    Memory(
        "P4c", "KiB a connection, each with a channel of its own", 9000, None,
        {"header-bytes": HEADER, "channels": 9000},
    ),
)  # fmt: skip

# With peers: what of the above is run on them, and with fewer rounds, as they differ by more.
PEER_VERSUS = ("P1", "P2", "P3-16")
PEER_ROUNDS = 3
PEER_CONNECTIONS = 5000


def selected(key: str, only: list[str]) -> bool:
    """Tell whether ``--only`` names this: ``P3`` names P3-1 and P3-16, but P1 not P10."""
    return not only or any(
        key.startswith(one) and not key[len(one) :][:1].isdigit() for one in only
    )


def wanted(case: Versus, only: list[str]) -> bool:
    """Tell whether a case is to be run: for itself, or as a point of a curve."""
    return selected(case.key, only) or any(
        case.key in curve.cases and selected(curve.key, only) for curve in CURVES
    )
