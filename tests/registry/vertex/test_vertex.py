"""Versions on Vertex AI: the real client over gRPC against an emulator in its own process."""

import datetime
import subprocess
import sys

import pytest
from google.api_core.exceptions import FailedPrecondition, InvalidArgument

from registry.interface import Registry, RegistryError, Traffic, VerificationError
from registry.vertex import VertexRegistry
from registry.vertex_settings import Names, VertexSettings
from tests.emulators.processes import ROOT
from tests.registry.bucket.remote import BUCKET, WHY, client, model, push
from tests.registry.vertex.conftest import LOCATION, NAME, PROJECT

PARENT = f"projects/{PROJECT}/locations/{LOCATION}"
MODEL, ENDPOINT = f"{PARENT}/models/{NAME}", f"{PARENT}/endpoints/{NAME}"


@pytest.fixture
def two(registry, tmp_path):
    """Version 1 live, version 2 pushed beside it."""
    push(registry, model(tmp_path / "a", "a"))
    push(registry, model(tmp_path / "b", "b"), make_live=False)
    return registry


def aliases(registry) -> dict[int, set[str]]:
    versions = registry.client.models("list_model_versions", name=MODEL)
    return {int(v.version_id): set(v.version_aliases) for v in versions}


def split(registry) -> dict[int, int]:
    """Version → percent, of everything that is deployed."""
    endpoint = registry.client.endpoints("get_endpoint", name=ENDPOINT)
    return {
        int(deployed.model_version_id): endpoint.traffic_split.get(deployed.id, 0)
        for deployed in endpoint.deployed_models
    }


def test_pushes_versions_of_one_model(two):
    models = list(two.client.models("list_models", parent=PARENT))
    assert [found.name for found in models] == [MODEL]
    assert aliases(two) == {1: {"live", "default"}, 2: set()}
    assert split(two) == {1: 100}  # not live, not deployed
    version = two.client.models("get_model", name=f"{MODEL}@2")
    digest = two.show(2).digest
    assert version.artifact_uri == f"gs://{BUCKET}/staging/student/artifacts/{digest}"
    assert version.labels["cortexflow_digest"] == digest[:63]
    assert version.labels["cortexflow_who"] == "tester"
    assert version.version_description == f"test (by tester; {digest})"


def test_canary_promote_and_rollback(two):
    assert two.set_traffic(2, 20, **WHY) == Traffic(1, 2, 20) == two.traffic()
    assert split(two) == {1: 80, 2: 20}
    assert aliases(two) == {1: {"live", "default"}, 2: {"canary"}}
    two.promote(2, **WHY)
    assert split(two) == {1: 0, 2: 100}  # the previous one stays deployed, for the way back
    assert aliases(two) == {1: {"previous"}, 2: {"live", "default"}}
    assert two.rollback(**WHY).number == 1
    assert split(two) == {1: 100}
    assert aliases(two) == {1: {"live", "default"}, 2: set()}
    assert [(e.action, e.version, e.live, e.canary, e.percent) for e in two.history()] == [
        ("push", 1, 1, None, 0),
        ("push", 2, 1, None, 0),
        ("set_traffic", 2, 1, 2, 20),
        ("promote", 2, 2, None, 0),
        ("rollback", 1, 1, None, 0),
    ]
    audit = two.audit()
    assert (audit.entries, audit.faults) == (10, ())
    assert two.served_at(datetime.datetime.now(datetime.UTC)) == Traffic(1)


def test_a_rollback_needs_no_deployment(two, vertex):
    two.promote(2, **WHY)
    vertex()
    two.rollback(**WHY)
    calls = vertex()
    assert "DeployModel" not in calls
    assert calls.count("UpdateEndpoint") == 1


def test_repeating_a_command_changes_nothing(two, vertex):
    for act in (
        lambda: two.set_traffic(2, 20, **WHY),
        lambda: two.promote(2, **WHY),
    ):
        act()
        entries = len(two.history())
        vertex()
        act()
        asked = {"GetEndpoint", "GetModel", "ListModelVersions"}
        assert set(vertex()) <= asked
        assert len(two.history()) == entries


