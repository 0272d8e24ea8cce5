"""What a node counts, for Prometheus: read when it is asked for, and never in between.

There is nothing here that grows with channels, users or addresses: every label has as many
values as there are dialects, codes or names of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.responses import Response

from ... import __version__
from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from ..app import Everwire
    from ..stats import NodeStats

GAUGES = {
    "subscriptions": "Subscriptions of all connections",
    "channels": "Channels that anybody is, or was a moment ago, subscribed to",
    "draining": "1 while the node sends its clients away",
    "broker_failing": "1 if the broker did not answer within the last ten seconds",
}
COUNTERS = {
    "messages_in": ("messages_received", "Whole messages that came"),
    "messages_out": ("messages_sent", "Messages that were written, deliveries included"),
    "bytes_in": ("received_bytes", "Bytes of the messages that came, after inflation"),
    "bytes_out": ("sent_bytes", "Bytes of the frames that were written"),
    "deliveries": ("deliveries", "Messages of channels, each as often as it has readers"),
    "published": ("published", "Publishes of clients that were accepted"),
    "duplicates": ("duplicates", "Of the published, those that were stored before"),
    "gaps": ("gaps", "Gaps that readers were told of"),
    "catch_ups": ("catch_ups", "Times that a reader was sent history page by page"),
}


class NodeCollector(Collector):
    """Turns :meth:`everwire.Everwire.stats` into metrics, one scrape at a time."""

    def __init__(self, wire: Everwire) -> None:
        self._wire = wire

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is, is known when the node runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        try:
            stats = self._wire.stats()
        except ConfigError:  # it does not run
            return
        yield InfoMetricFamily("everwire", "The node", {"version": __version__, "node": stats.node})
        yield _by(GaugeMetricFamily, "connections", "Open connections", "dialect", stats.dialects)
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"everwire_{name}", text, float(getattr(stats, name)))
        yield GaugeMetricFamily(
            "everwire_uptime_seconds", "Seconds since the node started", stats.uptime
        )
        yield GaugeMetricFamily(
            "everwire_loop_lag_seconds",
            "By how much the event loop was late when it last looked",
            stats.loop_lag,
        )
        for name, (called, text) in COUNTERS.items():
            yield CounterMetricFamily(f"everwire_{called}", text, float(getattr(stats, name)))
        yield from _labelled(stats)


def _labelled(stats: NodeStats) -> Iterator[Metric]:
    counter = CounterMetricFamily
    text = "Requests answered with an error"
    yield _by(counter, "refused_requests", text, "error", stats.refused)
    codes = {str(code): times for code, times in stats.closes.items()}
    text = "Connections that ended, by close code; 0: a peer's that is none of ours"
    yield _by(counter, "closed_connections", text, "code", codes)
    yield _by(counter, "events", "What happens rarely, by name", "event", stats.events)


def _by(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, int],
) -> Metric:
    family = kind(f"everwire_{name}", text, labels=[label])
    for value, times in sorted(values.items()):
        family.add_metric([value], times)
    return family


class Exposition:
    """Answers scrapes, from a registry of its own."""

    def __init__(self, wire: Everwire) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(wire))
        ProcessCollector(registry=self._registry)

    async def answer(self, request: Request) -> Response:
        """Read everything now. Safe to cancel."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": content_type})
