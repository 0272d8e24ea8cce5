"""Print what comes in channels, one JSON object a line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from ..client import Gap, Message, Subscription
from ..protocol.messages import Position
from .linking import LinkOptions, client_options, link_to
from .output import Output, PositionFile, Positions
from .running import Failed, Interrupt, run, signals


@click.command(
    short_help="Print the messages of CHANNELs, as they come.",
    epilog="Examples:\n\n"
    "\b\n"
    "  everwire sub ws://127.0.0.1:8000/ws chat:lobby chat:staff\n"
    "  everwire sub ws://127.0.0.1:8000/ws chat:lobby --position lobby.json >> lobby.log\n"
    "  everwire sub ws://127.0.0.1:8000/ws chat:lobby --count 1 | jq .data\n",
)
@click.argument("url")
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option(
    "--position",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the channels' positions in this file, and go on from there. It is never "
    "ahead of what was printed; after a crash it may be up to 0.2 s behind, and the lines "
    "of that time come again, with the same ids.",
)
@click.option(
    "--since",
    multiple=True,
    metavar="LINE",
    help="Begin after a line that sub printed before (or any JSON object with channel, "
    "epoch, offset and id). For several channels: several times.",
)
@click.option(
    "--channel-token",
    "channel_tokens",
    multiple=True,
    metavar="[CHANNEL=]TOKEN",
    help="The token of a CHANNEL that wants one of its own, as everwire token --channel signs "
    "it. CHANNEL= may be left out if there is only one.",
)
@click.option("--count", type=click.IntRange(1), help="Stop after this many messages.")
@client_options
def sub(
    url: str,
    channels: tuple[str, ...],
    path: Path | None,
    since: tuple[str, ...],
    channel_tokens: tuple[str, ...],
    count: int | None,
    link: LinkOptions,
) -> None:
    """Print the messages of CHANNELs, as they come, one JSON object a line.

    A message: {"channel", "epoch", "offset", "id", "time", "data"}; time is in
    milliseconds since 1970. Bytes are base64, with "encoding": "base64". Where messages
    are missing that cannot be had any more: {"channel", "gap": reason, "epoch", "offset",
    "id"}. The dialect plain has neither positions nor times. Everything else goes to
    stderr. It reconnects and goes on from where it was until it is interrupted or the
    server refuses it.
    """
    if link.dialect == "plain" and (path or since):
        raise click.UsageError(
            "the dialect plain has no positions: --position and --since need another"
        )
    file = PositionFile(path) if path else None
    positions = dict(file.positions) if file else {}
    positions |= _parse_since(since, channels)
    tokens = _parse_tokens(channel_tokens, channels)
    run(_sub(url, channels, file, positions, tokens, count, link))


def _parse_tokens(values: tuple[str, ...], channels: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        channel, _, token = value.rpartition("=")
        if not channel and len(channels) == 1:
            channel = channels[0]
        if channel not in channels:
            raise click.BadParameter(
                "write CHANNEL=TOKEN, with one of the CHANNELs", param_hint="--channel-token"
            )
        found[channel] = token
    return found


def _parse_since(lines: tuple[str, ...], channels: tuple[str, ...]) -> Positions:
    found: Positions = {}
    for line in lines:
        try:
            position = msgspec.json.decode(line, type=Position)
            named = msgspec.json.decode(line, type=dict[str, Any]).get("channel")
        except msgspec.MsgspecError as error:
            raise click.BadParameter(f"not a line of sub: {error}", param_hint="--since") from None
        if named is None and len(channels) == 1:
            named = channels[0]
        if named not in channels:
            raise click.BadParameter(
                f"it is of channel {named!r}, which is not subscribed to", param_hint="--since"
            )
        found[named] = position
    return found


async def _sub(
    url: str,
    channels: tuple[str, ...],
    file: PositionFile | None,
    positions: Positions,
    tokens: dict[str, str],
    count: int | None,
    link: LinkOptions,
) -> None:
    interrupt = Interrupt()
    failures: list[OSError] = []

    def unprintable(error: OSError | None) -> None:
        if error is not None:
            failures.append(error)
        interrupt()

    with signals(interrupt):
        output = Output(file, unprintable)
        printer = _Printer(output, count, interrupt)

        async def work() -> None:
            async with link_to(url, link) as client:
                async with asyncio.TaskGroup() as group:
                    for channel in dict.fromkeys(channels):
                        items = client.subscribe(
                            channel, since=positions.get(channel), token=tokens.get(channel)
                        )
                        group.create_task(printer.follow(items, channel))

        try:
            await interrupt.run(work())
        finally:
            await output.close()
    if failures:
        raise Failed(f"cannot write: {failures[0]}")


class _Printer:
    """Prints until ``count`` messages were printed, over all channels."""

    def __init__(self, output: Output, count: int | None, done: Interrupt) -> None:
        self._output = output
        self._left = count
        self._done = done

    async def follow(self, subscription: Subscription, channel: str) -> None:
        """Print a channel. Cancelling stops between two lines."""
        async with subscription as items:
            # Whoever stops before the first message goes on from here, and misses nothing.
            self._output.reached(channel, items.position)
            async for item in items:
                if self._left is None or isinstance(item, Gap):
                    await self._output.line(_encode(item), channel, item.position)
                    continue
                if self._left == 0:
                    return
                self._left -= 1
                last = self._left == 0
                await self._output.line(_encode(item), channel, item.position)
                if last:
                    self._done()
                    return


def _encode(item: Message | Gap) -> bytes:
    line: dict[str, Any] = {"channel": item.channel}
    if isinstance(item, Gap):
        line["gap"] = item.reason
    if item.position is not None:
        line |= {
            "epoch": item.position.epoch,
            "offset": item.position.offset,
            "id": item.position.id,
        }
    if isinstance(item, Message):
        if item.time:
            line["time"] = round(item.time * 1000)
        line["data"] = item.data
        if isinstance(item.data, bytes):
            line["encoding"] = "base64"
    return msgspec.json.encode(line)
