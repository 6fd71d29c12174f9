"""Emulated Vertex AI and object store, one process each for all tests of a worker."""

import pytest

from registry.vertex import VertexRegistry
from registry.vertex_settings import VertexSettings
from tests.emulators import processes
from tests.registry.bucket.remote import BUCKET, Time, client, emulated

PROJECT, LOCATION, NAME = "research", "europe-west4", "student"


@pytest.fixture(scope="session")
def gcs():
    with emulated() as control:
        yield control


@pytest.fixture(scope="session")
def service():
    with processes.vertex() as control:
        control(keep="empty")
        yield control


@pytest.fixture
def vertex(service):
    """The service without models, endpoints, delays and failures."""
    service(reset=True)
    return service


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def settings(vertex):
    return VertexSettings(staging=f"gs://{BUCKET}/staging", emulator_host=vertex.host)


@pytest.fixture
def registry(gcs, settings, time):
    gcs.restore("empty")
    return VertexRegistry(
        PROJECT,
        LOCATION,
        NAME,
        settings=settings,
        storage=client(gcs.host),
        clock=time,
    )
