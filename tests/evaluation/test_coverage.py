"""Does a 95 % interval hold the truth 95 times of 100? Counted, on people of the phantom."""

import numpy as np
import pytest

from evaluation.intervals import Interval, average, bootstrap, row_bootstrap
from evaluation.weighted import Auc, Mean, People
from tests.evaluation.simulated import population, study
from trainer import metrics

SLICES = 8


def truths(preset: str) -> dict[str, float]:
    """Subject-level and slice-level macro AUC, and two more, of 40,000 people."""
    stages, found = population(preset, SLICES)
    means, rows, labels = found.mean(axis=1), found.reshape(-1, 4), stages.repeat(SLICES)
    return {
        "subject": metrics.macro_auc(means, stages),
        "slice": metrics.macro_auc(rows, labels),
        "row": metrics.macro_auc(rows, labels),
        "class": metrics.one_vs_rest_auc(means, stages)[1],
        "balanced": metrics.balanced_accuracy(means, stages),
    }


def intervals(seed, people: tuple[int, ...], preset: str, resamples: int) -> dict[str, Interval]:
    stages, found = study(seed, people, preset, SLICES)
    means, rows, labels = found.mean(axis=1), found.reshape(-1, 4), stages.repeat(SLICES)
    by_subject = People.of(stages)
    areas = [Auc.of(means[:, label], by_subject, label) for label in range(4)]
    right = means.argmax(axis=1) == stages
    recalls = [Mean.of(right, by_subject, stages == label) for label in range(4)]
    targets = {
        "subject": average(areas),
        "class": average(areas[1:2]),
        "balanced": average(recalls),
    }
    told = bootstrap(targets, by_subject, resamples=resamples)
    clusters = People.of(labels, np.arange(len(stages)).repeat(SLICES))
    macro = average([Auc.of(rows[:, label], clusters, label) for label in range(4)])
    told["slice"] = bootstrap({"": macro}, clusters, resamples=resamples)[""]
    told["row"] = row_bootstrap(rows, labels, range(4), resamples=min(resamples, 500))
    return told


def coverage(
    studies: int, people: tuple[int, ...], preset: str, resamples: int = 1000
) -> dict[str, float]:
    truth = truths(preset)
    held = dict.fromkeys(truth, 0)
    for number in range(studies):
        for name, (_, low, high) in intervals([7, number], people, preset, resamples).items():
            held[name] += low <= truth[name] <= high
    return {name: count / studies for name, count in held.items()}


def test_people_cover_and_rows_do_not():
    """60 studies: 95 % ± 2.8 % (one standard error). Rows hold the truth in about 70 %."""
    found = coverage(60, (21,) * 4, "standard", resamples=500)
    assert min(found["subject"], found["slice"]) >= 0.88
    assert found["row"] < 0.85


@pytest.mark.slow
@pytest.mark.parametrize(
    ("studies", "people", "preset"),
    [
        (200, (50,) * 4, "standard"),
        (200, (50,) * 4, "realistic"),
        # Fewer people are held to the same with less error of the count, 0.9 points instead of 1.5.
        (600, (21,) * 4, "standard"),
    ],
)
def test_200_studies(studies, people, preset):
    """Must hold: 92–98 % of 200 studies, by person and by slice; the row bootstrap fails."""
    found = coverage(studies, people, preset)
    print(studies, people, preset, found)
    for name in ("subject", "slice", "class", "balanced"):
        assert 0.92 <= found[name] <= 0.98, name
    assert found["row"] < 0.85
