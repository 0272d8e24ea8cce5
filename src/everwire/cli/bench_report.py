"""What ``bench`` says in the end: as text for people, as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .. import __version__
from .bench_histogram import Histogram
from .bench_load import REMEDIES
from .bench_run import Result

BUSY = 0.9  # of a core: from here on the figures are the generator's as much as the server's
WIDTH = 40  # columns of a full bar
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def report(result: Result) -> dict[str, Any]:
    """Everything, for JSON: durations in seconds, rates per second."""
    load, begin, end = result.load, result.begin, result.end
    measured = end.at - begin.at if begin and end else 0.0
    cpu = (end.cpu - begin.cpu) / measured if begin and end and measured else 0.0
    before = asdict(begin.totals) if begin else {}
    after = asdict(end.totals) if end else {}
    rates = {
        name: (after[name] - before[name]) / measured if measured and before else 0.0
        for name in ("published", "acknowledged", "delivered")
    }
    settings = asdict(result.settings)
    del settings["token"], settings["url"]
    return {
        "everwire": __version__,
        "url": result.settings.url,
        "settings": settings,
        "ok": result.good,
        "interrupted": result.interrupted,
        "connections": {
            "wanted": result.settings.connections + result.settings.publishers,
            "made": result.connected,
            "seconds": result.connecting,
            "per_second": result.connected / result.connecting if result.connecting else 0.0,
            "failed_attempts": result.failed_attempts,
        },
        "measured": measured,
        "rates": rates,
        "totals": {
            **asdict(load.totals),
            "unsent": result.unsent,
            "unanswered": result.unanswered,
            "expected": load.expected,
            "foreign": load.foreign,
        },
        "latency": {
            "delivery": _latency(load.delivery),
            "acknowledgement": _latency(load.acknowledgement),
            "lateness": _latency(load.lateness),
        },
        "checks": {
            "lost": result.lost,
            "doubled": result.doubled,
            "misordered": result.misordered,
        },
        "reconnects": load.reconnects,
        "gaps": dict(load.gaps),
        "closes": dict(load.closes),
        "errors": dict(load.errors),
        "generator": {"cpu": cpu, "bottleneck": cpu >= BUSY},
    }


def _latency(histogram: Histogram) -> dict[str, Any]:
    found: dict[str, Any] = {"count": histogram.count}
    for name, part in PERCENTILES.items():
        found[name] = histogram.percentile(part) / 1e9
    found["max"] = histogram.highest / 1e9
    found["buckets"] = [[low / 1e9, high / 1e9, count] for low, high, count in histogram.buckets()]
    return found


def lines(result: Result) -> Iterator[str]:
    """The same for people, without the details."""
    told = report(result)
    made = told["connections"]
    yield (
        f"connections    {made['made']:,} of {made['wanted']:,} in {made['seconds']:.2f} s: "
        f"{made['per_second']:,.0f} a second"
    )
    if result.begin is not None:
        yield f"a second       over {told['measured']:.1f} s"
        for name, rate in told["rates"].items():
            yield f"  {name:12} {rate:>13,.1f}"
    yield from _latencies(told["latency"], open_loop=bool(result.settings.rate))
    yield from _drawing(result.load.delivery)
    yield from _findings(told)
    generator = told["generator"]
    yield f"generator      {generator['cpu']:.0%} of a core"
    if generator["bottleneck"]:
        yield (
            "  It was the bottleneck: the server may be faster, and latencies are its own. "
            "Lower --rate\n  or --connections, or run several of it."
        )


def _latencies(latency: dict[str, Any], *, open_loop: bool) -> Iterator[str]:
    names = [*PERCENTILES, "max"]
    shown = {
        "delivery": "published to delivered",
        "acknowledgement": "published to acknowledged",
        "lateness": "sent late",
    }
    if not open_loop:
        del shown["lateness"]
    yield f"{'latency, ms':26}" + "".join(f"{name:>10}" for name in names)
    for name, text in shown.items():
        values = latency[name]
        if values["count"]:
            yield f"  {text:24}" + "".join(f"{values[one] * 1e3:>10.3f}" for one in names)


def _drawing(histogram: Histogram) -> Iterator[str]:
    """A bar for each doubling of the latency."""
    rows: dict[int, int] = {}
    for low, _, count in histogram.buckets():
        power = low.bit_length()
        rows[power] = rows.get(power, 0) + count
    if not rows:
        return
    most = max(rows.values())
    yield "deliveries"
    for power in range(min(rows), max(rows) + 1):
        count = rows.get(power, 0)
        bar = "#" * round(WIDTH * count / most) or ("." if count else "")
        yield f"  under {2**power / 1e6:>12,.3f} ms {bar:{WIDTH}} {count:>12,}".rstrip()


def _findings(told: dict[str, Any]) -> Iterator[str]:
    totals, checks = told["totals"], told["checks"]
    yield (
        f"deliveries     {totals['expected']:,} expected: {checks['lost']:,} lost, "
        f"{checks['doubled']:,} doubled, {checks['misordered']:,} out of order"
    )
    yield (
        f"publishes      {totals['published']:,}: {totals['acknowledged']:,} acknowledged, "
        f"{totals['refused']:,} refused, {totals['unanswered']:,} unanswered"
    )
    if totals["unsent"]:
        yield f"  {totals['unsent']:,} more were due and not sent: the rate was not reached"
    if totals["foreign"]:
        yield f"  {totals['foreign']:,} deliveries were not of this run"
    gaps = "".join(f", {reason} {count:,}" for reason, count in told["gaps"].items())
    yield f"links          {told['reconnects']:,} reconnects, {sum(told['gaps'].values()):,} gaps{gaps}"
    if made := told["connections"]["failed_attempts"]:
        yield f"  {made:,} attempts to connect failed at first"
    for why, count in told["closes"].items():
        yield f"  closed: {why}: {count:,}"
    for code, count in told["errors"].items():
        yield f"  error: {code}: {count:,}"
        if code in REMEDIES:
            yield f"    {REMEDIES[code]}"
