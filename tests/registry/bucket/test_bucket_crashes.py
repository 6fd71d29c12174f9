"""Wherever a change of a bucket dies, a verified version serves and a repeat finishes the work."""

import json

import pytest

from registry import bucket_lock, serving_config
from registry.bucket import BucketRegistry
from registry.bucket_objects import ObjectDocument, Objects
from registry.interface import RegistryError, Traffic, VerificationError
from tests.registry.bucket.remote import (
    BUCKET,
    CHANGES,
    LEFT,
    WHY,
    Death,
    Died,
    client,
    deaths,
    model,
    push,
)


def opened(gcs, time, death=None):
    return BucketRegistry(
        f"gs://{BUCKET}/registry",
        "student",
        client=client(gcs.host, death),
        clock=time,
    )


def loaded(gcs) -> tuple[int, ...]:
    """Versions that a server started now would load."""
    blob = client(gcs.host).bucket(BUCKET).get_blob("registry/models.config")
    return serving_config.parse(blob.download_as_text())[0].versions if blob else ()


def folders(gcs) -> set[int]:
    """Numbers under which files lie."""
    names = [blob.name for blob in client(gcs.host).list_blobs(BUCKET, prefix="registry/student/")]
    return {int(part) for name in names if (part := name.split("/")[2]).isdigit()}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_dying_anywhere_leaves_a_whole_registry(gcs, time, tmp_path, change):
    before, act, wanted = CHANGES[change]
    gcs.restore("empty")
    for number in range(before):
        push(opened(gcs, time), model(tmp_path / f"m{number}", f"m{number}"))
    source = model(tmp_path / "new", "new")
    gcs.keep("template")
    tried = []
    for death in deaths():
        gcs.restore("template")
        try:
            act(opened(gcs, time, death), source)
        except Died:
            tried.append(death.calls[-1])
        registry = opened(gcs, time)
        crashed = registry.traffic()
        assert crashed in (Traffic(before or None), wanted), death.calls
        verified = {registry.verify(version.number).number for version in registry.versions()}
        assert set(loaded(gcs)) <= verified, death.calls
        time.outlive_a_lease()
        act(registry, source)
        assert registry.traffic() == wanted, death.calls
        numbers = [version.number for version in registry.versions()]
        assert numbers == LEFT.get(change, [1, 2]), death.calls
        assert folders(gcs) == set(numbers), death.calls
        assert "unfinished" not in [event.state for event in registry.history()]
        assert registry.audit().faults == (), death.calls
    assert len(tried) >= (20 if "push" in change else 14), tried
    assert any("models.config" in call or "upload" in call for call in tried)


def test_who_was_overtaken_moves_nothing(gcs, time, tmp_path, registry):
    """A holder that is paused before it moves the pointer finds it fenced when it wakes."""
    for content in "ab":
        push(registry, model(tmp_path / content, content))
    with registry.changes.held("sleeper") as change:
        change.begin("promote", 1, "test", Traffic(1))
        pointer = client(gcs.host).bucket(BUCKET).blob("registry/models.config")
        pointer.reload()
        time.outlive_a_lease()
        with pytest.raises(RegistryError, match="ended"):
            change.point("promote", Traffic(1))
        assert push(opened(gcs, time), model(tmp_path / "c", "c")).number == 3
        generation = pointer.generation
        pointer.reload()
        assert pointer.generation != generation
    assert opened(gcs, time).traffic() == Traffic(3)
    states = [(event.who, event.state) for event in registry.history()]
    assert states[2:] == [("sleeper", "abandoned"), ("tester", "done")]


def test_who_is_paused_before_reading_the_pointer_moves_nothing(gcs, time, registry, tmp_path):
    """The lease is checked, then the holder sleeps: only the pointer itself can stop it."""
    for content in "ab":
        push(registry, model(tmp_path / content, content))
    with registry.changes.held("sleeper") as change:
        change.begin("promote", 1, "test", Traffic(1))
        time.outlive_a_lease()
        opened(gcs, time).set_traffic(1, 20, **WHY)
        with pytest.raises(RegistryError, match="replaced meanwhile"):
            registry.parts.pointer.move(Traffic(1), (), lambda: None)
    assert opened(gcs, time).traffic() == Traffic(2, 1, 20)