def test_a_dry_run_changes_nothing(two, vertex, tmp_path):
    vertex()
    two.promote(2, **WHY, dry_run=True)
    two.set_traffic(2, 50, **WHY, dry_run=True)
    two.gc(0, **WHY, dry_run=True)
    assert push(two, model(tmp_path / "c", "c"), dry_run=True).number == 3
    assert set(vertex()) <= {"GetEndpoint", "GetModel", "ListModelVersions"}


def test_a_live_canary_or_previous_version_is_not_deleted(two, gcs, tmp_path):
    two.set_traffic(2, 20, **WHY)
    assert two.gc(0, **WHY) == ()
    for number in (1, 2):  # nor past the registry: the service refuses
        with pytest.raises(RegistryError, match=f"student@{number}"):
            two.client.models("delete_model_version", name=f"{MODEL}@{number}")
    push(two, model(tmp_path / "c", "c"))
    assert split(two) == {1: 0, 3: 100}
    folder = two.uri(2).removeprefix(f"gs://{BUCKET}/")
    assert len(list(client(gcs.host).list_blobs(BUCKET, prefix=folder))) == 2
    assert two.gc(0, **WHY) == (2,)
    assert set(aliases(two)) == {1, 3}
    assert [version.number for version in two.versions()] == [1, 3]
    assert not list(client(gcs.host).list_blobs(BUCKET, prefix=folder))
    assert push(two, model(tmp_path / "d", "d")).number == 4


def test_what_is_pushed_again_is_the_version_it_is(two, tmp_path):
    again = push(two, tmp_path / "b")
    assert (again.number, again.already_present) == (2, True)
    assert split(two) == {1: 0, 2: 100}


def test_the_number_is_the_services_own(two, vertex, tmp_path):
    """A version that somebody else uploads and deletes leaves a gap, which the push follows."""
    stranger = {
        "display_name": "x",
        "artifact_uri": "gs://x/y",
        "container_spec": {"image_uri": "i"},
    }
    for _ in range(2):
        two.client.models("upload_model", parent=PARENT, parent_model=MODEL, model=stranger)
    two.client.models("delete_model_version", name=f"{MODEL}@4")
    version = push(two, model(tmp_path / "c", "c"))
    assert version.number == 5
    assert split(two) == {1: 0, 5: 100}
    states = [(event.action, event.version, event.state) for event in two.history()]
    assert states[-2:] == [("push", 4, "abandoned"), ("push", 5, "done")]
    assert two.verify(5).number == 5
    assert two.gc(0, **WHY) == (2,)
    assert set(aliases(two)) == {1, 3, 5}  # a stranger's version is a stranger's to delete


def test_a_model_made_anew_by_somebody_is_refused(two, vertex, tmp_path):
    vertex(reset=True)
    with pytest.raises(RegistryError, match="deleted and made anew"):
        push(two, model(tmp_path / "c", "c"))


def test_waits_for_operations_and_tells_their_failure(two, vertex, time):
    before = time.now
    vertex(delay=0.05)
    two.promote(2, **WHY)
    assert time.now > before  # waited on the clock that it was given
    vertex(delay=0, fail={"DeployModel": [8, "no machines left"]})
    two.gc(0, **WHY)
    two.rollback(**WHY)
    with pytest.raises(RegistryError, match=r"did not deploy version 2: .*no machines left"):
        two.set_traffic(2, 10, **WHY)
    assert two.traffic() == Traffic(1)
    assert two.set_traffic(2, 10, **WHY) == Traffic(1, 2, 10)
    assert [event.state for event in two.history()][-2:] == ["abandoned", "done"]


@pytest.mark.parametrize("method", ["UploadModel", "DeployModel", "UpdateEndpoint"])
def test_a_refused_call_leaves_what_is_live(two, vertex, tmp_path, method):
    vertex(refuse={method: ["PERMISSION_DENIED", "not allowed"]})
    source = model(tmp_path / "c", "c")
    with pytest.raises(RegistryError, match=r"Vertex AI did not .*not allowed"):
        push(two, source)
    assert two.traffic() == Traffic(1)
    assert push(two, source).number == 3
    assert two.traffic() == Traffic(3)


