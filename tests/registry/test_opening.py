"""One function opens a registry, wherever it is kept."""

import pytest
from crashes import model, push

from registry.interface import RegistryError
from registry.local import LocalRegistry
from registry.opening import find, models, open_registry


@pytest.fixture
def root(tmp_path):
    for name in ("student", "teacher"):
        push(LocalRegistry(tmp_path / "registry", name), model(tmp_path / name, name))
    return tmp_path / "registry"


def test_a_folder_is_a_local_registry(root):
    assert models(root) == ("student", "teacher")
    assert open_registry(root, "teacher").name == "teacher"
    assert open_registry(str(root), "student").live().number == 1


def test_the_only_model_needs_no_name(tmp_path):
    push(LocalRegistry(tmp_path / "registry", "student"), model(tmp_path / "m", "m"))
    assert open_registry(tmp_path / "registry").name == "student"
    assert find(tmp_path / "registry").name == "student"


def test_a_model_that_is_not_there_is_made_only_when_asked(root):
    with pytest.raises(RegistryError, match="Did you mean student"):
        open_registry(root, "studnt")
    assert open_registry(root, "other", create=True).versions() == ()
    with pytest.raises(RegistryError, match="No model is named .*student, teacher"):
        open_registry(root, create=True)


@pytest.mark.parametrize(
    ("uri", "name", "said"),
    [
        ("s3://bucket/models", None, r"s3:// is no place .*gs://BUCKET/PATH"),
        ("gs://bucket/models", None, "give --name"),
        ("gs:///models", "student", "lacks a bucket"),
        ("vertex://project/europe-west4", None, "vertex://PROJECT/LOCATION/MODEL"),
        ("vertex://project//model", None, "vertex://PROJECT/LOCATION/MODEL"),
        ("vertex://project/europe-west4/student", "teacher", "is the model student"),
    ],
)
def test_uris_that_name_nothing_say_what_to_write(uri, name, said):
    with pytest.raises(RegistryError, match=said):
        open_registry(uri, name)
