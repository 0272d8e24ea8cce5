"""The delivery contract (docs/protocol.md, section 3), rule by rule: what is checked of it.

Rules 6 and 7, presence and rights are in :mod:`.checks_calls`.

Positions
    :func:`check_no_silent_gap`, :func:`check_sid_names_one_channel`.
1. Publish
    :func:`check_acknowledged_is_stored`, :func:`check_acknowledged_is_in_history`,
    :func:`check_stored_once`, :func:`check_duplicate_gets_the_first_answer`,
    :func:`check_refused_only_when_full`, :func:`check_not_sent_is_not_stored`,
    :func:`check_numbers_grow`, :func:`check_every_publish_ends`,
    :func:`check_given_up_only_while_something_fails`, :func:`check_not_sent_stays_so`,
    :func:`check_not_sent_again_when_it_may_be_forgotten`,
    :func:`check_the_application_is_answered`.
2. Order
    :func:`check_order`, :func:`check_held_after_failure`, :func:`check_held_is_said_when_it_is`,
    :func:`check_sent_again_with_a_higher_run`.
3. Subscribe
    :func:`check_no_silent_gap`, :func:`check_message_is_what_was_stored`,
    :func:`check_start_is_the_last_message`, :func:`check_the_answer_comes_first`,
    :func:`check_answers_a_request`, :func:`check_a_result_for_each`,
    :func:`check_everything_arrives`, :func:`check_everything_is_sent`.
4. Recover
    :func:`check_recovered_is_true_only_if_everything_follows`,
    :func:`check_recovered_starts_where_it_was_asked`,
    :func:`check_gap_follows_a_failed_recovery`, :func:`check_gap_is_needed`,
    :func:`check_gap_goes_on_where_history_does`, :func:`check_gap_is_where_the_answer_said`,
    :func:`check_gap_says_why`, :func:`check_an_epoch_lasts`.
5. Nodes hold no state
    :func:`check_an_epoch_lasts`, over nodes that are replaced while the broker stays.
6. Commands
    :func:`check_commands_run_once`, :func:`check_retry_gets_the_first_answer`,
    :func:`check_key_reused_only_if_it_is`, :func:`check_not_sent_did_not_run`,
    :func:`check_keyed_commands_run_to_their_end`, :func:`check_a_query_is_answered_truly`,
    :func:`check_every_call_ends`.
7. Bounded memory
    :func:`check_memory_is_bounded`.
8. Outage of the broker
    :func:`check_acknowledged_is_stored` and :func:`check_everything_arrives`, over outages.
Presence
    :func:`check_presence_converges`, :func:`check_presence_is_told`.
Rights
    :func:`check_who_may_not_is_refused`, :func:`check_a_right_that_was_lost_ends`,
    :func:`check_a_token_ends_its_connection`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .log import GRAIN, Log, Position

if TYPE_CHECKING:
    from .contract import Model, Publish, Reading, Step
    from .wire import Conn, Sub

HELD = 502
MARGIN = 30.0  # seconds before the end of the server's memory of ids
RECOVERY = 50.0  # seconds: a dead link is found, and the budget of attempts allows for another
FULL = 403


# ---- 1 publish -----------------------------------------------------------------------


def check_stored_once(log: Log, whose: str, step: Step) -> None:
    """An id is stored once within the window, and its second publish is given its first place."""
    before = log.last((whose, step.id))
    if before is None:
        assert not step.duplicate, f"{step.id} of {whose} was never stored"
        return
    age, offset = step.now - before[0], before[1]
    if age < log.kept.window - GRAIN:
        assert step.duplicate, f"{step.id} was stored as {offset} {age:g} s ago, and is again"
    if step.duplicate:
        assert step.position[1] == offset, f"{step.id} is {offset}"


def check_numbers_grow(log: Log, step: Step) -> None:
    """A new message gets the next number."""
    assert step.position[1] == len(log.entries) + 1
    assert step.position[2] == step.id


def check_refused_only_when_full(log: Log | None, whose: str, step: Step) -> None:
    """A channel refuses an id only if it remembers as many as it may, and never one of them."""
    assert step.refused == FULL, step.refused
    assert log is not None
    remembered = log.remembered(step.now, 1.5 * log.kept.window)
    assert remembered >= log.kept.most_ids, f"{remembered} ids are remembered"
    before = log.last((whose, step.id))
    assert before is None or step.now - before[0] >= log.kept.window - GRAIN


def check_duplicate_gets_the_first_answer(answers: list[Step], payload: dict[str, Any]) -> None:
    """What a publisher is answered is what the broker said: a retry the first place."""
    told = (payload["epoch"], payload["offset"], payload["duplicate"])
    said = [(one.position[0], one.position[1], one.duplicate) for one in answers]
    assert told in said, f"answered {told}; the broker said {said}"


def check_acknowledged_is_stored(model: Model, publish: Publish) -> None:
    """An acknowledgement names the place where this very message is stored."""
    assert publish.position is not None
    epoch, offset, message_id = publish.position
    log = model.find(publish.channel, epoch)
    assert log is not None, f"no such epoch: {epoch}"
    assert 0 < offset <= len(log.entries), f"nothing is stored at {offset}"
    entry = log.entries[offset - 1]
    assert entry.id == message_id
    assert entry.data[:2] == [publish.who, publish.n], f"stored is {entry.data[:2]}"


def check_acknowledged_is_in_history(model: Model, step: Step) -> None:
    """History, when read, is what was stored and is not too old or too much; no more, no less."""
    epoch, top, _ = step.top
    if not top:
        assert not step.messages
        return
    log = model.find(step.channel, epoch)
    assert log is not None, f"no such epoch: {epoch}"
    assert log.top(step.asked) <= top <= log.top(step.number)
    offsets = [message["offset"] for message in step.messages]
    first = offsets[0] if offsets else top + 1
    assert offsets == list(range(first, top + 1))
    asked_at = model.steps[step.asked].now
    assert first >= log.oldest(step.asked, asked_at - GRAIN), "older than is to be kept"
    assert first <= log.oldest(step.number, step.now + GRAIN), "not all that is held"
    for message in step.messages:
        position = (epoch, message["offset"], message["id"])
        check_message_is_what_was_stored(model, log, message, position)


def check_not_sent_is_not_stored(model: Model, publish: Publish) -> None:
    """What was given up as not sent is stored nowhere."""
    for log in model.logs.get(publish.channel, ()):
        for entry in log.entries:
            assert entry.data[:2] != [publish.who, publish.n], f"it is {entry.offset}"


def check_not_sent_stays_so(publish: Publish | None) -> None:
    """What was given up as not sent is not stored later either."""
    assert publish is None or publish.outcome != "not sent", f"{publish} is stored"


def check_not_sent_again_when_it_may_be_forgotten(conn: Conn, first: float, window: float) -> None:
    """What was first sent longer ago than the window, less 30 s, is not sent on a new link."""
    latest = first + window - MARGIN + GRAIN
    assert conn.since <= latest, f"first sent at {first:g}, and on a link of {conn.since:g}"


def check_given_up_only_while_something_fails(
    calm_since: float | None, publish: Publish, step: Step
) -> None:
    """A client brings a message through as soon as it can."""
    if calm_since is not None:
        calm = step.now - calm_since
        assert calm < RECOVERY, f"{publish} was given up after {calm:g} s without a failure"


def check_every_publish_ends(model: Model) -> None:
    """No publish is left without an outcome."""
    left = [publish for publish in model.publishes.values() if not publish.outcome]
    assert not left, f"never ended: {left}"


def check_the_application_is_answered(
    log: Log | None, offset: int, message_id: str, data: list[Any]
) -> None:
    """The application is answered with where its message, or the first of its id, is stored."""
    assert log is not None
    entry = log.entries[offset - 1]
    assert entry.id == message_id
    assert entry.whose == "server"
    if "-" not in message_id or not message_id.startswith(("raw-", "app-")):
        assert entry.data == data


# ---- 2 order ---------------------------------------------------------------------------


def check_order(model: Model, publish: Publish) -> None:
    """What is acknowledged to one publisher of a channel was first stored in its order."""
    mine = _first_stored(model, publish)
    for other in model.publishes.values():
        if (
            other.who == publish.who
            and other.channel == publish.channel
            and other.outcome == "acknowledged"
            and other.n != publish.n
        ):
            theirs = _first_stored(model, other)
            assert (mine < theirs) == (publish.n < other.n), (
                f"{publish.who} called {publish.n} and {other.n}, stored are {mine} and {theirs}"
            )


def _first_stored(model: Model, publish: Publish) -> tuple[int, int]:
    assert publish.position is not None
    data = [publish.who, publish.n]
    for log in model.logs[publish.channel]:
        for entry in log.entries:
            if entry.data[:2] == data:
                return log.life, entry.offset
    raise AssertionError(f"{data} is stored nowhere")


def check_held_after_failure(conn: Conn, request: Step) -> None:
    """While a publish that failed for now was not sent again, none behind it gets through."""
    message = request.message
    failed = conn.failed_runs.get(message["channel"], -1)
    assert message["run"] > failed, f"run {failed} of {message['channel']!r} had failed before"


def check_held_is_said_when_it_is(held: bool, message: dict[str, Any]) -> None:
    """``held`` is the answer to what came behind a failure, and to nothing else."""
    assert (message["code"] == HELD) == held, f"held: {held}, and the answer is {message}"


def check_sent_again_with_a_higher_run(before: Step | None, step: Step) -> None:
    """A client sends a message again with the channel's next run, also on another link."""
    if before is not None:
        assert step.message["run"] > before.message["run"], f"sent before: {before.message}"


