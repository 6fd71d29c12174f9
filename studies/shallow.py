"""Methods without a network: pixel 1-nearest-neighbour, and PCA with logistic regression."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schema import brain

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

COMPONENTS = 150  # as many as were measured on the public set
REGRESSION_SIDE = 32  # pixels: 150 components hold no more detail
BINS, BRIGHTEST = 26, 1.3  # of histograms, up to so many times white matter


def unit_vectors(grid: Pixels) -> Pixels:
    """Centres each image and scales it to length 1, so that products are correlations.

    Args:
        grid: float32[N, S, S].

    Returns:
        float32[N, S·S]; zeros for a constant image.
    """
    rows = grid.reshape(len(grid), -1).astype(np.float32)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def nearest(train: Pixels, test: Pixels, block: int = 1024) -> NDArray[np.int64]:
    """The row of `train` [N, D] that each row of `test` [M, D] correlates with most: int64[M]."""
    starts = range(0, len(test), block)
    return np.concatenate([(test[at : at + block] @ train.T).argmax(axis=1) for at in starts])


def halved(grid: Pixels) -> Pixels:
    """Means of blocks of pixels: float32[N, S, S] to float32[N, REGRESSION_SIDE²]."""
    side, step = REGRESSION_SIDE, brain.GRID // REGRESSION_SIDE
    return grid.reshape(-1, side, step, side, step).mean((2, 4)).reshape(len(grid), -1)


def regression(
    train: Pixels, labels: NDArray[np.int64], test: Pixels, classes: int, seed: int = 0
) -> Floats:
    """Principal components of slices, then multinomial logistic regression.

    Args:
        train: float32[N, D].
        labels: int64[N].
        test: float32[M, D].
        classes: C.
        seed: of the randomised decomposition.

    Returns:
        Probabilities float64[M, C]; 0 for a class that `labels` lacks.
    """
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning

    count = min(COMPONENTS, *train.shape)
    components = PCA(count, svd_solver="randomized", random_state=seed).fit(train)
    model = _scaled_regression(C=1.0)
    with warnings.catch_warnings():  # close enough: it stands for a floor, not for a record
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(components.transform(train), labels)
    answers = np.zeros((len(test), classes))
    answers[:, model.classes_] = model.predict_proba(components.transform(test))
    return answers


def person_regression(
    train: Floats, labels: NDArray[np.int64], test: Floats, C: float = 1.0
) -> Floats:
    """Logistic regression of two classes on standardised numbers of people.

    Args:
        train: float64[P, D].
        labels: int64[P], 1 with the class and 0 without.
        test: float64[Q, D].
        C: the inverse strength of the penalty; small where D is large beside P.

    Returns:
        Probability of the class, float64[Q].
    """
    varied = train.std(axis=0) > 1e-9
    model = _scaled_regression(C).fit(train[:, varied], labels)
    return model.predict_proba(test[:, varied])[:, 1]


def tissue_histograms(grid: Pixels) -> Floats:
    """How much of the brain is how bright, white matter being 1: CSF, grey and white matter.

    Args:
        grid: float32[N, 64, 64] in [0, 255].

    Returns:
        float64[N, BINS], shares of the brain hull; zeros where there is none.
    """
    anatomy = brain.segment(grid)
    white = np.maximum(anatomy.white, 1.0)[:, None, None]
    bins = np.minimum(grid / white * (BINS / BRIGHTEST), BINS - 1).astype(np.int64)
    cells = bins + BINS * np.arange(len(grid))[:, None, None]
    counts = np.bincount(cells[anatomy.hull], minlength=BINS * len(grid)).reshape(-1, BINS)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def means_by_person(
    table: NDArray[np.floating], person: NDArray[np.int64], parts: int = 1
) -> Floats:
    """Means of numbers of slices over each person's stack, or over equal parts of it.

    Args:
        table: numbers of slices in order of person, then place: float[N, D].
        person: int64[N], from 0 to P - 1.
        parts: lowest to highest; a person with fewer slices lends the nearest.

    Returns:
        float64[P, parts · D].
    """
    counts = np.bincount(person)
    first = np.concatenate([[0], counts.cumsum()[:-1]])
    running = np.concatenate([np.zeros((1, table.shape[1])), table.astype(np.float64).cumsum(0)])
    found = []
    for part in range(parts):
        low = np.minimum(part * counts // parts, counts - 1)
        high = np.maximum((part + 1) * counts // parts, low + 1)
        found.append((running[first + high] - running[first + low]) / (high - low)[:, None])
    return np.concatenate(found, axis=1)


def _scaled_regression(C: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=C, class_weight="balanced", max_iter=300)
    )
