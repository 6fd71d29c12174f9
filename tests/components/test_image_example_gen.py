"""ImageExampleGen adds descriptors and changes nothing else."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.image_example_gen import add_descriptors
from schema import descriptors, features


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def example(image: bytes | None, **integers: int) -> bytes:
    record = tf.train.Example()
    if image is not None:
        record.features.feature[features.IMAGE].bytes_list.value.append(image)
    for name, value in integers.items():
        record.features.feature[name].int64_list.value.append(value)
    return record.SerializeToString()


@pytest.fixture
def pixels() -> list[np.ndarray]:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    return [((x**2 + y**2 < r) * 200).astype(np.uint8) for r in (0.3, 0.6)]


def test_descriptors_are_those_of_the_decoded_image(pixels):
    records = [example(encoded(p), label=i) for i, p in enumerate(pixels)]
    described = [tf.train.Example.FromString(record) for record in add_descriptors(records)]
    expected = descriptors.describe(pixels)
    for name, values in expected.items():
        found = [d.features.feature[f"descriptor/{name}"].float_list.value[0] for d in described]
        np.testing.assert_allclose(found, values, rtol=1e-6)
    for i, record in enumerate(described):
        assert record.features.feature["label"].int64_list.value[:] == [i]
        assert record.features.feature["image"].bytes_list.value[0] == encoded(pixels[i])


def test_colour_images_are_described_by_their_grey_values(pixels):
    rgb = np.repeat(pixels[0][:, :, None], 3, axis=2)
    np.testing.assert_array_equal(descriptors.decode(encoded(rgb)), pixels[0])


def test_an_example_without_an_image_is_named():
    with pytest.raises(KeyError, match="exactly one 'image'.*label"):
        add_descriptors([example(None, label=1)])
