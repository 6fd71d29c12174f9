"""What is pushed: files of a folder that may be odd, hostile, or change meanwhile."""

import os

import pytest
from crashes import model, push

from registry import durable, manifest
from registry.interface import RegistryError, VerificationError


def test_unreadable_sources_are_refused(registry, tmp_path, monkeypatch):
    source = model(tmp_path / "m", "m")

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(manifest, "sha256", denied)
    with pytest.raises(RegistryError, match=r"Permission denied.*saved_model\.pb"):
        push(registry, source)
    assert registry.versions() == ()


@pytest.mark.parametrize("name", ["saved_model.pb", "assets/vocabulary", "folder"])
def test_sources_with_links_are_refused(registry, tmp_path, name):
    source = model(tmp_path / "m", "m")
    (source / "assets").mkdir()
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to("/etc" if name == "folder" else "/etc/hostname")
    with pytest.raises(RegistryError, match=f"{name} .* symbolic link"):
        push(registry, source)
    assert not registry.root.exists()


def test_a_hard_link_in_the_source_is_a_file_of_its_own_in_the_version(registry, tmp_path):
    source, elsewhere = model(tmp_path / "m", "one graph"), tmp_path / "elsewhere"
    os.link(source / "saved_model.pb", elsewhere)
    os.link(elsewhere, source / "twin.pb")
    push(registry, source)
    elsewhere.write_text("another!!")  # all three names of it
    assert (source / "saved_model.pb").read_text() == "another!!"
    assert registry.verify(1).number == 1
    for name in ("saved_model.pb", "twin.pb"):
        stored = registry.path(1) / name
        assert stored.read_text() == "one graph"
        assert stored.stat().st_nlink == 1
    assert not os.path.samefile(registry.path(1) / "saved_model.pb", registry.path(1) / "twin.pb")


@pytest.mark.parametrize("when", ["before", "between", "swapped for a link", "for a pipe"])
def test_a_source_that_changes_meanwhile_does_not_become_a_version(
    registry, tmp_path, monkeypatch, when
):
    """What was listed, what was copied and what goes live are the same bytes, or nothing is."""
    push(registry, model(tmp_path / "old", "old"))
    source, copied = model(tmp_path / "m", "graph"), []
    real = durable.copy

    def copy(path, target):
        if when == "before" and not copied:
            path.write_text("GRAPH")  # of the same length
        if when == "swapped for a link":
            path.unlink()
            path.symlink_to(tmp_path / "old" / "saved_model.pb")
        if when == "for a pipe":
            path.unlink()
            os.mkfifo(path)
        real(path, target)
        copied.append(path)
        if when == "between" and len(copied) == 1:
            (source / "variables" / "variables.index").write_text("longer than it was, by far")

    monkeypatch.setattr(durable, "copy", copy)
    with pytest.raises(RegistryError, match=r"was changed|did not complete"):
        push(registry, source)
    monkeypatch.undo()
    assert [version.number for version in registry.versions()] == [1]
    assert registry.traffic().live == 1
    assert not list(registry.path(1).parent.glob(".*"))
    assert [event.version for event in registry.history()] == [1]


def test_what_changes_after_it_was_copied_is_not_in_the_version(registry, tmp_path, monkeypatch):
    source, real = model(tmp_path / "m", "graph"), durable.copy

    def copy(path, target):
        real(path, target)
        path.write_text("later")

    monkeypatch.setattr(durable, "copy", copy)
    push(registry, source)
    assert (registry.path(1) / "saved_model.pb").read_text() == "graph"
    assert registry.verify(1).number == 1


def test_a_fetched_copy_is_proved_before_it_appears(three, tmp_path, monkeypatch):
    target = tmp_path / "deep" / "copy"
    assert three.fetch(2, target).number == 2
    assert (target / "saved_model.pb").read_text() == "graph 2"
    assert three.uri(2) == str(three.path(2))
    with pytest.raises(RegistryError, match="exists already"):
        three.fetch(2, target)
    for ask in (lambda: three.uri(9), lambda: three.fetch(9, tmp_path / "nine")):
        with pytest.raises(RegistryError, match="no version 9"):
            ask()
    real = durable.copy

    def copy(path, to):
        real(path, to)
        to.write_text("damaged on the way")

    monkeypatch.setattr(durable, "copy", copy)
    with pytest.raises(VerificationError, match="was changed"):
        three.fetch(2, tmp_path / "other")
    monkeypatch.undo()
    (three.path(3) / "saved_model.pb").write_text("graph X")
    with pytest.raises(VerificationError, match="was changed"):
        three.fetch(3, tmp_path / "other")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RegistryError, match="was not copied"):
        three.fetch(2, blocked / "below")
    assert not (tmp_path / "other").exists()
    assert [entry.name for entry in target.parent.iterdir()] == ["copy"]


def test_sources_with_misleading_names_are_refused(registry, tmp_path):
    for name in ("new\nline", "back\\slash", "bell\a"):
        source = model(tmp_path / repr(name), "m")
        (source / name).write_text("")
        with pytest.raises(RegistryError, match="not a file name"):
            push(registry, source)


def test_sources_that_are_no_model_are_refused(registry, tmp_path):
    with pytest.raises(RegistryError, match="no model folder"):
        push(registry, tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RegistryError, match=r"no SavedModel.*notes\.txt"):
        push(registry, tmp_path)
    with pytest.raises(RegistryError, match="no SavedModel"):
        push(registry, model(tmp_path / "empty", ""))


def test_absurd_sizes_are_refused(registry, tmp_path, monkeypatch):
    source = model(tmp_path / "m", "m")
    with open(source / "huge", "wb") as file:
        file.truncate(manifest.MAX_BYTES)  # sparse: takes no disk
    with pytest.raises(RegistryError, match="8 GiB"):
        push(registry, source)
    (source / "huge").unlink()
    monkeypatch.setattr(manifest, "MAX_FILES", 1)
    with pytest.raises(RegistryError, match="more than 1 files"):
        push(registry, source)
