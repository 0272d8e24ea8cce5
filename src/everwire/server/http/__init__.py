"""The internal HTTP application: publishing from outside, metrics, health. Extra ``everwire[http]``."""

from __future__ import annotations

from ...errors import ConfigError


def missing(error: ModuleNotFoundError) -> ConfigError:
    """Say what to install, where the extra is missing."""
    return ConfigError(f"the module {error.name} is missing: pip install 'everwire[http]'")
