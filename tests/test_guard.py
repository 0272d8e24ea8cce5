"""The hot path's instructions, counted under callgrind: see bench/guard and CONTRIBUTING.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
BASELINE = json.loads((BENCH / "guard" / "baseline.json").read_text())["scenarios"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Counted:
    """One run of the guard: what it printed, and its rows by scenario."""

    def __init__(self, folder: Path) -> None:
        file = folder / "guard.json"
        command = [sys.executable, BENCH / "guard" / "run", "--json", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.text = done.stdout + done.stderr
        self.rows: dict[str, dict[str, Any]] = {}
        if file.exists():
            self.rows = {row["scenario"]: row for row in json.loads(file.read_text())}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Counted:
    return Counted(tmp_path_factory.mktemp("guard"))


@pytest.mark.parametrize("scenario", BASELINE)
def test_the_hot_path_takes_no_more_work_than_its_baseline(counted: Counted, scenario: str) -> None:
    assert scenario in counted.rows, counted.text
    assert not counted.rows[scenario]["fails"], counted.text


def test_every_scenario_has_a_baseline(counted: Counted) -> None:
    assert set(counted.rows) == set(BASELINE), counted.text


@pytest.mark.parametrize(
    ("work", "calls", "word"),
    [
        (1.0, 1.0, "ok"),
        (1.14, 1.0, "ok"),
        (1.2, 1.0, "loss"),
        (1.0, 1.2, "loss"),
        (0.7, 1.2, "loss"),  # a gain in one does not make up for a loss in the other
        (0.8, 1.0, "gain"),
        (1.0, 0.8, "gain"),
    ],
)
def test_a_fifth_more_or_less_is_seen(
    work: float, calls: float, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from guard.main import Figure, Verdict

    before = Figure(2.0, 5.0)
    now = Figure(2.0 * work, 5.0 * calls)
    assert Verdict("any", now, before, instructions=1.0, spread=0.0).word == word
