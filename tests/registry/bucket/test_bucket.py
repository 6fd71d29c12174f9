"""A registry in a bucket does what a local one does, and reads back what it wrote."""

import dataclasses
import datetime

import pytest
from typer.testing import CliRunner

from cli.registry import app
from registry import serving_config
from registry.bucket import BucketRegistry
from registry.interface import Registry, RegistryError, Traffic, VerificationError
from registry.keys import Keys
from tests.registry.bucket.remote import BUCKET, WHY, client, model, push


@pytest.fixture
def three(registry, tmp_path):
    for content in "abc":
        push(registry, model(tmp_path / content, content))
    return registry


def config(gcs):
    blob = client(gcs.host).bucket(BUCKET).blob("registry/models.config")
    return serving_config.parse(blob.download_as_text())[0]


def test_lays_versions_out_as_tf_serving_reads_them(three, gcs):
    found = config(gcs)
    assert found.base_path == f"gs://{BUCKET}/registry/student"
    assert (found.versions, dict(found.labels)) == ((2, 3), {"live": 3})
    names = [blob.name for blob in client(gcs.host).list_blobs(BUCKET)]
    assert "registry/student/3/variables/variables.index" in names
    assert "registry/student/manifests/3.json" in names
    assert not [name for name in names if name.endswith(".lock")]  # nobody holds it


def test_promotes_splits_and_goes_back(three, gcs):
    three.promote(2, **WHY)
    assert three.set_traffic(3, 20, **WHY) == Traffic(2, 3, 20) == three.traffic()
    assert dict(config(gcs).labels) == {"live": 2, "canary": 3, "traffic-20": 3}
    assert three.rollback(**WHY).number == 3
    assert three.traffic() == Traffic(3)
    assert three.previous().number == 2
    actions = [(event.action, event.live, event.state) for event in three.history()]
    assert actions[3:] == [
        ("promote", 2, "done"),
        ("set_traffic", 2, "done"),
        ("rollback", 3, "done"),
    ]
    assert three.audit().faults == ()
    assert three.served_at(datetime.datetime.now(datetime.UTC)) == Traffic(3)


def test_the_same_content_is_no_new_version(three, tmp_path):
    again = push(three, tmp_path / "a")
    assert (again.number, again.already_present) == (1, True)
    assert three.traffic() == Traffic(1)


def test_a_dry_run_writes_nothing(three, gcs, tmp_path):
    before = sorted((b.name, b.generation) for b in client(gcs.host).list_blobs(BUCKET))
    three.promote(1, **WHY, dry_run=True)
    three.rollback(**WHY, dry_run=True)
    three.set_traffic(1, 5, **WHY, dry_run=True)
    three.gc(0, **WHY, dry_run=True)
    push(three, model(tmp_path / "new", "new"), dry_run=True)
    assert before == sorted((b.name, b.generation) for b in client(gcs.host).list_blobs(BUCKET))


def test_tells_versions_apart(three):
    assert three.diff(1, 2).changed == ("saved_model.pb", "variables/variables.index")


def test_gc_keeps_live_canary_previous_and_the_number(three, tmp_path):
    for content in "de":
        push(three, model(tmp_path / content, content))
    three.set_traffic(1, 0, **WHY)
    assert three.gc(0, **WHY) == (2, 3)
    assert [version.number for version in three.versions()] == [1, 4, 5]
    assert three.gc(0, **WHY) == ()
    assert push(three, model(tmp_path / "f", "f")).number == 6
    with pytest.raises(RegistryError, match="no version 2"):
        three.show(2)


@pytest.mark.parametrize("number", [0, 4])
def test_names_the_versions_there_are(three, number):
    with pytest.raises(RegistryError, match=rf"no version {number} \(versions: 1, 2, 3\)"):
        three.promote(number, **WHY)


