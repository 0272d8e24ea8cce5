"""Who is really there, behind load balancers: the PROXY protocol and X-Forwarded-For.

Neither is believed of anybody: the first only on a listener that was told to expect it
(everybody must send it then), the second only from addresses that are trusted.
The PROXY protocol is HAProxy's, versions 1 and 2 (proxy-protocol.txt, 2020).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from ...errors import ConfigError

Network = IPv4Network | IPv6Network

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_MAX = 107  # bytes of a version 1 header with its end of line
_V2_MAX = 16 + 2048  # bytes of a version 2 header that we read, with its extensions


class NotProxied(ValueError):
    """The connection does not begin with a PROXY header."""


def parse_proxy_header(data: bytes) -> tuple[str | None, int] | None:
    """Read a PROXY header at the beginning of a connection.

    Returns:
        The client's ``address:port`` (None if the proxy speaks for itself), and the
        length of the header; or None if more bytes are needed.

    Raises:
        NotProxied: there is none, or it is malformed.
    """
    if data[:12] == _SIGNATURE:
        return _version_2(data)
    if data[:5] == b"PROXY":
        return _version_1(data)
    if len(data) < 12 and (_SIGNATURE.startswith(data) or b"PROXY".startswith(data[:5])):
        return None
    raise NotProxied("no PROXY header")


def _version_1(data: bytes) -> tuple[str | None, int] | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise NotProxied("a PROXY header of version 1 that does not end")
        return None
    parts = data[:end].decode("latin-1").split(" ")
    if parts[1:2] == ["UNKNOWN"]:
        return None, end + 2
    if len(parts) != 6 or parts[1] not in ("TCP4", "TCP6"):
        raise NotProxied("a malformed PROXY header")
    return _address(parts[2], parts[4]), end + 2


def _version_2(data: bytes) -> tuple[str | None, int] | None:
    if len(data) < 16:
        return None
    size = 16 + int.from_bytes(data[14:16], "big")
    if data[12] >> 4 != 2 or data[12] & 0x0F > 1 or size > _V2_MAX:
        raise NotProxied("a malformed PROXY header")
    if len(data) < size:
        return None
    family = data[13] >> 4
    if data[12] & 0x0F == 0 or family not in (1, 2):  # LOCAL, or no address of ours
        return None, size
    width = 4 if family == 1 else 16
    if size < 16 + 2 * width + 4:
        raise NotProxied("a malformed PROXY header")
    kind = socket.AF_INET if family == 1 else socket.AF_INET6
    address = socket.inet_ntop(kind, data[16 : 16 + width])
    port = int.from_bytes(data[16 + 2 * width : 18 + 2 * width], "big")
    return _address(address, str(port)), size


def _address(host: str, port: str) -> str:
    try:
        ipaddress.ip_address(host)
        if not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError
    except ValueError:
        raise NotProxied("a PROXY header with an address that is none") from None
    return f"{host}:{port}"


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read addresses and networks: ``10.0.0.0/8``, ``::1``.

    Raises:
        ConfigError: one of them is neither.
    """
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise ConfigError(f"not an address or a network: {error}") from None


def client_address(remote: str, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """The client's address, as far as it can be believed.

    Walks ``X-Forwarded-For`` from its end, over trusted proxies, to the first address
    that is not one of them; what stands before that may be anybody's invention.
    """
    forwarded = headers.get("x-forwarded-for")
    if not trusted or not forwarded or not _is_trusted(_host(remote), trusted):
        return remote
    for hop in reversed([part.strip() for part in forwarded.split(",")]):
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            return remote
        remote = f"{hop}:0"
        if not _is_trusted(hop, trusted):
            break
    return remote


def _host(remote: str) -> str:
    return remote.rpartition(":")[0]


def _is_trusted(host: str, trusted: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "unix"
    return any(address in network for network in trusted)
