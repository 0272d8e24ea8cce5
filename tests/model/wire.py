"""What the model knows of each link: requests under way, and where its subscriptions are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import checks, checks_calls
from .log import Position

if TYPE_CHECKING:
    from .contract import Model, Step


@dataclass(slots=True)
class Sub:
    """A subscription on a link; ``at`` is the place of what was sent last."""

    channel: str
    sid: int
    at: Position
    step: int
    """at which it was asked for"""
    gap_due: tuple[Position, Position] | None = None
    """the position that was asked for in vain, and where it goes on instead"""
    ended: bool = False
    members: dict[str, str] = field(default_factory=dict)
    """who is present, as far as was told: users by connection"""
    count: int | None = None


@dataclass(slots=True)
class Conn:
    """A link."""

    name: int
    since: float
    """when something was first said"""
    node: str = ""
    user: str | None = None
    uses: dict[str | None, int] = field(default_factory=dict)
    """when a channel was first named"""
    expires: float | None = None
    """the end of its token"""
    requests: dict[Any, Step] = field(default_factory=dict)
    subs: dict[str, Sub] = field(default_factory=dict)
    sids: dict[int, Sub] = field(default_factory=dict)
    failed_runs: dict[str, int] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    """the publishes, by their steps, that came behind a failure"""
    offered: set[int] = field(default_factory=set)
    """those that the broker was given"""


@dataclass(slots=True)
class Wire:
    """All links, and what was said on them."""

    model: Model
    conns: dict[int, Conn] = field(default_factory=dict)
    sids: dict[tuple[str, int], str] = field(default_factory=dict)
    arrived: dict[tuple[str, str, str], tuple[Conn, Step]] = field(default_factory=dict)
    """where a publish came from last, by whose, channel and id"""
    first: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """when it came first"""
    answers: dict[tuple[str, str, str], list[Step]] = field(default_factory=dict)
    """what the broker answered, by whose, channel and id"""

    def _conn(self, step: Step) -> Conn:
        return self.conns.setdefault(step.link, Conn(step.link, step.now))

    # ---- to the server ---------------------------------------------------------------

    def came(self, step: Step) -> None:
        """A message reached the server."""
        conn, message = self._conn(step), step.message
        kind = message["type"]
        if kind in ("auth", "subscribe", "unsubscribe", "publish", "query", "command"):
            conn.requests[message["id"]] = step
        used = [one["channel"] for one in message.get("subscribe", message.get("channels", ()))
                if isinstance(one, dict)]  # fmt: skip
        for channel in [*used, message.get("channel")]:
            conn.uses.setdefault(channel, step.number)
        if kind == "publish":
            key = (self.model.whose(message["data"]), message["channel"], message["id"])
            if not message["id"].startswith("raw-"):
                before = self.arrived.get(key)
                checks.check_sent_again_with_a_higher_run(before[1] if before else None, step)
                first, window = self.first.setdefault(key, step.now), self.model.window
                checks.check_not_sent_again_when_it_may_be_forgotten(conn, first, window)
            self.arrived[key] = (conn, step)
            if message["run"] <= conn.failed_runs.get(message["channel"], -1):
                conn.held.add(step.number)

    def _arrived(self, step: Step) -> tuple[Conn, Step] | None:
        """Where a publish that the broker has to do with came from; None: the application."""
        return self.arrived.get((self.model.whose(step.data), step.channel, step.id))

    def offered(self, step: Step) -> None:
        """The broker is given a publish."""
        arrived = self._arrived(step)
        if arrived is not None:
            conn, request = arrived
            checks.check_held_after_failure(conn, request)
            conn.offered.add(request.number)
            conn.failed_runs.pop(step.channel, None)

    def stored(self, step: Step) -> None:
        """The broker has stored a publish, or found it stored."""
        if not step.refused:
            key = (self.model.whose(step.data), step.channel, step.id)
            self.answers.setdefault(key, []).append(step)

    def failed(self, step: Step) -> None:
        """A publish failed for now, at this very moment: what follows it is to be held."""
        arrived = self._arrived(step)
        if arrived is not None:
            conn, request = arrived
            run = request.message["run"]
            run = conn.failed_runs[step.channel] = max(run, conn.failed_runs.get(step.channel, -1))
            for other in conn.requests.values():  # those that wait to be allowed
                message = other.message
                if (
                    message["type"] == "publish"
                    and message["channel"] == step.channel
                    and message["run"] <= run
                    and other.number not in conn.offered
                ):
                    conn.held.add(other.number)

    # ---- from the server -----------------------------------------------------------------

    def sent(self, step: Step) -> None:
        """A message of the server reached the client."""
        handler = getattr(self, f"_{step.message['type']}", None)
        if handler is not None:
            handler(self._conn(step), step, step.message)

    def _hello(self, conn: Conn, step: Step, message: dict[str, Any]) -> None:
        conn.node = message["node"]

    def _response(self, conn: Conn, step: Step, message: dict[str, Any]) -> None:
        request = conn.requests.pop(message["request_id"], None)
        checks.check_answers_a_request(request, step)
        assert request is not None
        asked, payload = request.message, message["payload"]
        match asked["type"]:
            case "auth":
                again, conn.user = conn.user is not None, payload["user"]
                conn.expires = asked["expires"]
                if again:
                    self._asked_again(conn, request)
                self._results(conn, request, asked["subscribe"], payload["subscriptions"], step)
            case "subscribe":
                self._results(conn, request, asked["channels"], payload["subscriptions"], step)
            case "unsubscribe":
                for channel in asked["channels"]:
                    self._end(conn, channel)
            case "publish":
                self._acknowledged(conn, asked, payload)
            case _:
                pass

    def _asked_again(self, conn: Conn, request: Step) -> None:
        changed = self.model.allowed.get(conn.user or "")
        for sub in conn.subs.values():
            checks_calls.check_a_right_that_was_lost_ends(sub, changed, request)

    def _error(self, conn: Conn, step: Step, message: dict[str, Any]) -> None:
        request = conn.requests.pop(message["request_id"], None)
        if message["request_id"] is not None:
            checks.check_answers_a_request(request, step)
        if request is not None and request.message["type"] == "publish":
            checks.check_held_is_said_when_it_is(request.number in conn.held, message)

    def _acknowledged(self, conn: Conn, asked: dict[str, Any], payload: dict[str, Any]) -> None:
        key = (self.model.whose(asked["data"]), asked["channel"], asked["id"])
        checks.check_duplicate_gets_the_first_answer(self.answers.get(key, []), payload)

    def _results(
        self,
        conn: Conn,
        request: Step,
        wanted: list[dict[str, Any]],
        results: list[dict[str, Any]],
        step: Step,
    ) -> None:
        checks.check_a_result_for_each(wanted, results)
        for one, result in zip(wanted, results, strict=True):
            channel = result["channel"]
            if "error" in result:  # the one that there was may have ended with it
                conn.subs.pop(channel, None)
                continue
            if conn.uses.get(channel) == request.number:  # later ones need not be asked about
                changed = self.model.allowed.get(conn.user or "")
                checks_calls.check_who_may_not_is_refused(channel, changed, request)
            checks.check_sid_names_one_channel(self.sids, conn, result)
            self._end(conn, channel)
            at = (result["epoch"], result["offset"], result["id"])
            log = self.model.learn(channel, at[0])
            sub = Sub(channel, result["sid"], at, request.number)
            asked = one["position"]
            if asked is None:
                checks.check_start_is_the_last_message(log, at, request, step)
            elif result["recovered"]:
                checks.check_recovered_starts_where_it_was_asked(asked, at)
                checks.check_recovered_is_true_only_if_everything_follows(
                    self.model, log, asked, request
                )
            else:
                checks.check_gap_is_needed(log, asked, step)
                sub.gap_due = (asked, at)
            conn.subs[channel] = conn.sids[sub.sid] = sub

    def _end(self, conn: Conn, channel: str) -> None:
        sub = conn.subs.pop(channel, None)
        if sub is not None:
            checks.check_gap_follows_a_failed_recovery(sub, "the end")
            sub.ended = True

    def _unsubscribed(self, conn: Conn, step: Step, message: dict[str, Any]) -> None:
        sub = conn.sids.get(message["sid"])
        checks.check_the_answer_comes_first(sub, step)
        assert sub is not None
        sub.gap_due = None
        self._end(conn, sub.channel)

    def _message(self, conn: Conn, step: Step, message: dict[str, Any]) -> None:
        sub = conn.sids.get(message["sid"])
        checks.check_the_answer_comes_first(sub, step)
        assert sub is not None
        checks.check_gap_follows_a_failed_recovery(sub, "a message")
        position = (sub.at[0], message["offset"], message["id"])
        log = self.model.learn(sub.channel, sub.at[0])
        checks.check_no_silent_gap(sub.at, position, message["prev"])
        checks.check_message_is_what_was_stored(self.model, log, message, position)
        sub.at = position

    def _gap(self, conn: Conn, step: Step, message: dict[str, Any]) -> None:
        sub = conn.sids.get(message["sid"])
        checks.check_the_answer_comes_first(sub, step)
        assert sub is not None
        position = (message["epoch"], message["offset"], message["id"])
        log = self.model.learn(sub.channel, position[0])
        before, asked = sub.at, sub.gap_due is not None
        if sub.gap_due is not None:
            before, announced = sub.gap_due
            checks.check_gap_is_where_the_answer_said(announced, position)
        checks.check_gap_is_needed(log, before, step)
        checks.check_gap_goes_on_where_history_does(log, before, position, step)
        checks.check_gap_says_why(before, log, message, asked)
        sub.at, sub.gap_due = position, None

    def _presence(self, conn: Conn, step: Step, message: dict[str, Any]) -> None:
        sub = conn.sids.get(message["sid"])
        checks.check_the_answer_comes_first(sub, step)
        assert sub is not None
        if message["full"]:
            sub.members.clear()
        for member in message["joined"]:
            sub.members[member["connection"]] = member["user"]
        for connection in message["left"]:
            sub.members.pop(connection, None)
        sub.count = message["count"]