def test_deaths_in_a_row_between_line_and_anchor_close_no_history(
    gcs, time, registry, tmp_path, monkeypatch
):
    """Each leaves a line that the anchor does not name yet; the next change mends it."""
    for content in "ab":
        push(registry, model(tmp_path / content, content))
    real = ObjectDocument.append

    def append(self, line):
        real(self, line)
        raise Died("after the line, before its anchor")

    for _ in range(3):
        monkeypatch.setattr(ObjectDocument, "append", append)
        with pytest.raises(Died):
            opened(gcs, time).promote(1, **WHY)
        monkeypatch.undo()
        assert opened(gcs, time).audit().faults == ()
    registry.promote(1, **WHY)
    assert registry.traffic() == Traffic(1)
    assert registry.audit().faults == ()


def test_a_source_that_changes_while_it_is_uploaded_is_no_version(
    gcs, time, registry, tmp_path, monkeypatch
):
    push(registry, model(tmp_path / "a", "a"))
    source, real = model(tmp_path / "b", "bbb"), Objects.upload

    def upload(self, name, path):
        path.write_text("BBB")
        real(self, name, path)

    monkeypatch.setattr(Objects, "upload", upload)
    with pytest.raises(VerificationError, match="was changed"):
        push(registry, source)
    monkeypatch.undo()
    assert [version.number for version in registry.versions()] == [1]
    assert registry.traffic() == Traffic(1)
    assert push(registry, source).number == 2
    assert folders(gcs) == {1, 2}
    assert [event.state for event in registry.history()] == ["done", "abandoned", "done"]


def test_waits_for_a_holder_and_takes_over_once_it_expired(gcs, time, registry):
    objects = Objects(f"gs://{BUCKET}/registry", client(gcs.host))
    with bucket_lock.held(objects, ".lock", "first", clock=time) as first:
        held = json.loads(objects.read(".lock").content)
        assert held["who"] == "first"
        with (
            pytest.raises(TimeoutError, match="held by first on"),
            bucket_lock.held(objects, ".lock", "second", timeout=5, clock=time),
        ):
            pass
        with bucket_lock.held(objects, ".lock", "third", clock=time) as third:
            with pytest.raises(RegistryError, match="ended"):
                first.check()
            third.check()
    assert objects.read(".lock") is None


def test_a_lease_is_renewed_while_it_is_used(gcs, time, registry):
    objects = Objects(f"gs://{BUCKET}/registry", client(gcs.host))
    with bucket_lock.held(objects, ".lock", "first", clock=time) as lease:
        for _ in range(5):
            time.sleep(bucket_lock.SECONDS * 0.6)
            lease.check()
        objects.write(".lock", b"{}")  # somebody took it by force
        time.sleep(bucket_lock.SECONDS * 0.6)
        with pytest.raises(RegistryError, match="taken over"):
            lease.check()
    assert objects.read(".lock") is not None  # not ours to remove


def test_a_lost_answer_to_a_write_is_no_conflict(gcs, time, registry, tmp_path):
    """The client repeats a request whose answer was lost: the first one has won already."""
    objects = Objects(f"gs://{BUCKET}/registry", client(gcs.host))
    first = objects.write("x", b"same", generation=0)
    assert objects.write("x", b"same", generation=0) == first
    with pytest.raises(RegistryError, match="replaced meanwhile"):
        objects.write("x", b"other", generation=0)


def test_counts_every_change_of_an_object(gcs, time, tmp_path):
    gcs.restore("empty")
    death = Death(None)
    push(opened(gcs, time, death), model(tmp_path / "a", "a"))
    # lock, intent and anchor, two files, manifest, pointer, outcome and anchor, unlock
    assert len(death.calls) == 10, death.calls
