"""The images shown are chosen fairly, and always the same."""

import dataclasses

import numpy as np

from components.report import samples
from components.report.evidence import Predictions, Sample


def answers(rows) -> tuple[np.ndarray, np.ndarray]:
    """From (label, predicted, confidence), for three classes."""
    labels = np.array([label for label, _, _ in rows])
    table = np.zeros((len(rows), 3))
    for row, (_, predicted, confidence) in enumerate(rows):
        table[row] = (1 - confidence) / 2
        table[row, predicted] = confidence
    return labels, table


def test_each_class_shows_right_and_wrong():
    rows = [(c, (c + w) % 3, 0.5 + 0.04 * n) for c in range(3) for w in (0, 1) for n in range(9)]
    labels, table = answers(rows)
    chosen = samples.choose_samples(labels, table, 12)
    assert len(chosen) == len(set(chosen)) == 12
    right = table.argmax(axis=1) == labels
    for label in range(3):
        of_class = [row for row in chosen if labels[row] == label]
        assert [bool(right[row]) for row in of_class] == [False, False, True, True]


def test_the_most_confident_mistake_comes_first():
    labels, table = answers([(0, 0, 0.9), (0, 1, 0.6), (0, 2, 0.95), (0, 1, 0.7)])
    assert samples.choose_samples(labels, table, 1) == [2]


def test_a_class_without_mistakes_still_fills_its_turns():
    labels, table = answers([(0, 0, 0.5 + 0.1 * n) for n in range(5)])
    assert sorted(samples.choose_samples(labels, table, 16)) == [0, 1, 2, 3, 4]
    assert samples.choose_samples(labels, table, 1) == [2]  # of median confidence


def test_nothing_to_choose_from():
    assert samples.choose_samples(np.array([], int), np.zeros((0, 3))) == []


def test_cards_say_what_the_models_said(evidence):
    predictions = evidence.predictions
    for card, sample in zip(samples.cards(evidence), evidence.samples, strict=True):
        student = predictions.student[sample.row]
        assert card.truth.name == evidence.dataset.classes[predictions.labels[sample.row]]
        assert card.student.name == evidence.dataset.classes[student.argmax()]
        assert card.right == (card.truth == card.student)
        shown = {bar.name: bar.student for bar in card.bars}
        assert shown == dict(zip(evidence.dataset.classes, student.tolist(), strict=True))
        assert card.uri.startswith("data:image/png;base64,")
        assert str(predictions.subjects[sample.row]) in card.who


def test_only_small_png_and_jpeg_are_embedded(evidence):
    large = b"\xff\xd8\xff" + bytes(samples.MAX_IMAGE_BYTES)
    images = [b"<svg onload='x'/>", large, b"\xff\xd8\xff\xe0", b""]
    shown = dataclasses.replace(evidence, samples=tuple(Sample(0, image) for image in images))
    uris = [card.uri for card in samples.cards(shown)]
    assert [uri is not None for uri in uris] == [False, False, True, False]


def test_many_classes_show_the_likely_ones(make_evidence):
    evidence = make_evidence(
        classes=tuple(f"organ{number}" for number in range(10)),
        severity=None,
        subjects=(2,) * 10,
        slices=2,
    )
    for card in samples.cards(evidence):
        assert len(card.bars) == samples.MAX_BARS
        assert card.student.name in {bar.name for bar in card.bars}


def test_broken_probabilities_show_no_cards(evidence):
    broken = np.full_like(evidence.predictions.student, np.nan)
    predictions = Predictions(evidence.predictions.labels, broken)
    assert samples.cards(dataclasses.replace(evidence, predictions=predictions)) == ()


def test_short_names_drop_a_common_last_word():
    assert samples.short_names(("MildDemented", "NonDemented")) == ("Mild", "Non")
    assert samples.short_names(("no_tumor", "glioma_tumor")) == ("no", "glioma")
    assert samples.short_names(("yes", "no")) == ("yes", "no")
    assert samples.short_names(("MildDemented", "Normal")) == ("MildDemented", "Normal")
