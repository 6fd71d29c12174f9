"""ImageExampleGen: spans of TFRecords in, examples with image descriptors out.

TFX's own file-based ExampleGen (spans, explicit split patterns, fingerprints) with one thing
added: each image is decoded once, here, and described by `schema.descriptors`, so that statistics,
drift checks and the total-CSF baseline read numbers instead of bytes. A bytes feature has no
distribution worth comparing (see DESIGN.md, "What must stay true").
"""

from collections.abc import Iterable, Sequence

import apache_beam as beam
import tensorflow as tf
from google.protobuf.wrappers_pb2 import StringValue
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.example_gen.import_example_gen import executor as import_executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from schema import descriptors, features

BATCH = 64  # images described together: large enough for NumPy, small enough for memory


def add_descriptors(records: Sequence[bytes]) -> list[bytes]:
    """Adds `descriptor/*` floats to serialized examples, in order.

    Args:
        records: serialized `tf.train.Example`s, each with one encoded image.

    Returns:
        The same examples, serialized, with one float per descriptor.

    Raises:
        KeyError: an example has no image.
    """
    examples = [tf.train.Example.FromString(record) for record in records]
    encoded = [_image_bytes(example) for example in examples]
    described = descriptors.describe([descriptors.decode(image) for image in encoded])
    for name, values in described.items():
        for example, value in zip(examples, values.tolist(), strict=True):
            feature = example.features.feature[features.DESCRIPTOR_PREFIX + name]
            feature.float_list.value[:] = [value]
    return [example.SerializeToString(deterministic=True) for example in examples]


def _image_bytes(example: tf.train.Example) -> bytes:
    values = example.features.feature[features.IMAGE].bytes_list.value
    if len(values) != 1:
        raise KeyError(
            f"An example must hold exactly one '{features.IMAGE}' (received {len(values)}; "
            f"features: {sorted(example.features.feature)}). Import the data with "
            "`cortexflow ingest`."
        )
    return values[0]


class _Describe(beam.DoFn):
    def process(self, batch: list[bytes]) -> Iterable[tf.train.Example]:
        yield from map(tf.train.Example.FromString, add_descriptors(batch))


class Executor(import_executor.Executor):
    """Reads serialized examples and describes their images."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802 (TFX's name)
        """Returns the transform from one split's files to described examples."""

        @beam.ptransform_fn
        @beam.typehints.with_input_types(beam.Pipeline)
        @beam.typehints.with_output_types(tf.train.Example)
        def read_and_describe(pipeline, exec_properties, split_pattern):
            pattern = f"{exec_properties['input_base']}/{split_pattern}"
            return (
                pipeline
                | "Read" >> beam.io.ReadFromTFRecord(pattern)
                | "Batch" >> beam.BatchElements(min_batch_size=BATCH, max_batch_size=BATCH)
                | "Describe" >> beam.ParDo(_Describe())
            )

        return read_and_describe


class ImageExampleGen(FileBasedExampleGen):
    """TFX node from a dataset folder (`span-N/SPLIT/*`) to examples with descriptors."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self, input_base: str, splits: Sequence[str], span: str = "span-*", code: str = ""
    ):
        """Reads spans of a dataset.

        Args:
            input_base: the dataset folder that `ingest` wrote.
            splits: names of the splits, each a folder of a span.
            span: pattern of the span folders; `span-{SPAN}` is TFX's word for the newest alone.
            code: hash of the code that describes images, for the cache.
        """
        custom = example_gen_pb2.CustomConfig()
        custom.custom_config.Pack(StringValue(value=code))
        super().__init__(
            input_base=input_base,
            input_config=example_gen_pb2.Input(
                splits=[
                    example_gen_pb2.Input.Split(name=split, pattern=f"{span}/{split}/data-*")
                    for split in splits
                ]
            ),
            custom_config=custom,
        )
