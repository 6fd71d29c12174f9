"""Counts, time lines, flat metrics and words for durations."""

import pytest

from components.report import panels, tables
from components.report.evidence import (
    Calibration,
    Count,
    Dataset,
    Descriptor,
    Evidence,
    Histogram,
    Node,
    Run,
)


def test_counts_follow_severity_and_keep_unlabelled_images():
    dataset = Dataset(
        "d",
        ("a", "b"),
        severity=("b", "a"),
        counts={
            "unlabelled": {"unlabelled": Count(7)},
            "test": {"a": Count(2, 1)},
            "train": {"a": Count(6, 2), "b": Count(9, 3)},
        },
    )
    found = tables.counts(dataset)
    assert found.names == ("b", "a", "unlabelled")
    assert [row.split for row in found.rows] == ["train", "test", "unlabelled"]
    assert found.rows[0].cells == (Count(9, 3), Count(6, 2), Count(0, 0))
    assert [row.total for row in found.rows] == [Count(15, 5), Count(2, 1), Count(7, None)]
    assert found.people
    assert tables.counts(Dataset("d", ("a",))) is None


def test_lanes_fill_the_time_line_one_after_the_other():
    nodes = [Node("a", "ran", 30.0), Node("b", "cached", None), Node("c", "ran", 10.0)]
    lanes = tables.lanes(nodes)
    assert [(lane.start, lane.width) for lane in lanes] == [(0, 75), (75, 0), (75, 25)]
    assert tables.lanes([Node("a", "skipped")])[0].width == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.04, "0.0 s"),
        (9.87, "9.9 s"),
        (59.7, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert tables.duration(seconds) == words


def test_nested_metrics_become_paths():
    assert tables.flat({"b": {"auc": 0.5}, "a": 1}) == [("a", 1), ("b / auc", 0.5)]


def test_training_curves_use_what_was_measured():
    history = (
        {"epoch": 1, "loss": 2.0, "lr": 0.1, "val_loss": 2.2, "val_macro_auc": 0.6, "seconds": 2.0},
        {
            "epoch": 2,
            "loss": None,
            "lr": 0.05,
            "val_loss": 1.9,
            "val_macro_auc": 0.7,
            "seconds": 2.5,
        },
    )
    (stage,) = panels.stages(Evidence(Run("r"), histories={"teacher": history, "student": ()}))
    assert (stage.title, stage.note) == ("Teacher", "2 epochs, 4.5 s")
    assert [panel.title for panel in stage.panels] == ["Loss", "Macro AUC", "Learning rate"]
    assert "training ends at 2" in stage.panels[0].note
    assert "validation ends at 1.9" in stage.panels[0].note
    assert panels.stages(Evidence(Run("r"), histories={"teacher": ({"epoch": 1},)}))[0].panels == ()


@pytest.mark.parametrize(
    ("temperature", "said"),
    [
        (1.234, "temperature 1.23"),
        (1.0, "not calibrated: too few validation people, or no temperature helps"),
    ],
)
def test_a_classifier_says_how_it_was_calibrated(temperature, said):
    evidence = Evidence(
        Run("r"),
        histories={"teacher": ({"epoch": 1},), "student": ({"epoch": 1},)},
        calibrations={"student": Calibration(temperature, before=0.12, after=0.05)},
    )
    teacher, student = panels.stages(evidence)
    assert student.note.replace("\u00a0", " ").endswith(said)
    assert "calibrat" not in teacher.note


def test_pretraining_shows_accuracy_probes_and_warnings():
    history = tuple(
        {"epoch": epoch, "loss": 9.0, "contrastive_accuracy": 0.1 * epoch, "embedding_std": 0.1}
        for epoch in (1, 2, 3)
    )
    history[0]["warning"] = "The encoder hardly tells images apart."
    history[2].update(probe_knn_auc=0.7, probe_linear_auc=0.8)
    (stage,) = panels.stages(Evidence(Run("r"), histories={"pretrain": history}))
    assert stage.note == "3 epochs; images hardly told apart after epoch 1"
    assert [panel.title for panel in stage.panels] == ["Loss", "Contrastive accuracy", "Probe AUC"]
    assert stage.panels[2].note == "linear ends at 0.8, nearest neighbours ends at 0.7"


def test_descriptors_compare_train_with_test_and_survive_odd_histograms():
    def of(edges, counts):
        return Descriptor(1.0, 0.1, 0.0, 2.0, Histogram(edges, counts))

    statistics = {
        "test": {"descriptor/entropy": of((0.0, 1.0, 3.0), (2.0, 2.0))},
        "val": {"descriptor/entropy": Descriptor(1.0, 0.1)},
        "train": {
            "descriptor/entropy": of((0.0, 2.0), (5.0,)),
            "descriptor/constant": of((0.5, 0.5), (9.0,)),
            "descriptor/infinite": of((0.0, float("inf")), (9.0,)),
            "descriptor/none": Descriptor(None, None),
        },
    }
    found = panels.descriptors(Evidence(Run("r"), statistics=statistics))
    assert (found.reference, found.current) == ("train", "test")
    drawn = {panel.title: panel.svg is not None for panel in found.panels}
    assert drawn == {"constant": True, "entropy": True, "infinite": False, "none": False}
    assert len(found.rows) == 6
    assert panels.descriptors(Evidence(Run("r"))).panels == ()
