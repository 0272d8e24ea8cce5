"""What ``sub``, ``pub`` and ``bench`` share: the options of a client, and its troubles in plain words."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from ..client import Client, ConnectionState, connect
from ..errors import ConfigError, ConnectionClosed, EverwireError, Unauthorized
from .running import Failed, say

F = TypeVar("F", bound=Callable[..., Any])

DIALECTS = ("msgpack", "json", "plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """As whom to connect, and how."""

    token: str | None = field(repr=False)
    dialect: str
    ca: str | None


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--token``, ``--ca`` and ``--dialect``; the command gets them as ``link``."""

    def with_options(*args: Any, **values: Any) -> Any:
        names = LinkOptions.__dataclass_fields__
        return command(*args, link=LinkOptions(**{n: values.pop(n) for n in names}), **values)

    with_options.__name__ = command.__name__
    with_options.__doc__ = command.__doc__
    dialect = dialect_option(
        DIALECTS,
        "What to speak. plain: JSON without positions and acknowledgements, for "
        "servers that know no other.",
    )
    return token_option(ca_option(dialect(with_options)))


def dialect_option(names: Sequence[str], text: str) -> Callable[[F], F]:
    """Add ``--dialect``, for a command that speaks ``names``."""
    return click.option(
        "--dialect",
        type=click.Choice(names),
        default="msgpack",
        show_default=True,
        envvar="EVERWIRE_DIALECT",
        show_envvar=True,
        help=text,
    )


def token_option(command: F) -> F:
    """Add ``--token``."""
    return click.option(
        "--token",
        envvar="EVERWIRE_TOKEN",
        show_envvar=True,
        help="Proves who you are. Others on this machine can read a command line, not "
        "the variable.",
    )(command)


def ca_option(command: F) -> F:
    """Add ``--ca``."""
    return click.option(
        "--ca",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, readable=True),
        help="Trust the certificates of this file (PEM) and no others, with wss://.",
    )(command)


def trusting(url: str, ca: str | None) -> ssl.SSLContext | None:
    """Return what ``--ca`` stands for; None for what the system trusts.

    Raises:
        click.BadParameter: there is nothing to trust.
    """
    if ca is None:
        return None
    if urlsplit(url).scheme != "wss":
        raise click.BadParameter("only wss:// has certificates.", param_hint="--ca")
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # SSLError is one
        why = f"{ca} has no certificates in PEM: {error.strerror or error}"
        raise click.BadParameter(why, param_hint="--ca") from None


@asynccontextmanager
async def link_to(url: str, link: LinkOptions, *, patience: float = 30.0) -> AsyncIterator[Client]:
    """Connect, tell on stderr what becomes of the link, and turn errors into one line.

    ``patience`` is for how many seconds the first connection is tried.

    Raises:
        click.UsageError: the URL or an option cannot be used.
        Failed: no connection, refused, or ended for good.
    """
    _tell_what_the_client_logs()
    try:
        client = connect(
            url,
            token=link.token,
            dialect=link.dialect,
            ssl=trusting(url, link.ca),
            timeout=patience,
        )
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="URL") from None
    client.on_state = _tell_state
    try:
        async with client:
            yield client
    except (EverwireError, OSError, BaseExceptionGroup) as error:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if not isinstance(first, EverwireError | OSError):
            raise
        raise Failed(explain(url, first)) from None


def explain(url: str, error: BaseException) -> str:
    """Say in one line what went wrong with ``url``."""
    if isinstance(error, ConnectionClosed):
        return f"{url}: {error}"
    if isinstance(untrusted := error.__cause__, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted: {untrusted.verify_message}"
        return f"{url}: {why}; --ca FILE trusts those of a file"
    if isinstance(error, Unauthorized):
        return f"{error}; the token is that of --token, or of EVERWIRE_TOKEN"
    if isinstance(error, OSError) and not isinstance(error, EverwireError):
        return f"cannot connect to {url}: {error.strerror or error}; is the server running?"
    return str(error)


def _tell_state(state: ConnectionState) -> None:
    if state is ConnectionState.READY:
        say("connected")
    elif state is ConnectionState.DRAINING:
        say("the server is shutting down")


class _Status(logging.Handler):
    """Shows what the client has to say: why a link was lost, when it tries again."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def _tell_what_the_client_logs() -> None:
    logger = logging.getLogger("everwire.client")
    logger.handlers[:] = [_Status()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
