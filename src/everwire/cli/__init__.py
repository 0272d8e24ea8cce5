"""The command ``everwire``."""

from __future__ import annotations

import os
from importlib import import_module

import click

from .. import __version__

__all__ = ["cli", "main"]

_COMMANDS = ("demo", "serve", "sub", "pub", "bench", "token")


class _Commands(click.Group):
    """Loads a command when it is used: ``sub`` needs no server, ``serve`` no client."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found = getattr(import_module(f".{cmd_name}", __name__), cmd_name)
        assert isinstance(found, click.Command)
        return found


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples, each in a terminal of its own:\n\n"
    "\b\n"
    "  everwire demo\n"
    "  everwire sub ws://127.0.0.1:8000/ws chat:lobby\n"
    "  seq 1000 | everwire pub ws://127.0.0.1:8000/ws chat:lobby\n"
    "  everwire bench ws://127.0.0.1:8000/ws\n"
    "\n"
    "Every option can also be set by the variable that its help names.\n",
)
@click.version_option(__version__, prog_name="everwire", message="%(prog)s %(version)s")
def cli() -> None:
    """Realtime messaging over WebSockets that survives drops and deploys."""


def main() -> None:
    """Run the command line; never returns."""
    _open_standard_files()
    cli(prog_name="everwire")


def _open_standard_files() -> None:
    """Have 0, 1 and 2 open, whatever the caller closed.

    Otherwise the next socket would get such a number, and be taken for stdout.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
