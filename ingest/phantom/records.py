"""The phantom as earlier TFRecords: five features, no subject, slices dealt at random."""

from pathlib import Path

from ingest.phantom.listing import Cohort, Sources
from schema.features import ALZHEIMER_CLASSES, DEPTH, HEIGHT, IMAGE, LABEL, WIDTH

FILES = {"train": "train.small.tfrecords-000", "test": "test.small.tfrecords-000"}
TEST_SHARE = 0.2


def write_records(cohort: Cohort, out: Path) -> Sources:
    """Writes a training and a test file, uncompressed.

    Args:
        cohort: the phantom.
        out: an existing folder.

    Returns:
        {`<file>#<number>`: (subject id, slice index)}.
    """
    import tensorflow as tf  # noqa: PLC0415 - heavy, and only this layout needs it

    def integer(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    pool = [
        (ALZHEIMER_CLASSES.index(name), item)
        for name, slices in cohort.slices.items()
        for item in slices
    ]
    order = cohort.random("records").permutation(len(pool))
    tests = round(TEST_SHARE * len(pool))
    sources: Sources = {}
    for split, chosen in (("test", order[:tests]), ("train", order[tests:])):
        with tf.io.TFRecordWriter(str(out / FILES[split])) as writer:
            for number, (label, item) in enumerate(pool[index] for index in chosen):
                data = item.read()
                height, width, depth = tf.io.decode_jpeg(data).shape
                features = {
                    IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
                    LABEL: integer(label),
                    HEIGHT: integer(height),
                    WIDTH: integer(width),
                    DEPTH: integer(depth),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
                sources[f"{FILES[split]}#{number}"] = item.source
    return sources
