"""Scripts and their ends: exit without closing, forks, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everwire.sync import connect

from .conftest import Server

Start = Callable[..., Any]


@pytest.fixture
def script(start: Start) -> Start:
    def script(code: str, *args: str) -> Any:
        return start([sys.executable, "-W", "error", "-u", "-c", textwrap.dedent(code), *args])

    return script


def test_a_script_that_just_ends_leaves_nothing_behind(server: Server, script: Start) -> None:
    """What it published is stored, and the connections are closed, not dropped."""
    child = script(
        """
        import sys
        from everwire.sync import connect
        client = connect(sys.argv[1]).open()
        other = connect(sys.argv[1]).open()
        for n in range(200):
            client.publish_nowait("c", n)
        """,
        server.url,
    )
    assert child.wait() == 0
    assert child.err == []
    with connect(server.url) as client:
        assert [one.data for one in client.history("c", limit=500)] == list(range(200))


def test_ctrl_c_ends_a_script_that_waits(server: Server, script: Start) -> None:
    child = script(
        """
        import sys
        from everwire.sync import connect
        with connect(sys.argv[1]) as client:
            for item in client.subscribe("c"):
                print(item.data)
        """,
        server.url,
    )
    with connect(server.url) as client:
        while not client.presence("c").count:
            pass
        client.publish("c", "came")
    child.line("^came$")
    child.signal(signal.SIGINT)
    assert child.wait() == -signal.SIGINT
    assert child.err[-1] == "KeyboardInterrupt"
    assert sum("Traceback" in line for line in child.err) == 1


def test_after_a_fork_the_child_is_told_so_and_connects_anew(server: Server, script: Start) -> None:
    child = script(
        """
        import os, sys, warnings
        from everwire.sync import connect
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads do not survive it
        with connect(sys.argv[1]) as client:
            room = client.subscribe("c").__enter__()
            if (pid := os.fork()) == 0:
                for call in (lambda: client.publish("c", 1), lambda: next(room), room.__iter__().__next__):
                    try:
                        call()
                    except RuntimeError as error:
                        print("child:", error)
                with connect(sys.argv[1]) as fresh:
                    print("child:", fresh.query("double", {"n": 21}))
                sys.exit()
            print("status", os.waitpid(pid, 0)[1])
            print("parent:", client.query("double", {"n": 4}))
        """,
        server.url,
    )
    assert child.wait() == 0
    told = [line for line in child.out if line.startswith("child:")]
    assert [line for line in told if "connect anew in the child" in line] == told[:3]
    assert told[3:] == ["child: 42"]
    assert child.out[-2:] == ["status 0", "parent: 8"]
    assert child.err == []


def test_importing_it_starts_nothing(script: Start) -> None:
    child = script("import everwire.sync, threading; print(threading.active_count())")
    assert child.wait() == 0
    assert child.out == ["1"]


def test_in_a_notebook_cells_use_it_though_a_loop_runs(
    server: Server, start: Start, tmp_path: Path
) -> None:
    """A real kernel, to which this script talks as a notebook does."""
    notebook = """
        import sys
        from jupyter_client.manager import start_new_kernel

        manager, kernel = start_new_kernel()
        def show(message):
            content = message["content"]
            text = content.get("text") or content.get("data", {}).get("text/plain")
            print(text or content.get("evalue", ""), end="\\n", flush=True)
        try:
            for cell in (
                "import asyncio; from everwire.sync import connect",
                "asyncio.get_running_loop().is_running()",
                f"client = connect({sys.argv[1]!r}).open()",
                "client.query('double', {'n': 21})",
                "room = client.subscribe('c').__enter__(); client.publish('c', 'hello')",
                "next(room).data",
            ):
                kernel.execute_interactive(cell, timeout=30, output_hook=show)
        finally:
            manager.shutdown_kernel()
    """
    child = start(
        [sys.executable, "-c", textwrap.dedent(notebook), server.url],
        env={"JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)},
    )
    assert child.wait(timeout=50) == 0, child
    told = [line for line in child.out if line in ("True", "42", "'hello'")]
    assert told == ["True", "42", "'hello'"], child
