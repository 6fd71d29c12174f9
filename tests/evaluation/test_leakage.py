"""Three layers, each of which refuses a leaking split alone, and lets a clean one through."""

import dataclasses
import json

import numpy as np
import pytest

from evaluation import leakage
from evaluation.config import LeakageSettings
from evaluation.leakage_pairs import SplitImages
from evaluation.outcome import Outcome, to_json
from schema.features import SPLITS
from tests.evaluation.leaking import by_person, by_slice, joined, phantom, take

ALONE = {
    layer: LeakageSettings(**{other: other == layer for other in leakage.LAYERS})
    for layer in leakage.LAYERS
}


@pytest.fixture(scope="module")
def people() -> SplitImages:
    """12 people with all 32 slices, as in the public set."""
    return phantom(people=12, slices=32)


@pytest.fixture(scope="module")
def clean(people):
    return by_person(people)


def renamed(splits: dict[str, SplitImages]) -> dict[str, SplitImages]:
    """The same images, everybody under another name in each split."""
    return {
        name: dataclasses.replace(images, subjects=np.char.add(f"{name}-", images.subjects))
        for name, images in splits.items()
    }


def with_copy(clean: dict[str, SplitImages]) -> dict[str, SplitImages]:
    """A clean split, but for one image of train that stands in test under somebody else's name."""
    copy = take(clean["train"], np.array([40]))
    copy = dataclasses.replace(copy, subjects=clean["test"].subjects[:1])
    return clean | {"test": joined(clean["test"], copy)}


def unlabelled(images: SplitImages) -> SplitImages:
    return dataclasses.replace(images, labels=np.full(len(images), -1, np.int64))


def outcomes(splits, settings=None) -> dict[str, Outcome]:
    decision = leakage.check(splits, settings or LeakageSettings()).decision
    return {check.name: check.outcome for check in decision.checks}


def test_a_split_by_person_passes(clean):
    leaks = leakage.check(clean, LeakageSettings())
    assert leaks.decision.outcome is Outcome.PASSED
    assert leaks.pairs == ()
    details = leaks.decision.details
    assert details["splits"]["train"]["people"] == 6
    assert details["compared"] == 192 * 96 * 2 + 96 * 96
    assert details["threshold"] == 0.98
    assert 0.8 < details["noticed"] <= 1
    assert details["found"] == dict.fromkeys(leakage.LAYERS, 0)


def test_a_split_by_slice_is_refused_and_people_are_named(people):
    leaks = leakage.check(by_slice(people), LeakageSettings())
    assert leaks.decision.outcome is Outcome.REFUSED
    ids, alike = leaks.decision.reasons
    assert ids.startswith("12 people stand on both sides: subj0001 (")
    assert "pairs of images correlate at 0.98 or more at 64 pixels" in alike
    worst = leaks.pairs[0]
    assert worst.a.subject == worst.b.subject
    assert abs(worst.a.slice_index - worst.b.slice_index) == 1
    assert str(worst) in alike
    alone = leakage.check(by_slice(people), ALONE["correlation"]).pairs
    assert len(alone) == leaks.decision.details["found"]["correlation"]
    val, test = (len({pair.b for pair in alone if pair.b.split == name}) for name in SPLITS[1:])
    assert f"(images concerned: {val} of val, {test} of test)" in alike
    assert worst.layers[-1] == "correlation"


@pytest.mark.parametrize(
    ("layer", "leaking", "reason"),
    [
        ("ids", by_slice, "12 people stand on both sides"),
        ("pixels", lambda people: with_copy(by_person(people)), "1 pair of images is equal"),
        ("correlation", lambda people: renamed(by_slice(people)), "correlate at 0.98 or more"),
    ],
)
def test_each_layer_refuses_alone(people, layer, leaking, reason):
    splits = leaking(people)
    decision = leakage.check(splits, ALONE[layer]).decision
    assert decision.outcome is Outcome.REFUSED
    assert reason in decision.reasons[0]
    off = set(leakage.LAYERS) - {layer}
    assert {line.split()[1] for line in decision.reasons[1:]} == off


