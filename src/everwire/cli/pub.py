"""Publish lines, and say of each whether it was stored."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click
import msgspec

from ..errors import BadData
from ..protocol.channels import check_channel
from .lines import stdin_lines, stdin_size
from .linking import LinkOptions, client_options, link_to
from .running import Failed, Interrupt, run, say, signals
from .sending import Sender

Parse = Callable[[bytes], Any]


@click.command(
    short_help="Publish DATA, or each line of stdin, to CHANNEL.",
    epilog="Examples:\n\n"
    "\b\n"
    '  everwire pub ws://127.0.0.1:8000/ws chat:lobby \'{"text": "hello"}\'\n'
    "  seq 10000 | everwire pub ws://127.0.0.1:8000/ws numbers\n"
    "  tail -f access.log | everwire pub ws://127.0.0.1:8000/ws log --text\n",
)
@click.argument("url")
@click.argument("channel")
@click.argument("data", default="-")
@click.option("--text", is_flag=True, help="Every line is text, even if it is JSON.")
@click.option("--json", is_flag=True, help="Every line must be JSON.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds after which a line that is not acknowledged is given up; also for the "
    "first connection, at most 30.",
)
@client_options
def pub(
    url: str,
    channel: str,
    data: str,
    text: bool,
    json: bool,
    timeout: float,
    link: LinkOptions,
) -> None:
    """Publish DATA to CHANNEL; without it, or with -, each line of stdin.

    A line that is JSON is published as what it means, any other as text. The lines are
    stored in their order, each once, even if the connection or the server is lost on the
    way. The exit status is 0 if all were acknowledged; otherwise it is 1, and stderr tells
    which lines were not, and why. (The dialect plain has no acknowledgements: there 0
    means that all were sent.)
    """
    if text and json:
        raise click.UsageError("a line is either --text or --json")
    parse = _text if text else _json if json else _json_or_text
    if link.dialect != "plain":
        try:
            check_channel(channel)
        except BadData as error:
            raise click.BadParameter(str(error), param_hint="CHANNEL") from None
    if data == "-":
        lines = stdin_lines()
        if sys.stdin is not None and sys.stdin.isatty():
            say("reading lines from the terminal; Ctrl-D ends them")
    else:
        lines = _single(data, parse)
    run(_pub(url, channel, lines, parse, timeout, link))


def _single(data: str, parse: Parse) -> AsyncIterator[bytes]:
    line = os.fsencode(data)
    try:
        parse(line)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(str(error), param_hint="DATA") from None

    async def one() -> AsyncIterator[bytes]:
        yield line

    return one()


def _text(line: bytes) -> str:
    return line.decode()


def _json(line: bytes) -> Any:
    return msgspec.json.decode(line)


def _json_or_text(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return line.decode()


async def _pub(
    url: str,
    channel: str,
    lines: AsyncIterator[bytes],
    parse: Parse,
    timeout: float,  # noqa: ASYNC109 - of each line, not of this call
    link: LinkOptions,
) -> None:
    sender = Sender(channel, parse, timeout)
    reading, settling = Interrupt(), Interrupt()

    def on_signal() -> None:
        if reading.called:
            settling()
        else:
            say("interrupted: waiting for what was sent; a second signal hastens it")
        reading()

    with signals(on_signal):
        try:
            patience = min(timeout, 30.0)
            async with link_to(url, link, patience=patience) as client:
                with _progress(sender):
                    await reading.run(sender.send(client, lines))
                    await settling.run(sender.settled())
        finally:
            # Closing gave up what was left: now the fate of each line is known.
            if sender.begun:
                for told in sender.summary("sent" if link.dialect == "plain" else "acknowledged"):
                    say(told)
    if reading.called:
        raise Failed(f"interrupted after line {sender.read}; what follows was not sent")
    if sender.failures:
        raise SystemExit(1)


def _progress(sender: Sender) -> AbstractContextManager[object]:
    """A line on the terminal that tells how far it is; nothing without a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext()
    from .progress import show

    return show(sender, stdin_size())
