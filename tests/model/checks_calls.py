"""What is checked of commands and queries, of waiting messages, of presence and of rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .log import GRAIN

if TYPE_CHECKING:
    from .contract import Call, Model, Run, Step
    from .wire import Conn, Sub

CLOSING = 5.0  # seconds: a second until it is noticed, three for the closing handshake
GUARDED = "guarded"
WINDOW = 120.0  # seconds for which commands are remembered


# ---- 6 commands ---------------------------------------------------------------------------


def check_commands_run_once(model: Model, run: Run) -> None:
    """A command runs once for its key within the window; without a key, once."""
    for other in model.runs.values():
        if (other.user, other.key, other.life) == (run.user, run.key, run.life):
            age = run.now - other.now
            assert age >= WINDOW - GRAIN, f"{run.key!r} of {run.user!r} ran {age:g} s ago"


def check_retry_gets_the_first_answer(model: Model, call: Call, step: Step) -> None:
    """What a command is answered is what it answered when it ran."""
    if step.outcome != "answered":
        return
    run = model.runs.get(step.result)
    assert run is not None, f"nothing ran that answers {step.result}"
    assert (run.user, run.key, run.job) == (call.user, call.key, call.job)
    assert run.finished


def check_key_reused_only_if_it_is(model: Model, call: Call) -> None:
    """``key_reused`` says that the key was used with another payload."""
    if call.outcome == "key_reused":
        others = [
            other
            for other in model.calls.values()
            if (other.user, other.key) == (call.user, call.key) and other.job != call.job
        ]
        assert others, f"{call} was not used otherwise"


def check_not_sent_did_not_run(model: Model, call: Call) -> None:
    """A command that was given up as not sent did not run, unless somebody else asked for it."""
    if call.outcome == "not sent" and call.key.startswith(call.who):
        runs = [run for run in model.runs.values() if (run.user, run.key) == (call.user, call.key)]
        assert not runs, f"{call} ran: {runs}"


def check_keyed_commands_run_to_their_end(model: Model) -> None:
    """No drop and no cancel stops a command with a key; only the end of its node does."""
    once = {(call.user, call.key) for call in model.calls.values() if call.kind == "once"}
    for run in model.runs.values():
        if (run.user, run.key) not in once and run.node not in model.nodes_gone:
            assert run.finished, f"{run} was stopped"


def check_a_query_is_answered_truly(call: Call, step: Step) -> None:
    """A query's answer is its own."""
    if step.outcome == "answered":
        assert step.result == call.job


def check_every_call_ends(model: Model) -> None:
    """No call is left without an outcome."""
    left = [call for call in model.calls.values() if not call.outcome]
    assert not left, f"never ended: {left}"


# ---- 7 bounded memory -----------------------------------------------------------------------


def check_memory_is_bounded(link: int, unsent: int, most: int) -> None:
    """What waits to be sent to a reader that cannot keep up has a bound."""
    assert unsent <= most, f"{unsent} bytes wait for link {link}"


# ---- presence -----------------------------------------------------------------------------


def check_presence_converges(
    model: Model, channel: str, live: list[int], members: list[str]
) -> None:
    """At rest, present is who is subscribed, each connection once."""
    conns = [model.wire.conns[link] for link in live]
    there = sorted(conn.user or "" for conn in conns if channel in conn.subs)
    assert sorted(members) == there, f"present are {members}, subscribed {there}"
    for conn in conns:
        sub = conn.subs.get(channel)
        if sub is not None and sub.count is not None:
            check_presence_is_told(members, list(sub.members.values()), sub.count)


def check_presence_is_told(members: list[str], told: list[str], count: int) -> None:
    """At rest, everybody who watches knows who is present."""
    assert sorted(told) == sorted(members), f"present are {members}, told was {told}"
    assert count == len(members)


# ---- rights -------------------------------------------------------------------------------


def check_who_may_not_is_refused(channel: str, changed: Step | None, asked: Step) -> None:
    """Nobody is subscribed who may not be, from the request on to its answer."""
    if channel == GUARDED and changed is not None and not changed.welcome:
        assert changed.number > asked.number, f"{changed.user!r} may not use {channel!r}"


def check_a_right_that_was_lost_ends(sub: Sub, changed: Step | None, asked: Step) -> None:
    """With a renewed token each subscription is asked for again; what may not be has ended."""
    if sub.channel == GUARDED and changed is not None and not changed.welcome:
        late = sub.step > asked.number or changed.number > asked.number
        assert late, f"link {asked.link} is still subscribed to {sub.channel!r}"


def check_a_token_ends_its_connection(conn: Conn, now: float) -> None:
    """No connection outlives its token by more than it takes to close it."""
    if conn.expires is not None:
        assert now < conn.expires + CLOSING, f"link {conn.name}: its token ended {conn.expires}"
