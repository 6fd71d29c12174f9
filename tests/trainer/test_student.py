import numpy as np
import pytest
import tensorflow as tf

from trainer.student import Student


@pytest.mark.parametrize("size", [32, 64, 90])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_for_any_size(size, channels):
    logits = Student((4, 8, 16), 16, 4)(tf.random.uniform([3, size, size, channels]))
    assert logits.shape == (3, 4)
    assert logits.dtype == tf.float32


def test_it_is_small():
    student = Student((32, 64, 128), 128, 4)
    student(tf.zeros([1, 64, 64, 1]))
    assert sum(int(np.prod(v.shape)) for v in student.trainable_variables) < 400_000


def test_it_sees_where_things_are():
    student = Student((4, 8), 16, 2)
    corner = np.zeros((1, 32, 32, 1), np.float32)
    corner[:, 4:10, 4:10] = 1
    here, there = student(corner), student(np.roll(corner, 16, axis=1))
    assert np.abs(here - there).max() > 1e-4


def test_training_moves_the_statistics_and_inference_does_not():
    student = Student((4, 8), 8, 2)
    images = tf.random.uniform([4, 16, 16, 1])
    student(images)
    moving = [v for v in student.variables if not v.trainable and "moving" in v.name]
    assert len(moving) == 4
    before = [v.numpy() for v in moving]
    student(images, training=False)
    assert all(np.array_equal(v, old) for v, old in zip(moving, before, strict=True))
    student(images, training=True)
    assert not any(np.array_equal(v, old) for v, old in zip(moving, before, strict=True))
