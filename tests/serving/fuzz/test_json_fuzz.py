"""A hundred thousand bodies against the JSON parser: each is read or refused, none is a defect."""

import collections
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "fronts"))

from hostile_json import CODES, bodies, outcome

INPUTS = 100_000
PER_DOCUMENT = 20  # damaged differently


@pytest.mark.slow
def test_a_hundred_thousand_bodies():
    seen = collections.Counter()

    @settings(
        max_examples=INPUTS // PER_DOCUMENT,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies(PER_DOCUMENT))
    def run(made):
        seen.update(map(outcome, made))

    run()
    print(dict(seen))
    assert seen.total() >= INPUTS  # the generator did not run dry
    assert set(seen) == CODES | {"ok"}
    assert all(count > 20 for count in seen.values())