def test_what_only_one_layer_sees(people, clean):
    """Other names escape the ids and, without copies, the pixels; a blank copy, all but pixels."""
    settings = LeakageSettings(correlation=False)
    assert Outcome.REFUSED not in outcomes(renamed(by_slice(people)), settings).values()
    blank = np.zeros((1, 64, 64), np.uint8)

    def covered(images: SplitImages) -> SplitImages:
        one = dataclasses.replace(take(images, np.array([0])), thumbnails=blank)
        return joined(images, dataclasses.replace(one, digests=np.array(["0" * 64])))

    splits = clean | {name: covered(clean[name]) for name in ("train", "test")}
    answers = outcomes(splits)
    assert answers["no person on both sides"] is Outcome.PASSED
    assert answers["no look-alikes on both sides"] is Outcome.PASSED
    assert answers["no image on both sides"] is Outcome.REFUSED
    [pair] = leakage.check(splits, LeakageSettings()).pairs
    assert pair.correlation is None
    assert "(blank)" in str(pair)


def test_unlabelled_images_train(people, clean):
    """Who is pretrained on may not be judged on; who trains may be pretrained on."""
    everybody = clean | {"unlabelled": unlabelled(clean["train"])}
    assert leakage.check(everybody, LeakageSettings()).decision.outcome is Outcome.PASSED
    both = take(people, np.isin(people.subjects, clean["test"].people[:1]))
    for settings in (LeakageSettings(), *ALONE.values()):
        decision = leakage.check(clean | {"unlabelled": unlabelled(both)}, settings).decision
        assert decision.outcome is Outcome.REFUSED
        assert decision.details["training_side"] == ["train", "unlabelled"]


@pytest.mark.parametrize("layer", leakage.LAYERS)
def test_validation_and_test_are_apart_too(clean, layer):
    shared = joined(clean["val"], take(clean["test"], np.arange(32)))
    decision = leakage.check(clean | {"val": shared}, ALONE[layer]).decision
    assert decision.outcome is Outcome.REFUSED


def test_slice_level_data_are_never_shown_to_be_clean(people, clean):
    nameless = {name: dataclasses.replace(each, subjects=None) for name, each in clean.items()}
    decision = leakage.check(nameless, LeakageSettings()).decision
    assert decision.outcome is Outcome.INSUFFICIENT
    assert decision.reasons == (
        "no image has a subject id, so slices of one person may stand on both sides",
    )
    assert decision.details["noticed"] is None
    leaking = {
        name: dataclasses.replace(each, subjects=None) for name, each in by_slice(people).items()
    }
    assert leakage.check(leaking, LeakageSettings()).decision.outcome is Outcome.REFUSED


def test_some_images_of_nobody_leave_a_doubt(clean):
    subjects = clean["val"].subjects.copy()
    subjects[:5] = ""
    splits = clean | {"val": dataclasses.replace(clean["val"], subjects=subjects)}
    decision = leakage.check(splits, LeakageSettings()).decision
    assert decision.outcome is Outcome.INSUFFICIENT
    assert decision.reasons[0].startswith("5 of 384 images have no subject id")


def test_layers_that_are_off_are_told_and_nothing_passes(clean):
    off = LeakageSettings(ids=False, pixels=False, correlation=False)
    decision = leakage.check(clean, off).decision
    assert decision.outcome is Outcome.INSUFFICIENT
    assert [reason.split()[1] for reason in decision.reasons] == list(leakage.LAYERS)
    assert decision.details["layers"] == dict.fromkeys(leakage.LAYERS, False)


def test_an_image_that_cannot_be_read_refuses(clean):
    broken = dataclasses.replace(clean["val"], unreadable=("subj0003 slice 4: OSError: cut short",))
    decision = leakage.check(clean | {"val": broken}, LeakageSettings()).decision
    assert decision.outcome is Outcome.REFUSED
    assert decision.reasons == (
        "1 image could not be read, and so not be compared: val: subj0003 slice 4: OSError: cut "
        "short",
    )