def test_traffic_changed_by_hand_is_told_and_set_right(two):
    two.set_traffic(2, 20, **WHY)
    endpoint = two.client.endpoints("get_endpoint", name=ENDPOINT)
    ids = {int(d.model_version_id): d.id for d in endpoint.deployed_models}
    two.client.endpoints(
        "update_endpoint",
        endpoint={"name": ENDPOINT, "traffic_split": {ids[1]: 30, ids[2]: 70}},
        update_mask={"paths": ["traffic_split"]},
    )
    assert two.traffic() == Traffic(1, 2, 70)
    two.client.endpoints(
        "update_endpoint",
        endpoint={"name": ENDPOINT, "labels": {"team": "a"}, "traffic_split": {ids[2]: 100}},
        update_mask={"paths": ["traffic_split", "labels"]},
    )
    assert two.traffic() == Traffic(2)
    two.promote(1, **WHY)
    assert split(two)[1] == 100
    labels = two.client.endpoints("get_endpoint", name=ENDPOINT).labels
    assert dict(labels)["team"] == "a"


def test_an_endpoint_of_another_model_is_not_taken(two, gcs, settings, time, tmp_path):
    other = VertexRegistry(
        PROJECT,
        LOCATION,
        "teacher",
        settings=VertexSettings(
            staging=settings.staging, emulator_host=settings.emulator_host, endpoint=NAME
        ),
        storage=client(gcs.host),
        clock=time,
    )
    with pytest.raises(RegistryError, match="also serves another model"):
        push(other, model(tmp_path / "t", "t"))
    assert two.traffic() == Traffic(1)


