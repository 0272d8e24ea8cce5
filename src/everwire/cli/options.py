"""The options that ``demo`` and ``serve`` share, and what of them works today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ..server.native.tls import Tls
from .logs import FORMATS, LEVELS

# Announced by the options' names, and refused until they exist: nobody shall believe
# that two workers share a channel when each keeps its own.
_LATER = ("sqlite", "redis", "rediss", "redis+sentinel", "redis+cluster", "nats")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where and how a server runs."""

    host: str
    port: int
    http_port: int | None
    http_host: str
    api_key: tuple[str, ...]
    broker: str
    workers: int
    log_format: str
    log_level: str
    tls_cert: str | None
    tls_key: str | None
    unix: str | None
    origin: tuple[str, ...]
    proxy_protocol: bool
    trusted_proxy: tuple[str, ...]
    compression: bool

    def listen_settings(self) -> dict[str, Any]:
        """What :meth:`everwire.Everwire.listen` is given beside the address."""
        if self.tls_key is not None and self.tls_cert is None:
            raise click.UsageError("--tls-key needs --tls-cert")
        return {
            "tls": Tls(self.tls_cert, self.tls_key) if self.tls_cert is not None else None,
            "unix": self.unix,
            "origins": self.origin or None,
            "proxy_protocol": self.proxy_protocol,
            "trusted_proxies": self.trusted_proxy,
            "compression": self.compression,
        }


def _one_worker(_context: click.Context, _option: click.Parameter, value: int) -> int:
    if value != 1:
        raise click.BadParameter(
            f"{value} workers would need a broker that they share, and none is built yet; "
            "one worker works today."
        )
    return value


def _memory_broker(_context: click.Context, _option: click.Parameter, value: str) -> str:
    scheme, separator, _ = value.partition("://")
    if value == "auto" or (separator and scheme == "memory"):
        return value
    if separator and scheme in _LATER:
        raise click.BadParameter(
            f"the broker {scheme}:// is not built yet; memory:// works today (also as auto)."
        )
    raise click.BadParameter(f"there is no broker {value!r}; memory:// works today (also as auto).")


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as ``options: ServerOptions``."""

    def with_options(*args: Any, **values: Any) -> Any:
        names = ServerOptions.__dataclass_fields__
        options = ServerOptions(**{name: values.pop(name) for name in names})
        return command(*args, options=options, **values)

    with_options.__name__ = command.__name__
    with_options.__doc__ = command.__doc__
    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options


def _option(name: str, **settings: Any) -> Callable[..., Any]:
    variable = "EVERWIRE_" + name.removeprefix("--").upper().replace("-", "_")
    return click.option(name, envvar=variable, show_envvar=True, show_default=True, **settings)


_PORT = click.IntRange(0, 65_535)
_FILE = click.Path(exists=True, dir_okay=False, readable=True)
_OPTIONS = [
    _option("--host", default="127.0.0.1", help="Address to listen on."),
    _option("--port", default=8000, type=_PORT, help="Port to listen on; 0 picks a free one."),
    _option(
        "--http-port",
        type=_PORT,
        help="Port of the HTTP API, metrics and health; 0: off. [default: --port + 1, of serve]",
    ),
    _option("--http-host", default="127.0.0.1", help="Address to listen on for HTTP."),
    _option(
        "--api-key",
        multiple=True,
        help="Who sends it may use the HTTP API; may be repeated. Others can read the command "
        "line: better the variable (several keys with spaces between). Without any, the API is off.",
    ),
    _option(
        "--broker",
        default="auto",
        callback=_memory_broker,
        help="Where channels live. Today memory://, which is also what auto means.",
    ),
    _option(
        "--workers",
        default=1,
        type=click.IntRange(1),
        callback=_one_worker,
        help="Processes. (More than one: not built yet.)",
    ),
    _option(
        "--log-format",
        default="text",
        type=click.Choice(FORMATS),
        help="What log lines on stderr look like.",
    ),
    _option("--log-level", default="info", type=click.Choice(LEVELS), help="The least to log."),
    _option(
        "--tls-cert",
        type=_FILE,
        help="Serve wss:// with this certificate (PEM). SIGHUP reads it again.",
    ),
    _option("--tls-key", type=_FILE, help="Its key, if that is not in the same file."),
    _option("--unix", type=click.Path(), help="Listen on this Unix socket, too."),
    _option(
        "--origin",
        multiple=True,
        help="A page that may connect, as https://example.org; may be repeated. "
        "Without any, every page may. Programs are not concerned.",
    ),
    _option(
        "--proxy-protocol",
        is_flag=True,
        help="Every connection begins with a PROXY header (HAProxy: send-proxy).",
    ),
    _option(
        "--trusted-proxy",
        multiple=True,
        help="An address or network whose X-Forwarded-For is believed; may be repeated. "
        "With any, that of the Unix socket is believed, too.",
    ),
    _option(
        "--compression",
        is_flag=True,
        help="Agree to permessage-deflate where a client offers it.",
    ),
]
