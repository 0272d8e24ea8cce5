"""Sign a token with a secret: to try things out, and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from ..errors import ConfigError
from ..server.identity.jwt import JWT
from ..server.identity.keys import SECRETS
from .running import Failed

RESERVED = frozenset({"sub", "iat", "exp", "channel"})


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r}: write NAME=VALUE", param_hint="--claim")
    if name in RESERVED:
        raise click.BadParameter(
            f"{name} is made of USER, --channel and --expires-in", param_hint="--claim"
        )
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


@click.command(
    short_help="Sign a token for USER.",
    epilog="Examples:\n\n"
    "\b\n"
    "  everwire token ada --secret-file jwt.secret\n"
    "  everwire token ada --channel private:7 --claim publish=true --expires-in 60\n"
    "  everwire sub ws://127.0.0.1:8000/ws chat:lobby --token $(everwire token ada)\n",
)
@click.argument("user")
@click.option(
    "--channel",
    help="Make it the token of this channel, as sub --channel-token takes it: beside that of "
    "the connection, not instead of it.",
)
@click.option(
    "--expires-in",
    type=click.FloatRange(0, min_open=True),
    default=3600.0,
    show_default=True,
    help="Seconds that it is good for.",
)
@click.option(
    "--claim",
    "claims",
    multiple=True,
    help="One more claim, NAME=VALUE; JSON or text. A server that wants an issuer and an audience "
    "wants iss=… and aud=….",
)
@click.option("--algorithm", type=click.Choice(tuple(SECRETS)), default="HS256", show_default=True)
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="The file of the secret; white space around it is no part of it.",
)
@click.option("--secret", envvar="EVERWIRE_SECRET", hidden=True)
def token(
    user: str,
    channel: str | None,
    expires_in: float,
    claims: tuple[str, ...],
    algorithm: str,
    secret_file: Path | None,
    secret: str | None,
) -> None:
    """Sign a token for USER with the secret of --secret-file or $EVERWIRE_SECRET."""
    found = secret_file.read_text(encoding="utf-8").strip() if secret_file is not None else secret
    if not found:
        raise click.UsageError("no secret: use --secret-file, or the variable EVERWIRE_SECRET")
    try:
        jwt = JWT(found, algorithms=[algorithm])
    except ConfigError as error:
        raise Failed(str(error)) from None
    more = dict(map(_claim, claims))
    click.echo(jwt.issue(user, expires_in=expires_in, channel=channel, **more))
