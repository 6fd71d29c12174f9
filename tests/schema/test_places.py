"""Places by path or address: nothing is lost on the way, and nothing is left behind."""

import os
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest

from schema import places

FILES = {"a.txt": b"a", "inner/b.bin": bytes(range(256)) * 64, "inner/deep/empty": b""}


@pytest.fixture
def address() -> str:
    """A place of this test's own in TensorFlow's filesystem in memory."""
    return f"ram://{uuid.uuid4().hex}/artifact"


@pytest.fixture(params=["folder", "address"])
def place(request, tmp_path, address) -> str:
    return str(tmp_path / "artifact") if request.param == "folder" else address


def fill(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_is_written_is_fetched(place):
    with places.written(place) as folder:
        fill(folder)
    with places.fetched(place) as folder:
        assert contents(folder) == FILES
    assert places.exists(place)
    assert places.listed(place) == ["a.txt", "inner"]
    assert places.read_bytes(places.below(place, "inner", "b.bin")) == FILES["inner/b.bin"]


def test_a_path_is_worked_on_where_it_is_and_an_address_in_a_copy(tmp_path, address):
    with places.written(tmp_path) as folder:
        assert folder == tmp_path
    with places.written(address) as scratch:
        fill(scratch)
        assert not places.exists(address)
    assert not scratch.exists()
    with places.fetched(address) as copy:
        (copy / "a.txt").write_bytes(b"changed here alone")
    assert not copy.exists()
    assert places.read_bytes(places.below(address, "a.txt")) == b"a"


def test_what_ended_by_an_error_is_not_copied_up(address):
    def fail() -> None:
        with places.written(address) as folder:
            fill(folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not places.exists(address)


def test_nothing_there_is_told_as_a_missing_file(place):
    with pytest.raises(FileNotFoundError, match="artifact"), places.fetched(place):
        pass
    with pytest.raises(FileNotFoundError):
        places.read_bytes(place)
    assert places.listed(place) == []
    assert places.modified(place) == 0
    places.remove(place)


def test_an_unknown_address_is_told_as_an_error_of_files():
    with pytest.raises(OSError, match="unheard"):
        places.listed("unheard://of/x")


def test_the_newest_file_tells_when_a_folder_was_written_to(tmp_path):
    for nanoseconds, name in ((3 * 10**9, "inner/new"), (10**9, "old")):
        places.write_bytes(tmp_path / name, b"x")
        os.utime(tmp_path / name, ns=(nanoseconds, nanoseconds))
    assert places.modified(tmp_path) == 3 * 10**9


def test_removed_is_removed(place):
    for name in ("folder/x", "file"):
        places.write_bytes(places.below(place, name), b"new")
    places.remove(places.below(place, "folder"))
    assert places.listed(place) == ["file"]
    places.remove(places.below(place, "file"))
    assert places.listed(place) == []


@pytest.mark.skipif(find_spec("tensorflow_io") is None, reason="cortexflow[s3] is not installed")
def test_the_add_on_for_s3_leaves_the_exit_code():
    script = "import sys; from schema import places; places.prepare_s3(); print(1); sys.exit(3)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, b"1\n")
