"""An emulated object store, one process for all tests of a worker."""

import pytest

from registry.bucket import BucketRegistry
from tests.emulators import processes
from tests.registry.bucket.remote import BUCKET, Time, client


@pytest.fixture(scope="session")
def gcs():
    with processes.storage() as control:
        client(control.host).create_bucket(BUCKET)
        control.keep("empty")
        yield control


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def registry(gcs, time):
    gcs.restore("empty")
    return BucketRegistry(f"gs://{BUCKET}/registry", "student", client=client(gcs.host), clock=time)
