"""WebSockets over picows: the only package that imports it.

picows parses and masks frames. What it leaves to its user is here: reassembly with
limits on bytes and on fragments, UTF-8, reserved bits, pings, and the closing handshake
(RFC 6455 sections 5.4, 5.5, 7 and 8.1).
"""

from __future__ import annotations

from .client import PicowsNetwork
from .endpoint import SOCKET_BUFFER, WebSocket
from .pages import TRIM_EVERY, Trimmer, keep_large_apart
from .server import accept_upgrade

__all__ = [
    "SOCKET_BUFFER",
    "TRIM_EVERY",
    "PicowsNetwork",
    "Trimmer",
    "WebSocket",
    "accept_upgrade",
    "keep_large_apart",
]