# ---- 3 subscribe ------------------------------------------------------------------------


def check_no_silent_gap(at: Position | None, position: Position, prev: int | None) -> None:
    """A message is the next one after the position reached."""
    assert at is not None, f"{position} came before anything began"
    assert position[0] == at[0], f"{position} is of another epoch than {at}"
    before = position[1] - 1 if prev is None else prev
    assert position[1] > at[1], f"{position} comes again: {at} was reached"
    assert before <= at[1], f"between {at} and {position} something is missing"


def check_message_is_what_was_stored(
    model: Model, log: Log, told: dict[str, Any], position: Position
) -> None:
    """Number, id, data and publisher of a message are those of what was published."""
    offset = position[1]
    assert 0 < offset <= len(log.entries), f"nothing is stored at {offset}"
    entry = log.entries[offset - 1]
    assert position[2] == entry.id
    assert told["data"] == entry.data
    assert (told["publisher"] or None) == (model.users.get(entry.data[0]) or None)


def check_start_is_the_last_message(log: Log, at: Position, asked: Step, step: Step) -> None:
    """Without a position a subscription begins behind the last message.

    Of a channel of the latest value it begins before it, as long as that is held.
    """
    first, last = log.top(asked.number), log.top(step.number)
    if log.kept.latest:
        first = log.oldest(asked.number, asked.now - GRAIN) - 1
        last = log.oldest(step.number, step.now + GRAIN) - 1
    assert first <= at[1] <= last, f"it begins at {at}, and not at {first} to {last}"
    assert at == log.position(at[1]) or (log.kept.latest and log.knows(at))


