"""The picture shows the images themselves, of as many people as there are."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from evaluation import leakage
from evaluation.config import LeakageSettings
from evaluation.leakage_pairs import apart
from evaluation.leakage_picture import MOST, draw
from tests.evaluation.leaking import by_slice, phantom


@pytest.fixture(scope="module")
def found():
    splits = by_slice(phantom(people=12, slices=32))
    return leakage.check(splits, LeakageSettings()), splits


def picture(*arguments) -> np.ndarray:
    data = draw(*arguments)
    assert data.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), np.float64)


def test_more_pairs_make_more_rows_up_to_eight(found):
    leaks, splits = found
    shapes = [picture(leaks.pairs[:n], splits, n).shape for n in (1, 2, 3, MOST, MOST + 1)]
    assert shapes[0][1] < shapes[1][1] == shapes[2][1]
    assert shapes[1][0] < shapes[2][0] < shapes[3][0]
    assert shapes[3] == shapes[4]


def test_both_images_and_their_difference_are_shown(found):
    """Each is found where it belongs, by correlation with the thumbnail blown up."""
    leaks, splits = found
    pair = leaks.pairs[0]
    page = picture([pair], splits, 1)
    a, b = (splits[place.split].thumbnails[place.row] for place in (pair.a, pair.b))
    side = round(1.3 * 144)
    top = round(0.69 * 144)
    for position, image in enumerate((a, b, np.minimum(abs(a.astype(int) - b) * 4, 255))):
        left = round((0.15 + position * 1.36) * 144)
        shown = page[top : top + side, left : left + side]
        expected = np.asarray(Image.fromarray(image.astype(np.uint8)).resize((side, side)))
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.95


def test_people_come_before_more_pairs_of_the_same(found):
    leaks, _ = found
    chosen = apart(leaks.pairs, MOST)
    assert len({(pair.a.subject, pair.b.subject) for pair in chosen}) == MOST
    assert chosen[0] == leaks.pairs[0]
    same = [pair for pair in leaks.pairs if pair.a.subject == leaks.pairs[0].a.subject]
    assert apart(same, 3) == same[:3]


def test_any_name_can_be_written(found):
    leaks, splits = found
    pair = leaks.pairs[0]
    odd = dataclasses.replace(
        pair,
        a=dataclasses.replace(pair.a, subject="$x_1^{$ " + "very-long-name" * 5),
        b=dataclasses.replace(pair.b, subject="", slice_index=-1),
        correlation=None,
    )
    assert picture([odd], splits, 1).min() < 50
