"""Pages: which may connect, and which may use the cookies that their browser sends along.

A browser opens WebSockets for any page, and sends the cookies of the host along; only its
``Origin`` (RFC 6454) tells whose page it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping

from ...errors import ConfigError

_ORIGIN = re.compile(
    r"(?!wss?:)([A-Za-z][A-Za-z0-9+.\-]*)://([^\s/?#@*:\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?"
)

NOT_WHO = frozenset(
    {
        "accept-language", "forwarded", "host", "origin", "sec-websocket-protocol", "traceparent",
        "user-agent", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id",
    }
)  # fmt: skip
"""headers that say nothing of who somebody is. Of others nobody knows: browsers send signs of an
earlier sign-in along for any page (``Cookie``, ``Authorization``, a certificate), and a proxy may
have put a name in their place"""


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def normal_origin(origin: str) -> str:
    """Scheme and host in lower case, without the scheme's own port."""
    scheme, _, rest = origin.strip().lower().partition("://")
    port = {"https": ":443", "http": ":80"}.get(scheme)
    return f"{scheme}://{rest.removesuffix(port) if port else rest}"


def read_origin(text: str) -> str:
    """Read an origin of the configuration as browsers send it.

    Raises:
        ConfigError: no browser sends it, so nobody could connect.
    """
    found = _ORIGIN.fullmatch(text.strip())
    try:
        if found is not None:
            host = found[2].encode("idna").decode() if not found[2].isascii() else found[2]
            return normal_origin(f"{found[1]}://{host}{found[3] or ''}")
    except UnicodeError:
        pass
    if text == "null":  # pages without an origin, as files
        return normal_origin(text)
    raise ConfigError(
        f"not an origin: {text!r}; write the page's scheme and host, as https://example.org, "
        "without a path; there are no patterns"
    )


def may_use_cookies(
    headers: Mapping[str, str], origins: Collection[str] | None = None, *, secure: bool = False
) -> bool:
    """Tell whether a request comes from a page that may act with its browser's cookies.

    That is a page of the host itself, or of ``origins``. Pages without an origin
    (``null``) may be anybody's, and never may; neither may who does not say.

    Args:
        headers: of the handshake, names in lower case.
        origins: pages that may connect (:func:`read_origin`), beside those of the host.
        secure: the host is served over TLS: its own pages are https.
    """
    found = normal_origin(headers.get("origin", ""))
    scheme, _, host = found.partition("://")
    if not host:
        return False
    if origins and found in origins:
        return True
    if scheme not in (("https",) if secure else ("https", "http")):
        return False
    return found == normal_origin(f"{scheme}://{headers.get('host', '')}")
