"""Whatever clients do and whatever fails, the delivery contract holds; see :mod:`.checks`."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from .faults import Faults
from .uses import Uses

# The same examples in every run. EVERWIRE_EXAMPLES=2000 looks for new ones instead.
MORE = int(os.environ.get("EVERWIRE_EXAMPLES", "0"))


class Contract(Uses, Faults):
    """Everything at once."""


# It takes seconds; but if it fails, Hypothesis looks for the shortest way there for five minutes.
TestContract = pytest.mark.timeout(0 if MORE else 400)(Contract.TestCase)
TestContract.settings = settings(
    max_examples=MORE or 60,
    stateful_step_count=50,
    derandomize=not MORE,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
