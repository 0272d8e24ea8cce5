"""The first bytes of a connection: the request, refusals, small pages, the handshake.

When the handshake is good, the connection is handed to a WebSocket together with what
was read beyond the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from ...limits import Limits
from ...net.heartbeat import Wheel
from ...net.transport import Handshake, Receiver, Transport
from ...net.websocket import WebSocket, accept_upgrade
from .proxied import UNIX, Network, client_address
from .request import (
    Refused,
    Request,
    agree_on_extensions,
    check_origin,
    check_upgrade,
    parse_request,
    response,
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A small page. ``body`` may be a function, called for each request."""

    content_type: str
    body: bytes | Callable[[], tuple[HTTPStatus, bytes]]
    headers: Mapping[str, str]


@dataclass(slots=True)
class FrontOptions:
    """What all connections of a listener have in common."""

    limits: Limits
    wheel: Wheel
    accept: Callable[[Transport, Handshake], Receiver]
    paths: frozenset[str]
    assets: Mapping[str, Asset]
    open: set[Front]
    origins: frozenset[str] | None = None
    """pages that may connect; None for any"""
    trusted: tuple[Network, ...] = ()
    compression: bool = False
    draining: bool = False


class Front(asyncio.Protocol):
    """One connection until it is a WebSocket, or closed.

    Args:
        options: what all of a listener have in common.
        remote: the client's address, if a proxy has told it.
    """

    __slots__ = ("_data", "_options", "_remote", "_transport")

    def __init__(self, options: FrontOptions, remote: str | None) -> None:
        self._options = options
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self._remote = remote or ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._remote:
            name = transport.get_extra_info("peername")
            self._remote = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else UNIX
        self._options.open.add(self)
        self._options.wheel.add(self, self._options.limits.handshake_timeout)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._data += data
        while self._data.startswith(b"\r\n"):  # before a request, it is nothing (RFC 9112 2.2)
            self._data = self._data[2:]
        head_only = self._data.startswith(b"HEAD ")
        end = self._data.find(b"\r\n\r\n")
        limit = self._options.limits.handshake
        try:
            if end < 0 and len(self._data) <= limit:
                self._reject_garbage()
                return
            if end < 0 or end > limit:
                raise Refused(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                    if b"\r\n" in self._data
                    else HTTPStatus.REQUEST_URI_TOO_LONG,
                    f"a request may have {limit} bytes",
                )
            head, leftover = self._data[:end], self._data[end + 4 :]
            self._data = b""
            self._serve(parse_request(head), leftover)
        except Refused as refused:
            self._answer(
                response(
                    refused.status,
                    f"{refused.reason}\n".encode(),
                    headers=refused.headers,
                    head_only=head_only,
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()

    def tick(self, now: float) -> float:
        """The request did not arrive in time, or its answer was not read."""
        if self._transport is not None:
            self._transport.abort()
        return 0

    def close(self) -> None:
        """Drop a connection that is no WebSocket yet."""
        if self._transport is not None:
            self._transport.abort()

    def _release(self) -> None:
        self._transport = None
        self._data = b""  # the wheel holds on to us for a while
        self._options.open.discard(self)

    def _reject_garbage(self) -> None:
        """Close at once on what cannot become a request, as a TLS hello on a plain port."""
        if self._data and not self._data[:1].isalpha() and self._data != b"\r":
            assert self._transport is not None
            self._transport.abort()

    def _serve(self, request: Request, leftover: bytes) -> None:
        options = self._options
        if request.upgrade:
            if request.path not in options.paths:
                raise Refused(
                    HTTPStatus.NOT_FOUND, f"WebSockets are at {', '.join(sorted(options.paths))}"
                )
            if options.draining:
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "draining", {"Retry-After": "1"})
            self._upgrade(request, leftover)
            return
        asset = options.assets.get(request.path)
        if asset is None:
            if request.path in options.paths:
                raise Refused(
                    HTTPStatus.UPGRADE_REQUIRED,
                    "this is a WebSocket endpoint",
                    {"Upgrade": "websocket", "Connection": "Upgrade, close"},
                )
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        if request.method not in ("GET", "HEAD"):
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET only", {"Allow": "GET, HEAD"})
        status, body = asset.body() if callable(asset.body) else (HTTPStatus.OK, asset.body)
        self._answer(
            response(
                status,
                body,
                content_type=asset.content_type,
                headers=asset.headers,
                head_only=request.method == "HEAD",
            )
        )

    def _upgrade(self, request: Request, leftover: bytes) -> None:
        key, offered, dialect = check_upgrade(request)
        options, transport = self._options, self._transport
        assert transport is not None
        check_origin(request, options.origins)
        remote = client_address(self._remote, request.headers, options.trusted)
        extensions = agree_on_extensions(request, options.compression)
        handshake = Handshake(
            request.path,
            request.headers,
            tuple(offered),
            remote,
            origins=options.origins,
            secure=transport.get_extra_info("sslcontext") is not None,
        )
        limits = options.limits

        def connected(websocket: WebSocket) -> Receiver:
            websocket.set_write_limits(limits.write_high, limits.write_low)
            return options.accept(websocket, handshake)

        self._release()
        accept_upgrade(
            transport,
            WebSocket(limits.hard_cap, remote=remote, close_timeout=limits.close_timeout),
            key=key,
            subprotocol=dialect.subprotocol,
            extensions=extensions,
            max_message=limits.hard_cap,
            leftover=leftover,
            connected=connected,
        )

    def _answer(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            self._transport.close()
