"""Keys that an issuer publishes (a JWKS), fetched from where the configuration says.

Only there: whatever a token says of where its key is found is not read. A set is kept for
its time to live, then fetched anew beside those who use it; one that cannot be fetched
stays in use for an hour more. A key that a set does not have is looked for again, but not
more often than once in ten seconds, whatever tokens come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from http.client import HTTPException
from time import monotonic
from typing import Any, TypeAlias
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

import msgspec

from ...errors import ConfigError, Unavailable
from ...handling.threads import in_thread
from ...net.tasks import TaskOwner
from .keys import Verifiers, read_jwk
from .origins import is_loopback

logger = logging.getLogger("everwire.server")

MAX_SIZE = 256 * 1024  # bytes of a JWKS
FETCH_TIMEOUT = 5.0  # seconds for one
GIVE_UP = 10.0  # seconds until one is no longer waited for, whatever hangs
REFRESH = 10.0  # seconds between two fetches of the same set, at least
STALE = 3600.0  # seconds beyond its time to live that a set is used while it cannot be fetched

Fetch: TypeAlias = Callable[[str], bytes | Awaitable[bytes]]


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None  # then it is an error: what was configured is what is asked


def check_url(url: str) -> str:
    """Check the address of a JWKS.

    Raises:
        ConfigError: it is neither https nor http on this machine.
    """
    parts = urlsplit(url)
    if parts.hostname and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    ):
        return url
    raise ConfigError(
        "the address of a JWKS begins with https:// (http:// on this machine alone), "
        f"not {parts.scheme}://{parts.hostname or ''}"
    )


def fetch(url: str) -> bytes:
    """Read a JWKS, in a thread. Redirections are not followed.

    Raises:
        OSError: it cannot be had in time, or is too large.
    """
    opener: OpenerDirector = build_opener(_NoRedirects)
    if urlsplit(url).scheme == "http":
        opener = build_opener(_NoRedirects, ProxyHandler({}))
    deadline = monotonic() + FETCH_TIMEOUT
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310  # checked before
    data = b""
    try:
        with opener.open(request, timeout=FETCH_TIMEOUT) as answer:
            while piece := answer.read1(65536):
                data += piece
                if len(data) > MAX_SIZE:
                    raise OSError(f"it has more than {MAX_SIZE} bytes")
                if monotonic() > deadline:
                    raise TimeoutError("it took too long")
    except HTTPException as error:
        raise OSError(f"no HTTP answer: {type(error).__name__}") from error
    except URLError as error:
        if hasattr(error, "close"):
            error.close()
        raise
    return data


class _Set:
    """What one issuer published."""

    __slots__ = ("fetched_at", "issuer", "keys", "task", "tried_at", "url")

    def __init__(self, issuer: str, url: str) -> None:
        self.issuer = issuer
        self.url = url
        self.keys: dict[str, Verifiers] = {}
        self.fetched_at = float("-inf")
        self.tried_at = float("-inf")
        self.task: asyncio.Task[None] | None = None


class Jwks:
    """The published keys of the issuers that are configured.

    Args:
        urls: where the set of an issuer is, by issuer.
        algorithms: those that are allowed.
        ttl: seconds for which a set is good.
        fetch: reads a set: a function of its URL, async or not.

    Raises:
        ConfigError: an address cannot be used.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        algorithms: Collection[str],
        *,
        ttl: float,
        fetch: Fetch = fetch,
    ) -> None:
        self._sets = {issuer: _Set(issuer, check_url(url)) for issuer, url in urls.items()}
        self._algorithms = algorithms
        self._ttl = ttl
        self._read = fetch
        self._tasks = TaskOwner("jwks")

    async def find(self, issuer: str, kid: str) -> Verifiers | None:
        """Return the key that an issuer, which is configured, published under a name.

        One fetch serves all who wait for it. Cancelling leaves the others waiting.

        Raises:
            Unavailable: the issuer's keys cannot be had now.
        """
        known = self._sets[issuer]
        age = asyncio.get_running_loop().time() - known.fetched_at
        if age > self._ttl + STALE:
            known.keys.clear()
        elif age > self._ttl:
            self._begin(known)
        if kid not in known.keys:
            await self._refresh(known)
        if not known.keys:
            raise Unavailable("the keys of the token's issuer cannot be had now", retry_after=5.0)
        return known.keys.get(kid)

    async def _refresh(self, known: _Set) -> None:
        task = self._begin(known)
        if task is not None:
            await asyncio.wait({task})

    def _begin(self, known: _Set) -> asyncio.Task[None] | None:
        """Fetch a set, unless it was tried a moment ago."""
        now = asyncio.get_running_loop().time()
        if known.task is None or known.task.done():
            if now - known.tried_at < REFRESH:
                return None
            known.tried_at = now
            known.task = self._tasks.start(self._fetch(known), known.issuer)
        return known.task

    async def _fetch(self, known: _Set) -> None:
        try:
            # The fetch may be the application's own: one that hangs must not be the last one.
            async with asyncio.timeout(GIVE_UP):
                body = await in_thread(partial(self._read, known.url))
            keys = parse(body, self._algorithms)
        except TimeoutError:
            logger.warning("the keys of issuer %r did not come in time", known.issuer)
            return
        except Exception as error:
            # Not the URL: it may hold a secret. The exception's text is the system's own.
            logger.warning("the keys of issuer %r cannot be had: %s", known.issuer, error)
            return
        known.keys = keys
        known.fetched_at = asyncio.get_running_loop().time()


def parse(body: bytes, algorithms: Collection[str]) -> dict[str, Verifiers]:
    """Read a JWKS: the keys that can be used here, by ``kid``.

    Raises:
        ValueError: it is none, or has no such key.
    """
    if len(body) > MAX_SIZE:
        raise ValueError(f"it has more than {MAX_SIZE} bytes")
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("it is not JSON") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError(  # noqa: TRY004
            "it is no JWKS: an object with the list `keys`"
        )
    keys: dict[str, Verifiers] = {}
    for one in listed:
        read = read_jwk(one, algorithms)
        if read is not None:
            keys.setdefault(*read)
    if not keys:
        raise ValueError(f"it has no key with a kid for {', '.join(algorithms)}")
    return keys
