"""Permuted labels, the null band and what is decided by it."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from evaluation import control
from evaluation.config import ControlSettings
from evaluation.control import ControlError, People
from evaluation.outcome import Outcome, from_json, to_json
from trainer import metrics

SETTINGS = ControlSettings()


def guesses(random: np.random.Generator, people: int = 40, classes: int = 4) -> People:
    """Answers and labels that know nothing of each other."""
    return People(random.dirichlet(np.ones(classes), people), random.integers(0, classes, people))


def knowing(people: People) -> People:
    """The same people with answers that know their labels."""
    return People(np.eye(people.probabilities.shape[1])[people.labels], people.labels)


def told(student: People, teacher: People, neighbour: People, *, known_again: bool = True):
    train = guesses(np.random.default_rng(99))
    return {
        "student": {"test": student, "train": knowing(train)},
        "teacher": {"test": teacher, "train": knowing(train)},
        "neighbour": {"test": neighbour, "train": knowing(train) if known_again else train},
    }


@pytest.fixture
def chance() -> People:
    return guesses(np.random.default_rng(3))


def test_a_person_keeps_one_label_and_classes_keep_their_people():
    subjects = np.repeat([f"p{i:02d}" for i in range(30)], 4)
    labels = np.repeat(np.arange(30) % 3, 4)
    permuted = control.permuted_labels(subjects, labels, seed=5)
    owned = permuted.reshape(30, 4)
    assert (owned == owned[:, :1]).all()
    assert np.bincount(owned[:, 0]).tolist() == [10, 10, 10]
    assert (permuted != labels).any()


def test_the_order_of_images_has_no_part_in_the_permutation():
    subjects = np.repeat([f"p{i:02d}" for i in range(30)], 4).astype(object)
    labels = np.repeat(np.arange(30) % 3, 4)
    order = np.random.default_rng(0).permutation(len(labels))
    straight = control.permuted_labels(subjects, labels, seed=5)
    assert (control.permuted_labels(subjects[order], labels[order], 5) == straight[order]).all()
    assert (control.permuted_labels(subjects, labels, 6) != straight).any()


def test_images_without_a_label_stay_so():
    subjects = np.array(["a", "a", "b", "c"])
    permuted = control.permuted_labels(subjects, np.array([0, -1, 1, -1]), seed=0)
    assert permuted[[1, 3]].tolist() == [-1, -1]
    assert sorted(permuted[[0, 2]]) == [0, 1]


def test_without_people_there_is_no_control():
    with pytest.raises(ControlError, match="no subject ids.*--subject-regex"):
        control.permuted_labels(None, np.array([0, 1]), seed=0)


def test_a_person_of_two_labels_is_named():
    with pytest.raises(ControlError, match="'b' has several"):
        control.permuted_labels(["a", "b", "b"], [0, 0, 1], seed=0)


def test_the_auc_is_that_of_the_gate(chance):
    band = control.null_band(chance, level=0.01, permutations=199, seed=0)
    expected = metrics.macro_auc(chance.probabilities, chance.labels, min_per_class=5)
    assert band.auc == pytest.approx(expected, abs=1e-12)


def test_classes_of_few_people_do_not_count():
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [20, 20, 2])
    people = People(random.dirichlet(np.ones(3), 42), labels)
    band = control.null_band(people, level=0.1, permutations=199, seed=0)
    of_two = metrics.one_vs_rest_auc(people.probabilities, labels)[:2].mean()
    assert band.auc == pytest.approx(of_two, abs=1e-12)


def test_the_null_is_that_of_every_way_to_deal_the_labels_out():
    """Of ten people, five of each class: 252 ways."""
    from itertools import combinations

    random = np.random.default_rng(8)
    scores = random.random(10)
    people = People(np.stack([1 - scores, scores], axis=1), np.repeat([0, 1], 5))
    exact = []
    for chosen in combinations(range(10), 5):
        labels = np.isin(np.arange(10), chosen).astype(int)
        exact.append(metrics.macro_auc(people.probabilities, labels))
    null = control.null_band(people, level=0.1, permutations=20_000, seed=0).null
    assert set(np.round(null, 9)) == set(np.round(exact, 9))
    assert null.mean() == pytest.approx(np.mean(exact), abs=0.01)
    assert null.std() == pytest.approx(np.std(exact), rel=0.03)


def test_the_band_has_its_level():
    """Random answers fall outside in 1 of 20 cases, within Monte Carlo error, on either side."""
    random, cases = np.random.default_rng(11), 600
    bands = [
        control.null_band(guesses(random, 30), level=0.05, permutations=199, seed=case)
        for case in range(cases)
    ]
    above = np.mean([band.auc > band.high for band in bands])
    below = np.mean([band.auc < band.low for band in bands])
    error = math.sqrt(0.025 * 0.975 / cases)
    assert 0.025 - 4 * error < above < 0.025 + 3 * error
    assert 0.025 - 4 * error < below < 0.025 + 3 * error


def test_false_alarms_of_the_whole_decision_are_at_most_one_in_a_hundred():
    random, cases = np.random.default_rng(12), 150
    refused = [
        control.decide(
            told(*(guesses(random, 30) for _ in range(3))),
            ControlSettings(permutations=599, seed=case),
        ).outcome
        is Outcome.REFUSED
        for case in range(cases)
    ]
    assert np.mean(refused) <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / cases)


def test_chance_passes(chance):
    decision = control.decide(told(chance, chance, chance), SETTINGS)
    assert decision.outcome is Outcome.PASSED
    details = decision.details
    assert details["low"] < details["auc"] < details["high"]
    assert sum(details["null"]["counts"]) == SETTINGS.permutations
    assert details["people"] == {"test": 40, "train": 40}
    assert from_json(to_json(decision)).details == details


@pytest.mark.parametrize("who", ["student", "teacher", "neighbour"])
def test_whoever_knows_the_labels_refuses_alone(chance, who):
    answers = dict.fromkeys(("student", "teacher", "neighbour"), chance)
    decision = control.decide(told(**{**answers, who: knowing(chance)}), SETTINGS)
    assert decision.outcome is Outcome.REFUSED
    [reason] = decision.reasons
    assert control.JUDGED[who] in reason
    assert "Something leaks" in reason


def test_labels_that_are_turned_round_leak_too(chance):
    turned = People(1 - knowing(chance).probabilities, chance.labels)
    decision = control.decide(told(turned, chance, chance), SETTINGS)
    assert decision.outcome is Outcome.REFUSED
    assert "the wrong way round" in decision.reasons[0]


def test_a_control_that_knows_nobody_again_proves_nothing(chance):
    decision = control.decide(told(chance, chance, chance, known_again=False), SETTINGS)
    assert decision.outcome is Outcome.INSUFFICIENT
    assert "a leak could not show" in decision.reasons[0]


def test_a_leak_is_a_leak_even_where_nobody_is_known_again(chance):
    leaky = told(knowing(chance), chance, chance, known_again=False)
    assert control.decide(leaky, SETTINGS).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("test", "train", "reason"),
    [
        (np.arange(19) % 2, np.arange(30) % 2, "19 test people are too few"),
        (np.arange(24) % 6, np.arange(30) % 2, "no class has 5 of the 24 test people"),
        (np.arange(20) % 2, np.zeros(30, int), "30 people in the split train are all of one"),
        (np.zeros(20, int), np.arange(30) % 2, "20 people in the split test are all of one"),
    ],
)
def test_too_few_people_are_told_before_anything_is_trained(test, train, reason):
    check = control.untellable({"train": train, "val": train, "test": test}, SETTINGS)
    assert check is not None
    assert check.outcome is Outcome.INSUFFICIENT
    assert reason in check.detail


def test_enough_people_are_enough():
    labels = np.arange(20) % 2
    assert control.untellable({"train": labels, "val": labels, "test": labels}, SETTINGS) is None


def test_a_level_that_the_permutations_cannot_reach_is_refused():
    with pytest.raises(ValidationError, match=r"control.permutations=599 or more"):
        ControlSettings(permutations=598)
    ControlSettings(permutations=599)


def test_the_neighbour_is_the_most_correlated_image():
    random = np.random.default_rng(4)
    people = random.integers(60, 196, (50, 24, 24, 1))
    labels = random.integers(0, 3, 50)

    def slices() -> np.ndarray:
        """Other noise and another brightness, which a correlation does not see."""
        noise = random.normal(0, 10, people.shape)
        return np.uint8(np.clip(people * random.uniform(0.8, 1.2) + noise, 0, 255))

    votes = control.neighbour_votes(slices(), labels, 3, slices())
    assert (votes == np.eye(3)[labels]).all()
    twice = np.concatenate([slices(), slices()])
    own = control.neighbour_votes(twice, np.tile(labels, 2), 3)
    assert (own == np.eye(3)[np.tile(labels, 2)]).all()
    # Who has one image finds another person there.
    alone = control.neighbour_votes(slices(), np.arange(50), 50)
    assert not (alone.argmax(axis=1) == np.arange(50)).any()


def test_blocks_of_the_comparison_have_no_part_in_its_answer(monkeypatch):
    images = np.random.default_rng(4).integers(0, 256, (50, 66, 66, 3), np.uint8)
    labels = np.arange(50)
    whole = (
        control.neighbour_votes(images, labels, 50),
        control.neighbour_votes(images, labels, 50, images),
    )
    monkeypatch.setattr(control, "BLOCK", 7)
    assert (control.neighbour_votes(images, labels, 50) == whole[0]).all()
    assert (control.neighbour_votes(images, labels, 50, images) == whole[1]).all()
    assert (whole[1] == np.eye(50)).all()
