"""A server to play with: everybody may do everything."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import click

from ..server.app import Everwire
from ..server.connection import Connection
from ..server.rules import Grant, Identity
from .options import ServerOptions, server_options


def make_demo(broker: str = "auto") -> Everwire:
    """Make an application without rules.

    Any ``auth`` is accepted: the user is called as the token, or as ``credentials.user``
    says. Every channel may be subscribed to and published to by everybody. The query and
    the command ``echo`` answer with their parameters; the query ``time`` answers with the
    server's time as ISO 8601 text (UTC, milliseconds).
    """
    wire = Everwire(broker=broker, allow_anonymous=True)
    wire.channel("{name:path}", presence=True, grant=Grant(publish=True))

    @wire.authenticate
    async def anyone(token: str | None = None, credentials: Any = None) -> Identity:
        user = credentials.get("user") if isinstance(credentials, dict) else None
        return Identity(token or (user if isinstance(user, str) else ""))

    @wire.command
    @wire.query
    async def echo(conn: Connection, payload: Any) -> Any:
        return payload

    @wire.query
    async def time(conn: Connection) -> str:
        return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    return wire


def is_loopback(host: str) -> bool:
    """Tell whether only programs of this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@click.command(
    epilog="Try it: open the page that it prints, or in two more terminals:\n\n"
    "\b\n"
    "  everwire sub ws://127.0.0.1:8000/ws chat:lobby\n"
    '  everwire pub ws://127.0.0.1:8000/ws chat:lobby \'{"text": "hello"}\'\n'
)
@server_options
def demo(*, options: ServerOptions) -> None:
    """Run a server to play with: everybody may do everything.

    It accepts any token (which becomes the user's name), lets everybody publish to
    every channel, and answers the query and the command "echo" with their parameters
    and the query "time" with its time (ISO 8601, UTC). Only this machine can reach it.
    """
    from .serve import run_server

    if not is_loopback(options.host):
        raise click.BadParameter(
            f"the demo has no rules at all, so it listens on loopback only, not on "
            f"{options.host!r}. For others to connect, write an application with an "
            "authenticate handler and run it with: everwire serve MODULE:APP",
            param_hint="--host",
        )
    page = files("everwire").joinpath("web/index.html").read_bytes()
    run_server(make_demo(options.broker), options, page)
