"""What ``sub``, ``pub`` and ``bench`` share: the options of a client, and its troubles in plain words."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

from ..client import Client, ConnectionState, connect
from ..errors import ConfigError, ConnectionClosed, EverwireError
from .running import Failed, say

F = TypeVar("F", bound=Callable[..., Any])

DIALECTS = ("msgpack", "json", "plain")


def client_options(command: F) -> F:
    """Add ``--token`` and ``--dialect``."""
    return token_option(
        dialect_option(
            DIALECTS,
            "What to speak. plain: JSON without positions and acknowledgements, for "
            "servers that know no other.",
        )(command)
    )


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


@asynccontextmanager
async def link_to(
    url: str, *, token: str | None, dialect: str, patience: float = 30.0
) -> AsyncIterator[Client]:
    """Connect, tell on stderr what becomes of the link, and turn errors into one line.

    ``patience`` is for how many seconds the first connection is tried.

    Raises:
        click.UsageError: the URL cannot be used.
        Failed: no connection, refused, or ended for good.
    """
    _tell_what_the_client_logs()
    try:
        client = connect(url, token=token, dialect=dialect, timeout=patience)
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
