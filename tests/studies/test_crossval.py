import json

import numpy as np
import pytest
from PIL import Image

from studies import crossval, crossval_report, fold
from studies.phantom import SUBJECT_REGEX
from studies.slices import StudyError


@pytest.fixture
def study(few_folder):
    plan, slices = crossval.planned(few_folder, SUBJECT_REGEX, None, 3, 32)
    return plan, slices, crossval.everybody(slices, plan.positive)


@pytest.fixture
def cheap(monkeypatch):
    """Folds without networks: these answer as total CSF does."""
    made = []

    def answers(task, settings, folder):
        made.append(task)
        found = fold._without_networks(task)
        return {method: found.get(method, found["csf"])[task.test] for method in fold.METHODS}

    monkeypatch.setattr(fold, "measure", answers)
    return made


def test_least_severe_against_the_rest_by_default(study):
    plan, _, people = study
    assert plan.positive == ("VeryMildDemented", "MildDemented", "ModerateDemented")
    assert people.truth.sum() == 12
    assert len(people.ids) == 24


@pytest.mark.parametrize("positive", [("Nobody",), ("NonDemented", "Nobody")])
def test_unknown_classes_are_refused(few_folder, positive):
    with pytest.raises(StudyError, match="--positive must name some"):
        crossval.planned(few_folder, SUBJECT_REGEX, positive, 3, 64)


def test_too_many_folds_are_refused(few_folder):
    with pytest.raises(StudyError, match="Lower --folds"):
        crossval.planned(few_folder, SUBJECT_REGEX, ("MildDemented",), 3, 64)


def test_nobody_does_two_things_and_everybody_is_tested_once(study):
    plan, slices, people = study
    tested = np.zeros(len(people.ids), int)
    for k in range(plan.folds):
        task = crossval.dealt(plan, slices, people, 0, k)
        assert (task.train.astype(int) + task.val + task.test == 1).all()
        assert all(
            len(np.unique(people.truth[who])) == 2 for who in (task.train, task.val, task.test)
        )
        tested += task.test
    assert (tested == 1).all()


def test_labels_of_those_who_test_change_no_answer(study):
    """The leak that matters here: a method that saw them would answer otherwise."""
    import dataclasses

    plan, slices, people = study
    task = crossval.dealt(plan, slices, people, 0, 0)
    turned = dataclasses.replace(task, truth=np.where(task.test, 1 - task.truth, task.truth))
    before, after = fold._without_networks(task), fold._without_networks(turned)
    for method, answers in before.items():
        np.testing.assert_array_equal(answers, after[method])


def test_the_histogram_finds_what_an_easy_phantom_shows(study, cheap, tmp_path):
    plan, _, people = study
    crossval.run(plan, range(1), tmp_path, 1, lambda what: None)
    found = crossval_report.summary(plan, people, crossval.collected(plan, range(1), tmp_path))
    assert found["methods"]["histogram"]["auc"]["value"] > 0.8
    assert found["methods"]["prior"]["auc"]["value"] == 0.5
    same = found["differences"]["student"]["csf"]  # the stand-in answers as total CSF does
    assert same["value"] == 0


def test_finished_folds_are_not_made_again(study, cheap, tmp_path):
    plan, _, _ = study
    told = []
    crossval.run(plan, range(1), tmp_path, 1, told.append)
    assert len(cheap) == 3
    crossval.result_file(tmp_path, 0, 1).unlink()
    crossval.run(plan, range(1), tmp_path, 1, told.append)
    assert len(cheap) == 4
    assert "2 of 3 folds were there" in told
    crossval.run(plan, range(2), tmp_path, 1, told.append)
    assert len(cheap) == 7


def test_a_report_needs_every_fold(study, cheap, tmp_path):
    plan, _, _ = study
    with pytest.raises(StudyError, match="3 folds of .* are not finished"):
        list(crossval.collected(plan, range(1), tmp_path))


def test_folds_of_another_plan_are_never_mixed_in(study, few_folder, tmp_path):
    plan, _, _ = study
    crossval.agree(plan, tmp_path)
    crossval.agree(plan, tmp_path)
    other, _ = crossval.planned(few_folder, SUBJECT_REGEX, None, 3, 48)
    with pytest.raises(StudyError, match="another plan and stages"):
        crossval.agree(other, tmp_path)


def test_the_report_holds_the_numbers_and_a_picture(study, cheap, tmp_path):
    plan, _, people = study
    crossval.run(plan, range(2), tmp_path, 1, lambda what: None)
    found = crossval_report.summary(plan, people, crossval.collected(plan, range(2), tmp_path))
    crossval_report.write(found, tmp_path, "cortexflow study cv")
    page = (tmp_path / "report.md").read_text()
    assert crossval_report.sentence(found) in page
    assert "3 folds by person, 2 times" in page
    assert "nan" not in page
    document = json.loads((tmp_path / "cv.json").read_text())
    assert list(document["methods"]) == sorted(fold.METHODS)
    assert len(document["methods"]["student"]["folds"]) == 6
    with Image.open(tmp_path / "cv.png") as picture:
        assert picture.width > 900


@pytest.mark.slow
def test_a_fold_trains_all_three_stages_and_clears_up(study, tmp_path):
    plan, slices, people = study
    task = crossval.dealt(plan, slices, people, 0, 0)
    settings = fold.stages(32, seed=0)
    short = fold.Stages(
        settings.pretrain.model_copy(update={"epochs": 1, "batch_size": 32}),
        settings.teacher.model_copy(update={"epochs": 1}),
        settings.student.model_copy(update={"epochs": 1}),
    )
    found = fold.measure(task, short, tmp_path / "state")
    assert list(found) == list(fold.METHODS)
    for answers in found.values():
        assert answers.shape == (task.test.sum(),)
        assert ((answers >= 0) & (answers <= 1)).all()
    assert not (tmp_path / "state").exists()
