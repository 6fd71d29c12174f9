import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from studies import leak, leak_report
from studies.slices import StudyError


@pytest.fixture(scope="module")
def study(whole_stacks):
    return leak.study(whole_stacks)


def test_ninety_nine_percent_by_slice_and_chance_by_person(study):
    assert study.score("random").accuracy >= 0.95
    assert study.score("random").same_person >= 0.95
    assert 0.45 <= study.score("person").slice_auc <= 0.60
    assert study.score("person").same_person == 0.0


def test_labels_drawn_at_random_score_as_much_by_slice_and_nothing_by_person(study):
    assert study.score("random", shuffled=True).accuracy >= 0.95
    assert abs(study.score("person", shuffled=True).slice_auc - 0.5) < 0.1


def test_the_shipped_split_lies_in_between(study):
    scores = [study.score(split).accuracy for split in ("person", "shipped", "random")]
    assert scores == sorted(scores)


def test_the_leak_check_refuses_what_leaks_and_nothing_else(study):
    outcomes = {split: verdict.outcome for split, verdict in study.verdicts.items()}
    assert outcomes == {"random": "refused", "shipped": "refused", "person": "passed"}
    assert "people stand on both sides" in study.verdicts["random"].reasons[0]


def test_the_constant_prior_is_at_chance_whatever_the_split(study, whole_stacks):
    _, own, _ = whole_stacks.people()
    for split in ("random", "person"):
        prior = study.score(split, "prior")
        assert prior.accuracy == pytest.approx(np.bincount(own).max() / len(own))
        assert prior.slice_auc == prior.person_auc == 0.5


def test_examples_show_one_slice_of_the_same_person_and_of_somebody_else(study, whole_stacks):
    whose = {
        each.split: whole_stacks.subjects[each.test] == whole_stacks.subjects[each.train]
        for each in study.examples
    }
    assert whose["random"]
    assert not whose["person"]


def test_the_report_holds_the_numbers_and_a_small_picture(study, whole_stacks, tmp_path):
    leak_report.write(study, whole_stacks, tmp_path, "cortexflow study leak")
    page = (tmp_path / "report.md").read_text()
    assert leak_report.sentence(study) in page
    assert "`cortexflow study leak`" in page
    document = json.loads((tmp_path / "leak.json").read_text())
    assert len(document["scores"]) == len(study.scores)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "leak.json", "leak.png", "leak.svg", "report.md",
    ]  # fmt: skip
    assert (tmp_path / "leak.png").stat().st_size < 60_000
    with Image.open(tmp_path / "leak.png") as picture:
        assert picture.width > 800
    assert "<svg" in (tmp_path / "leak.svg").read_text()


def test_every_row_of_the_table_has_every_column(study):
    assert {len(row) for row in leak_report.rows(study)} == {len(leak_report.HEADINGS)}
    assert not any(re.search("nan", cell) for row in leak_report.rows(study) for cell in row)


def test_slices_without_places_leave_the_shipped_split_out(few):
    nowhere = dataclasses.replace(few, positions=np.full(len(few), -1))
    found = leak.study(nowhere, count=2)
    assert set(found.verdicts) == {"random", "person"}


def test_one_slice_a_person_is_no_study(few):
    first = few.positions == 0
    alone = dataclasses.replace(
        few,
        encoded=tuple(np.array(few.encoded, object)[first]),
        labels=few.labels[first],
        subjects=few.subjects[first],
        positions=few.positions[first],
    )
    with pytest.raises(StudyError, match="give several of each person"):
        leak.study(alone)
