"""The plain model of the delivery contract: what was done, and what must follow from it.

The driver notes what happened, in order: each message on each link, what reached the broker,
what applications called and were handed. The model goes through that record, keeps what it
needs in lists and dicts, and has :mod:`.checks` look at every step. There is no asyncio here
and no code of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import checks, checks_calls
from .log import Entry, Kept, Log, Position
from .wire import Wire

SERVER = "server"  # who publishes for the application itself


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened."""

    number: int
    now: float
    kind: str
    about: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.about[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(slots=True)
class Publish:
    """A call of an application; ``outcome`` is ``acknowledged``, ``not sent``, …"""

    who: str
    n: int
    channel: str
    step: int
    outcome: str = ""
    position: Position | None = None


@dataclass(slots=True)
class Reading:
    """What an application reads; ``at`` is the last item that it was handed."""

    name: str
    channel: str
    since: Position | None
    step: int
    at: Position | None = None
    began: bool = False
    over: bool = False
    count: int = 0


@dataclass(slots=True)
class Call:
    """A command or a query of an application; ``kind`` is ``once`` for a command without key."""

    who: str
    user: str
    kind: str
    key: str
    job: Any
    step: int
    outcome: str = ""


@dataclass(slots=True)
class Run:
    """A command that ran, under which key of which user, and on which node."""

    user: str
    key: str
    job: str
    node: str
    life: int
    step: int
    now: float
    finished: bool = False


@dataclass(slots=True)
class Model:
    """See the module's text.

    Attributes:
        kept: what is kept of each channel.
        users: the user of everybody who publishes, "" for the anonymous.
    """

    kept: dict[str, Kept]
    users: dict[str, str]
    steps: list[Step] = field(default_factory=list)
    logs: dict[str, list[Log]] = field(default_factory=dict)
    publishes: dict[tuple[str, int], Publish] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)
    calls: dict[tuple[str, int], Call] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    nodes_gone: set[str] = field(default_factory=set)
    allowed: dict[str, Step] = field(default_factory=dict)
    """when it was last changed whether a user may use the guarded channel"""
    full: dict[str, float] = field(default_factory=dict)
    """when a channel last remembered as many ids as it may"""
    calm_since: float | None = None
    """since when nothing fails, if that is so"""
    life: int = 0
    wire: Wire = field(init=False)
    _digested: int = 0

    def __post_init__(self) -> None:
        self.wire = Wire(self)

    @property
    def window(self) -> float:
        """Seconds for which ids are remembered."""
        return next(iter(self.kept.values())).window

    def note(self, now: float, kind: str, **about: Any) -> None:
        """Note what happened; it is looked at by :meth:`digest`."""
        self.steps.append(Step(len(self.steps), now, kind, about))

    def digest(self) -> None:
        """Go through what was noted since the last time.

        Raises:
            AssertionError: the contract is broken; the text says which rule, and where.
        """
        while self._digested < len(self.steps):
            step = self.steps[self._digested]
            self._digested += 1
            try:
                handler: Callable[[Step], None] = getattr(self, f"_{step.kind}")
                handler(step)
            except AssertionError as error:
                for one in self.steps[max(0, step.number - 12) : step.number + 1]:
                    about = re.sub("x{20,}", "x…", str(one.about))
                    error.add_note(f"{one.number} {one.now:.3f} {one.kind} {about}")
                raise

    # ---- where channels are -------------------------------------------------------

    def log(self, channel: str, life: int | None = None) -> Log | None:
        """The channel's numbering of today, or by a broker that was there before."""
        wanted = self.life if life is None else life
        return next((log for log in self.logs.get(channel, ()) if log.life == wanted), None)

    def find(self, channel: str, epoch: str) -> Log | None:
        """The numbering of an epoch, whether it still holds or not."""
        return next((log for log in self.logs.get(channel, ()) if log.epoch == epoch), None)

    def learn(self, channel: str, epoch: str) -> Log:
        """The numbering of an epoch that somebody was just told of."""
        log = self.find(channel, epoch)
        if log is None:
            checks.check_an_epoch_lasts(self, channel, epoch)
            log = Log(channel, self.kept[channel], epoch, checks.life_of(epoch))
            self.logs.setdefault(channel, []).append(log)
            self.logs[channel].sort(key=lambda one: one.life)
        return log

    def whose(self, data: Any) -> str:
        """Whose ids a message's are."""
        who = data[0]
        user = SERVER if who == SERVER else self.users[who]
        return user or f"anonymous {data!r}"

    # ---- what happens -----------------------------------------------------------------

    def _restarted(self, step: Step) -> None:
        """The node is another one; with ``forgotten``, so is the broker."""
        if step.forgotten:
            self.life += 1

    def _gone(self, step: Step) -> None:
        """A node ends, and what runs there may not."""
        self.nodes_gone.add(step.node)

    def _calm(self, step: Step) -> None:
        """From now on nothing fails, or anything may."""
        self.calm_since = step.now if step.calm else None

    def _allowed(self, step: Step) -> None:
        """A user may, or may not, use the guarded channel from now on."""
        self.allowed[step.user] = step

    def _came(self, step: Step) -> None:
        self.wire.came(step)

    def _sent(self, step: Step) -> None:
        self.wire.sent(step)

    def _offered(self, step: Step) -> None:
        """The broker was given a message."""
        self.wire.offered(step)

    def _failed(self, step: Step) -> None:
        """The broker's answer was that it cannot, for now."""
        self.wire.failed(step)

    def _stored(self, step: Step) -> None:
        """The broker stored a message, or found it stored; or it refused."""
        self.wire.stored(step)
        whose = self.whose(step.data)
        if step.refused:
            self.full[step.channel] = step.now
            log = self.log(step.channel, step.life)
            checks.check_refused_only_when_full(log, whose, step)
            return
        epoch, offset, _ = step.position
        log = self.learn(step.channel, epoch)
        checks.check_stored_once(log, whose, step)
        if not step.duplicate:
            checks.check_numbers_grow(log, step)
            checks.check_not_sent_stays_so(self.publishes.get(tuple(step.data[:2])))
            log.append(Entry(offset, step.id, whose, step.data, step.size, step.number, step.now))

    def _published(self, step: Step) -> None:
        self.publishes[step.who, step.n] = Publish(step.who, step.n, step.channel, step.number)

    def _settled(self, step: Step) -> None:
        """A publish has ended for the application."""
        publish = self.publishes[step.who, step.n]
        publish.outcome, publish.position = step.outcome, step.position
        if step.outcome == "acknowledged":
            checks.check_acknowledged_is_stored(self, publish)
            checks.check_order(self, publish)
        elif step.outcome in ("not sent", "unknown"):
            since = self.calm_since
            if since is not None:
                since = max(since, self.full.get(publish.channel, since))
            checks.check_given_up_only_while_something_fails(since, publish, step)
        if step.outcome == "not sent":
            checks.check_not_sent_is_not_stored(self, publish)

    def _reads(self, step: Step) -> None:
        self.readings[step.name] = Reading(step.name, step.channel, step.since, step.number)

    def _began(self, step: Step) -> None:
        """The subscription was confirmed; it begins at ``position``."""
        reading = self.readings[step.name]
        reading.began = True
        if reading.since is not None:
            reading.at = reading.at or reading.since
        elif reading.at is None:
            log = self.learn(reading.channel, step.position[0])
            asked = self.steps[reading.step]
            checks.check_start_is_the_last_message(log, step.position, asked, step)
            reading.at = step.position

    def _handed(self, step: Step) -> None:
        """The application was handed a message."""
        reading = self.readings[step.name]
        reading.count += 1
        if reading.at is None:
            reading.at = reading.since
        log = self.learn(reading.channel, step.position[0])
        checks.check_no_silent_gap(reading.at, step.position, None)
        checks.check_message_is_what_was_stored(self, log, step.about, step.position)
        reading.at = step.position

    def _gap(self, step: Step) -> None:
        """The application was told of a gap."""
        reading = self.readings[step.name]
        reading.count += 1
        at = reading.at if reading.at is not None else reading.since
        log = self.learn(reading.channel, step.position[0])
        checks.check_gap_is_needed(log, at, step)
        checks.check_gap_goes_on_where_history_does(log, at, step.position, step)
        reading.at = step.position

    def _over(self, step: Step) -> None:
        self.readings[step.name].over = True

    def _listed(self, step: Step) -> None:
        """Somebody read history: ``since`` is the step at which they asked."""
        checks.check_acknowledged_is_in_history(self, step)

    def _answered_itself(self, step: Step) -> None:
        """The application published, and was answered."""
        epoch, offset, message_id = step.position
        log = self.find(step.channel, epoch)
        checks.check_the_application_is_answered(log, offset, message_id, step.data)

    # ---- requests ---------------------------------------------------------------------

    def _called(self, step: Step) -> None:
        self.calls[step.who, step.n] = Call(
            step.who, step.user, step.about["kind_"], step.key, step.job, step.number
        )

    def _ran(self, step: Step) -> None:
        run = Run(step.user, step.key, step.job, step.node, step.life, step.number, step.now)
        checks_calls.check_commands_run_once(self, run)
        self.runs[step.run] = run

    def _finished(self, step: Step) -> None:
        self.runs[step.run].finished = True

    def _returned(self, step: Step) -> None:
        call = self.calls[step.who, step.n]
        call.outcome = step.outcome
        if call.kind == "query":
            checks_calls.check_a_query_is_answered_truly(call, step)
        else:
            checks_calls.check_retry_gets_the_first_answer(self, call, step)
            checks_calls.check_key_reused_only_if_it_is(self, call)
            checks_calls.check_not_sent_did_not_run(self, call)
