"""What a session tells those who use its links."""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import ConnectionClosed
from ..protocol import messages as m
from ..protocol.states import ConnectionState as State
from .link import Link


class SessionOwner(Protocol):
    """Is told of links that come and go."""

    def link_message(self, link: Link, message: m.ChannelMessage, size: int) -> None:
        """A message of a channel came."""

    def link_pushed(self, link: Link, message: m.Message) -> None:
        """Something else came that answers no request."""

    def link_writable(self, link: Link) -> None:
        """More can be written."""

    def session_auth(self, link: Link, auth: m.Auth) -> None:
        """Fill in what goes out with ``auth``."""

    def session_ready(self, link: Link, payload: Any) -> None:
        """A link is ready; ``payload`` is what ``auth`` was answered with."""

    def session_failed(self, error: Exception) -> None:
        """There was no link, and an attempt came to nothing."""

    def session_lost(self, link: Link, error: ConnectionClosed) -> None:
        """The link is gone."""

    def session_retired(self, link: Link, error: ConnectionClosed) -> None:
        """The link that was moved away from is gone."""

    def session_held(self, link: Link) -> None:
        """Nothing new is to be asked on the link: another is about to take its place."""

    def session_released(self, link: Link) -> None:
        """The link goes on: the other came to nothing."""

    def session_moved(self, link: Link, payload: Any) -> None:
        """As ``session_ready``, where another link was there until now."""

    def session_state(self, state: State) -> None:
        """The state changed."""
