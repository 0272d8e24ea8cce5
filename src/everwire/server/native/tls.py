"""TLS: a certificate that can be read again without dropping anybody."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from ...errors import ConfigError


class Tls:
    """A certificate and its key, as PEM files.

    Args:
        certificate: the certificate, followed by those of its issuers.
        key: its private key; None if it is in the same file.
    """

    def __init__(self, certificate: str | Path, key: str | Path | None = None) -> None:
        self._certificate = Path(certificate)
        self._key = Path(key) if key is not None else None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context for new connections.

        Raises:
            ConfigError: the files cannot be used.
        """
        if self._context is None:
            self._context = self._load()
        return self._context

    def reload(self) -> None:
        """Read the files again: connections from now on are given what they hold.

        Into a new context: an old one keeps, beside a certificate with a key of another
        kind, the one that it had, and goes on giving it to those who prefer that kind.

        Raises:
            ConfigError: the files cannot be used; what was read before stays in use.
        """
        self._context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use the certificate {self._certificate}: {error}; it must be PEM, "
                "with the key in the same file or in one of its own"
            ) from None
        return context


def quiet_handshakes(loop: asyncio.AbstractEventLoop) -> None:
    """Have those who hang up in the middle of the TLS handshake leave no line in the log.

    aiofastnet tells the loop of each of them, port scans and health checks among them, as
    of a defect, and with a class for an exception, at which logging itself fails. Where the
    application handles what loops are told, that is left alone.
    """
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(_without_handshakes)


def _without_handshakes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if context.get("message") != "SSL handshake failed":
        loop.default_exception_handler(context)
