"""What is asked of a request before anything is done: a key, a kind, a size, a meaning."""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import ClientDisconnect

from ...codes import ErrorCode
from ...errors import BadRequest, ConfigError, EverwireError, Forbidden, RequestError, Unauthorized
from ...limits import MAX_ID, KiB
from ...protocol.json_scan import has_more_than

if TYPE_CHECKING:
    from starlette.requests import Request

    from ...limits import Limits

ENVELOPE = 64 * KiB  # what a body may have beside a message's data
SHORTEST_KEY = 16  # characters
MAX_KEYS = 10_000  # idempotency keys whose bodies are remembered

_pack = msgspec.msgpack.Encoder(order="deterministic")


class Refused(EverwireError):
    """A request ends here; ``status`` is that of HTTP where it has one of its own."""

    def __init__(self, error: RequestError, status: int | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


class Keys:
    """The API keys: whoever has one of them may do everything.

    Raises:
        ConfigError: one is too short to be a secret.
    """

    def __init__(self, keys: str | Sequence[str] | None) -> None:
        given = [keys] if isinstance(keys, str) else list(keys or ())
        if any(len(key) < SHORTEST_KEY or not key.isascii() for key in given):
            raise ConfigError(
                f"an API key has at least {SHORTEST_KEY} ASCII characters; make one with: "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        self._keys = [key.encode() for key in given]

    def check(self, request: Request) -> None:
        """Raise :exc:`Refused` unless the request brings a key."""
        if not self._keys:
            raise Refused(
                Forbidden(
                    "the API is off, for it has no key: set EVERWIRE_API_KEY, or api_key= of "
                    "wire.http()"
                )
            )
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = request.headers.get("x-api-key") or (bearer if scheme.lower() == "bearer" else "")
        offered = given.strip().encode("latin-1")
        # All of them, so that the time tells nothing of which.
        if not sum(hmac.compare_digest(offered, key) for key in self._keys):
            raise Refused(Unauthorized("send the API key, as X-API-Key or as a bearer token"))


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read a body of JSON, no more than may be. Cancelling leaves it unread.

    Raises:
        Refused: it is no JSON, too large, or too slow.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        text = "send Content-Type: application/json"
        raise Refused(BadRequest(text), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        text = "send the body as it is, without Content-Encoding"
        raise Refused(BadRequest(text), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    most = limits.message + ENVELOPE
    too_big = Refused(RequestError(f"a body may have {most} bytes", code=ErrorCode.TOO_BIG))
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > most:
        raise too_big
    body = bytearray()
    try:
        async with asyncio.timeout(limits.request_timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_big
    except TimeoutError:
        text = f"the body did not come within {limits.request_timeout:g} s"
        raise Refused(RequestError(text, code=ErrorCode.TIMEOUT)) from None
    except ClientDisconnect:
        raise Refused(BadRequest("the body ended early")) from None
    return bytes(body)


def understand(body: bytes, kind: type[Any], limits: Limits) -> Any:
    """Read a body as what it should be.

    Raises:
        Refused: it is something else; the text names the field.
    """
    if has_more_than(body, limits.elements):
        raise Refused(BadRequest(f"a body may have {limits.elements} values and keys"))
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise Refused(BadRequest("the body is nested too deep")) from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refused(BadRequest(str(error))) from None


def _packed(body: Any) -> bytes:
    try:
        return _pack.encode(body)
    except (OverflowError, RecursionError):
        raise Refused(BadRequest("the body has data that cannot be put on the wire")) from None


class Idempotency:
    """Which bodies came with which ``Idempotency-Key``: the same key is for the same body.

    That a request has one effect is the broker's doing, which knows messages by their id;
    here is only found out that a key was used for two things. The oldest are forgotten.
    """

    def __init__(self, window: float, clock: Callable[[], float]) -> None:
        self._window = window
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], tuple[bytes, float]] = OrderedDict()

    def key_of(self, request: Request, path: str, body: Any) -> str:
        """The request's key, "" if it has none.

        Raises:
            Refused: it is no key, or came with another body before.
        """
        key = request.headers.get("idempotency-key", "").strip().removeprefix('"').removesuffix('"')
        if not key:
            return ""
        if len(key) > MAX_ID:
            raise Refused(BadRequest(f"an Idempotency-Key may have {MAX_ID} characters"))
        now = self._clock()
        while self._seen and now - next(iter(self._seen.values()))[1] > self._window:
            self._seen.popitem(last=False)
        digest = blake2b(_packed(body), digest_size=16).digest()
        seen = self._seen.get((path, key))
        if seen is not None and seen[0] != digest:
            raise Refused(RequestError(code=ErrorCode.KEY_REUSED))
        if seen is None:
            self._seen[path, key] = digest, now
            if len(self._seen) > MAX_KEYS:
                self._seen.popitem(last=False)
        return key
