"""``everwire bench``: its counts are exact, its status says whether anything was wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
BIN = Path(sys.executable).parent
QUICK = ("--duration", "1", "--warmup", "0.2")


def loaded(child: Any, status: int = 0) -> dict[str, Any]:
    """What a run with ``--json -`` said."""
    assert child.wait(40) == status, child
    found: dict[str, Any] = json.loads("\n".join(child.out))
    return found


@pytest.mark.parametrize("dialect", ["msgpack", "json"])
def test_every_message_reaches_every_subscriber_of_its_channel(
    demo: Any, everwire: Start, dialect: str
) -> None:
    child = everwire(
        "bench", demo.url, *QUICK, "--connections", "7", "--channels", "3", "--publishers", "2",
        "--rate", "200", "--dialect", dialect, "--json", "-",
    )  # fmt: skip
    told = loaded(child)
    totals = told["totals"]
    assert told["ok"]
    assert told["connections"]["made"] == told["connections"]["wanted"] == 9
    assert totals["published"] == totals["acknowledged"] > 0
    assert totals["delivered"] == totals["expected"]
    # 7 readers of 3 channels that get a third of the messages each
    assert abs(totals["expected"] - totals["acknowledged"] * 7 / 3) <= 7
    assert totals["refused"] == totals["unanswered"] == totals["foreign"] == 0
    assert told["checks"] == {"lost": 0, "doubled": 0, "misordered": 0}
    assert told["gaps"] == told["errors"] == told["closes"] == {}
    assert told["reconnects"] == 0
    assert told["settings"]["rate"] == 200
    assert "token" not in told["settings"]
    for name, factor in (("acknowledgement", 1), ("delivery", 7 / 3)):
        latency = told["latency"][name]
        assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
        assert sum(count for _, _, count in latency["buckets"]) == latency["count"]
        assert latency["count"] <= totals["acknowledged"] * factor + 7, "the warm-up counts not"
    assert told["rates"]["published"] > 0
    assert told["generator"]["cpu"] > 0
    assert any("0 lost, 0 doubled, 0 out of order" in line for line in child.err)


def test_a_closed_loop_keeps_its_window_and_more_channels_than_connections_are_shared(
    demo: Any, everwire: Start, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    child = everwire(
        "bench", demo.url, "--duration", "0.5", "--warmup", "0", "--connections", "2",
        "--channels", "20", "--rate", "0", "--window", "4", "--size", "1000", "--json", path,
    )  # fmt: skip
    assert child.wait(40) == 0, child
    told = json.loads(path.read_text())
    assert told["totals"]["published"] == told["totals"]["delivered"] > 20
    assert told["latency"]["lateness"]["count"] == 0
    text = "\n".join(child.out)
    assert "published to delivered" in text
    assert "#" in text
    assert "sent late" not in text


def test_connecting_alone_is_a_run_too(demo: Any, everwire: Start) -> None:
    child = everwire(
        "bench", demo.url, "--connections", "50", "--publishers", "0", "--duration", "0.2",
        "--warmup", "0", "--json", "-",
    )  # fmt: skip
    told = loaded(child)
    assert told["connections"]["made"] == 50
    assert told["connections"]["per_second"] > 0
    assert told["totals"]["published"] == 0


def test_two_runs_at_a_time_do_not_meet(demo: Any, everwire: Start) -> None:
    children = [everwire("bench", demo.url, *QUICK, "--json", "-") for _ in range(2)]
    for child in children:
        assert loaded(child)["totals"]["foreign"] == 0


def test_an_interrupt_ends_it_early_with_a_report_and_status_130(
    demo: Any, everwire: Start
) -> None:
    child = everwire("bench", demo.url, "--duration", "60", "--warmup", "0", "--json", "-")
    child.line("101 connected", stream="err")
    child.signal(signal.SIGINT)
    told = loaded(child, 130)
    assert told["interrupted"]
    assert told["ok"]
    assert told["measured"] < 30
    assert told["totals"]["delivered"] == told["totals"]["expected"]


def test_a_server_that_dies_and_comes_back_costs_what_was_in_its_memory(
    serve: Start, everwire: Start
) -> None:
    served = serve("demo")
    child = everwire(
        "bench", served.url, "--duration", "8", "--warmup", "0", "--connections", "5",
        "--json", "-",
    )  # fmt: skip
    child.line("6 connected", stream="err")
    served.child.kill()
    serve("demo", port=served.port)
    told = loaded(child, child.wait(40))
    assert told["reconnects"] == 6, "five subscribers and a publisher"
    assert told["closes"] == {"1006 abnormal": 6}
    assert told["gaps"] == {"epoch": 5}
    totals, checks = told["totals"], told["checks"]
    assert totals["unanswered"] == 0, "what was not acknowledged is published again"
    assert totals["published"] == totals["acknowledged"]
    assert totals["expected"] - totals["delivered"] == checks["lost"] - checks["doubled"]
    assert told["ok"] == (child.wait() == 0)


def test_a_server_that_dies_for_good_is_no_hang_and_no_success(
    serve: Start, everwire: Start
) -> None:
    served = serve("demo")
    child = everwire(
        "bench", served.url, "--duration", "3", "--warmup", "0", "--connections", "5",
        "--json", "-",
    )  # fmt: skip
    child.line("6 connected", stream="err")
    served.child.kill()
    told = loaded(child, 1)
    totals = told["totals"]
    assert not told["ok"]
    assert told["closes"] == {"1006 abnormal": 6}
    assert told["reconnects"] == 0
    assert totals["unanswered"] + totals["unsent"] > 0
    assert totals["published"] == totals["acknowledged"] + totals["unanswered"]
    assert totals["expected"] - totals["delivered"] <= told["checks"]["lost"]


REFUSING = """
from everwire import Everwire, Grant, Identity, Limits, Unauthorized
wire = Everwire(limits=Limits(dedupe_max=50))