DAMAGES = {
    "edited": ("student/2/saved_model.pb", b"B"),
    "longer": ("student/2/saved_model.pb", b"bb"),
    "extra": ("student/2/more.txt", b""" "more" """),
    "manifest": ("student/manifests/2.json", None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_not_promoted(three, gcs, damage):
    name, content = DAMAGES[damage]
    blob = client(gcs.host).bucket(BUCKET).blob(f"registry/{name}")
    if content is None:
        content = blob.download_as_bytes().replace(b"tester", b"nobody")
    blob.upload_from_string(content)
    with pytest.raises(VerificationError):
        three.promote(2, **WHY)
    assert three.traffic() == Traffic(3)


def test_a_missing_file_is_found(three, gcs):
    client(gcs.host).bucket(BUCKET).blob("registry/student/1/saved_model.pb").delete()
    with pytest.raises(VerificationError, match=r"saved_model\.pb is missing from gs://"):
        three.verify(1)


def test_audit_finds_what_was_cut_off(three, gcs):
    head = three.audit().head
    blob = client(gcs.host).bucket(BUCKET).blob("registry/student/history.jsonl")
    lines = blob.download_as_bytes().splitlines(keepends=True)
    blob.upload_from_string(b"".join(lines[:-2]))
    assert three.audit().faults
    assert three.audit(head).faults
    with pytest.raises(RegistryError, match="does not end where"):
        three.promote(1, **WHY)


def test_signs_and_asks_for_signatures(registry, gcs, time, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    keyed = BucketRegistry(registry.root, "student", Keys(signing=secret), client(gcs.host), time)
    push(keyed, model(tmp_path / "a", "a"))
    assert keyed.verify(1).number == 1
    push(registry, model(tmp_path / "b", "b"))
    with pytest.raises(VerificationError, match=r"gs://.*2\.json is not signed"):
        keyed.promote(2, **WHY)
    keyed.sign(2, **WHY)
    assert keyed.promote(2, **WHY).number == 2


def test_the_command_signs_in_a_bucket(registry, gcs, tmp_path, monkeypatch):
    push(registry, model(tmp_path / "a", "a"))
    (tmp_path / "secret").write_text("s" * 64)
    monkeypatch.setenv("CORTEXFLOW_SIGNING_KEY_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.host)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    words = ["--registry", registry.root, "--name", "student"]
    refused = CliRunner().invoke(app, ["verify", "1", *words])
    assert isinstance(refused.exception, VerificationError)
    said = CliRunner().invoke(app, ["sign", "1", *words], catch_exceptions=False).output
    assert "version 1 is signed" in said
    said = CliRunner().invoke(app, ["verify", "1", *words], catch_exceptions=False).output
    assert "2 files are as pushed" in said


def test_nothing_is_pushed_that_could_never_go_live(registry, gcs, time, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    checking = BucketRegistry(registry.root, "student", Keys(verify=secret), client(gcs.host), time)
    with pytest.raises(RegistryError, match="no signing key is set"):
        push(checking, model(tmp_path / "a", "a"))
    assert checking.versions() == ()


def test_fetches_a_verified_copy(three, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert (three.path(2) / "saved_model.pb").read_text() == "b"
    (three.path(2) / "saved_model.pb").write_text("B")  # a damaged cache is made anew
    assert (three.path(2) / "saved_model.pb").read_text() == "b"
    three.fetch(1, tmp_path / "copy")
    assert (tmp_path / "copy" / "variables" / "variables.index").read_text() == "index of a"
    with pytest.raises(RegistryError, match="exists already"):
        three.fetch(1, tmp_path / "copy")


def test_a_fetched_copy_is_proved_before_it_appears(three, gcs, tmp_path):
    assert three.uri(2) == f"gs://{BUCKET}/registry/student/2"
    blob = client(gcs.host).bucket(BUCKET).blob("registry/student/2/saved_model.pb")
    blob.upload_from_string("B")
    with pytest.raises(VerificationError, match="was changed"):
        three.fetch(2, tmp_path / "copies" / "2")
    blob = client(gcs.host).bucket(BUCKET).blob("registry/student/manifests/1.json")
    blob.upload_from_string(blob.download_as_bytes().replace(b"tester", b"nobody"))
    for ask in (three.path, lambda number: three.fetch(number, tmp_path / "copies" / "1")):
        with pytest.raises(VerificationError, match="was edited after it was pushed"):
            ask(1)
    assert list((tmp_path / "copies").iterdir()) == []


def test_models_under_one_prefix_share_the_pointer_file(three, gcs, time, tmp_path):
    other = BucketRegistry(three.root, "teacher", client=client(gcs.host), clock=time)
    push(other, model(tmp_path / "t", "t"))
    assert (three.traffic(), other.traffic()) == (Traffic(3), Traffic(1))


def test_is_a_registry(registry):
    protocol = {name for name in vars(Registry) if not name.startswith("_")}
    assert protocol <= set(dir(registry))
    assert registry.versions() == ()
    with pytest.raises(RegistryError, match="Push one first"):
        registry.promote(1, **WHY)


@pytest.mark.parametrize("uri", ["gs://", "gs://B/x", "s3://bucket", "gs://bucket/a//b", "gs://b"])
def test_refuses_what_names_no_bucket(uri):
    with pytest.raises(RegistryError, match="gs://bucket/prefix"):
        BucketRegistry(uri, "student")


def test_history_tells_who_and_why(three):
    event = three.history()[0]
    assert (event.who, event.reason, event.action) == ("tester", "test", "push")
    assert dataclasses.asdict(event)["manifest_sha256"]