def check_answers_a_request(request: Step | None, step: Step) -> None:
    """Each request is answered once."""
    assert request is not None, f"nobody asked: {step.message}"


def check_a_result_for_each(wanted: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    """A subscribe is answered with a result for each channel, in order."""
    assert [one["channel"] for one in wanted] == [one["channel"] for one in results]


def check_sid_names_one_channel(
    sids: dict[tuple[str, int], str], conn: Conn, result: dict[str, Any]
) -> None:
    """A node never gives a channel's number to another channel."""
    channel = sids.setdefault((conn.node, result["sid"]), result["channel"])
    assert channel == result["channel"], f"{result['sid']} is {channel!r} on this node"


def check_the_answer_comes_first(sub: Sub | None, step: Step) -> None:
    """Nothing of a channel comes before the answer that announces it, or after its end."""
    assert sub is not None, f"of an unknown channel: {step.message}"
    assert not sub.ended, f"the subscription to {sub.channel!r} had ended: {step.message}"


def check_everything_arrives(model: Model, reading: Reading) -> None:
    """At rest, everybody who reads was handed everything, or told of a gap."""
    log = model.log(reading.channel)
    if log is None:
        return
    top = log.position(len(log.entries))
    assert reading.at is not None
    assert reading.at[:2] == top[:2], f"{reading.name} is at {reading.at}, the last one is {top}"


def check_everything_is_sent(model: Model, conn: Conn) -> None:
    """At rest, each subscription on a link was sent all that there is."""
    for sub in conn.subs.values():
        log = model.find(sub.channel, sub.at[0])
        assert log is not None
        assert sub.at[1] == len(log.entries), f"link {conn.name} is at {sub.at} of {sub.channel!r}"


# ---- 4 recover ----------------------------------------------------------------------------


def check_recovered_is_true_only_if_everything_follows(
    model: Model, log: Log, asked: Position, request: Step
) -> None:
    """``recovered`` is honest: when the request came, all after the position was held."""
    now = model.steps[request.number].now
    assert log.recoverable(asked, request.number, now - GRAIN), (
        f"recovered from {asked}; the oldest held is {log.oldest(request.number, now)}"
    )


def check_recovered_starts_where_it_was_asked(asked: Position, at: Position) -> None:
    """What was recovered goes on at the position asked for."""
    assert at == asked


def check_gap_follows_a_failed_recovery(sub: Sub, what: str) -> None:
    """``recovered: false`` is followed by a gap before anything else."""
    assert sub.gap_due is None, f"{what} came, and {sub.gap_due[0]} was not recovered"


def check_gap_is_needed(log: Log, at: Position | None, step: Step) -> None:
    """Nobody is told of a gap while everything behind the place reached is held."""
    assert at is not None
    assert not log.recoverable(at, step.number, step.now + GRAIN), (
        f"a gap after {at}; the oldest held is {log.oldest(step.number, step.now)}"
    )


def check_gap_goes_on_where_history_does(
    log: Log, before: Position | None, position: Position, step: Step
) -> None:
    """After a gap, delivery goes on with the oldest message that is held."""
    _, offset, message_id = position
    oldest = log.oldest(step.number, step.now + GRAIN)
    assert offset < oldest, f"it goes on after {position}, held are those from {oldest}"
    assert message_id in ("", log.position(offset)[2])
    if before is not None and log.knows(before):
        assert offset >= before[1], f"from {before} back to {position}"


def check_gap_is_where_the_answer_said(announced: Position, position: Position) -> None:
    """The gap after a subscribe is where the result said that delivery starts."""
    assert position == announced


def check_gap_says_why(before: Position, log: Log, message: dict[str, Any], asked: bool) -> None:
    """``epoch`` for another numbering, ``expired`` or ``slow`` for what is held no more."""
    wanted = {"expired" if asked else "slow"}
    if not log.kept.history and not asked:
        wanted = {"dropped"}
    if before[0] != log.epoch or before[1] > len(log.entries):
        wanted = {"epoch"}
    elif not log.knows(before):
        wanted.add("epoch")  # if it is held, its id tells
    assert message["reason"] in wanted, f"{message['reason']}, and it is {wanted}"
    from_ = before[1] if before[0] == log.epoch else None
    assert message["from_"] == from_, f"from {message['from_']}, not {from_}"


def check_an_epoch_lasts(model: Model, channel: str, epoch: str) -> None:
    """A channel has one epoch while the broker has its numbering, and never one twice."""
    life = life_of(epoch)
    assert life <= model.life, f"epoch {epoch} is of a broker that is not there yet"
    others = [log.epoch for log in model.logs.get(channel, ()) if log.life == life]
    assert not others, f"{channel!r} had the epoch {others}, and is told of as {epoch}"


def life_of(epoch: str) -> int:
    """Which broker began an epoch: the tests name them so."""
    return int(epoch.partition(".")[0])
