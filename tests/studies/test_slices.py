import shutil

import numpy as np
import pytest

import ingest
from studies.phantom import SUBJECT_REGEX, shares
from studies.slices import StudyError, read_slices


def test_slices_come_by_person_and_place_with_classes_by_severity(few):
    assert few.classes[0] == "NonDemented"
    assert few.ordered
    ids, own, person = few.people()
    assert np.bincount(own).tolist() == [12, 7, 4, 1]
    assert (np.diff(person) >= 0).all()
    assert few.positions.reshape(len(ids), -1).tolist() == [list(range(6))] * len(ids)


def test_a_dataset_gives_the_same_slices_as_its_images(few, few_folder, tmp_path):
    ingest.import_dataset(few_folder, tmp_path / "data", subject_regex=SUBJECT_REGEX)
    again = read_slices(tmp_path / "data")
    assert again.encoded == few.encoded
    assert (again.subjects == few.subjects).all()
    assert (again.labels == few.labels).all()
    assert again.classes == few.classes


def test_a_dataset_knows_its_people_already(few_folder, tmp_path):
    ingest.import_dataset(few_folder, tmp_path / "data", subject_regex=SUBJECT_REGEX)
    with pytest.raises(StudyError, match="Leave the pattern out"):
        read_slices(tmp_path / "data", SUBJECT_REGEX)


def test_without_people_there_is_no_study(few_folder, tmp_path):
    for number, file in enumerate(sorted(few_folder.rglob("*.jpg"))):
        copy = tmp_path / file.parent.name / f"picture{number}.jpg"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    with pytest.raises(StudyError, match="--subject-regex"):
        read_slices(tmp_path)


def test_a_person_of_two_classes_is_refused(few_folder, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(few_folder, folder)
    moved = next((folder / "NonDemented").glob("*_slice00.jpg"))
    moved.rename(folder / "MildDemented" / moved.name)
    with pytest.raises(StudyError, match="has several"):
        read_slices(folder, SUBJECT_REGEX)


def test_an_unusable_image_is_named(few_folder, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(few_folder, folder)
    broken = next((folder / "NonDemented").glob("*_slice00.jpg"))
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(StudyError, match=broken.name):
        read_slices(folder, SUBJECT_REGEX)


@pytest.mark.parametrize(
    ("people", "expected"), [(200, (100, 70, 28, 2)), (60, (30, 21, 8, 1)), (20, (10, 7, 2, 1))]
)
def test_the_mix_is_the_public_set_s(people, expected):
    assert shares(people) == expected
