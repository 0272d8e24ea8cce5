"""TLS: a certificate that can be read again without dropping anybody."""

from __future__ import annotations

import ssl
from pathlib import Path

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
        """Make the context, or return the one made before.

        Raises:
            ConfigError: the files cannot be used.
        """
        if self._context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._load(context)
            self._context = context
        return self._context

    def reload(self) -> None:
        """Read the files again: connections from now on are given what they hold.

        Raises:
            ConfigError: the files cannot be used; what was read before stays in use.
        """
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context())

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use the certificate {self._certificate}: {error}; it must be PEM, "
                "with the key in the same file or in one of its own"
            ) from None
