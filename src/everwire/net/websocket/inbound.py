"""What the kernel knows of a connection's bytes, also those of unfinished frames."""

from __future__ import annotations

import socket
import struct
from math import inf
from typing import Any

# tcpi_last_data_recv, in milliseconds, and tcpi_bytes_received
_TCP_INFO = struct.Struct("=52xI72xQ")
_ACKED = struct.Struct("=120xQ")  # tcpi_bytes_acked


def inbound(transport: Any) -> tuple[float, int]:
    """Seconds since a byte came in, and bytes so far; endless and none where unknown."""
    try:
        sock = transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        age, size = _TCP_INFO.unpack(info)
    except (AttributeError, OSError, struct.error):  # not Linux, or not TCP
        return inf, 0
    return age / 1000, size


def taken(transport: Any) -> int:
    """Bytes of ours that the peer's kernel has acknowledged; 0 where unknown."""
    try:
        sock = transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
        size: int = _ACKED.unpack(info)[0]
    except (AttributeError, OSError, struct.error):  # not Linux, or not TCP
        return 0
    return size
