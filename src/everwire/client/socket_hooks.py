"""What an application is told of a :class:`~everwire.Socket`, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConnectionClosed
from ..protocol.states import ConnectionState
from .stats import Traffic


class Hooks:
    """What an application is told, as it happens. Each is a plain function, or None.

    They are called from the event loop and hold it up: for more than a few lines, start a
    task. What they raise is logged. Any method of the socket may be called from them.

    Attributes:
        on_open: a connection is open. What it sends goes out on this connection, ahead of
            all that waits, or not at all: the place to subscribe anew.
        on_message: a message came (text or bytes). With it, none goes to ``recv`` and
            iteration.
        on_close: a connection was lost, with :exc:`ConnectionClosed`.
        on_error: an attempt to connect failed, with the error.
        on_drop: a message will not be sent, with the error that says why.
        on_state: the state changed.
    """

    on_open: Callable[[], None] | None = None
    on_message: Callable[[str | bytes], None] | None = None
    on_close: Callable[[ConnectionClosed], None] | None = None
    on_error: Callable[[Exception], None] | None = None
    on_drop: Callable[[str | bytes, Exception], None] | None = None
    on_state: Callable[[ConnectionState], None] | None = None


@dataclass(slots=True)
class SocketStats(Traffic):
    """What a socket has done since it began; see also :class:`~.stats.Traffic`.

    Attributes:
        sent: messages that have left.
        received: messages that came, answers to pings not counted.
        dropped: messages that were not sent: for want of room, or of a connection in time.
        repeated: messages written again because their link died before all of them had left.
        attempts: links that were tried.
        opened: links that opened; all but the first are reconnections.
    """

    sent: int = 0
    received: int = 0
    dropped: int = 0
    repeated: int = 0
    attempts: int = 0
    opened: int = 0
