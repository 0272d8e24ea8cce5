"""What runs under callgrind: ``inside.py LIBRARY SCENARIO …``; see ``bench/guard/run``."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from guard.client import Client
from guard.counting import Counter
from guard.reference import PARTS, Reference
from guard.scenarios import SCENARIOS
from guard.still import StillLoop

SAMPLES = 3
WARM_UP = 2  # samples that do not count: Python specialises what it runs often
RUNS = 8  # of the reference, in a sample
REFERENCE = "reference"


def count_reference(counter: Counter) -> None:
    reference = Reference()
    for _ in range(WARM_UP * RUNS):
        reference.run()
    counter.start()
    for _ in range(SAMPLES):
        counter.toggle()
        for _ in range(RUNS):
            reference.run()
        counter.toggle()
        counter.dump(f"{REFERENCE}/{RUNS * PARTS}/0")
    reference.close()


async def count_scenario(counter: Counter, title: str) -> None:
    from app import wire

    async with wire.listen(port=0) as server:
        scenario = SCENARIOS[title](server, counter.toggle)
        await scenario.prepare()
        gc.collect()  # as `everwire serve` has it
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        for _ in range(WARM_UP * scenario.repeat):
            await scenario.exchange()
        counter.dump("")
        for _ in range(SAMPLES):
            calls = Client.calls
            for _ in range(scenario.repeat):
                await scenario.exchange()
            units = scenario.repeat * scenario.units
            counter.dump(f"{title}/{units}/{Client.calls - calls}")
        scenario.close()
        for _ in range(20):
            await asyncio.sleep(0)


async def main(counter: Counter, titles: list[str]) -> None:
    try:
        for title in titles:
            await count_scenario(counter, title)
    except Exception:  # noqa: BLE001 - whatever it is: a server in whose loop no time passes cannot be stopped
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    counter = Counter(Path(sys.argv[1]))
    count_reference(counter)
    with asyncio.Runner(loop_factory=StillLoop) as runner:
        runner.run(main(counter, sys.argv[2:]))
