"""A socket that is held a moment longer, so that the peer reads our last word."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from picows import WSTransport

LINGER = 1.0  # seconds that a socket is held after its peer broke the rules
FLUSHED = 0.05  # seconds after which what was written is with the kernel
MAX_LINGERING = 256  # sockets held so at a time


class _Held(socket.socket):
    """A copy of a link's socket; closed with whoever holds it, which is the event loop."""

    def __del__(self) -> None:
        self.close()  # the loop ended before its time: an end as good as any


_lingering: WeakSet[_Held] = WeakSet()


def linger(picows: WSTransport) -> None:
    """Keep a connection that is about to be closed from being reset.

    Closing a socket that has unread bytes resets the connection, and the peer may lose
    our close frame with what it had not read yet. So the socket is held a moment longer.
    """
    if len(_lingering) >= MAX_LINGERING:
        return
    try:
        number = picows.underlying_transport.get_extra_info("socket").fileno()
        held = _Held(fileno=os.dup(number))
    except OSError:
        return
    loop = asyncio.get_running_loop()
    _lingering.add(held)
    loop.call_later(FLUSHED, _finish_writing, held)
    loop.call_later(LINGER, _let_go, held)


def _finish_writing(held: _Held) -> None:
    with suppress(OSError):
        held.shutdown(socket.SHUT_WR)


def _let_go(held: _Held) -> None:
    _lingering.discard(held)
    held.close()
