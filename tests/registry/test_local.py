"""Versions: push, promote, roll back, verify, and what each refuses."""

import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from crashes import WHY, model, push

from registry import lease
from registry.interface import RegistryError, VerificationError
from registry.local import LocalRegistry


def test_nothing_is_created_by_looking(registry):
    assert registry.live() is None
    assert registry.previous() is None
    assert registry.versions() == ()
    assert registry.history() == ()
    assert not registry.root.exists()


def test_push_copies_numbers_and_makes_live(registry, tmp_path):
    source = model(tmp_path / "model", "graph")
    (source / "litert").mkdir()
    (source / "litert" / "model.int8.tflite").write_bytes(b"TFL3")
    version = registry.push(
        source, metrics={"auc": 0.8}, lineage={"run": "r1"}, reason="passed", who="ci"
    )
    assert (version.number, version.already_present) == (1, False)
    assert [file.path for file in version.files] == [
        "litert/model.int8.tflite",
        "saved_model.pb",
        "variables/variables.index",
    ]
    assert registry.live() == version == registry.verify(1)
    assert registry.path(1) == tmp_path / "registry" / "student" / "1"
    assert (registry.path(1) / "saved_model.pb").read_text() == "graph"
    assert version.size == sum(f.stat().st_size for f in source.rglob("*") if f.is_file())
    kept = json.loads((registry.path(1).parent / "manifests" / "1.json").read_text())
    assert kept["metrics"] == {"auc": 0.8}
    assert kept["who"] == "ci"


def test_same_content_is_the_same_version(three, tmp_path):
    again = push(three, model(tmp_path / "copy of 1", "graph 1"))
    assert (again.number, again.already_present) == (1, True)
    assert [version.number for version in three.versions()] == [1, 2, 3]
    assert three.live().number == 1
    assert three.push(
        tmp_path / "model-2", metrics={}, lineage={}, make_live=False, **WHY
    ).already_present
    assert three.live().number == 1


def test_push_without_going_live(three, tmp_path):
    source = model(tmp_path / "candidate", "candidate")
    version = three.push(source, metrics={}, lineage={}, make_live=False, **WHY)
    assert version.number == 4
    assert three.live().number == 3


def test_numbers_are_never_reused(three, tmp_path):
    shutil.rmtree(three.path(2))
    assert [version.number for version in three.versions()] == [1, 3]
    three.promote(1, **WHY)
    shutil.rmtree(three.path(3))
    assert push(three, model(tmp_path / "next", "next")).number == 4


def test_source_may_vanish_after_the_push(three, tmp_path):
    shutil.rmtree(tmp_path / "model-3")
    assert three.verify(3).number == 3


def test_metrics_hold_numpy_and_not_a_number(registry, tmp_path):
    metrics = {"auc": np.float32(0.5), "per class": np.array([0.5, math.nan]), "none": math.inf}
    registry.push(model(tmp_path / "m", "m"), metrics=metrics, lineage={}, **WHY)
    assert registry.show(1).metrics == {"auc": 0.5, "per class": [0.5, None], "none": None}


def test_promote_and_rollback_move_only_the_pointer(three):
    assert three.promote(1, **WHY).number == 1
    assert three.previous().number == 3
    assert three.rollback(**WHY).number == 3
    assert three.previous().number == 2
    assert three.rollback(**WHY).number == 2
    assert three.rollback(**WHY).number == 1  # further back, never to what was bad
    with pytest.raises(RegistryError, match="no earlier live version"):
        three.rollback(**WHY)
    assert three.live().number == 1
    assert three.rollback(to=3, **WHY).number == 3
    assert three.previous().number == 1
    for number in (1, 2, 3):
        three.verify(number)


def test_rollback_after_going_to_and_fro(three):
    for number in (1, 2, 1):
        three.promote(number, **WHY)
    assert [three.rollback(**WHY).number for _ in range(5)] == [2, 1, 3, 2, 1]


def test_promote_is_idempotent(three):
    before = three.history()
    three.promote(3, **WHY)
    assert three.history() == before


def test_rollback_skips_versions_that_are_gone(three):
    shutil.rmtree(three.path(2))
    assert three.rollback(**WHY).number == 1


@pytest.mark.parametrize("number", [0, 4, -1])
def test_unknown_versions_are_named(three, number):
    with pytest.raises(RegistryError, match=r"no version .* \(versions: 1, 2, 3\)"):
        three.promote(number, **WHY)


def test_history_tells_who_what_and_why(three):
    three.rollback(reason="worse on site 2", who="ann")
    *_, last = three.history()
    assert (last.action, last.version, last.previous, last.live) == ("rollback", 2, 3, 2)
    assert (last.reason, last.who, last.state) == ("worse on site 2", "ann", "done")
    assert [event.sequence for event in three.history()] == [1, 2, 3, 4]
    assert all(event.manifest_sha256 for event in three.history()[:3])


