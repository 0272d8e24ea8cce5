"""What a node counts, and the snapshot of it that an application and its metrics see.

On the hot path nothing is done here but additions. ``docs/metrics.md`` says what each name
means; :attr:`.node.Node.counters` counts, by name, what happens rarely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..codes import CloseCode, ErrorCode

if TYPE_CHECKING:
    from .node import Node

BROKER_FAILING = 10.0  # seconds after a failure for which the broker is called failing
OTHER = "other"  # error codes of the application's own

_CLOSE_CODES = frozenset(CloseCode)
_ERROR_NAMES = {int(code): code.wire_name for code in ErrorCode}


class Tally:
    """What is being counted of messages and connections.

    Attributes:
        messages_in: whole messages that came.
        bytes_in: bytes of them, after inflation.
        published: publishes of clients that the broker accepted, duplicates included.
        duplicates: of them, those that were stored before.
        dialects: connections that are open, by the name of their dialect.
        refused: requests that were answered with an error, by its code; 0 for one that is none
            of ours.
        closes: connections that ended, by close code; 0 for a peer's that is none of ours.
        broker_failed_at: the wheel's time at which the broker last did not answer.
    """

    __slots__ = (
        "broker_failed_at", "bytes_in", "closes", "dialects", "duplicates", "messages_in",
        "published", "refused",
    )  # fmt: skip

    def __init__(self) -> None:
        self.messages_in = 0
        self.bytes_in = 0
        self.published = 0
        self.duplicates = 0
        self.dialects: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.closes: Counter[int] = Counter()
        self.broker_failed_at = float("-inf")

    def refuse(self, code: int) -> None:
        """A request is refused. An error may be a client's answer, with any code: all are one."""
        self.refused[code if code in _ERROR_NAMES else 0] += 1

    def closed(self, code: int) -> None:
        """A connection ends. A peer may name any code: those unknown are one."""
        self.closes[code if code in _CLOSE_CODES else 0] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStats:
    """What a node holds now, and what it has done since it started. A snapshot.

    Attributes:
        node: its id, new at each start.
        uptime: seconds since it started.
        draining: it sends its clients away.
        connections: that are open.
        dialects: of them, those of each dialect: ``json``, ``msgpack``, ``plain``.
        subscriptions: of all connections.
        channels: that anybody is, or was a moment ago, subscribed to.
        working: requests that are being worked on, or wait for their turn.
        messages_in: whole messages that came.
        messages_out: messages that were written, deliveries included.
        bytes_in: bytes of the messages that came, after inflation.
        bytes_out: bytes of the frames that were written.
        deliveries: messages of channels, each as often as it has readers.
        published: publishes of clients that were accepted; ``duplicates`` of them were
            stored before.
        duplicates: see ``published``.
        gaps: that readers were told of.
        catch_ups: times that a reader was sent a channel's history, page by page.
        refused: requests answered with an error, by its name; ``other``: those that are not
            everwire's.
        closes: connections that ended, by close code; 0 for codes that are not ours.
        events: everything else that is counted, by name: see ``docs/metrics.md``.
        loop_lag: seconds by which the event loop was late when it last looked.
        broker_failing: the broker did not answer within the last ten seconds.
    """

    node: str
    uptime: float
    draining: bool
    connections: int
    dialects: Mapping[str, int]
    subscriptions: int
    channels: int
    working: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    deliveries: int
    published: int
    duplicates: int
    gaps: int
    catch_ups: int
    refused: Mapping[str, int]
    closes: Mapping[int, int]
    events: Mapping[str, int]
    loop_lag: float
    broker_failing: bool


def snapshot(node: Node) -> NodeStats:
    """Take a node's numbers: as many steps as there are names, however many connections."""
    tally, hub = node.tally, node.hub
    now = node.wheel.now
    refused: Counter[str] = Counter()
    for code, times in tuple(tally.refused.items()):
        refused[_ERROR_NAMES.get(code, OTHER)] += times
    return NodeStats(
        node=node.id,
        uptime=now - node.started_at,
        draining=node.draining,
        connections=len(node.connections),
        dialects={name.rpartition(".")[2]: n for name, n in tuple(tally.dialects.items())},
        subscriptions=hub.subscriptions,
        channels=len(hub.channels),
        working=max(len(node.working), len(node.commands)),
        messages_in=tally.messages_in,
        messages_out=hub.notes + hub.deliveries,
        bytes_in=tally.bytes_in,
        bytes_out=hub.bytes_out,
        deliveries=hub.deliveries,
        published=tally.published,
        duplicates=tally.duplicates,
        gaps=node.counters["gaps"],
        catch_ups=node.counters["catch_ups"],
        refused=dict(refused),
        closes=dict(tally.closes),
        events=dict(node.counters),
        loop_lag=node.wheel.lag,
        broker_failing=now - tally.broker_failed_at < BROKER_FAILING,
    )
