"""Run an application until a signal ends it."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import traceback
from types import ModuleType

import click

from ..errors import ConfigError
from ..net.websocket import keep_large_apart
from ..server.app import Everwire
from ..server.running import Server
from . import logs
from .http_port import http_beside
from .options import ServerOptions, server_options
from .running import Failed, run, signals, spare_the_collector

logger = logging.getLogger("everwire.cli")


@click.command(
    epilog="Examples:\n\n"
    "\b\n"
    "  everwire serve chat:wire\n"
    "  everwire serve chat --host 0.0.0.0 --port 8080 --log-format json\n"
    "  EVERWIRE_PORT=0 everwire serve chat:wire\n"
)
@click.argument("target")
@click.option(
    "--allow-anonymous",
    is_flag=True,
    envvar="EVERWIRE_ALLOW_ANONYMOUS",
    show_envvar=True,
    help="Run even if nothing authenticates clients.",
)
@server_options
def serve(target: str, allow_anonymous: bool, *, options: ServerOptions) -> None:
    """Run the application TARGET, written MODULE:APP.

    MODULE is importable from the current directory; without :APP its attribute "wire"
    is taken. When the server is up, one line on stdout says where. SIGTERM or SIGINT
    drains it: clients are told to reconnect elsewhere, what was begun is finished, the
    exit status is 0. A second signal hastens the end.
    """
    wire = load(target)
    if not (wire.has_authenticator or wire.allow_anonymous or allow_anonymous):
        raise click.UsageError(
            f"{target} has no authenticate handler, so everybody could connect. Add one "
            "(@wire.authenticate), or write Everwire(allow_anonymous=True), or run with "
            "--allow-anonymous."
        )
    run_server(wire, options)


def load(target: str) -> Everwire:
    """Import what ``target`` names.

    Raises:
        click.ClickException: it names no application; the text says what is wrong.
    """
    name, _, path = target.partition(":")
    path = path or "wire"
    sys.path.insert(0, os.getcwd())
    module = _import(name)
    found: object = module
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise click.UsageError(f"module {name!r} has no {path!r}; write MODULE:APP")
        found = getattr(found, attribute)
    if not isinstance(found, Everwire):
        hint = (
            f" Serve it with: uvicorn {name}:{path}"
            if callable(found) and hasattr(found, "router")
            else ""
        )
        raise click.UsageError(
            f"{name}:{path} is of type {type(found).__name__}, not an Everwire.{hint}"
        )
    return found


def _import(name: str) -> ModuleType:
    if name.endswith(".py"):
        raise click.UsageError(f"write the module's name, {name.removesuffix('.py')}, without .py")
    if not all(part.isidentifier() for part in name.split(".")):
        raise click.UsageError(f"{name!r} is no module's name; write MODULE:APP, as chat:wire")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (error.name == name or name.startswith(f"{error.name}.")):
            raise click.UsageError(
                f"there is no module {name!r} in the current directory or installed"
            ) from None
        raise _broken(name, error) from error
    except Exception as error:  # whatever the module's code raises is its author's to see
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> Failed:
    traceback.print_exception(error)
    return Failed(f"{name} cannot be imported: {type(error).__name__}: {error}")


def run_server(wire: Everwire, options: ServerOptions, page: bytes | None = None) -> None:
    """Serve ``wire``, and a page if there is one, until SIGTERM or SIGINT."""
    if options.broker != "auto":
        wire._broker = options.broker  # noqa: SLF001
    keep_large_apart()
    logs.configure(options.log_format, options.log_level)
    run(_serve(wire, options, page))


async def _serve(wire: Everwire, options: ServerOptions, page: bytes | None) -> None:
    host, port, settings = options.host, options.port, options.listen_settings()
    stop, hasten = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hasten if stop.is_set() else stop).set()

    with signals(on_signal):
        try:
            async with (
                wire.listen(host, port, page=page, **settings) as server,
                http_beside(wire, options, by_default=page is None),
            ):
                if settings["tls"] is not None:
                    loop = asyncio.get_running_loop()
                    loop.add_signal_handler(signal.SIGHUP, _reload, server)
                spare_the_collector()
                _announce(
                    host, server.port, secure=settings["tls"] is not None, page=page is not None
                )
                await stop.wait()
                logger.info("draining; a second signal hastens it")
                await server.drain(hasten=hasten)
        except ConfigError as error:
            raise Failed(str(error)) from None


def _reload(server: Server) -> None:
    try:
        server.reload_tls()
    except ConfigError as error:
        logger.warning("%s; the certificate in use stays", error)
    else:
        logger.info("the certificate was read again")


def _announce(host: str, port: int, *, secure: bool, page: bool) -> None:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    s = "s" if secure else ""
    try:
        also = f"  page: http{s}://{where}/" if page else ""
        print(f"everwire: ws{s}://{where}/ws{also}", flush=True)
    except OSError:
        # Nobody reads it; then nothing may try to flush it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
