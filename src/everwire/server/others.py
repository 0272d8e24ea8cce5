"""The other nodes: asking them, and doing what they ask.

Everything here is at most once, by signals of the broker. A node that does not answer within
:data:`SILENCE` is taken to be no more, until its lease runs out and nobody asks it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..codes import ErrorCode
from ..errors import BrokerUnavailable, EverwireError, RequestError, Unavailable
from ..protocol.data import pack_data, unpack_data
from . import asking, reaching, signals
from .identity import revocations
from .signals import Called, Signal, Target

if TYPE_CHECKING:
    from .node import Node

SILENCE = 2.0  # seconds that another node has to say that it is there

Reply: TypeAlias = signals.Number | signals.Answer
Outcome: TypeAlias = bytes | EverwireError | None
"""what became of a question to a node: an answer, packed; an error; or it has nobody to ask"""


class Question:
    """One that was put to other nodes; each of them has one outcome."""

    def __init__(
        self,
        others: Others,
        nodes: Sequence[str],
        silence: float | None,
        done: Callable[[Outcome], None],
    ) -> None:
        self._others = others
        self._waiting = dict.fromkeys(nodes, False)
        """those without an outcome, and whether they are known to be there"""
        self._done = done
        self.ticket = others.begin(self._told)
        self._timer: asyncio.TimerHandle | None = None
        if silence is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(silence, self._give_up_silent)

    def _told(self, reply: Reply) -> None:
        if reply.node not in self._waiting:
            return
        if isinstance(reply, signals.Answer):
            failed = reply.failure
            self._end(reply.node, reply.payload if failed is None else signals.error_of(failed))
        elif reply.number:
            self._waiting[reply.node] = True
        else:
            self._end(reply.node, None)

    def _end(self, node: str, outcome: Outcome) -> None:
        del self._waiting[node]
        self._done(outcome)

    def _give_up_silent(self) -> None:
        for node in [node for node, there in self._waiting.items() if not there]:
            self._end(node, None)

    def close(self) -> None:
        """Whatever is answered from now on, nobody listens; those who work on it are told."""
        self._others.end(self.ticket)
        if self._timer is not None:
            self._timer.cancel()
        for node in self._waiting:
            self._others.say(node, signals.Withdraw(ticket=self.ticket, sender=self._others.id))


class Elsewhere:
    """Connections at other nodes, to put a request to."""

    def __init__(self, others: Others, nodes: Sequence[str], target: Target) -> None:
        self._others = others
        self.nodes = nodes
        self._target = target

    async def put(
        self,
        kind: asking.Kind,
        name: str,
        payload: object,
        seconds: float,
        done: Callable[[Outcome], None],
    ) -> Question:
        """Put a request to them; ``done`` is told of one outcome for each node.

        Cancelling leaves it put, and nobody listening.

        Raises:
            BrokerUnavailable: it may not have been put.
        """
        others = self._others
        # Of a command nobody says in time whether it will run.
        silence = min(SILENCE, seconds / 2) if kind == "query" else None
        question = Question(others, self.nodes, silence, done)
        signal = signals.Ask(
            ticket=question.ticket,
            sender=others.id,
            target=self._target,
            kind=kind,
            name=name,
            payload=pack_data(payload),
            seconds=seconds,
        )
        try:
            await others.send(self.nodes[0] if len(self.nodes) == 1 else None, signal)
        except BaseException:
            question.close()
            raise
        return question


class Others:
    """What a node says to the others, and hears of them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.id = node.id
        self._tickets = 0
        self._waiting: dict[int, Callable[[Reply], None]] = {}
        self._working: dict[tuple[str, int], asyncio.Task[None]] = {}
        """what others asked connections of this node"""

    # ---- asking ------------------------------------------------------------------

    def begin(self, told: Callable[[Reply], None]) -> int:
        """Have ``told`` called with what is answered; return the ticket to ask with."""
        self._tickets += 1
        self._waiting[self._tickets] = told
        return self._tickets

    def end(self, ticket: int) -> None:
        """Hear no more of it."""
        self._waiting.pop(ticket, None)

    async def names(self) -> list[str]:
        """The other nodes. Safe to cancel.

        Raises:
            BrokerUnavailable: nobody knows.
        """
        return [name for name in await self._node.broker.nodes() if name != self.id]

    async def tally(
        self, nodes: Sequence[str], make: Callable[[int, str], Called], within: float
    ) -> dict[str, int]:
        """Ask all other nodes for a number; return the numbers of those that answered in time.

        Cancelling only ends the waiting.

        Raises:
            BrokerUnavailable: they may not have been asked.
        """
        numbers: dict[str, int] = {}
        if not nodes:
            return numbers
        complete = asyncio.Event()

        def told(reply: Reply) -> None:
            if isinstance(reply, signals.Number):
                numbers[reply.node] = reply.number
                if numbers.keys() >= set(nodes):
                    complete.set()

        ticket = self.begin(told)
        try:
            await self.send(None, make(ticket, self.id))
            async with asyncio.timeout(within):
                await complete.wait()
        except TimeoutError:
            self._node.count("silent_nodes")
        finally:
            self.end(ticket)
        return numbers

    async def everywhere(self, make: Callable[[int, str], Called]) -> int:
        """Have all other nodes do something; return the sum of what they answer in time.

        Cancelling only ends the waiting.

        Raises:
            BrokerUnavailable: they may not have been told.
        """
        numbers = await self.tally(await self.names(), make, SILENCE)
        return sum(numbers.values())

    async def send(self, node: str | None, signal: Signal) -> None:
        """Tell a node something, or (None) all others. Safe to cancel.

        Raises:
            BrokerUnavailable: it may not have been told.
        """
        await self._node.broker.signal(node, signals.encode(signal))

    def say(self, node: str | None, signal: Signal) -> None:
        """Tell a node something, or (None) all others, without waiting for it."""
        self._node.tasks.start(self._say(node, signal), "signal")

    async def _say(self, node: str | None, signal: Signal) -> None:
        try:
            await self.send(node, signal)
        except BrokerUnavailable as error:
            log = self._node.log
            log.log(logging.WARNING, "signal", "another node was not told: %s", error)

    # ---- being asked -------------------------------------------------------------

    def on_signal(self, payload: bytes) -> None:
        """Another node says something."""
        signal = signals.decode(payload)
        match signal:
            case signals.Number() | signals.Answer():
                told = self._waiting.get(signal.ticket)
                if told is not None:
                    told(signal)
            case signals.Ask():
                key = (signal.sender, signal.ticket)
                task = self._node.tasks.start(self._ask_here(signal), "asked")
                self._working[key] = task
                task.add_done_callback(lambda _: self._working.pop(key, None))
            case signals.Withdraw():
                working = self._working.get((signal.sender, signal.ticket))
                if working is not None:
                    working.cancel()
            case signals.Called():
                self._node.tasks.start(self._do(signal), "signal")
            case _:
                self._node.count("unknown_signals")

    async def _do(self, signal: Called) -> None:
        number = await _ACTIONS[type(signal)](self._node, signal)
        said = signals.Number(ticket=signal.ticket, node=self.id, number=number)
        await self._say(signal.sender, said)

    async def _ask_here(self, signal: signals.Ask) -> None:
        """Put what another node asks to connections of this one."""
        targets = self._node.users.find(signal.target)
        answer = partial(signals.Answer, ticket=signal.ticket, node=self.id)
        number = signals.Number(ticket=signal.ticket, node=self.id, number=len(targets))
        await self._say(signal.sender, number)
        if not targets:
            return
        try:
            if signal.kind == "command" and len(targets) != 1:
                raise RequestError(code=ErrorCode.AMBIGUOUS_TARGET)
            payload = unpack_data(signal.payload)
            result = await asking.ask(
                targets, signal.seconds, signal.kind, signal.name, payload, None
            )
            said = answer(payload=pack_data(result))
        except EverwireError as error:
            said = answer(failure=signals.failure_of(error))
        except Exception as error:
            self._node.log_defect("a request of another node")
            said = answer(failure=signals.failure_of(error))
        await self._say(signal.sender, said)


async def _count(node: Node, signal: signals.Count) -> int:
    return len(node.users.find(signal.target))


async def _disconnect(node: Node, signal: signals.Disconnect) -> int:
    return reaching.disconnect(node, signal.target, signal.code, signal.reason)


async def _unsubscribe(node: Node, signal: signals.Unsubscribe) -> int:
    return await reaching.unsubscribe(node, signal.target, signal.channel, signal.code)


async def _revoke(node: Node, signal: signals.Revoke) -> int:
    try:
        revocations.apply(node, signal.revocation)
    except Unavailable as full:
        node.log.log(logging.ERROR, "revocations", "%s", full.message)
    return 1


_ACTIONS: dict[type[Called], Callable[[Node, Any], Awaitable[int]]] = {
    signals.Count: _count,
    signals.Disconnect: _disconnect,
    signals.Unsubscribe: _unsubscribe,
    signals.Revoke: _revoke,
}
"""what is done for other nodes, and answered with a number"""
