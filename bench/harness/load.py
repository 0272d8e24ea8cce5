"""Running the load generator."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from .machine import OUT
from .servers import Server

Result = dict[str, Any]


class BadRun(Exception):
    """A run in which a message was lost or refused: it measures nothing."""


def load_command(
    server: Server, core: int, mode: str, dialect: str, options: Mapping[str, object]
) -> list[str]:
    """The command of one run, as it can be repeated by hand."""
    command = ["taskset", "-c", str(core), str(OUT / "load"), mode, "--port", str(server.port)]
    command += ["--dialect", dialect, "--server-pid", str(server.pid)]
    for name, value in options.items():
        command += [f"--{name}", *([] if value is True else [str(value)])]
    return command


def run_load(
    server: Server, core: int, mode: str, dialect: str, options: Mapping[str, object]
) -> Result:
    """Run the generator to its end.

    Raises:
        BadRun: it found something wrong.
    """
    command = load_command(server, core, mode, dialect, options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        raise BadRun(
            f"{server.kind.name}: {mode} {dict(options)} failed ({done.returncode})\n"
            f"{done.stderr}{done.stdout}{server.log() if server.process.poll() is not None else ''}"
        )
    result: Result = json.loads(done.stdout)
    return result


class Idle:
    """The generator holding idle connections, until :meth:`end`."""

    def __init__(
        self, server: Server, core: int, dialect: str, options: Mapping[str, object]
    ) -> None:
        self._process = subprocess.Popen(
            load_command(server, core, "idle", dialect, options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.ready = int(json.loads(line)["ready"]) if line else 0

    def end(self) -> Result:
        """Let the connections go; return what the generator saw."""
        out, _ = self._process.communicate("\n", timeout=30)
        result: Result = json.loads(out.splitlines()[-1])
        return result
