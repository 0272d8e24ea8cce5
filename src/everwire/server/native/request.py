"""Reading an HTTP/1.1 request head, strictly, and the WebSocket handshake in it. No I/O.

RFC 9112 (the head) and RFC 6455 section 4.2.1 (the handshake).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote

from ...protocol.deflate import MalformedExtensions, negotiate_deflate
from ...protocol.dialects import Dialect, negotiate, subprotocols
from ..identity.origins import normal_origin

MAX_HEADERS = 100
MAX_LINE = 8192

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIRST = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_NAME = re.compile(_TOKEN)
_CONTROLS = bytes((*range(9), *range(10, 32), 127))  # all but the tab
_ABSOLUTE = re.compile(r"(?:https?|wss?)://([^/?#]*)(.*)", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(?::[0-9]*)?")


class Refused(Exception):
    """The request gets this answer, and the connection is closed.

    Attributes:
        status: the HTTP status.
        reason: one line for people.
        headers: more headers for the answer.
    """

    def __init__(
        self, status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


@dataclass(slots=True)
class Request:
    """A request's head.

    Attributes:
        path: without percent-encoding, and without the query: nobody reads that.
        headers: names in lower case, repeated ones joined by a comma.
    """

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)

    @property
    def upgrade(self) -> bool:
        """Whether it asks for a WebSocket."""
        return "websocket" in _list(self.headers.get("upgrade", "").lower())


def _list(value: str) -> list[str]:
    return [part for piece in value.split(",") if (part := piece.strip(" \t"))]


def parse_request(head: bytes) -> Request:
    """Read a request head, without the empty line that ends it.

    Raises:
        Refused: it is not HTTP/1 as RFC 9112 has it, or asks for something not served.
    """
    text = head.decode("latin-1")
    first, *lines = text.split("\r\n")
    if len(first) > MAX_LINE:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
    request = _FIRST.fullmatch(first)
    if request is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "not an HTTP request")
    method, target, major, minor = request.groups()
    if major != "1":  # a higher minor version is served as 1.1 (RFC 9110 section 2.5)
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1 is served")
    if len(lines) > MAX_HEADERS:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers")
    if len(text) > MAX_LINE and max(map(len, lines), default=0) > MAX_LINE:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is too long")
    if len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(lines):  # more than line ends
        raise Refused(HTTPStatus.BAD_REQUEST, "a malformed header")
    headers = _parse_headers(lines)
    if minor == "0":  # health checks of some balancers; it knows no upgrades
        headers.setdefault("host", "")
        headers.pop("upgrade", None)
    if "host" not in headers:
        raise Refused(HTTPStatus.BAD_REQUEST, "the Host header is missing")
    if absolute := _ABSOLUTE.fullmatch(target):  # as if to a proxy: it outdoes Host
        headers["host"], target = absolute[1], absolute[2]
    if not _HOST.fullmatch(headers["host"]):
        raise Refused(HTTPStatus.BAD_REQUEST, "a malformed Host header")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Refused(HTTPStatus.BAD_REQUEST, "a request with a body is not served here")
    path = target.partition("?")[0]
    return Request(method, unquote(path) or "/", headers)


def _parse_headers(lines: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise Refused(HTTPStatus.BAD_REQUEST, "a malformed header")
        name, value = name.lower(), value.strip(" \t")
        if name in headers:
            if name in _ONCE:
                raise Refused(HTTPStatus.BAD_REQUEST, f"header {name} was sent twice")
            value = f"{headers[name]}{';' if name == 'cookie' else ','} {value}"
        headers[name] = value
    return headers


def check_upgrade(request: Request) -> tuple[str, Sequence[str], Dialect]:
    """Check a WebSocket handshake.

    Returns:
        The key, the offered subprotocols, and the dialect they pick.

    Raises:
        Refused: it breaks RFC 6455, or offers only subprotocols that nobody knows.
    """
    headers = request.headers
    if request.method != "GET":
        raise Refused(
            HTTPStatus.METHOD_NOT_ALLOWED, "a WebSocket is opened by GET", {"Allow": "GET"}
        )
    if "upgrade" not in _list(headers.get("connection", "").lower()):
        raise Refused(HTTPStatus.UPGRADE_REQUIRED, "Connection: Upgrade is missing", _UPGRADE)
    if headers.get("sec-websocket-version") != "13":
        raise Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "only WebSocket version 13 is served",
            {**_UPGRADE, "Sec-WebSocket-Version": "13"},
        )
    key = headers.get("sec-websocket-key", "")
    try:
        valid = len(b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise Refused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64")
    offered = _list(headers.get("sec-websocket-protocol", ""))
    dialect = negotiate(offered)
    if dialect is None:
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"none of these subprotocols is known; known are {', '.join(subprotocols())}, "
            "or none at all for plain JSON",
        )
    return key, offered, dialect


def agree_on_extensions(request: Request, compression: bool) -> str | None:
    """Negotiate permessage-deflate (RFC 7692 section 7).

    Raises:
        Refused: the header is malformed.
    """
    offered = request.headers.get("sec-websocket-extensions")
    if offered is None:
        return None
    try:
        agreed = negotiate_deflate(offered)
    except MalformedExtensions as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
    return agreed if compression else None


def check_origin(request: Request, allowed: frozenset[str] | None) -> None:
    """Refuse pages that may not connect; programs send no ``Origin`` (RFC 6454).

    Raises:
        Refused: the origin is not one of ``allowed``.
    """
    origin = request.headers.get("origin")
    if allowed is None or origin is None or normal_origin(origin) in allowed:
        return
    raise Refused(HTTPStatus.FORBIDDEN, "this origin may not connect")


_ONCE = ("host", "sec-websocket-key", "sec-websocket-version", "content-length")
_UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade, close"}


def response(
    status: HTTPStatus,
    body: bytes = b"",
    *,
    content_type: str = "text/plain; charset=utf-8",
    headers: Mapping[str, str] | None = None,
    head_only: bool = False,
) -> bytes:
    """Make a whole HTTP answer, after which the connection is closed."""
    fields = {
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **(headers or {}),
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + body
