"""Which commands ran, and what they answered, in memory. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from ..codes import ErrorCode
from ..errors import RequestError
from ..limits import Limits
from .base import Claim

OVERHEAD = 400
"""bytes that a remembered command costs beside its answer"""

_RUNNING = Claim("running")
_LOST = Claim("lost")
_CLAIMED = Claim("claimed")
_REUSED = Claim("reused")


class _Command:
    __slots__ = ("answer", "at", "attempt", "digest", "node")

    def __init__(self, digest: bytes, node: str, attempt: str, at: float) -> None:
        self.digest = digest
        self.node = node
        self.attempt = attempt
        self.at = at
        """when it was claimed; then when it ended"""
        self.answer: bytes | None = None


class Claims:
    """The commands of all users. ``alive`` says whether a node's lease holds."""

    def __init__(self, limits: Limits, alive: Callable[[str], bool]) -> None:
        self._limits = limits
        self._alive = alive
        self._commands: OrderedDict[tuple[str, str], _Command] = OrderedDict()
        """the one that was claimed, or ended, longest ago is first"""
        self._owners: Counter[str] = Counter()
        self._bytes = 0

    def claim(
        self,
        node: str,
        owner: str,
        key: str,
        digest: bytes,
        attempt: str,
        again: bool,
        now: float,
    ) -> Claim:
        """See :meth:`.base.Broker.claim`."""
        self.forget(now)
        known = self._commands.get((owner, key))
        if known is None:
            self._check_room(owner)
            self._commands[owner, key] = _Command(digest, node, attempt, now)
            self._owners[owner] += 1
            return _CLAIMED
        if known.digest != digest:
            return _REUSED
        if known.answer is not None:
            return Claim("done", known.answer)
        if known.attempt == attempt:
            return _CLAIMED
        if not again or self._alive(known.node):
            return _RUNNING if self._alive(known.node) else _LOST
        known.node, known.attempt, known.at = node, attempt, now
        self._commands.move_to_end((owner, key))
        return _CLAIMED

    def finish(self, owner: str, key: str, attempt: str, answer: bytes | None, now: float) -> None:
        """See :meth:`.base.Broker.finish`."""
        known = self._commands.get((owner, key))
        if known is None or known.attempt != attempt or known.answer is not None:
            return
        if answer is None:
            self._drop((owner, key))
            return
        known.answer, known.at = answer, now
        self._bytes += len(answer)
        self._commands.move_to_end((owner, key))

    def forget(self, now: float) -> None:
        """Forget what ended longer ago than the window; of a node that is no more: was begun."""
        oldest = now - self._limits.dedupe_window
        while self._commands:
            scope, known = next(iter(self._commands.items()))
            if known.at > oldest:
                break
            if known.answer is None and self._alive(known.node):
                known.at = now  # it still runs
                self._commands.move_to_end(scope)
            else:
                self._drop(scope)

    def _drop(self, scope: tuple[str, str]) -> None:
        known = self._commands.pop(scope)
        self._bytes -= len(known.answer or b"")
        owner = scope[0]
        self._owners[owner] -= 1
        if not self._owners[owner]:
            del self._owners[owner]

    def _check_room(self, owner: str) -> None:
        limits, held = self._limits, len(self._commands)
        if (
            held >= limits.command_keys
            or self._owners[owner] >= limits.command_keys_user
            or self._bytes + held * OVERHEAD >= limits.command_bytes
        ):
            raise RequestError(
                "too many commands are remembered; later", code=ErrorCode.DEDUPE_FULL
            )
