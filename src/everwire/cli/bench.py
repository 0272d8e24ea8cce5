"""Load a running server, and say what it bore."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import msgspec

from ..errors import BadData
from ..net.transport import not_a_url
from ..protocol.channels import check_channel
from .bench_publisher import SMALLEST
from .bench_report import lines, report
from .bench_run import PER_CONNECTION, Bench, Result, Settings
from .linking import ca_option, dialect_option, token_option, trusting
from .logs import escape
from .running import Failed, run, say, signals

F = TypeVar("F", bound=Callable[..., Any])

SPARE_FILES = 64  # what a process has open beside its connections
SIGNALLED = 130


def _finite(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("a finite number, please.")
    return value


def _seconds(name: str, default: float, text: str, *, zero: bool = False) -> Callable[[F], F]:
    return click.option(
        name,
        type=click.FloatRange(0, 86_400, min_open=not zero),
        callback=_finite,
        default=default,
        show_default=True,
        help=text,
    )


def _count(name: str, default: int | None, least: int, text: str) -> Callable[[F], F]:
    kind = click.IntRange(least, 1_000_000)
    return click.option(name, type=kind, default=default, show_default=True, help=text)


@click.command(
    short_help="Load a server; report rates, latencies, losses.",
    epilog="Examples:\n\n"
    "\b\n"
    "  everwire bench ws://127.0.0.1:8000/ws\n"
    "  everwire bench ws://127.0.0.1:8000/ws --connections 1000 --rate 50 --json run.json\n"
    "  everwire bench ws://127.0.0.1:8000/ws --rate 0 --window 64 --channels 100\n"
    "  everwire bench ws://127.0.0.1:8000/ws --channel chat:bench --publishers 10\n"
    "  everwire bench ws://127.0.0.1:8000/ws --connections 5000 --publishers 0   # connect only\n",
)
@click.argument("url")
@_count("--connections", 100, 0, "Subscribers, spread evenly over the channels.")
@_count("--publishers", 1, 0, "Connections that publish, each to all channels in turn.")
@_count("--channels", 1, 1, "Channels.")
@click.option(
    "--channel",
    metavar="PREFIX",
    default="bench",
    show_default=True,
    help="Channels are called PREFIX-RUN-NUMBER; RUN is new each time.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 10_000_000),
    callback=_finite,
    default=100.0,
    show_default=True,
    help="Messages a second, of all publishers together; 0: as fast as they are acknowledged.",
)
@_count(
    "--window",
    None,
    1,
    "Publishes of one publisher that may wait for their acknowledgement. The default is 16 "
    "with --rate 0, otherwise what the server allows.",
)
@click.option(
    "--size",
    type=click.IntRange(SMALLEST, 16 << 20),
    default=128,
    show_default=True,
    metavar="BYTES",
    help=f"Bytes of a payload, as JSON; at least {SMALLEST}.",
)
@_seconds("--duration", 10.0, "Seconds that are measured.")
@_seconds("--warmup", 1.0, "Seconds of the same load before that.", zero=True)
@_count("--connect-at-once", 64, 1, "Connections that are being made at a time.")
@_seconds("--timeout", 10.0, "Seconds that each connection is tried for.")
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write everything as JSON, with the whole histograms; -: to stdout, and the rest to "
    "stderr.",
)
@dialect_option(("msgpack", "json"), "What to speak.")
@token_option
@ca_option
def bench(path: Path | None, **values: Any) -> None:
    """Load the server at URL and report rates, latencies, and what went wrong.

    Every message carries its publisher, its number and its time, and every subscriber
    checks what it gets: whatever is acknowledged must reach all subscribers of its
    channel once and in order. Latency counts from when a message was due (with --rate),
    not from when there was room to send it. How late this program was itself is shown
    as "sent late": timers have a grain of a millisecond.

    The server needs no preparation, but it must let you subscribe and publish to the
    channels: see --channel and --token.

    Ctrl-C ends it early, with a report; a second one does not wait for stragglers. The
    exit status is 0 if nothing was lost, doubled, out of order, refused or unanswered,
    otherwise 1; 130 if it was interrupted and nothing was wrong until then.
    """
    settings = Settings(**values)
    _check(settings)
    _allow_files(settings.connections + settings.publishers + SPARE_FILES)
    out = _open(path)
    # Each lost link of thousands is counted, not told one by one.
    logging.getLogger("everwire").setLevel(logging.ERROR)
    result = run(_bench(settings))
    if out is not None:
        with out as file:
            file.write(msgspec.json.format(msgspec.json.encode(report(result)), indent=1) + b"\n")
    for line in lines(result):
        click.echo(escape_line(line), err=path is not None and str(path) == "-")
    if not result.good:
        raise SystemExit(1)
    if result.interrupted:
        raise SystemExit(SIGNALLED)


def escape_line(text: str) -> str:
    """Make what a server said safe for a terminal, and keep our own line ends."""
    return "\n".join(map(escape, text.split("\n")))


def _open(path: Path | None) -> Any:
    """Open the file before the run: to find out afterwards would cost the result."""
    if path is None:
        return None
    try:
        return click.open_file(str(path), "wb")
    except OSError as error:
        raise Failed(f"cannot write {path}: {error.strerror}") from None


def _check(settings: Settings) -> None:
    parts = urlsplit(settings.url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise click.BadParameter(not_a_url(settings.url), param_hint="URL")
    trusting(settings.url, settings.ca)
    try:
        check_channel(f"{settings.channel}-00000000-{settings.channels}")
    except BadData as error:
        raise click.BadParameter(str(error), param_hint="--channel") from None
    if not settings.connections and not settings.publishers:
        raise click.UsageError("nothing to do: give --connections or --publishers")
    if settings.connections and settings.channels > PER_CONNECTION * settings.connections:
        raise click.UsageError(
            f"{settings.channels} channels would be more than {PER_CONNECTION} a connection: "
            "lower --channels, or raise --connections"
        )


def _allow_files(needed: int) -> None:
    """Raise the limit of open files as far as this process may.

    Raises:
        Failed: that is not enough.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return
    if hard != unlimited and hard < needed:
        raise Failed(
            f"so many connections need {needed} open files, and this process may open {hard}: "
            "use fewer, or raise the hard limit (ulimit -Hn, or nofile in "
            "/etc/security/limits.conf)"
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (OSError, ValueError) as error:
        raise Failed(
            f"so many connections need {needed} open files, and this process may open {soft}; "
            f"raising that failed: {error}. Try: ulimit -n {needed}"
        ) from None


async def _bench(settings: Settings) -> Result:
    one = Bench(settings)

    def on_signal() -> None:
        if one.stop.called:
            one.hasten()
        else:
            say("interrupted: waiting for what is on its way; a second signal hastens it")
        one.stop()

    with signals(on_signal), _progress(one) as connected:
        return await one.run(connected)


@contextmanager
def _progress(one: Bench) -> Iterator[Callable[[], None]]:
    """Show on a terminal how far it is; without one a line must do."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda: say(f"{one.result.connected} connected; loading")
        return
    from .bench_progress import show

    with show(one) as connected:
        yield connected


__all__ = ["bench"]