def test_without_a_second_side_nothing_is_shown(clean):
    none = take(clean["test"], np.arange(0))
    decision = leakage.check({"train": clean["train"], "test": none}, LeakageSettings()).decision
    assert decision.outcome is Outcome.INSUFFICIENT
    assert "nothing was compared" in decision.reasons[0]
    only = leakage.check({"val": clean["val"], "test": clean["test"]}, LeakageSettings())
    assert only.decision.outcome is Outcome.INSUFFICIENT


def test_copies_within_a_split_are_reported_and_two_labels_refused(clean):
    twice = joined(clean["train"], take(clean["train"], np.arange(3)))
    decision = leakage.check(clean | {"train": twice}, LeakageSettings()).decision
    assert decision.outcome is Outcome.PASSED
    assert decision.details["splits"]["train"]["copies"] == 3
    assert any(check.detail.endswith("3 in train") for check in decision.checks)
    labels = twice.labels.copy()
    labels[-1] = (labels[-1] + 1) % 4
    splits = clean | {"train": dataclasses.replace(twice, labels=labels)}
    decision = leakage.check(splits, LeakageSettings()).decision
    assert decision.outcome is Outcome.REFUSED
    assert decision.reasons[0].startswith("1 image stands in one split under two labels: train ")


def test_the_order_of_rows_changes_no_word(people):
    splits = by_slice(people)
    order = np.random.default_rng(3)
    shuffled = {
        name: take(images, order.permutation(len(images))) for name, images in splits.items()
    }
    given, other = (
        leakage.check(each, ALONE["correlation"]).decision
        for each in (splits, dict(reversed(shuffled.items())))
    )
    assert given.details["found"] == other.details["found"]
    assert given.checks[4].value == pytest.approx(other.checks[4].value, abs=1e-6)


def test_small_images_are_correlated_at_64(people):
    """Blown up to 128, brains come closer than what 128 real pixels allow."""
    blown = np.repeat(np.repeat(people.thumbnails, 2, 1), 2, 2)
    splits = by_person(dataclasses.replace(people, thumbnails=blown))
    details = leakage.check(splits, LeakageSettings(image_size=128)).decision.details
    assert (details["image_size"], details["threshold"]) == (64, 0.98)
    by_hand = LeakageSettings(image_size=128, min_correlation=0.97)
    details = leakage.check(splits, by_hand).decision.details
    assert (details["image_size"], details["threshold"]) == (128, 0.97)


def test_thumbnails_of_another_size_are_no_answer(clean):
    with pytest.raises(ValueError, match=r"128 pixels.*\[64\]"):
        leakage.check(clean, LeakageSettings(image_size=128))


@pytest.mark.parametrize(
    "change", [{"thumbnails": np.zeros((3, 8, 8))}, {"sides": np.zeros(2, np.int64)}]
)
def test_columns_that_do_not_fit_are_refused(people, change):
    with pytest.raises(ValueError, match="Received"):
        dataclasses.replace(take(people, np.arange(3)), **change)


def test_the_decision_is_json_with_the_first_pairs(people):
    leaks = leakage.check(by_slice(people), LeakageSettings())
    written = json.loads(to_json(leaks.decision))
    assert len(written["details"]["pairs"]) == leakage.LISTED < len(leaks.pairs)
    assert leakage.to_json(leaks.pairs)[0]["a"]["split"] == leaks.pairs[0].a.split
    assert leaks.total >= len(leaks.pairs)


def test_progress_ends_at_all_pairs(clean):
    seen = []
    leakage.check(clean, LeakageSettings(), lambda *done: seen.append(done))
    total = 192 * 96 * 2 + 96 * 96
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("size", [64, 128])
def test_where_slices_lie_far_apart_the_check_says_that_it_is_blind(size):
    splits = by_person(phantom(people=12, slices=8, size=size, stored=size))
    settings = LeakageSettings(image_size=size)
    decision = leakage.check(splits, settings).decision
    assert decision.outcome is Outcome.PASSED
    assert decision.details["noticed"] < 0.5
    assert any("would hardly be noticed" in check.detail for check in decision.checks)
