"""An emulated object store, one process for all tests of a worker."""

import pytest

from registry.bucket import BucketRegistry
from tests.registry.bucket.remote import BUCKET, Time, client, emulated


@pytest.fixture(scope="session")
def gcs():
    with emulated() as control:
        yield control


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def registry(gcs, time):
    gcs.restore("empty")
    return BucketRegistry(f"gs://{BUCKET}/registry", "student", client=client(gcs.host), clock=time)
