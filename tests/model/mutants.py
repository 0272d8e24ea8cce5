"""Break the code on purpose, a line at a time, and see which check notices.

``python -m tests.model.mutants [part of a name] …`` from the top of the repository: for each
mutant a copy of the package with one line changed, and the machine driven against it until a
check fails. A mutant that survives asks for a stronger rule or check. It is no test of the
suite: it takes minutes, and its lines are those of the code at some time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = 600
SECONDS = 240.0

# A name, the file, what stands there, and what is to stand there instead.
MUTANTS = [
    ("none", "brokers/memory.py", "if known > 0:", "if known > 0:  # survives"),
    ("dedupe forgotten", "brokers/memory.py", "if known > 0:", "if known > 10**9:"),
    ("dedupe forgets early", "brokers/stream.py", "self._half = window / 2", "self._half = window / 9"),
    ("dedupe refuses early", "brokers/stream.py", "if len(new) > self._room:", "if len(new) > self._room // 2:"),
    ("dedupe does not know whose", "brokers/memory.py", 'key = f"{len(scope)}:{scope}{message_id}"', "key = message_id"),
    ("a duplicate gets the last place", "brokers/memory.py", "return Published(Position(stream.epoch, known, message_id), True)", "return Published(Position(stream.epoch, stream.top, message_id), True)"),
    ("a duplicate is not said to be one", "brokers/memory.py", "return Published(Position(stream.epoch, known, message_id), True)", "return Published(Position(stream.epoch, known, message_id), False)"),
    ("recovered from what is just gone", "brokers/stream.py", "            if index < head:\n", "            if index < head - 1:\n"),
    ("recovered whatever the id", "brokers/stream.py", "elif records[index].id != since.id:", "elif False:"),
    ("recovered at the top whatever the id", "brokers/stream.py", "            if since.id == self.top_id:\n", "            if True:\n"),
    ("recovery begins one late", "brokers/stream.py", "                head = index + 1\n", "                head = min(index + 2, len(records))\n"),
    ("recovery begins one early", "brokers/stream.py", "                head = index + 1\n", "                head = index\n"),
    ("never recovered", "brokers/stream.py", "            if index < head:\n", "            if True:\n"),
    ("one message less is kept", "brokers/stream.py", "end - head > options.history\n", "end - head >= options.history\n"),
    ("kept for too long", "brokers/stream.py", "oldest = len(records), now - options.history_ttl", "oldest = len(records), now - 2 * options.history_ttl"),
    ("kept too little of", "brokers/stream.py", "(self.size > options.history_bytes and end - head > 1)", "(2 * self.size > options.history_bytes and end - head > 1)"),
    ("a page is skipped", "server/recovering.py", "    subscription.move(m.Position(last.epoch, last.offset, last.id))", "    subscription.move(m.Position(last.epoch, last.offset + (len(records) > 2), last.id))"),
    ("delivered while recovering", "hub/hub.py", "        if subscription.offset < last:\n            return False\n", "        if subscription.offset < last - 1:\n            return False\n"),
    ("live without looking", "hub/hub.py", "        if subscription.offset < last:\n            return False\n", ""),
    ("the lane is not flushed", "hub/hub.py", "        if lane.pending is not None:\n            self.flush()\n        lane.members", "        lane.members"),
    ("no gap after a failed recovery", "server/subscribing.py", "        if one.asked is not None and not one.page.recovered:\n", "        if False:\n"),
    ("no gap for the slow", "server/recovering.py", "    if not page.recovered:\n", "    if False:\n"),
    ("the gap is where it was asked", "server/recovering.py", "            start.offset,\n            start.id,", "            asked.offset,\n            start.id,"),
    ("from is off by one", "server/recovering.py", "asked.offset if asked", "asked.offset + 1 if asked"),
    ("held is forgotten", "server/publishing.py", "        if message.run <= failed:\n", "        if message.run < failed:\n"),
    ("held for one run more", "server/publishing.py", "        if message.run <= failed:\n", "        if message.run <= failed + 1:\n"),
    ("a failure holds nothing", "server/publishing.py", "    if error.temporary or error.outcome == \"unknown\":\n", "    if False:\n"),
    ("one that waits is overtaken", "server/publishing.py", "waiting = publishing.waiting.get(message.channel) if publishing is not None else None", "waiting = None"),
    ("sids are used again", "hub/hub.py", "Channel(key, name, next(self._sids), options)", "Channel(key, name, 1 + len(self.channels) // 2, options)"),
    ("no answer before its messages", "server/requests.py", "    results, begun = await subscribing.subscribe(node, connection, message.channels)\n", "    results, begun = await subscribing.subscribe(node, connection, message.channels)\n    subscribing.follow(node, connection, begun)\n"),
    ("told after unsubscribing", "server/subscribing.py", "    node.hub.remove(subscription)\n    connection.behind.pop(subscription, None)\n    node.left", "    connection.behind.pop(subscription, None)\n    node.left"),
    ("a new epoch is not noticed", "hub/hub.py", "        elif channel.epoch != top.epoch:\n            self.renumber(channel, top)", "        elif False:\n            self.renumber(channel, top)"),
    ("the slow are forgotten", "hub/hub.py", "                    self._recover(self.detach(list(subscriptions)))", "                    self.detach(list(subscriptions))"),
    ("the slow are not stopped", "server/connection.py", "        self.node.hub.stuck(self, self.subscriptions.values())\n", ""),
    ("the publisher is not told", "server/publishing.py", "            user or None,\n            None,\n", "            None,\n            None,\n"),
    ("messages without an id collide", "brokers/memory.py", 'message_id = f"{stream.epoch[:8]}-{offset}"', 'message_id = f"{stream.epoch[:8]}-{offset // 2}"'),
    ("client: a gap is swallowed", "client/feed.py", "        self._gap(notice.reason, at, notice.from_)\n", "        self.tail = at\n"),
    ("client: duplicates are handed on", "client/feed.py", "        if where is Place.NEXT:\n", "        if where is not Place.HOLE:\n"),
    ("client: the run stays the same", "client/outbox.py", "                lane.run += 1\n            lane.in_flight = 0", "                pass\n            lane.in_flight = 0"),
    ("client: after a drop only what was not sent", "client/outbox.py", "        self._ready = deque(self._entries)\n", "        self._ready = deque(p for p, e in self._entries.items() if e.first_sent is None)\n"),
    ("client: after a drop the newest first", "client/outbox.py", "        self._ready = deque(self._entries)\n", "        self._ready = deque(reversed(self._entries))\n"),
    ("client: forgets where it was", "client/feed.py", "            if self._fits(size):\n                self.tail = position\n", "            if self._fits(size):\n"),
    ("client: a full queue drops", "client/feed.py", "            if self._fits(size):\n                self.tail = position\n", "            self.tail = position\n            if self._fits(size):\n"),
    ("a drop of the backlog is not told", "server/recovering.py", "        if start.epoch != asked.epoch or start.offset > asked.offset:\n", "        if start.epoch != asked.epoch:\n"),
    ("the backlog goes on one late", "hub/backlog.py", "before = record.offset - 1 if", "before = record.offset if"),
    ("who leaves stays present", "server/presence.py", "        self._node.chores.add(key, partial(remove, key, connection.id, grace))\n", ""),
    ("one present too many is counted", "brokers/members.py", "len(roster.present), before", "len(roster.present) + 1, before"),
    ("whoever watches is told half", "server/presence.py", "joined, left = list(shown.joined.values()), list(shown.left)", "joined, left = list(shown.joined.values()), []"),
    ("the members of a dead node stay", "brokers/store.py", "            self.tell(self.rosters.gone(other))\n        self.tell(self.rosters.overdue", "        self.tell(self.rosters.overdue"),
    ("a key is not remembered", "brokers/claims.py", "        if known is None:\n            self._check_room", "        if True:\n            self._check_room"),
    ("a key may be used otherwise", "brokers/claims.py", "        if known.digest != digest:\n", "        if False:\n"),
    ("any key was used otherwise", "brokers/claims.py", "        if known.digest != digest:\n", "        if True:\n"),
    ("keys are everybody's", "server/commands.py", 'return Scope(f"{len(tenant)}:{tenant}{user}"', 'return Scope(""'),
    ("a retry does not join", "server/commands.py", "        running = self._running.get(scope)\n        if running is None:", "        running = None\n        if running is None:"),
    ("a cancel stops a command with a key", "server/commands.py", "await asyncio.shield(running.task)", "await running.task"),
    ("keys are forgotten early", "brokers/claims.py", "oldest = now - self._limits.dedupe_window", "oldest = now - 10"),
    ("a lost right is not noticed", "server/subscribing.py", "        except RequestError as refused:\n            error = refused\n", "        except RequestError:\n            continue\n"),
    ("what is not told is not found", "server/upkeep.py", "            if behind or changed:\n", "            if False:\n"),
    ("presence is not given up with a subscription", "server/subscribing.py", "            node.left(connection, [before])\n        raise", "            pass\n        raise"),
    ("who watches anew is told old changes", "server/presence.py", "        if shown.version is None or self._shown.get(channel) is not shown:", "        if shown.version is None:"),
    ("a token has no end", "server/liveness.py", "return self.node.wall() >= expires +", "return self.node.wall() < 0 * expires +"),
    ("client: gives up too late", "client/entry.py", "return window - min(DEDUPE_MARGIN, window / 2)", "return 3 * window"),
    ("client: sent is said to be not sent", "client/outbox.py", "kind = NotSent if entry.first_sent is None else DeliveryUnknown", "kind = NotSent"),
]  # fmt: skip


def main(wanted: list[str]) -> int:
    survivors = []
    for name, file, old, new in MUTANTS:
        if wanted and not any(part in name for part in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "src", Path(folder) / "src")
            path = Path(folder) / "src" / "everwire" / file
            text = path.read_text(encoding="utf-8")
            if text.count(old) != 1:
                print(f"{name:40} stale: {file} has that {text.count(old)} times", flush=True)
                continue
            path.write_text(text.replace(old, new), encoding="utf-8")
            verdict = _drive(Path(folder) / "src")
        print(f"{name:40} {verdict}", flush=True)
        if verdict.startswith("SURVIVED"):
            survivors.append(name)
    print(f"{len(survivors)} survived: {survivors}")
    return bool(survivors)


def _drive(source: Path) -> str:
    env = {**os.environ, "PYTHONPATH": f"{source}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.model.mutants", "--drive"],
            env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "SURVIVED (out of time)"
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]


def drive() -> None:
    """Say which check failed, and after how many examples."""
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.stateful import run_state_machine_as_test

    import everwire

    from .test_contract import Contract

    assert everwire.__file__ is not None
    assert not everwire.__file__.startswith(str(ROOT)), everwire.__file__
    count = 0

    class Counted(Contract):
        def __init__(self) -> None:
            nonlocal count
            count += 1
            super().__init__()

    chosen = settings(
        max_examples=EXAMPLES, stateful_step_count=50, phases=[Phase.generate], deadline=None,
        database=None, derandomize=True, suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )  # fmt: skip
    try:
        run_state_machine_as_test(Counted, settings=chosen)
    except BaseException as error:  # noqa: BLE001
        frames = traceback.extract_tb(error.__traceback__)
        named = [frame.name for frame in frames if frame.name.startswith("check_")]
        text = str(error).splitlines()
        what = named[-1] if named else f"{frames[-1].name}: {type(error).__name__}"
        print(f"{what} ({count} examples): {text[0] if text else ''}"[:200])
    else:
        print(f"SURVIVED {count} examples")


if __name__ == "__main__":
    if sys.argv[1:] == ["--drive"]:
        drive()
    else:
        sys.exit(main(sys.argv[1:]))
