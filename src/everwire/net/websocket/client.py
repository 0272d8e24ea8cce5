"""The client's side: the real network."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from ssl import SSLCertVerificationError, SSLContext, SSLError
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from picows import WSHandshakeError, WSInvalidURL, ws_connect
from python_socks import ProxyError

from ...errors import ConfigError, HandshakeRefused
from ...limits import CLIENT_DEFAULTS, KiB
from ...protocol.frames import masked_frames
from ..attempts import Attempts
from ..transport import ClientTransport, Receiver, not_a_url
from .endpoint import WebSocket

PROCESS_ATTEMPTS = Attempts()
JOINED = 64 * KiB  # bytes that are masked here at most: picows is faster at many, not at little


class ClientWebSocket(WebSocket):
    """The client's side of a WebSocket."""

    __slots__ = ()

    @property
    def never_opened(self) -> bool:
        """Whether there was no handshake, and nothing has ended either."""
        return self._picows is None and not self._over

    def send_many(self, opcode: int, payloads: Sequence[bytes]) -> None:
        if len(payloads) == 1 or sum(map(len, payloads)) > JOINED:
            for payload in payloads:
                self.send(opcode, payload)
        else:  # nothing is written after close
            self.write(masked_frames(opcode, payloads, os.urandom(4 * len(payloads))))


class PicowsNetwork:
    """The real network, for clients.

    Args:
        attempts: after failures; the default is the budget that the whole process shares.
    """

    def __init__(self, attempts: Attempts = PROCESS_ATTEMPTS) -> None:
        self.attempts = attempts

    async def connect(
        self,
        url: str,
        receiver: Receiver,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        max_message: int,
        ssl: Any = None,
        proxy: str | None = None,
    ) -> ClientTransport:
        """See :meth:`everwire.net.transport.Network.connect`."""
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise HandshakeRefused(0, not_a_url(url), temporary=False)
        _check_context(ssl)
        websocket = ClientWebSocket(max_message, close_timeout=CLIENT_DEFAULTS.close_timeout)
        websocket.receiver = receiver
        sent = dict(headers or {})
        if parts.username is not None and "authorization" not in map(str.lower, sent):
            sent["Authorization"] = _basic(parts.username, parts.password or "")
        if subprotocols:
            sent["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
        try:
            await ws_connect(
                lambda: websocket,
                parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl(),
                ssl_context=ssl,
                websocket_handshake_timeout=CLIENT_DEFAULTS.connect_timeout,
                logger_name=cast("Any", websocket),
                enable_auto_pong=False,
                max_frame_size=max_message,
                extra_headers=sent,
                max_redirects=0,
                proxy=proxy,
                # aiofastnet's TLS fails without saying why; a client can wait for asyncio's.
                use_aiofastnet=parts.scheme == "ws",
            )
        except WSHandshakeError as error:
            raise _refusal(error) from None
        except WSInvalidURL as error:
            raise HandshakeRefused(0, str(error), temporary=False) from None
        except SSLError as error:
            websocket.receiver = None
            raise _tls_refusal(error) from error
        except ProxyError as error:
            websocket.receiver = None
            raise _proxy_refusal(error) from error
        except ConnectionError as error:
            websocket.receiver = None
            if parts.scheme == "wss" and not str(error):
                why = "the connection ended in the TLS handshake; is that a ws:// port?"
                raise HandshakeRefused(0, why, temporary=True) from error
            raise
        except BaseException:
            websocket.receiver = None
            websocket.abort()
            raise
        _check_answer(websocket, parts.scheme, subprotocols)
        return websocket


def _basic(user: str, password: str) -> str:
    """What a URL's user and password go out as (RFC 7617)."""
    pair = f"{unquote(user)}:{unquote(password)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _check_context(ssl: Any) -> None:
    if ssl is not None and not isinstance(ssl, SSLContext):  # False would go out unencrypted
        raise ConfigError(f"ssl is an ssl.SSLContext or None, not {ssl!r}")


def _check_answer(websocket: ClientWebSocket, scheme: str, offered: Sequence[str]) -> None:
    if websocket.never_opened:  # picows takes an end before the answer for an opening
        hint = "; is that a wss:// port?" if scheme == "ws" else ""
        refusal = HandshakeRefused(0, f"it hung up without an answer{hint}", temporary=True)
    elif websocket.subprotocol is not None and websocket.subprotocol not in offered:
        chosen = f"chose a subprotocol not offered: {websocket.subprotocol}"
        refusal = HandshakeRefused(101, chosen, temporary=False)
    else:
        return
    websocket.receiver = None
    websocket.abort()
    raise refusal


def _proxy_refusal(error: ProxyError) -> HandshakeRefused:
    status = re.search(r"status (\d{3})", str(error))
    final = status is not None and status[1] in ("401", "403", "405", "407")
    return HandshakeRefused(0, f"the proxy refused: {error}", temporary=not final)


def _tls_refusal(error: SSLError) -> HandshakeRefused:
    if isinstance(error, SSLCertVerificationError):
        why = f"its certificate is not trusted: {error.verify_message}; pass ssl= a context"
        return HandshakeRefused(0, f"{why} that trusts it", temporary=False)
    reason = error.reason or "no TLS"
    return HandshakeRefused(
        0, f"the TLS handshake failed ({reason}); is that a ws:// port?", temporary=True
    )


def _refusal(error: WSHandshakeError) -> HandshakeRefused:
    response = error.response
    if response is None:
        return HandshakeRefused(0, str(error), temporary=True)
    status = int(response.status)
    retry_after = response.headers.get("Retry-After", "")
    body = (error.raw_body or b"")[:200].decode("utf-8", "replace").strip()
    if status == 404 and not body:
        body = "no WebSocket at this path; behind uvicorn, is the package websockets installed?"
    if status == 403 and not body:
        body = (
            "Forbidden, which is also what uvicorn answers where there is no WebSocket at this path"
        )
    return HandshakeRefused(
        status,
        body or response.status.phrase,
        temporary=status in (408, 425, 429) or status >= 500,
        retry_after=float(retry_after) if retry_after.isdigit() else None,
    )
