"""An application that lets little through: ``everwire serve narrow:narrow``."""

from __future__ import annotations

from app import make  # type: ignore[import-not-found]

from everwire.limits import KiB, Limits, MiB

narrow = make(
    limits=Limits(
        bytes=2 * MiB, message=256 * KiB, hard_cap=512 * KiB, connections_user=3, handlers=100
    )
)
