"""Mutated image files: whatever the bytes, an image or a refusal, in bounded memory."""

import resource

import mutations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.admission import Admission, Admitted
from serving.config import Limits
from serving.errors import CODES, ServingError

REFUSALS = {"refused_image", "unsupported_media_type", "too_large"}
LIMITS = Limits(max_pixels=1_000_000, max_image_bytes=1 << 20)
MOST_MEMORY = 256 << 20  # bytes above what the process held before


@pytest.fixture(autouse=True)
def _nothing_but_refusals(caplog):
    """An exception that admission had to catch is a defect, though the client sees a refusal."""
    yield
    assert not [it for it in caplog.records if "made the decoder fail" in it.getMessage()]


def survived(data: bytes, admission: Admission) -> str:
    """Admits one file; anything but an image within the limits or a refusal fails the test."""
    (outcome,) = admission.admit_many([[data]])
    if isinstance(outcome, ServingError):
        assert outcome.code in REFUSALS
        assert outcome.code in CODES
        assert set(outcome.details) == {"instance", "reason"}
        return outcome.details["reason"]
    assert isinstance(outcome, Admitted)
    (pixels,) = outcome.pixels
    assert pixels.dtype == np.uint8
    assert min(pixels.shape[:2]) >= 16
    assert pixels.shape[0] * pixels.shape[1] <= LIMITS.max_pixels
    return "admitted"


def run(count: int, seed: int) -> dict[str, int]:
    """Tries `count` mutants, every fourth as colour; how each ended → how often."""
    grey, colour = (Admission(LIMITS, channels, describe=False) for channels in (1, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends: dict[str, int] = {}
    for index, data in enumerate(mutations.mutants(count, seed)):
        end = survived(data, colour if index % 4 == 0 else grey)
        ends[end] = ends.get(end, 0) + 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 <= MOST_MEMORY
    return ends


def test_a_sample_of_mutants():
    ends = run(2_000, seed=1)
    # The mutants reach the decoder and come out at many places; else they would test nothing.
    assert len(ends) >= 8
    assert ends["admitted"] >= 100
    assert ends["damaged"] >= 100
    assert ends["truncated"] >= 100


@pytest.mark.slow
def test_a_hundred_thousand_mutants():
    assert sum(run(100_000, seed=2).values()) == 100_000


@settings(max_examples=300, deadline=None)
@given(
    magic=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xc0", b""]),
    rest=st.binary(max_size=400),
    end=st.sampled_from([b"", b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82"]),
)
def test_any_bytes_behind_any_magic(magic, rest, end):
    survived(magic + rest + end, Admission(LIMITS, 1))