DAMAGES = {"file": "saved_model.pb", "extra": "more"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_gets_no_traffic(two, gcs, damage):
    folder = two.uri(2).removeprefix(f"gs://{BUCKET}/")
    client(gcs.host).bucket(BUCKET).blob(f"{folder}/{DAMAGES[damage]}").upload_from_string("x")
    with pytest.raises(VerificationError):
        two.set_traffic(2, 1, **WHY)
    assert two.traffic() == Traffic(1)


def test_a_version_removed_past_the_registry_is_found(two):
    two.client.models("delete_model_version", name=f"{MODEL}@2")
    with pytest.raises(VerificationError, match="removed from Vertex AI"):
        two.promote(2, **WHY)


def test_deploys_as_the_settings_say(gcs, settings, time, tmp_path):
    gcs.restore("empty")
    chosen = VertexSettings(
        staging=settings.staging,
        emulator_host=settings.emulator_host,
        endpoint="brain",
        machine_type="c3-standard-4",
        max_replicas=3,
        image="registry.example/server:1",
        service_account="server@research.iam.gserviceaccount.com",
    )
    registry = VertexRegistry(
        PROJECT, LOCATION, NAME, settings=chosen, storage=client(gcs.host), clock=time
    )
    push(registry, model(tmp_path / "a", "a"))
    endpoint = registry.client.endpoints("get_endpoint", name=f"{PARENT}/endpoints/brain")
    (deployed,) = endpoint.deployed_models
    resources = deployed.dedicated_resources
    assert resources.machine_spec.machine_type == "c3-standard-4"
    assert (resources.min_replica_count, resources.max_replica_count) == (1, 3)
    assert deployed.service_account == chosen.service_account
    found = registry.client.models("get_model", name=MODEL)
    assert found.container_spec.image_uri == chosen.image


def test_who_was_overtaken_moves_nothing(two, gcs, settings, time, monkeypatch):
    """A change that is paused just before it moves the split finds its etag stale."""
    other = VertexRegistry(
        PROJECT, LOCATION, NAME, settings=settings, storage=client(gcs.host), clock=time
    )
    move = two.parts.pointer._update

    def late(endpoint, labels, split):
        time.outlive_a_lease()
        other.set_traffic(2, 30, **WHY)
        move(endpoint, labels, split)

    monkeypatch.setattr(two.parts.pointer, "_update", late)
    with pytest.raises(RegistryError, match="etag does not match"):
        two.promote(2, **WHY)
    assert other.traffic() == Traffic(1, 2, 30)
    assert [(event.action, event.state) for event in other.history()][-2:] == [
        ("promote", "abandoned"),
        ("set_traffic", "done"),
    ]
    assert other.audit().faults == ()


LAZY = """
import sys
import registry.bucket, registry.vertex
registry.bucket.BucketRegistry("gs://bucket/path", "student")
registry.vertex.VertexRegistry("project", "europe-west4", "student")
names = {"google.cloud.storage", "google.cloud.aiplatform_v1", "google.api_core", "google.auth"}
heavy = (names | {"grpc", "tensorflow", "requests"}) & set(sys.modules)
assert not heavy, heavy
"""


def test_nothing_is_imported_or_asked_before_the_first_question():
    subprocess.run([sys.executable, "-c", LAZY], check=True, cwd=ROOT, timeout=60)


def test_is_a_registry(registry):
    protocol = {name for name in vars(Registry) if not name.startswith("_")}
    assert protocol <= set(dir(registry))
    assert (registry.versions(), registry.traffic()) == ((), Traffic(None))
    with pytest.raises(RegistryError, match="Push one first"):
        registry.promote(1, **WHY)


def test_names_that_vertex_does_not_allow_are_refused():
    with pytest.raises(RegistryError, match="small letters"):
        VertexRegistry(PROJECT, LOCATION, "Student", settings=VertexSettings())
    with pytest.raises(RegistryError, match="endpoint's id"):
        Names.of(PROJECT, LOCATION, "student", VertexSettings(endpoint="no spaces"))
    names = Names.of(PROJECT, LOCATION, "simclr_r18", VertexSettings())
    assert names.endpoint.endswith("/endpoints/simclr-r18")
    assert names.staging == "gs://research-cortexflow"


def test_settings_come_from_the_environment():
    given = {"CORTEXFLOW_VERTEX_MACHINE_TYPE": "n1-highmem-2", "CORTEXFLOW_VERTEX_MIN_REPLICAS": ""}
    assert VertexSettings.from_environment(given).machine_type == "n1-highmem-2"
    with pytest.raises(RegistryError, match="is a number"):
        VertexSettings.from_environment({"CORTEXFLOW_VERTEX_MAX_REPLICAS": "many"})
    with pytest.raises(RegistryError, match="1 node or more"):
        VertexSettings(min_replicas=3)
    with pytest.raises(RegistryError, match="loopback only"):
        VertexSettings(emulator_host="aiplatform.example:443")


def test_the_emulator_is_strict(two):
    """What the service would refuse, the emulator does: else the tests above would show little."""
    from google.cloud import aiplatform_v1 as v1

    endpoints = two.client._client("EndpointService")
    models = two.client._client("ModelService")
    endpoint = endpoints.get_endpoint(name=ENDPOINT)
    (deployed,) = endpoint.deployed_models
    for bad in ({deployed.id: 90}, {"77": 100}, {deployed.id: 120}):
        with pytest.raises(InvalidArgument):
            endpoints.update_endpoint(
                endpoint=v1.Endpoint(name=ENDPOINT, traffic_split=bad),
                update_mask={"paths": ["traffic_split"]},
            )
    with pytest.raises(InvalidArgument, match="cannot be updated"):
        endpoints.update_endpoint(
            endpoint=v1.Endpoint(name=ENDPOINT), update_mask={"paths": ["deployed_models"]}
        )
    with pytest.raises(FailedPrecondition, match="deployed models"):
        endpoints.delete_endpoint(name=ENDPOINT)
    with pytest.raises(FailedPrecondition, match="is deployed"):
        models.delete_model(name=MODEL)
    with pytest.raises(InvalidArgument, match="default alias"):
        models.merge_version_aliases(name=f"{MODEL}@1", version_aliases=["-default"])
    pages = models.list_model_versions(request={"name": MODEL, "page_size": 1})
    assert [version.version_id for version in pages] == ["2", "1"]
    raw = v1.ListModelsRequest.pb()(parent=PARENT)
    unknown = raw.SerializeToString() + b"\xf8\x07\x01"  # field 127
    call = models.transport.grpc_channel.unary_unary(
        "/google.cloud.aiplatform.v1.ModelService/ListModels"
    )
    with pytest.raises(Exception, match="does not know"):
        call(unknown)
