"""One owner for a file: a lock that the operating system takes back from a dead process."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError

# A process's own locks do not keep it out, and closing any descriptor of the file would lose
# them: so those of this process are known here. A fork inherits neither.
_ours: dict[tuple[int, str], Ownership] = {}


class Ownership:
    """Owns ``path`` until :meth:`release`, by a lock on the file ``<path>.lock``.

    Raises:
        ConfigError: somebody else does, the text says which process; or it cannot be locked.
    """

    def __init__(self, path: Path) -> None:
        self._key = (os.getpid(), os.path.realpath(path))
        if _ours.setdefault(self._key, self) is not self:
            raise ConfigError(f"outbox {str(path)!r} is open in this process (pid {os.getpid()})")
        try:
            self._descriptor = _lock(path)
        except BaseException:
            del _ours[self._key]
            raise

    def release(self) -> None:
        """Give the file free."""
        if _ours.pop(self._key, None) is self:
            os.close(self._descriptor)


def _lock(path: Path) -> int:
    try:
        import fcntl
    except ImportError:
        raise ConfigError("a durable outbox needs file locks as POSIX has them") from None
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"outbox {str(path)!r}: {error.strerror}: {str(lock)!r}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise ConfigError(
            f"outbox {str(path)!r} belongs to the process with pid {owner}, which has it open: "
            "one process at a time; give each its own file"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