@wire.authenticate
async def who(token: str) -> Identity:
    if token != "t-ada":
        raise Unauthorized("unknown token")
    return Identity("ada")

wire.channel("open-{name}", grant=Grant(publish=True))
wire.channel("read-{name}", grant=Grant())
"""


@pytest.fixture
def guarded(serve: Start, tmp_path: Path) -> Any:
    (tmp_path / "app.py").write_text(REFUSING)
    return serve("serve", "app:wire", cwd=tmp_path)


def test_refused_publishes_are_counted_by_code_and_are_not_lost(
    guarded: Any, everwire: Start
) -> None:
    child = everwire(
        "bench", guarded.url, *QUICK, "--token", "t-ada", "--channel", "read", "--json", "-",
        "--connections", "2",
    )  # fmt: skip
    told = loaded(child, 1)
    assert told["totals"]["refused"] == told["totals"]["published"] > 0
    assert told["errors"] == {"202 forbidden": told["totals"]["refused"]}
    assert told["checks"]["lost"] == 0
    assert any("--channel" in line for line in child.err), "the remedy"


def test_a_channel_that_remembers_no_more_ids_is_told_with_the_remedy(
    guarded: Any, everwire: Start
) -> None:
    child = everwire(
        "bench", guarded.url, *QUICK, "--channel", "open", "--json", "-", "--connections", "2",
        env={"EVERWIRE_TOKEN": "t-ada"},
    )  # fmt: skip
    told = loaded(child, 1)
    assert told["totals"]["acknowledged"] == 50
    assert told["errors"]["403 dedupe_full"] > 0
    assert told["checks"] == {"lost": 0, "doubled": 0, "misordered": 0}
    assert any("--channels" in line for line in child.err)


def test_a_refused_token_is_told_in_one_line(guarded: Any, everwire: Start) -> None:
    child = everwire("bench", guarded.url, "--token", "t-eve", env={"EVERWIRE_RATE": "x"})
    assert child.wait() == 1
    (line,) = child.err
    assert line.startswith("everwire: unauthenticated (200): unknown token; ")
    assert "--token" in line


def test_a_channel_that_may_not_be_subscribed_to_is_told_in_one_line(
    guarded: Any, everwire: Start
) -> None:
    child = everwire("bench", guarded.url, "--token", "t-ada", "--channel", "none")
    assert child.wait() == 1
    assert len(child.err) == 1
    assert "bad_channel (300)" in child.err[0]
    assert "--channel chat:bench" in child.err[0], "the remedy"


def test_a_server_that_is_not_there_is_told_in_one_line(everwire: Start, free_port: int) -> None:
    child = everwire("bench", f"ws://127.0.0.1:{free_port}/ws", "--timeout", "0.5")
    assert child.wait() == 1
    assert len(child.err) == 1
    assert f"cannot connect to ws://127.0.0.1:{free_port}/ws" in child.err[0]
    assert "is the server running?" in child.err[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://127.0.0.1:1/ws"], "did you mean ws://127.0.0.1:1/ws?"),
        (["ws://127.0.0.1:1", "--size", "3"], "80"),
        (["ws://127.0.0.1:1", "--rate", "nan"], "finite"),
        (["ws://127.0.0.1:1", "--channel", "two words"], "--channel"),
        (["ws://127.0.0.1:1", "--connections", "0", "--publishers", "0"], "nothing to do"),
        (["ws://127.0.0.1:1", "--connections", "2", "--channels", "401"], "raise --connections"),
        (["ws://127.0.0.1:1", "--dialect", "plain"], "'msgpack', 'json'"),
        (["ws://127.0.0.1:1", "--ca", __file__], "only wss://"),
        (["wss://127.0.0.1:1", "--ca", __file__], "no certificates in PEM"),
        (["wss://127.0.0.1:1", "--ca", "absent.pem"], "absent.pem"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_status_2(
    everwire: Start, arguments: list[str], said: str
) -> None:
    child = everwire("bench", *arguments)
    assert child.wait() == 2
    assert said in " ".join(" ".join(child.err).split())
    assert not child.out


def test_too_few_open_files_are_told_before_anything_is_loaded(demo: Any) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 150))

    command = [BIN / "everwire", "bench", demo.url, "--connections"]
    done = subprocess.run(
        [*command, "200"], preexec_fn=limit, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "265 open files, and this process may open 150" in done.stderr
    assert "ulimit -Hn" in done.stderr
    more = [*command, "80", *QUICK]
    done = subprocess.run(more, preexec_fn=limit, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, "the soft limit is raised to what is needed"


def test_a_terminal_shows_the_progress(demo: Any) -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [BIN / "everwire", "bench", demo.url, "--duration", "60"],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        ) as process:
            os.close(theirs)
            seen = b""
            while not re.search(rb"[1-9]\d* delivered", seen):
                seen += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert process.stdout is not None
            assert b"0 lost, 0 doubled" in process.stdout.read()
    finally:
        os.close(ours)