def test_torn_last_line_of_history_is_left_out_and_mended(three):
    record = three.path(1).parent / "history.jsonl"
    whole = record.read_bytes()
    record.write_bytes(whole + b'{"sequence": 4, "acti')
    assert len(three.history()) == 3
    three.promote(1, **WHY)
    assert record.read_bytes().startswith(whole + b'{"action"')
    assert len(three.history()) == 4


def test_damaged_history_names_the_line(three):
    record = three.path(1).parent / "history.jsonl"
    record.write_bytes(record.read_bytes().replace(b'"closes": 1', b'"closes": 9', 1))
    with pytest.raises(RegistryError, match="Line 2 of"):
        three.history()


def edit(path):
    path.write_text("graph X")


def tear(path):
    path.write_text("g")


def link(path):
    other = path.with_name("elsewhere.pb")
    path.rename(other.parent.parent / "elsewhere.pb")
    path.symlink_to(other.parent.parent / "elsewhere.pb")


@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (edit, "saved_model.pb", "saved_model.pb .* was changed"),
        (tear, "variables/variables.index", "variables/variables.index .* was changed"),
        (os.unlink, "saved_model.pb", "saved_model.pb is missing"),
        (edit, "variables/extra", "variables/extra .* was not pushed"),
        (link, "saved_model.pb", "saved_model.pb .* symbolic link"),
        (os.mkfifo, "pipe", "pipe .* special file"),
    ],
    ids=["edited", "torn", "missing", "extra", "symlink", "fifo"],
)
def test_damage_is_named_and_never_goes_live(three, damage, file, said):
    damage(three.path(1) / file)
    for act in (
        three.verify,
        lambda n: three.promote(n, **WHY),
        lambda n: three.rollback(n, **WHY),
    ):
        with pytest.raises(VerificationError, match=said):
            act(1)
    assert three.live().number == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"who": "tester"', '"who": "nobody"', "was edited after it was pushed"),
        ('"size": 7', '"size": 8', "digest does not match"),
        ('"saved_model.pb"', '"../../../etc/passwd"', "not a file name"),
        ('"saved_model.pb"', '"/etc/passwd"', "not a file name"),
        ('"number": 1', '"number": 2', "not of this version"),
        ('"files"', '"filez"', "damaged"),
        ("{", "", "damaged"),
    ],
)
def test_manifest_tampering_is_detected(three, old, new, said):
    kept = three.path(1).parent / "manifests" / "1.json"
    assert old in kept.read_text()
    kept.write_text(kept.read_text().replace(old, new, 1))
    with pytest.raises(VerificationError, match=said):
        three.verify(1)


def test_pushing_what_was_damaged_does_not_make_it_live(three, tmp_path):
    edit(three.path(1) / "saved_model.pb")
    with pytest.raises(VerificationError, match="was changed"):
        push(three, tmp_path / "model-1")
    assert three.live().number == 3


def test_a_linked_version_folder_is_no_version(three):
    three.path(1).rename(three.root / "elsewhere")
    three.path(1).symlink_to(three.root / "elsewhere")
    with pytest.raises(VerificationError, match="symbolic link"):
        three.verify(1)


def test_finding_a_damaged_version_again_is_said(three, tmp_path):
    edit(three.path(1) / "saved_model.pb")
    with pytest.raises(VerificationError, match="was changed"):
        three.push(tmp_path / "model-1", metrics={}, lineage={}, make_live=False, **WHY)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-x", "manifests", "x" * 65, "ä"])
def test_model_names_are_folder_names(tmp_path, name):
    with pytest.raises(RegistryError, match="received"):
        LocalRegistry(tmp_path, name)


def test_remote_roots_are_refused():
    with pytest.raises(RegistryError, match="gs://"):
        LocalRegistry("gs://bucket/registry", "student")


def test_changes_of_an_absent_registry_create_nothing(registry):
    with pytest.raises(RegistryError, match="Push one first"):
        registry.promote(1, **WHY)
    assert not registry.root.exists()


def test_two_models_share_one_pointer_file(three, tmp_path):
    teacher = LocalRegistry(three.root, "teacher")
    push(teacher, model(tmp_path / "teacher", "teacher"))
    three.promote(1, **WHY)
    assert (three.live().number, teacher.live().number) == (1, 1)
    assert [version.number for version in teacher.versions()] == [1]


def test_other_processes_wait_for_the_lock(three, monkeypatch):
    monkeypatch.setattr(lease, "TIMEOUT", 0.05)
    with (
        lease.held(three.root / ".lock", "ann", 1),
        pytest.raises(RegistryError, match="Another change is under way.*held by ann on"),
    ):
        three.promote(1, **WHY)
    assert three.promote(1, **WHY).number == 1


def test_no_heavy_library_is_loaded():
    program = "import sys, registry.local; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"tensorflow", "numpy", "apache_beam", "google.protobuf", "pydantic"} & set(loaded)
