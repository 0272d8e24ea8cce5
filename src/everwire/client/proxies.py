"""Which proxy to go through, if any. Pure but for the environment, where that is asked for."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from ..errors import ConfigError
from ..net.transport import public_url

ENVIRONMENT = "environment"
SCHEMES = ("http", "https", "socks4", "socks5")
_VARIABLES = {"ws": ("ws", "all", "http"), "wss": ("wss", "all", "https", "http")}


def checked_proxy(proxy: str | None) -> str | None:
    """Return what an application gave as ``proxy=``.

    Raises:
        ConfigError: no proxy can be meant by it.
    """
    if proxy is None or proxy == ENVIRONMENT:
        return proxy
    parts = urlsplit(str(proxy))
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ConfigError(
            f"{public_url(str(proxy))!r} is no proxy: {', '.join(SCHEMES)}://host:port, or "
            f"{ENVIRONMENT!r} for what the environment says"
        )
    return proxy


def proxy_for(url: str, proxy: str | None) -> str | None:
    """Return the proxy for ``url``: an explicit one, or as the environment has it.

    Of the environment ``ws_proxy`` or ``wss_proxy`` goes first, then ``all_proxy``, then
    ``https_proxy`` and ``http_proxy``, in either case; ``no_proxy`` is honoured.

    Raises:
        ConfigError: the environment names something that is no proxy.
    """
    if proxy != ENVIRONMENT:
        return proxy
    parts = urlsplit(url)
    found = getproxies_environment()
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], found):
        return None
    for name in _VARIABLES.get(parts.scheme, ()):
        if chosen := found.get(name):
            return checked_proxy(chosen if "://" in chosen else f"http://{chosen}")
    return None
