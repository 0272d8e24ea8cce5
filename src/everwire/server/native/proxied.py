"""Who is really there, behind load balancers: the PROXY protocol and X-Forwarded-For.

Neither is believed of anybody: the first only on a listener that was told to expect it
(everybody must send it then), the second only from addresses that are trusted.
The PROXY protocol is HAProxy's, versions 1 and 2 (proxy-protocol.txt, 2020).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from ...errors import ConfigError

Network = IPv4Network | IPv6Network
UNIX = "unix"
"""the address of whoever comes over a Unix socket"""

_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
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


async def receive_proxy_header(sock: socket.socket) -> str | None:
    """Take the PROXY header off a fresh connection, and no byte of what is behind it.

    What is behind it may be TLS, which reads the socket itself. Cancelling leaves the
    connection without a part of its header: it must be closed.

    Returns:
        The client's ``address:port``; None if the proxy speaks for itself.

    Raises:
        NotProxied: there is none, it is malformed, or the connection ended.
        OSError: the connection is gone.
    """
    loop = asyncio.get_running_loop()
    data = b""
    while (found := parse_proxy_header(data)) is None:
        piece = await loop.sock_recv(sock, _missing(data))
        if not piece:
            raise NotProxied("it ended before its PROXY header did")
        data += piece
    return found[0]


def _missing(data: bytes) -> int:
    """Bytes that certainly belong to the header that begins with ``data``."""
    if len(data) < 12:
        return 12 - len(data)  # both versions are longer
    if data[:12] != _SIGNATURE:
        return 1
    return (16 if len(data) < 16 else _size(data)) - len(data)


def _size(data: bytes) -> int:
    return 16 + int.from_bytes(data[14:16], "big")


def _version_1(data: bytes) -> tuple[str | None, int] | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise NotProxied("a PROXY header of version 1 that does not end")
        return None
    parts = data[:end].decode("latin-1").split(" ")
    if parts[:2] == ["PROXY", "UNKNOWN"]:
        return None, end + 2
    family = {"TCP4": 4, "TCP6": 6}.get(parts[1]) if len(parts) == 6 else None
    if parts[0] != "PROXY" or family is None:
        raise NotProxied("a malformed PROXY header")
    _address(parts[3], parts[5], family)
    return _address(parts[2], parts[4], family), end + 2


def _version_2(data: bytes) -> tuple[str | None, int] | None:
    if len(data) < 16:
        return None
    size = _size(data)
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
    return f"{address}:{port}", size


def _address(host: str, port: str, version: int) -> str:
    try:
        # A scope, as in fe80::1%eth0, may be any text; nobody far away has one.
        if "%" in host or ipaddress.ip_address(host).version != version:
            raise ValueError
        if not (_PORT.fullmatch(port) and int(port) < 65536):
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
    that is not one of them; what stands before that may be anybody's invention. Where
    any proxy is trusted, so is whoever may connect to the Unix socket.
    """
    forwarded = headers.get("x-forwarded-for")
    if not trusted or not forwarded:
        return remote
    if remote != UNIX and not _is_trusted(_host(remote), trusted):
        return remote
    for hop in reversed(forwarded.split(",")):
        try:
            host = _forwarded(hop.strip())
        except ValueError:
            return remote
        remote = f"{host}:0"
        if not _is_trusted(host, trusted):
            break
    return remote


def _forwarded(hop: str) -> str:
    """An address as proxies write it: some add the port, some mean IPv4 with ``::ffff:``.

    Raises:
        ValueError: it is none.
    """
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    if "%" in hop:
        raise ValueError
    address = ipaddress.ip_address(hop)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return hop


def _host(remote: str) -> str:
    return remote.rpartition(":")[0]


def _is_trusted(host: str, trusted: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in trusted)
