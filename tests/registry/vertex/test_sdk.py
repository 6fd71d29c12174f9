"""Google's high-level SDK and TFX's own Vertex pusher, in the same emulated service as ours.

What the SDK reads of our registry is one model with versions and aliases. What TFX's stock pusher
makes is another model with each push: the difference that this registry is for.
"""

import importlib

import grpc
import pytest
from google.auth.credentials import AnonymousCredentials

from registry.interface import Traffic
from tests.registry.bucket.remote import BUCKET, WHY, model, push
from tests.registry.vertex.conftest import LOCATION, NAME, PROJECT

pytestmark = pytest.mark.slow  # importing the SDK takes 5 to 10 s, TFX's pusher 15 s

IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


@pytest.fixture
def sdk(gcs, vertex, monkeypatch):
    """`google.cloud.aiplatform` as anybody uses it, with its channels led to the emulator."""
    from google.cloud import aiplatform

    for service in ("model", "endpoint"):
        module = importlib.import_module(
            f"google.cloud.aiplatform_v1.services.{service}_service.transports.grpc"
        )
        transport = getattr(module, f"{service.title()}ServiceGrpcTransport")
        monkeypatch.setattr(
            transport,
            "create_channel",
            classmethod(lambda cls, host, **_: grpc.insecure_channel(vertex.host)),
        )
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.host)
    aiplatform.init(
        project=PROJECT,
        location=LOCATION,
        api_endpoint=vertex.host,
        api_transport="grpc",
        credentials=AnonymousCredentials(),
        staging_bucket=f"gs://{BUCKET}/sdk",
    )
    yield aiplatform
    aiplatform.initializer.global_config._credentials = None


def versions(aiplatform, name):
    return aiplatform.models.ModelRegistry(name).list_versions()


def test_the_sdk_reads_our_registry(registry, sdk, tmp_path):
    push(registry, model(tmp_path / "a", "a"))
    push(registry, model(tmp_path / "b", "b"), make_live=False)
    registry.set_traffic(2, 20, **WHY)
    assert [found.name for found in sdk.Model.list()] == [NAME]
    listed = {int(found.version_id): found for found in versions(sdk, NAME)}
    assert set(listed[1].version_aliases) == {"default", "live"}
    assert set(listed[2].version_aliases) == {"canary"}
    assert sdk.Model(f"{NAME}@live").version_id == "1"
    endpoint = sdk.Endpoint(NAME)
    ids = {deployed.model_version_id: deployed.id for deployed in endpoint.list_models()}
    assert endpoint.traffic_split == {ids["1"]: 80, ids["2"]: 20}
    registry.promote(2, **WHY)
    assert sdk.Model(f"{NAME}@live").version_id == "2"
    registry.rollback(**WHY)
    assert sdk.Model(f"{NAME}@live").version_id == "1"
    assert sdk.Endpoint(NAME).traffic_split == {ids["1"]: 100}
    assert registry.gc(0, **WHY) == (2,)
    from google.api_core.exceptions import FailedPrecondition

    with pytest.raises(FailedPrecondition):
        sdk.models.ModelRegistry(NAME).delete_version("1")
    assert registry.audit().faults == ()


def test_what_the_sdk_does_to_the_split_is_seen(registry, sdk, tmp_path):
    push(registry, model(tmp_path / "a", "a"))
    push(registry, model(tmp_path / "b", "b"), make_live=False)
    registry.set_traffic(2, 20, **WHY)
    endpoint = sdk.Endpoint(NAME)
    ids = {deployed.model_version_id: deployed.id for deployed in endpoint.list_models()}
    endpoint.update(traffic_split={ids["1"]: 50, ids["2"]: 50})
    assert registry.traffic() == Traffic(1, 2, 50)


def stock_push(folder, content):
    """One run of TFX's Vertex pusher as it ships."""
    from tfx.extensions.google_cloud_ai_platform import constants
    from tfx.extensions.google_cloud_ai_platform.pusher import executor
    from tfx.types.standard_artifacts import Model, PushedModel
    from tfx.utils import json_utils

    exported, pushed = Model(), PushedModel()
    exported.uri, pushed.uri = str(folder / content), str(folder / f"pushed-{content}")
    model(folder / content / "Format-Serving", content)
    custom_config = {
        constants.ENABLE_VERTEX_KEY: True,
        constants.VERTEX_REGION_KEY: LOCATION,
        constants.VERTEX_CONTAINER_IMAGE_URI_KEY: IMAGE,
        constants.SERVING_ARGS_KEY: {
            "project_id": PROJECT,
            "endpoint_name": "stock",
            "machine_type": "n1-standard-2",
        },
    }
    executor.Executor().Do(
        {"model": [exported]},
        {"pushed_model": [pushed]},
        {"custom_config": json_utils.dumps(custom_config)},
    )
    return pushed.get_string_custom_property("pushed_destination")


def test_the_stock_pusher_makes_a_new_model_each_time(registry, sdk, tmp_path):
    first, second = stock_push(tmp_path, "one"), stock_push(tmp_path, "two")
    assert first != second
    assert len(sdk.Model.list()) == 2
    for name in (first, second):
        assert [found.version_id for found in versions(sdk, name)] == ["1"]
    (endpoint,) = sdk.Endpoint.list(filter='display_name="stock"')
    assert sorted(endpoint.traffic_split.values()) == [100]
    assert len(endpoint.list_models()) == 2  # the first stays deployed, and paid for

    push(registry, tmp_path / "one" / "Format-Serving")
    push(registry, tmp_path / "two" / "Format-Serving")
    assert len(sdk.Model.list()) == 3
    assert [found.version_id for found in versions(sdk, NAME)] == ["2", "1"]
    registry.rollback(**WHY)  # which the stock pusher has no word for
    assert registry.traffic() == Traffic(1)
